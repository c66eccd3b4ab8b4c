{#-
    Month partitions of a large relation: `partition_by={'column': 'inventory_date', 'by': 'month'}`. A range per month in UTC, made
    beside the table and attached, which blocks no reader; no default partition, so that attaching never has to look through one.
    Why the grain must hold the column: docs/decisions/partitions.md.
-#}
{% macro sluice_partition_column(spec) %}
    {%- set declared = config.get('partition_by') -%}
    {%- if not declared -%}{{ return(none) }}{%- endif -%}
    {%- if declared is string or declared.get('by') != 'month' or not declared.get('column') -%}
        {%- do exceptions.raise_compiler_error(model.name ~ ": partition_by is {column: <a date or an instant>, by: month}") -%}
    {%- endif -%}
    {%- if declared.column not in spec.grain -%}
        {%- do exceptions.raise_compiler_error(
            model.name ~ ': partition_by names ' ~ declared.column ~ ', which unique_key does not hold; Postgres can keep a key unique only within a partition. '
            ~ 'Add it to unique_key, and keep the data test unique on the key itself'
        ) -%}
    {%- endif -%}
    {{ return(declared.column) }}
{% endmacro %}


{#- Create the relation, empty, with the columns of its query. -#}
{% macro sluice_create(spec) %}
    {%- set probe = 'select * from (' ~ spec.sql ~ ') as probe where false' -%}
    {%- set column = sluice_partition_column(spec) -%}
    {%- if not column -%}
        {%- call statement('create') -%} {{ get_create_table_as_sql(False, spec.target, probe) }} {%- endcall -%}
    {%- else -%}
        {%- if config.get('contract').enforced -%}
            {%- do get_assert_columns_equivalent(spec.sql) -%}
            {%- set probe = get_empty_schema_sql(model.columns) -%}
        {%- endif -%}
        {%- do run_query('create temporary table sluice_shape as ' ~ probe) -%}
        {%- do run_query('create table ' ~ spec.target ~ ' (like sluice_shape) partition by range (' ~ column ~ ')') -%}
        {%- do run_query('drop table sluice_shape') -%}
    {%- endif -%}
    {%- if not column -%}{%- do sluice_leave_room(spec.target) -%}{%- endif -%}
{% endmacro %}


{#- Partitions for the months of `rows`, and for this month and the two after it. -#}
{% macro sluice_ensure_partitions(spec, rows) %}
    {%- set column = sluice_partition_column(spec) -%}
    {%- if not column -%}{{ return(none) }}{%- endif -%}
    {%- set months = sluice_months_without_partition(spec, rows, 3) -%}
    {%- for month in months -%}
        {%- set part = adapter.quote(spec.target.schema) ~ '.' ~ adapter.quote(spec.target.identifier[:50] ~ '__' ~ month[0]) -%}
        {%- do run_query('create table ' ~ part ~ ' (like ' ~ spec.target ~ ' including defaults including constraints, constraint is_of_month check ('
            ~ column ~ ' is not null and ' ~ column ~ " >= '" ~ month[1] ~ "' and " ~ column ~ " < '" ~ month[2] ~ "'))") -%}
        {%- do sluice_leave_room(part) -%}
        {%- do run_query('alter table ' ~ spec.target ~ ' attach partition ' ~ part ~ " for values from ('" ~ month[1] ~ "') to ('" ~ month[2] ~ "')") -%}
        {%- do run_query('alter table ' ~ part ~ ' drop constraint is_of_month') -%}
    {%- endfor -%}
{% endmacro %}


{#- [(name, from, to)]: the months of `rows`, and of this and the following ones as many as `ahead`, that have no partition yet. -#}
{% macro sluice_months_without_partition(spec, rows, ahead) %}
    {%- set column = sluice_partition_column(spec) -%}
    {{ return(run_query(
        "select to_char(month, 'YYYY_MM'), to_char(month, 'YYYY-MM-DD'), to_char(month + interval '1 month', 'YYYY-MM-DD') from ("
        ~ "select distinct date_trunc('month', " ~ column ~ "::timestamp) as month from " ~ rows ~ ' where isfinite(' ~ column ~ ')'
        ~ " union select date_trunc('month', now()::timestamp) + number * interval '1 month' from generate_series(0, " ~ (ahead - 1) ~ ') as number) as months'
        ~ " where to_regclass('" ~ spec.target.schema ~ ".' || quote_ident('" ~ spec.target.identifier[:50] ~ "__' || to_char(month, 'YYYY_MM'))) is null order by 1"
    )) }}
{% endmacro %}


{#-
    Commit the partitions that `rows` need before anything is written. True if some were missing: the model's transaction was given up for
    it, and the model begins anew. Attaching waits for nobody, and a reader who planned its query without a partition must not see the commit that
    fills it. So those who are at a query of this table are waited for: ten seconds at most, since planning takes milliseconds, and the rest of a long query does
    no harm. Nothing of this for a table that this transaction makes or alters: nobody can have planned for it.
-#}
{% macro sluice_commits_partitions(spec, shape, rows) %}
    {%- if not sluice_partition_column(spec) or shape.is_new or spec.get("has_partitions") -%}{{ return(false) }}{%- endif -%}
    {%- set months = [] -%}
    {%- for month in sluice_months_without_partition(spec, rows, 0) -%}{%- do months.append("timestamptz '" ~ month[1] ~ " 00:00+00'") -%}{%- endfor -%}
    {%- if not months -%}{{ return(false) }}{%- endif -%}
    {%- do run_query('rollback') -%}
    {%- do run_query('begin') -%}
    {%- do run_query("select set_config('timezone', 'UTC', true), set_config('client_min_messages', 'warning', true)") -%}
    {%- do run_query('select pg_advisory_xact_lock(' ~ sluice_lock(spec.name) ~ ')') -%}
    {%- do sluice_ensure_partitions(spec, '(select unnest(array[' ~ months | join(', ') ~ ']) as ' ~ sluice_partition_column(spec) ~ ') as months') -%}
    {%- do run_query('commit') -%}
    {%- set reading = "from pg_locks inner join pg_stat_activity as session using (pid) where relation = '" ~ spec.target ~ "'::regclass and locktype = 'relation' and pid <> pg_backend_pid() and session.state is distinct from 'idle in transaction'" -%}
    {%- do run_query(
        'do $sluice$ declare readers text[] := array(select virtualtransaction ' ~ reading ~ "); patience timestamptz := clock_timestamp() + interval '10 seconds'; "
        ~ 'begin while clock_timestamp() < patience and exists (select ' ~ reading ~ ' and virtualtransaction = any(readers)) loop perform pg_sleep(0.02); perform pg_stat_clear_snapshot(); end loop; end $sluice$'
    ) -%}
    {%- do run_query('begin') -%}
    {%- do spec.update({'has_partitions': true}) -%}
    {{ return(true) }}
{% endmacro %}


{#-
    A fifth of each page, for rows that are updated in place: a new version on the same page needs no entry in any index. A tenth was too
    little where orders that lie together are changed together: two of three new versions went to another page.
-#}
{% macro sluice_leave_room(table) %}
    {%- if model.config.materialized == 'convergent' -%}{%- do run_query('alter table ' ~ table ~ ' set (fillfactor = 80)') -%}{%- endif -%}
{% endmacro %}
