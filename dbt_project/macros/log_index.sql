{#-
    Indexes of a change log, for the columns by which models look into it: without one, recomputing one order costs a scan of
    all of them. A post-hook of a staging view, which knows what is asked of it:

        config(unique_key='order_line_id', post_hook="{{ log_index(['order_id']) }}")

    The loader indexes the key and the batch itself. An item that is not a plain name is an expression; a list of names is an index of
    several columns: a key and the instant at which it is looked up, for `touched_by` with `through`.
-#}
{% macro log_index(columns) %}
    {%- if execute and not flags.EMPTY and not env_var('SLUICE_SCHEMA_PREFIX', '') -%}
        {%- for node_id in model.depends_on.nodes if node_id in graph.sources -%}
            {%- set log = graph.sources[node_id] -%}
            {%- set present = run_query("select indexname from pg_indexes where schemaname = '" ~ log.schema ~ "' and tablename = '" ~ log.identifier ~ "'").columns[0].values() -%}
            {%- for item in columns -%}
                {%- set column, all = (item, '(' ~ item ~ ')') if item is string else (item[0], item | join(', ')) -%}
                {%- set name = log.identifier[:40] ~ '__' ~ (item if item is string and item | length < 20 else local_md5(item if item is string else all)[:8]) -%}
                {%- if name not in present -%}
                    {%- do run_query('create index if not exists ' ~ adapter.quote(name) ~ ' on ' ~ adapter.quote(log.schema) ~ '.' ~ adapter.quote(log.identifier) ~ ' (' ~ all ~ ')') -%}
                    {#- Of a long log the usual sample finds too few values: each would seem to have many rows, and a scan cheaper than the index. -#}
                    {%- set log_column = 'alter table ' ~ adapter.quote(log.schema) ~ '.' ~ adapter.quote(log.identifier) ~ ' alter column ' ~ adapter.quote(column) -%}
                    {%- set index_column = 'alter index ' ~ adapter.quote(log.schema) ~ '.' ~ adapter.quote(name) ~ ' alter column 1' -%}
                    {%- do run_query((log_column if modules.re.fullmatch('[a-z_][a-z0-9_]*', column) else index_column) ~ ' set statistics 1000') -%}
                {%- endif -%}
            {%- endfor -%}
        {%- endfor -%}
    {%- endif -%}
{% endmacro %}
