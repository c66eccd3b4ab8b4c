{#-
    Views are replaced in place. dbt's own materialization makes a new one and drops the old one with everything that hangs on it:
    running one staging model alone would take the views above it away, an analyst's among them.
    Where the columns are no longer the same or more, there is no other way, and dbt's way is taken.

    And only where they say something else: replacing waits for every reader, and makes new ones wait behind it.

    `--empty` leaves what is there alone: a view without rows would tell the models above it that there is nothing new.
    Where there is nothing yet, the view is made without the limit that `--empty` puts on what it reads.
-#}
{% materialization view, adapter='postgres' %}
    {%- set existing = load_cached_relation(this) -%}
    {%- set target = this.incorporate(type='view') -%}
    {%- if flags.EMPTY and existing is not none -%}
        {%- call statement('main') -%} select * from ({{ sql ~ '\n' }}) as probe where false {%- endcall -%}
        {%- do adapter.commit() -%}
        {{ return({'relations': [existing]}) }}
    {%- endif -%}
    {%- set sql = modules.re.sub('\\(select \\* from (\\S+) where false limit 0\\)', '(select * from \\1)', sql) if flags.EMPTY else sql -%}
    {{ run_hooks(pre_hooks, inside_transaction=False) }}
    {{ run_hooks(pre_hooks, inside_transaction=True) }}
    {#- Two builds at once take turns: Postgres fails one of two that replace a view, or index a log, at the same time. -#}
    {%- do run_query('select pg_advisory_xact_lock(' ~ sluice_lock(target.schema ~ '.' ~ target.identifier) ~ ')') -%}

    {%- if existing is not none and existing.is_view and view_says_the_same(existing, sql) -%}
        {%- call statement('main') -%} select 'unchanged' {%- endcall -%}
    {%- else -%}
        {%- if existing is not none and not (existing.is_view and view_can_be_replaced(existing, sql)) -%}
            {%- do adapter.drop_relation(existing) -%}
            {%- set existing = none -%}
        {%- endif -%}
        {%- call statement('main') -%}
            create or replace view {{ target }} as (
                {{ sql }}
            );
        {%- endcall -%}
    {%- endif -%}

    {%- do apply_grants(target, config.get('grants'), should_revoke=should_revoke(existing, full_refresh_mode=True)) -%}
    {%- do persist_docs(target, model) -%}
    {{ run_hooks(post_hooks, inside_transaction=True) }}
    {%- do adapter.commit() -%}
    {{ run_hooks(post_hooks, inside_transaction=False) }}
    {{ return({'relations': [target]}) }}
{% endmaterialization %}


{#- Whether Postgres understands both in the same way. A temporary view locks nothing that anybody reads. -#}
{% macro view_says_the_same(view, sql) %}
    {%- do run_query('create temporary view sluice_view_probe as (' ~ sql ~ '\n)') -%}
    {%- set same = run_query("select pg_get_viewdef('sluice_view_probe'::regclass) = pg_get_viewdef(to_regclass('" ~ view.include(database=false) ~ "'))")[0][0] -%}
    {%- do run_query('drop view sluice_view_probe') -%}
    {{ return(same) }}
{% endmacro %}


{#- Whether the columns of the view are the first of the query's, with the same names and types. -#}
{% macro view_can_be_replaced(view, sql) %}
    {%- set wanted = [] -%}
    {%- for column in get_column_schema_from_query('select * from (' ~ sql ~ '\n) as probe where false') -%}
        {%- do wanted.append((column.name, column.data_type)) -%}
    {%- endfor -%}
    {%- set present = [] -%}
    {%- for column in get_column_schema_from_query('select * from ' ~ view ~ ' where false') -%}
        {%- do present.append((column.name, column.data_type)) -%}
    {%- endfor -%}
    {{ return(wanted[:present | length] == present) }}
{% endmacro %}
