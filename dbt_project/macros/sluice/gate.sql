{#-
    The gate of a model: its blocking data tests, run inside the transaction that builds it. The first failure raises, the
    transaction rolls back, and readers keep the last good rows. Returns [{name, verdict, failures}] for the ledger.

    What a test reads follows from what it says. Of a row by itself (not_null, accepted_values, relationships, is_true): the rows
    about to be committed, `come`. `unique`: nothing where the grain's index says it, else the rows with a value that came. That a
    parent vanished under a child cannot be: it is retired first (retired.sql). Any other test reads the whole relation.
    Tests with severity `warn` are counted, and stop nothing. A threshold (`error_if`) is of the rows that are read.
-#}
{% macro sluice_gate(spec, come) %}
    {%- set checks = [{'name': 'grain_is_unique', 'verdict': 'pass', 'failures': 0}] -%}
    {%- if come is none -%}{{ return(checks) }}{%- endif -%}
    {%- for test in graph.nodes.values() if test.resource_type == 'test' and test.attached_node == model.unique_id and test.config.enabled and test.test_metadata -%}
        {%- set rows = sluice_tested_rows(spec, come, test) -%}
        {%- set result = sluice_run_test(test, rows) if rows else {'failures': 0, 'verdict': 'pass'} -%}
        {%- if result.verdict == 'fail' and sluice_is_overridden(spec, test.name) -%}{%- do result.update({'verdict': 'warn'}) -%}{%- endif -%}
        {%- do checks.append({'name': test.alias, 'verdict': result.verdict, 'failures': result.failures}) -%}
        {%- if result.verdict == 'fail' -%}
            {%- do exceptions.raise_compiler_error(
                'gate: ' ~ test.name ~ ' found ' ~ result.failures ~ ' failing rows in ' ~ spec.name ~ sluice_sample(test, rows, spec.grain)
                ~ '. Nothing was written; readers keep the rows they had'
            ) -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return(checks) }}
{% endmacro %}


{#- Whether a person lets this run go on over this test (`sluice gate override`). -#}
{% macro sluice_is_overridden(spec, name) %}
    {%- set run_id = spec.run_id | replace("'", "''") -%}
    {{ return(run_query(
        "update ops.gate_override set used_at = coalesce(used_at, clock_timestamp()), used_run_id = '" ~ run_id ~ "'"
        ~ " where run_id = '" ~ run_id ~ "' and check_name = '" ~ name ~ "' and object = '" ~ spec.name ~ "' returning 1"
    ) | length > 0) }}
{% endmacro %}


{#- What `test` must read after `come` was written, none if there is nothing left to ask. -#}
{% macro sluice_tested_rows(spec, come, test) %}
    {%- set kind, column = test.test_metadata.name, test.test_metadata.kwargs.get('column_name') -%}
    {%- set rows = [spec.target | string] -%}
    {%- set audited = audited_rows(test, spec.target) if come == 'sluice_come' else none -%}
    {%- if kind in ('not_null', 'accepted_values', 'relationships', 'is_true') -%}
        {%- do rows.append(come | string) -%}
    {%- elif audited -%}
        {%- do rows.append(audited) -%}
    {%- elif kind == 'unique' and not test.config.where -%}
        {%- if [column] == spec.grain -%}{{ return(none) }}{%- endif -%}
        {%- if come == 'sluice_come' -%}
            {%- do rows.append('(select * from ' ~ spec.target ~ ' where ' ~ column ~ ' in (select ' ~ column ~ ' from sluice_come)) as tested') -%}
        {%- endif -%}
    {%- endif -%}
    {%- if test.config.where -%}{{ return('(select * from ' ~ rows[-1] ~ ' where ' ~ test.config.where ~ ') as tested') }}{%- endif -%}
    {{ return(rows[-1]) }}
{% endmacro %}


{% macro sluice_test_sql(test, rows) %}
    {%- set arguments = {} -%}
    {%- for name, value in test.test_metadata.kwargs.items() if name not in ('model', '_dbt_generic_test_kwargs') -%}
        {%- if name in ('to', 'compare_model') and value is string and 'ref(' in value -%}
            {%- set wanted = sluice_named_ref(value) -%}
            {%- for node in graph.nodes.values() if node.name == wanted and node.resource_type in ('model', 'snapshot', 'seed') -%}
                {%- do arguments.update({name: sluice_relation(node)}) -%}
            {%- endfor -%}
        {%- else -%}
            {%- do arguments.update({name: value}) -%}
        {%- endif -%}
    {%- endfor -%}
    {%- set namespace = test.test_metadata.namespace -%}
    {%- set macro = context[namespace]['test_' ~ test.test_metadata.name] if namespace else context['test_' ~ test.test_metadata.name] -%}
    {{ return(macro(model=rows, **arguments)) }}
{% endmacro %}


{#-
    {failures, verdict: pass, warn or fail}, by the test's severity, warn_if, error_if, fail_calc and limit, as `dbt test` judges.
    Guarded as the model's own query is: a test that computes with a value may fail on it, and Postgres would quote it.
-#}
{% macro sluice_run_test(test, rows) %}
    {%- set config, count = test.config, 'coalesce(' ~ test.config.fail_calc ~ ', 0)' -%}
    {%- set worst = "case when " ~ count ~ ' ' ~ config.error_if ~ " then 'fail' " if (config.severity | lower) == 'error' else 'case ' -%}
    {%- do run_query(sluice_guarded(
        "select set_config('sluice.failing', " ~ count ~ "::bigint || ' ' || " ~ worst ~ 'when ' ~ count ~ ' ' ~ config.warn_if ~ " then 'warn' else 'pass' end, true)"
        ~ ' from (' ~ sluice_test_sql(test, rows) ~ '\n' ~ ('limit ' ~ config.limit if config.limit) ~ ') as failing', what='the test ' ~ test.name ~ ': '
    )) -%}
    {%- set found = run_query("select current_setting('sluice.failing')")[0][0].split(' ') -%}
    {{ return({'failures': found[0] | int, 'verdict': found[1]}) }}
{% endmacro %}


{#- Up to five keys of failing rows. Keys only: another column may hold a personal value. -#}
{% macro sluice_sample(test, rows, keys) %}
    {%- set failing = sluice_test_sql(test, rows) -%}
    {%- if test.test_metadata.name == 'unique' -%}
        {#- It lists values that are there more than once: the keys of their rows. -#}
        {%- set failing = 'select * from ' ~ rows ~ ' where ' ~ test.test_metadata.kwargs.column_name ~ ' in (select unique_field from (' ~ failing ~ ') as doubled)' -%}
    {%- endif -%}
    {%- set sql = 'select * from (' ~ failing ~ '\n) as failing' -%}
    {%- set present = get_columns_in_query(sql ~ ' where false') -%}
    {%- for key in keys if key not in present -%}{{ return('') }}{%- endfor -%}
    {%- set found = run_query('select ' ~ sluice_shown_key(keys) ~ ' from (' ~ sql ~ ') as sample limit 5') -%}
    {{ return(', for example (' ~ keys | join(', ') ~ ') = ' ~ found.columns[0].values() | join(' ')) }}
{% endmacro %}


{#- A key for a message: columns that the model, or a declaration, marks as personal show only that they are there. -#}
{% macro sluice_shown_key(columns) -%}
    {%- set personal = sluice_personal_columns(model) -%}
    jsonb_build_array(
    {%- for name in columns -%}
        {{ "case when " ~ name ~ " is not null then '(personal)' end" if name in personal else name }}{{ ', ' if not loop.last }}
    {%- endfor -%}
    )::text
{%- endmacro %}


{#- Names of columns that the node, or the declaration of a source, marks as personal. -#}
{% macro sluice_personal_columns(node) %}
    {%- set personal = [] -%}
    {%- for described in [node.columns] + (graph.sources.values() | map(attribute='columns') | list) -%}
        {%- for name, column in described.items() if ((column.get('config') or {}).get('meta') or column.get('meta') or {}).get('personal') -%}
            {%- do personal.append(name) -%}
        {%- endfor -%}
    {%- endfor -%}
    {{ return(personal) }}
{% endmacro %}


{#- dbt's own, except that the whole failing row is returned, so that a message can carry its key. -#}
{% macro default__test_not_null(model, column_name) %}
    select * from {{ model }} where {{ column_name }} is null
{% endmacro %}


{% macro default__test_accepted_values(model, column_name, values, quote=True) %}
    select *
    from {{ model }}
    where {{ column_name }} is not null
        and {{ column_name }} not in ({% for value in values %}{{ "'" ~ value ~ "'" if quote else value }}{{ ', ' if not loop.last }}{% endfor %})
{% endmacro %}


{% macro default__test_relationships(model, column_name, to, field) %}
    with child as (select *, {{ column_name }} as from_field from {{ model }} where {{ column_name }} is not null)

    select child.*
    from child
    left join (select {{ field }} as to_field from {{ to }}) as parent on parent.to_field = child.from_field
    where parent.to_field is null
{% endmacro %}


{#- A sentence about each row: `- is_true: {arguments: {expression: "quantity > 0"}}`. NULL is not true. -#}
{% test is_true(model, expression, column_name=None) %}
    select * from {{ model }} where ({{ column_name ~ ' ' if column_name }}{{ expression }}) is not true
{% endtest %}
