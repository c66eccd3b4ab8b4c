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


{#-
    Partitions for the months of `rows`, and for this month and the two after it. A known gap: a reader who planned its query just
    before this commit and takes its snapshot just after it sees all that the commit wrote, except in partitions that it brought
    (docs/decisions/partitions.md).
-#}
{% macro sluice_ensure_partitions(spec, rows) %}
    {%- set column = sluice_partition_column(spec) -%}
    {%- if not column -%}{{ return(none) }}{%- endif -%}
    {%- set months = run_query(
        "select to_char(month, 'YYYY_MM'), to_char(month, 'YYYY-MM-DD'), to_char(month + interval '1 month', 'YYYY-MM-DD') from ("
        ~ "select distinct date_trunc('month', " ~ column ~ "::timestamp) as month from " ~ rows ~ ' where isfinite(' ~ column ~ ')'
        ~ " union select date_trunc('month', now()::timestamp) + number * interval '1 month' from generate_series(0, 2) as number) as months"
        ~ " where to_regclass('" ~ spec.target.schema ~ ".' || quote_ident('" ~ spec.target.identifier[:50] ~ "__' || to_char(month, 'YYYY_MM'))) is null order by 1"
    ) -%}
    {%- for month in months -%}
        {%- set part = adapter.quote(spec.target.schema) ~ '.' ~ adapter.quote(spec.target.identifier[:50] ~ '__' ~ month[0]) -%}
        {%- do run_query('create table ' ~ part ~ ' (like ' ~ spec.target ~ ' including defaults including constraints, constraint is_of_month check ('
            ~ column ~ ' is not null and ' ~ column ~ " >= '" ~ month[1] ~ "' and " ~ column ~ " < '" ~ month[2] ~ "'))") -%}
        {%- do sluice_leave_room(part) -%}
        {%- do run_query('alter table ' ~ spec.target ~ ' attach partition ' ~ part ~ " for values from ('" ~ month[1] ~ "') to ('" ~ month[2] ~ "')") -%}
        {%- do run_query('alter table ' ~ part ~ ' drop constraint is_of_month') -%}
    {%- endfor -%}
{% endmacro %}


{#-
    A fifth of each page, for rows that are updated in place: a new version on the same page needs no entry in any index. A tenth was too
    little where orders that lie together are changed together: two of three new versions went to another page.
-#}
{% macro sluice_leave_room(table) %}
    {%- if model.config.materialized == 'convergent' -%}{%- do run_query('alter table ' ~ table ~ ' set (fillfactor = 80)') -%}{%- endif -%}
{% endmacro %}
