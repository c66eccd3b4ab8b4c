{#- The relation itself: its columns and types, and the indexes that finding what changed needs. -#}


{#-
    Create the relation, or give it the columns and types of its query. Returns {created, is_new: all of it must be
    recomputed, has_grain: its rows are told apart by the key}. Asks the catalog and not dbt's cache: another run may have
    been first while this one waited for the lock.
-#}
{% macro sluice_prepare_target(spec) %}
    {%- set target = spec.target -%}
    {%- set probe = 'select * from (' ~ spec.sql ~ ') as probe where false' -%}
    {%- set found = run_query("select relkind::text from pg_class where oid = to_regclass('" ~ target.include(database=false) ~ "')") -%}
    {%- set kind = found[0][0] if found | length > 0 else none -%}
    {%- if kind in ('v', 'm') -%}
        {%- do run_query('drop ' ~ ('materialized ' if kind == 'm') ~ 'view ' ~ target) -%}
        {%- set kind = none -%}
    {%- endif -%}
    {%- if kind is not none and (kind == 'p') != (sluice_partition_column(spec) is not none) -%}
        {#- Made anew in this transaction; readers wait for its end, as they do when a column's type changes. -#}
        {%- do run_query('drop table ' ~ target) -%}
        {%- set kind = none -%}
    {%- endif -%}
    {%- if kind is none -%}
        {%- do sluice_create(spec) -%}
        {{ return({'created': true, 'is_new': true, 'has_grain': false}) }}
    {%- endif -%}

    {%- if config.get('contract').enforced -%}
        {%- do get_assert_columns_equivalent(spec.sql) -%}
        {%- set probe = get_empty_schema_sql(model.columns) -%}
    {%- endif -%}
    {%- do run_query('create temporary table sluice_shape on commit drop as ' ~ probe) -%}
    {%- set wanted = sluice_column_types('sluice_shape') -%}
    {%- set present = sluice_column_types(target) -%}
    {%- set created, is_new = [], [] -%}
    {%- for column in present if column not in wanted -%}
        {%- do run_query('alter table ' ~ target ~ ' drop column ' ~ column) -%}
    {%- endfor -%}
    {%- for column, type in wanted.items() if present.get(column) != type -%}
        {%- do is_new.append(column) -%}
        {%- if column not in present -%}
            {%- do run_query('alter table ' ~ target ~ ' add column ' ~ column ~ ' ' ~ type) -%}
        {%- else -%}
            {%- set alter = 'alter table ' ~ target ~ ' alter column ' ~ column ~ ' type ' ~ type ~ ' using ' -%}
            {#- A value that has no counterpart in the new type empties the table: all of it is computed below in any case. -#}
            {%- do run_query("select set_config('sluice.was_emptied', 'off', true)") -%}
            {%- do run_query(
                'do $sluice$ begin ' ~ alter ~ column ~ '::' ~ type ~ "; exception when data_exception or cannot_coerce or integrity_constraint_violation then "
                ~ "delete from " ~ target ~ "; " ~ alter ~ 'null::' ~ type ~ "; perform set_config('sluice.was_emptied', 'on', true); end $sluice$"
            ) -%}
            {%- if run_query("select current_setting('sluice.was_emptied')")[0][0] == 'on' -%}{%- do created.append(column) -%}{%- endif -%}
        {%- endif -%}
    {%- endfor -%}
    {%- set has_grain = sluice_drop_other_indexes(spec) -%}
    {{ return({'created': created | length > 0, 'is_new': is_new | length > 0 or not has_grain, 'has_grain': has_grain}) }}
{% endmacro %}


{#- {quoted name: type with its precision} of a relation. -#}
{% macro sluice_column_types(relation) %}
    {%- set types = {} -%}
    {%- for row in run_query("select quote_ident(attname), format_type(atttypid, atttypmod) from pg_attribute where attrelid = '" ~ relation ~ "'::regclass and attnum > 0 and not attisdropped order by attnum") -%}
        {%- do types.update({row[0]: row[1]}) -%}
    {%- endfor -%}
    {{ return(types) }}
{% endmacro %}


{#-
    The indexes of a convergent relation, from what it declares: {name: {columns, is_unique, method}}. The grain; the slice; and for each
    input by whose key rows are looked for, those columns with the instant of the lookup.
-#}
{% macro sluice_own_indexes(spec) %}
    {%- set stem = spec.target.identifier[:50] -%}
    {%- set own = {stem ~ '__grain': {'columns': spec.grain, 'is_unique': true}} -%}
    {%- set covered = [spec.grain] -%}
    {%- set partitioned_by = sluice_partition_column(spec) -%}
    {%- if partitioned_by -%}{%- do own.update({stem ~ '__brin': {'columns': [partitioned_by], 'is_unique': false, 'method': 'brin'}}) -%}{%- endif -%}
    {%- if model.config.materialized == 'snapshot' -%}
        {#- One current row per key, and no two versions that end together; it finds the slice as well. -#}
        {%- do own.update({stem ~ '__slice': {'columns': spec.slice + [spec.validity.to], 'is_unique': true}}) -%}
        {%- do covered.append(spec.slice) -%}
    {%- elif spec.slice != spec.grain[:spec.slice | length] -%}
        {%- do own.update({stem ~ '__slice': {'columns': spec.slice, 'is_unique': false}}) -%}
        {%- do covered.append(spec.slice) -%}
    {%- endif -%}
    {%- set wanted = [] -%}
    {%- for touch in spec.touched_by.values() if touch and not touch.through -%}
        {%- set columns = touch['columns'] + ([touch.at] if touch.at else []) -%}
        {%- if columns not in wanted -%}{%- do wanted.append(columns) -%}{%- endif -%}
    {%- endfor -%}
    {%- for columns in wanted -%}
        {%- set ahead = [] -%}
        {%- for other in wanted + covered if other != columns and other[:columns | length] == columns -%}{%- do ahead.append(other) -%}{%- endfor -%}
        {%- if columns not in covered and not ahead -%}
            {%- do own.update({stem ~ '__' ~ local_md5(columns | join(','))[:8]: {'columns': columns, 'is_unique': false}}) -%}
        {%- endif -%}
    {%- endfor -%}
    {#- Readers' own, as dbt's `indexes` has them; the name says what they are, so that a change of it is another index. -#}
    {%- for index in config.get('indexes') or [] -%}
        {%- do own.update({stem ~ '__' ~ local_md5(tojson(index, sort_keys=true))[:8]: {'columns': index['columns'], 'is_unique': index.get('unique', false), 'method': index.get('type', 'btree')}}) -%}
    {%- endfor -%}
    {{ return(own) }}
{% endmacro %}


{#- Drop those of our indexes that are of other columns or no longer needed. True if the grain's is there and right. -#}
{% macro sluice_drop_other_indexes(spec) %}
    {%- set own, stem = sluice_own_indexes(spec), spec.target.identifier[:50] -%}
    {%- set right = [] -%}
    {%- for row in run_query(
        "select index_class.relname, (select string_agg(pg_get_indexdef(indexrelid, place, false), ', ' order by place) from generate_series(1, indnkeyatts) as place)"
        ~ " from pg_index inner join pg_class as index_class on index_class.oid = indexrelid"
        ~ " where indrelid = '" ~ spec.target ~ "'::regclass and starts_with(index_class.relname, '" ~ stem ~ "__')"
    ) -%}
        {%- if row[0] in own and row[1] == own[row[0]]['columns'] | join(', ') -%}
            {%- do right.append(row[0]) -%}
        {%- else -%}
            {%- do run_query('drop index ' ~ adapter.quote(spec.target.schema) ~ '.' ~ adapter.quote(row[0])) -%}
        {%- endif -%}
    {%- endfor -%}
    {%- for name, index in own.items() if name not in right and not index.is_unique -%}
        {%- do run_query('create index ' ~ adapter.quote(name) ~ ' on ' ~ spec.target ~ ' using ' ~ index.get('method', 'btree') ~ ' (' ~ index['columns'] | join(', ') ~ ')') -%}
    {%- endfor -%}
    {{ return(stem ~ '__grain' in right) }}
{% endmacro %}


{#- After the rows are written: those of another grain may not satisfy the index. -#}
{% macro sluice_create_own_indexes(spec) %}
    {#- Asked for first: `if not exists` would lock the table before it looks, and so end an autovacuum of it in every run. -#}
    {%- set present = run_query("select indexname from pg_indexes where schemaname = '" ~ spec.target.schema ~ "' and tablename = '" ~ spec.target.identifier ~ "'").columns[0].values() -%}
    {%- for name, index in sluice_own_indexes(spec).items() if name not in present -%}
        {%- set columns = index['columns'] | join(', ') -%}
        {%- set create = 'create ' ~ ('unique ' if index.is_unique) ~ 'index ' ~ adapter.quote(name) ~ ' on ' ~ spec.target ~ ' using ' ~ index.get('method', 'btree') ~ ' (' ~ columns ~ ')' -%}
        {%- do run_query("select set_config('sluice.is_unique', 'yes', true)") -%}
        {%- do run_query('do $sluice$ begin ' ~ create ~ "; exception when unique_violation then perform set_config('sluice.is_unique', 'no', true); end $sluice$") -%}
        {%- if run_query("select current_setting('sluice.is_unique')")[0][0] != 'yes' -%}
            {%- do sluice_refuse_duplicates(spec, spec.target) -%}
            {%- do exceptions.raise_compiler_error('gate: ' ~ spec.name ~ ' would hold more than one row per (' ~ columns ~ '). Nothing was written; readers keep the rows they had') -%}
        {%- endif -%}
    {%- endfor -%}
{% endmacro %}
