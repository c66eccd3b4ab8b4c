{#- Which slices of a relation may be wrong now, because of what changed upstream since it was last written. -#}


{#-
    Fill sluice_touched (the slice's columns) with the values that may be wrong now, each once; sluice_found gathers them. {is_full, count}.
    Full: the first build, a changed query, an input that was rebuilt as a whole, `--full-refresh`, more than a third touched.
-#}
{% macro sluice_touched(spec, shape) %}
    {%- set everything = {'is_full': true, 'count': 0} -%}
    {#- With --defer an input may be read from other schemas than those whose changes are recorded under its name. -#}
    {%- if shape.is_new or should_full_refresh() or invocation_args_dict.get('defer') -%}{{ return(everything) }}{%- endif -%}
    {%- set marks = {} -%}
    {%- for row in run_query("select input, seq from ops.model_watermark where relation = '" ~ spec.name ~ "'") -%}{%- do marks.update({row[0]: row[1]}) -%}{%- endfor -%}
    {%- if 'code:' ~ spec.code not in marks -%}{{ return(everything) }}{%- endif -%}
    {%- for input in spec.touched_by if input not in marks -%}{{ return(everything) }}{%- endfor -%}

    {%- set types = sluice_column_types(spec.target) -%}
    {%- set typed = [] -%}
    {%- for column in spec.slice -%}{%- do typed.append(column ~ ' ' ~ types[column]) -%}{%- endfor -%}
    {%- do run_query('create temporary table sluice_found (' ~ typed | join(', ') ~ ') on commit drop') -%}
    {%- for node in sluice_inputs(model) if spec.touched_by[node.name] -%}
        {%- set touch = spec.touched_by[node.name] -%}
        {%- for column in touch['columns'] + ([touch.at] if touch.at else []) if column not in types -%}
            {%- do exceptions.raise_compiler_error(model.name ~ ': touched_by names the column ' ~ column ~ ', which the model does not have') -%}
        {%- endfor -%}
        {%- if touch.at and sluice_logs_of(node) -%}
            {%- do exceptions.raise_compiler_error(model.name ~ ": touched_by of " ~ node.name ~ " says 'at', and a change log keeps no intervals: read its snapshot, or say lookup") -%}
        {%- endif -%}
        {%- if (sluice_changed_in_log if sluice_logs_of(node) else sluice_changed_upstream)(spec, node, touch, marks[node.name], types) == 'everything' -%}
            {{ return(everything) }}
        {%- endif -%}
    {%- endfor -%}
    {%- do sluice_touch_waiting(spec, types) -%}
    {%- if run_query('select exists (select from sluice_found where ' ~ spec.slice | join(' is null or ') ~ ' is null)')[0][0] -%}
        {%- do sluice_refuse_nulls(spec, '(' ~ spec.sql ~ ') as wanted') -%}
    {%- endif -%}
    {%- do run_query('create temporary table sluice_touched on commit drop as select distinct ' ~ spec.slice | join(', ') ~ ' from sluice_found where ' ~ spec.slice | join(' is not null and ') ~ ' is not null') -%}
    {%- do run_query('analyze sluice_touched') -%}
    {%- set count = run_query('select count(*) from sluice_touched')[0][0] | int -%}
    {%- set known = run_query("select coalesce(sum(greatest(reltuples, 0)), 0)::bigint from pg_class where oid = '" ~ spec.target ~ "'::regclass or oid in (select relid from pg_partition_tree('" ~ spec.target ~ "') where isleaf)")[0][0] | int -%}
    {{ return({'is_full': count > 1000 and count * 3 > known, 'count': count}) }}
{% endmacro %}


{#-
    Touch what the batches since `mark` carry, of a staging view over one or more change logs. Superseded rows too: what they
    touched must be recomputed without them. And all versions of a touched entity, since an earlier one may have carried another value.
-#}
{% macro sluice_changed_in_log(spec, node, touch, mark, types) %}
    {%- set named = [] -%}
    {%- for log in sluice_logs_of(node) -%}{%- do named.append("('" ~ log.source_name ~ "', '" ~ log.name ~ "')") -%}{%- endfor -%}
    {%- set of_log = '(source, table_name) in (' ~ named | join(', ') ~ ') and rows_applied + rows_deleted > 0' -%}
    {%- set is_new = '(' ~ 'published_seq > {0} and published_seq <= {1} or superseded_seq > {0} and superseded_seq <= {1}'.format(mark, spec.as_of) ~ ')' -%}
    {#- As ranges of batches that follow each other in these logs: a backfill of months is one, and one look into the log's BRIN index. -#}
    {%- set batches = run_query(
        'select min(batch_id), max(batch_id) from (select batch_id, ' ~ is_new ~ ' as is_new, count(*) filter (where ' ~ is_new ~ ' is not true) over (order by batch_id) as range_number'
        ~ ' from ops.batch where ' ~ of_log ~ ' and published_seq is not null and batch_id >= (select min(batch_id) from ops.batch where ' ~ of_log ~ ' and ' ~ is_new ~ ')) as held'
        ~ ' where is_new group by range_number order by 1'
    ) -%}
    {%- if batches | length == 0 -%}{{ return(none) }}{%- endif -%}
    {%- set ranges = [] -%}
    {%- for row in batches -%}{%- do ranges.append('_batch_id between ' ~ row[0] ~ ' and ' ~ row[1]) -%}{%- endfor -%}
    {%- if not node.config.unique_key -%}
        {%- do exceptions.raise_compiler_error(node.name ~ ' needs config(unique_key=…): the key of the entity whose versions it lists') -%}
    {%- endif -%}
    {%- set entity, columns = sluice_list(node.config.unique_key), touch['columns'] -%}
    {%- set relation = sluice_relation(node) -%}
    {%- set changed = 'sluice_changed_' ~ local_md5(node.name)[:16] -%}
    {%- set in_batches = ' where (' ~ ranges | join(' or ') ~ ')' -%}
    {%- do run_query("select set_config('sluice.include_superseded', 'on', true)") -%}
    {%- do run_query(sluice_guarded('create temporary table ' ~ changed ~ ' on commit drop as select ' ~ (entity + columns) | unique | join(', ')
        ~ ", bool_or(_op is distinct from 'delete') as sluice_is_there from " ~ relation ~ in_batches ~ ' group by ' ~ (entity + columns) | unique | join(', '))) -%}
    {#- A row without its key, or without the value that slices the model, would belong to no slice: looked for, and refused. -#}
    {%- if run_query('select exists (select from ' ~ changed ~ ' where sluice_is_there and (' ~ (entity + (columns if columns == spec.slice and not touch.unless_in else [])) | unique | join(' is null or ') ~ ' is null))')[0][0] -%}
        {%- do run_query("select set_config('sluice.include_superseded', 'off', true)") -%}
        {%- do sluice_refuse_nulls(spec, '(' ~ spec.sql ~ ') as wanted') -%}
        {%- do run_query("select set_config('sluice.include_superseded', 'on', true)") -%}
    {%- endif -%}
    {%- set values = changed -%}
    {%- if columns | sort != entity | sort -%}
        {%- set values = changed ~ '_values' -%}
        {%- do run_query('create temporary table ' ~ values ~ ' on commit drop as select ' ~ columns | join(', ') ~ ' from ' ~ changed ~ ' where false') -%}
        {%- do sluice_for_keys('insert into ' ~ values ~ ' select distinct ' ~ columns | join(', ') ~ ' from ' ~ relation ~ ' as log where '
            ~ sluice_any(entity, 'log') ~ (' and (' ~ entity | join(', ') ~ ') in (select ' ~ entity | join(', ') ~ ' from ' ~ changed ~ ')' if entity | length > 1), entity, changed) -%}
    {%- endif -%}
    {%- do run_query("select set_config('sluice.include_superseded', 'off', true)") -%}
    {%- do run_query('delete from ' ~ values ~ ' where ' ~ columns | join(' is null or ') ~ ' is null') -%}
    {%- if touch.unless_in -%}
        {#- A mention matters only to a key that the other input does not have; when that gains or loses the key, it touches it itself. -#}
        {%- do run_query('analyze ' ~ values) -%}
        {%- do run_query('delete from ' ~ values ~ ' as mentioned where exists (select from ' ~ sluice_relation_of(touch.unless_in) ~ ' as known where ' ~ sluice_same(columns, 'known', 'mentioned') ~ ')') -%}
    {%- endif -%}
    {%- do sluice_touch(spec, touch, values, types) -%}
{% endmacro %}


{#- Touch what the commits of a snapshot or convergent model since `mark` changed. 'everything' if it was built anew, or did not note what is asked. -#}
{% macro sluice_changed_upstream(spec, node, touch, mark, types) %}
    {%- set input_name = node.schema ~ '.' ~ node.alias -%}
    {%- set by = "'" ~ touch.by | join(', ') ~ "'" if touch.by else none -%}
    {%- set changes = run_query('select count(*), coalesce(bool_or(is_full' ~ (' or ' ~ by ~ ' <> all(noted)' if by) ~ "), false) from ops.change where relation = '" ~ input_name ~ "' and seq > " ~ mark)[0] -%}
    {%- if changes[1] -%}{{ return('everything') }}{%- endif -%}
    {%- if changes[0] == 0 -%}{{ return(none) }}{%- endif -%}
    {%- set changed = 'sluice_changed_' ~ local_md5(node.name)[:16] -%}
    {%- set values = [] -%}
    {%- for column in touch['columns'] -%}
        {%- do values.append(('changed_key.key' if touch['columns'] | length == 1 else '(changed_key.key::jsonb ->> ' ~ loop.index0 ~ ')') ~ '::' ~ types[column] ~ ' as ' ~ column) -%}
    {%- endfor -%}
    {%- do run_query(sluice_guarded('create temporary table ' ~ changed ~ ' on commit drop as select distinct ' ~ values | join(', ') ~ ', changed_key.changed_from, changed_key.changed_to'
        ~ " from ops.changed_key inner join ops.change using (change_id) where change.relation = '" ~ input_name ~ "' and change.seq > " ~ mark
        ~ ' and changed_key.key_of ' ~ ('= ' ~ by if by else 'is null'))) -%}
    {%- do sluice_touch(spec, touch, changed, types) -%}
{% endmacro %}


{#- Slices of the rows that carry one of the values in `changed`: those present and, unless they are looked up, those to come. -#}
{% macro sluice_touch(spec, touch, changed, types) %}
    {%- set columns, slice = touch['columns'], spec.slice | join(', ') -%}
    {%- if columns == spec.slice -%}
        {%- do run_query('insert into sluice_found select ' ~ slice ~ ' from ' ~ changed) -%}
        {{ return(none) }}
    {%- endif -%}
    {%- do run_query('analyze ' ~ changed) -%}
    {%- set carried = 'insert into sluice_found select distinct ' ~ sluice_prefixed(spec.slice, 'carrying') ~ ' from ' -%}
    {%- if touch.is_lookup -%}
        {#- The row asks for the version at its own instant: only an answer inside a changed interval differs. Rows to come are
            touched by what brings them, since a lookup neither makes nor removes a row. -#}
        {%- set found, finds = changed, columns -%}
        {%- if touch.through -%}
            {#- By an index that there is for the other input. A row that has its value from a version that is gone is touched by that input. -#}
            {%- set via, found = sluice_relation_of(touch.through.input), changed ~ '_via' -%}
            {%- set finds = (columns + spec.touched_by[touch.through.input]['columns']) | unique | list -%}
            {%- do run_query('create temporary table ' ~ found ~ ' on commit drop as select distinct ' ~ sluice_prefixed(finds, 'via') ~ (', changed_from, changed_to' if touch.at)
                ~ ' from ' ~ changed ~ ' as changed inner join ' ~ via ~ ' as via on ' ~ sluice_same(columns, 'via', 'changed') ~ sluice_within(touch.through.at, 'via')) -%}
            {%- do run_query('analyze ' ~ found) -%}
        {%- endif -%}
        {%- do run_query(carried ~ found ~ ' as changed inner join ' ~ spec.target ~ ' as carrying on ' ~ sluice_same(finds, 'carrying', 'changed') ~ sluice_within(touch.at, 'carrying')) -%}
    {%- else -%}
        {%- set exact = ' and (' ~ columns | join(', ') ~ ') in (select ' ~ columns | join(', ') ~ ' from ' ~ changed ~ ')' if columns | length > 1 else '' -%}
        {%- do sluice_for_keys(carried ~ spec.target ~ ' as carrying where ' ~ sluice_any(columns, 'carrying') ~ exact, columns, changed) -%}
        {%- do sluice_for_keys(carried ~ '(' ~ spec.sql ~ ') as carrying where ' ~ sluice_any(columns, 'carrying') ~ exact, columns, changed) -%}
    {%- endif -%}
{% endmacro %}


{#- ` and alias.at` lies in a changed interval. -#}
{% macro sluice_within(at, alias) -%}
    {%- if at %} and {{ alias }}.{{ at }} >= changed.changed_from and {{ alias }}.{{ at }} < changed.changed_to {%- endif -%}
{%- endmacro %}


{#-
    Run `statement`, in which $1, $2 … stand for the arrays of the values that `rows` has in `columns`. The planner sees them as
    constants: it pushes the filter down through windows and groups to an index, knows how many rows to expect, and hashes the values
    where it must compare each row. A subquery in their place is compared with every row, one value after another.
-#}
{% macro sluice_for_keys(statement, columns, rows) %}
    {%- set arrays = [] -%}
    {%- for column in columns -%}{%- do arrays.append('array(select distinct ' ~ column ~ ' from ' ~ rows ~ ' where ' ~ column ~ ' is not null)') -%}{%- endfor -%}
    {%- do run_query(sluice_guarded(statement, arrays | join(', '))) -%}
{% endmacro %}


{#- `alias.a = any($1) and alias.b = any($2)`. -#}
{% macro sluice_any(columns, alias) -%}
    {%- for column in columns -%} {{ alias }}.{{ column }} = any(${{ loop.index }}){{ ' and ' if not loop.last }} {%- endfor -%}
{%- endmacro %}


{#- Rows of the slices in `rows`. Of several columns the arrays find a superset by index, and the pairs make it exact. -#}
{% macro sluice_in_slice(spec, alias, rows='sluice_touched') -%}
    {{ sluice_any(spec.slice, alias) }}
    {%- if spec.slice | length > 1 %} and ({{ sluice_prefixed(spec.slice, alias) }}) in (select {{ spec.slice | join(', ') }} from {{ rows }}) {%- endif -%}
{%- endmacro %}


{% macro sluice_prefixed(columns, alias) -%}
    {%- for column in columns -%} {{ alias }}.{{ column }}{{ ', ' if not loop.last }} {%- endfor -%}
{%- endmacro %}

