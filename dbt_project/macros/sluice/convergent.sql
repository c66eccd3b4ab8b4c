{#-
    materialized='convergent': an incremental model that always equals a clean rebuild. The reference, with an example, is
    docs/reference/convergent-models.md.

    config: unique_key (column or list: the grain), recompute_by (column, default unique_key),
            touched_by ({input: column of this model that carries the input's change key; none when the input only has to
            be there first, because no value of this model comes from it})
-#}
{% materialization convergent, adapter='postgres', supported_languages=['sql'] %}
    {%- set unique_key = config.require('unique_key') -%}
    {%- set recompute_by = config.get('recompute_by', unique_key) -%}
    {%- set touched_by = config.get('touched_by', {}) -%}
    {%- do sluice_check_inputs(touched_by) -%}
    {%- set relation = sluice_converge(sql, unique_key, recompute_by, touched_by) -%}
    {{ return({'relations': [relation]}) }}
{% endmaterialization %}


{#- Every input through which a change can come must be listed: a missing one would be a silent divergence. -#}
{% macro sluice_check_inputs(touched_by) %}
    {%- do sluice_refuse_blind_inputs(model) -%}
    {%- set known = [] -%}
    {%- for node in sluice_inputs(model) -%}{%- do known.append(node.name) -%}{%- endfor -%}
    {%- for name in known if name not in touched_by -%}
        {%- do exceptions.raise_compiler_error(
            model.name ~ ' reads ' ~ name ~ ', which touched_by does not list; a change there would never reach this model. '
            ~ 'Add it with the column of this model that carries the key of ' ~ name
        ) -%}
    {%- endfor -%}
    {%- for name in touched_by if name not in known -%}
        {%- do exceptions.raise_compiler_error(model.name ~ ': touched_by lists ' ~ name ~ ', which the model does not read') -%}
    {%- endfor -%}
{% endmacro %}


{#- A seed, a source or a table that dbt writes keeps no record of what changed in it: it cannot be read directly. -#}
{% macro sluice_refuse_blind_inputs(node) %}
    {%- for node_id in node.depends_on.nodes -%}
        {%- set kind = none -%}
        {%- if node_id in graph.sources -%}
            {%- set input = graph.sources[node_id] -%}
            {%- if not sluice_log_of(node) -%}{%- set kind = 'source' -%}{%- endif -%}
        {%- elif node_id in graph.nodes -%}
            {%- set input = graph.nodes[node_id] -%}
            {%- if input.config.materialized in ('view', 'ephemeral') -%}
                {%- do sluice_refuse_blind_inputs(input) -%}
            {%- elif input.config.materialized not in ('snapshot', 'convergent') -%}
                {%- set kind = input.config.materialized -%}
            {%- endif -%}
        {%- endif -%}
        {%- if kind -%}
            {%- do exceptions.raise_compiler_error(
                model.name ~ ' reads the ' ~ kind ~ ' ' ~ (input.source_name ~ '.' if kind == 'source') ~ input.name ~ (' through ' ~ node.name if node.name != model.name)
                ~ ', whose changes leave no trace: they would never reach this model. Read a staging view of a change log, a snapshot or a convergent model'
            ) -%}
        {%- endif -%}
    {%- endfor -%}
{% endmacro %}


{#- The views a model looks through, at any depth: what they say is part of what the model says. -#}
{% macro sluice_views(node) %}
    {%- set found = [] -%}
    {%- for node_id in node.depends_on.nodes if node_id in graph.nodes -%}
        {%- set parent = graph.nodes[node_id] -%}
        {%- if parent.config.materialized in ('view', 'ephemeral') -%}
            {%- if parent.config.materialized == 'view' -%}
                {%- do found.append(adapter.quote(parent.schema) ~ '.' ~ adapter.quote(parent.alias)) -%}
            {%- endif -%}
            {%- do found.extend(sluice_views(parent)) -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return(found | unique | sort) }}
{% endmacro %}


{#- A hash of everything that decides the rows, except the inputs' rows: a change of it recomputes the whole relation. -#}
{% macro sluice_code(sql, unique_key, recompute_by, touched_by) %}
    {%- set parts = [sql, tojson([unique_key, recompute_by, touched_by], sort_keys=true)] -%}
    {%- set views = sluice_views(model) -%}
    {%- if views -%}
        {#- As they are in the database, and not as the project has them: what is read is what counts. -#}
        {%- do parts.append(run_query("select string_agg(name || ':' || coalesce(pg_get_viewdef(to_regclass(name)), ''), ';' order by name) from unnest(array['" ~ views | join("', '") ~ "']) as name")[0][0]) -%}
    {%- endif -%}
    {#- The same code in schemas with a prefix is the same code. -#}
    {%- set prefix = env_var('SLUICE_SCHEMA_PREFIX', '') -%}
    {%- set text = parts | join('\n') -%}
    {{ return(local_md5(text | replace(prefix ~ '_', '') if prefix else text)) }}
{% endmacro %}


{#- The nodes that feed a model with changes: logs (staging views), snapshots and convergent models; views are looked through. -#}
{% macro sluice_inputs(node) %}
    {%- set found = [] -%}
    {%- for node_id in node.depends_on.nodes if node_id in graph.nodes -%}
        {%- set parent = graph.nodes[node_id] -%}
        {%- if parent.config.materialized in ('snapshot', 'convergent') or sluice_log_of(parent) -%}
            {%- do found.append(parent) -%}
        {%- elif parent.config.materialized == 'view' or parent.config.materialized == 'ephemeral' -%}
            {%- for grandparent in sluice_inputs(parent) if grandparent not in found -%}{%- do found.append(grandparent) -%}{%- endfor -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return(found) }}
{% endmacro %}


{#- The declared table whose change log a staging view shows, or none. -#}
{% macro sluice_log_of(node) %}
    {%- if node.resource_type == 'model' and node.config.materialized == 'view' -%}
        {%- for node_id in node.depends_on.nodes if node_id in graph.sources -%}
            {{ return(graph.sources[node_id]) }}
        {%- endfor -%}
    {%- endif -%}
    {{ return(none) }}
{% endmacro %}


{#- The heart: one transaction that takes a relation from what it is to what its query says, at the cost of what changed. -#}
{% macro sluice_converge(sql, unique_key, recompute_by, touched_by) %}
    {%- set sql = sql ~ '\n' -%}{#- It is put in parentheses, and may end with a comment. -#}
    {%- set keys = [unique_key] if unique_key is string else unique_key -%}
    {%- set target = this.incorporate(type='table') -%}
    {%- set name = target.schema ~ '.' ~ target.identifier -%}
    {%- set run_id = env_var('SLUICE_RUN_ID', invocation_id) -%}

    {%- if flags.EMPTY -%}
        {#- `dbt build --empty` proves that the SQL runs; an empty input must never empty a table. -#}
        {%- if load_cached_relation(this) is none -%}
            {%- call statement('main') -%} {{ get_create_table_as_sql(False, target, 'select * from (' ~ sql ~ ') as probe where false') }} {%- endcall -%}
            {%- do create_indexes(target) -%}
        {%- else -%}
            {%- call statement('main') -%} select * from ({{ sql }}) as probe where false {%- endcall -%}
        {%- endif -%}
        {%- do adapter.commit() -%}
        {{ return(target) }}
    {%- endif -%}

    {{ run_hooks(pre_hooks, inside_transaction=False) }}
    {{ run_hooks(pre_hooks, inside_transaction=True) }}
    {%- do run_query("select set_config('timezone', 'UTC', true), set_config('datestyle', 'ISO, YMD', true), set_config('client_min_messages', 'warning', true)") -%}
    {%- do run_query("select pg_advisory_xact_lock(hashtextextended('sluice:" ~ name ~ "', 0))") -%}
    {%- set started = run_query("select clock_timestamp()::text")[0][0] -%}
    {%- set seq = run_query('select seq from ops.clock')[0][0] -%}

    {#- 1. what the relation must become: its columns, and how much of it -#}
    {%- set shape = sluice_prepare_target(target, sql, keys, recompute_by) -%}
    {%- set created = shape.created -%}
    {%- set code = sluice_code(sql, unique_key, recompute_by, touched_by) -%}
    {%- set plan = sluice_touched(name, code, seq, sql, target, unique_key, recompute_by, touched_by, shape.is_new) -%}

    {%- if plan.is_full or plan.count > 0 -%}
        {#- 2. the rows it should have, for what was touched, and the difference -#}
        {%- set slice = 'true' if plan.is_full else recompute_by ~ ' in (select value from sluice_touched)' -%}
        {%- set columns = adapter.get_columns_in_relation(target) | map(attribute='quoted') | join(', ') -%}
        {%- set rows = 'select ' ~ columns ~ ' from (' ~ sql ~ ') as wanted' -%}
        {%- if plan.is_full -%}
            {%- do run_query('create temporary table sluice_wanted on commit drop as ' ~ rows) -%}
        {%- else -%}
            {%- do run_query('create temporary table sluice_wanted on commit drop as select ' ~ columns ~ ' from ' ~ target ~ ' where false') -%}
            {%- do sluice_for_keys('insert into sluice_wanted ' ~ rows ~ ' where wanted.' ~ recompute_by ~ ' = any($1)', 'select value from sluice_touched') -%}
        {%- endif -%}
        {%- do sluice_refuse_nulls(name, keys, recompute_by, 'sluice_wanted') -%}
        {%- do sluice_refuse_duplicates(name, keys) -%}
        {%- do run_query('create temporary table sluice_gone on commit drop as select ' ~ columns ~ ' from ' ~ target ~ ' where ' ~ slice ~ ' except all select ' ~ columns ~ ' from sluice_wanted') -%}
        {%- do run_query('create temporary table sluice_come on commit drop as select ' ~ columns ~ ' from sluice_wanted except all select ' ~ columns ~ ' from ' ~ target ~ ' where ' ~ slice) -%}
        {%- set on_key = [] -%}
        {%- for key in keys -%}{%- do on_key.append('target.' ~ key ~ ' = gone.' ~ key) -%}{%- endfor -%}
        {%- if shape.has_grain -%}
            {%- do run_query('delete from ' ~ target ~ ' as target using sluice_gone as gone where ' ~ on_key | join(' and ')) -%}
        {%- else -%}
            {#- The rows present are of another grain: its key does not tell them apart. -#}
            {%- do run_query('delete from ' ~ target) -%}
        {%- endif -%}
        {%- if plan.is_full -%}
            {%- do run_query('delete from ' ~ target ~ ' where ' ~ keys | join(' is null or ') ~ ' is null') -%}
        {%- endif -%}
        {%- call statement('main') -%}
            insert into {{ target }} ({{ columns }}) select {{ columns }} from {{ 'sluice_come' if shape.has_grain else 'sluice_wanted' }}
        {%- endcall -%}
        {%- do sluice_create_own_indexes(target, keys, recompute_by) -%}
        {%- set counts = run_query('select (select count(*) from sluice_come), (select count(*) from sluice_gone)')[0] -%}
        {%- set inserted, deleted = counts[0] | int, counts[1] | int -%}
        {#- Its readers are next, and autovacuum may not have come by: without statistics they would plan for an empty table. -#}
        {%- if plan.is_full -%}{%- do run_query('analyze ' ~ target) -%}{%- endif -%}
    {%- else -%}
        {%- call statement('main') -%} select 'nothing changed upstream of {{ name }}' {%- endcall -%}
        {%- set inserted, deleted = 0, 0 -%}
    {%- endif -%}

    {#- 3. the gate: a failed blocking test raises, and the transaction is rolled back -#}
    {%- set checks = sluice_gate(target, keys, inserted + deleted > 0 or created) -%}

    {%- do apply_grants(target, config.get('grants'), should_revoke=should_revoke(not created, full_refresh_mode=False)) -%}
    {%- do persist_docs(target, model) -%}
    {{ run_hooks(post_hooks, inside_transaction=True) }}

    {#- 4. the ledger, last, because its counter orders commits and must be held briefly -#}
    {%- do sluice_commit_change(name, code, seq, run_id, started, recompute_by, touched_by, plan, inserted, deleted, created, checks) -%}
    {%- do adapter.commit() -%}
    {{ run_hooks(post_hooks, inside_transaction=False) }}
    {{ return(target) }}
{% endmacro %}


{#-
    Create the relation, or give it the columns and types of its query. Returns {created, is_new: all of it must be
    recomputed, has_grain: its rows are told apart by the key}. Asks the catalog and not dbt's cache: another run may have
    been first while this one waited for the lock.
-#}
{% macro sluice_prepare_target(target, sql, keys, recompute_by) %}
    {%- set probe = 'select * from (' ~ sql ~ ') as probe where false' -%}
    {%- set found = run_query("select relkind::text from pg_class where oid = to_regclass('" ~ target.include(database=false) ~ "')") -%}
    {%- set kind = found[0][0] if found | length > 0 else none -%}
    {%- if kind in ('v', 'm') -%}
        {%- do run_query('drop ' ~ ('materialized ' if kind == 'm') ~ 'view ' ~ target) -%}
        {%- set kind = none -%}
    {%- endif -%}
    {%- if kind is none -%}
        {%- call statement('create') -%} {{ get_create_table_as_sql(False, target, probe) }} {%- endcall -%}
        {%- do create_indexes(target) -%}
        {{ return({'created': true, 'is_new': true, 'has_grain': false}) }}
    {%- endif -%}

    {%- if config.get('contract').enforced -%}
        {%- do get_assert_columns_equivalent(sql) -%}
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
    {%- set has_grain = sluice_drop_other_indexes(target, keys, recompute_by) -%}
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


{#- The indexes every convergent relation has: {name: {columns, is_unique}}. -#}
{% macro sluice_own_indexes(target, keys, recompute_by) %}
    {%- set own = {target.identifier[:50] ~ '__grain': {'columns': keys | list, 'is_unique': true}} -%}
    {%- if recompute_by not in keys -%}{%- do own.update({target.identifier[:50] ~ '__slice': {'columns': [recompute_by], 'is_unique': false}}) -%}{%- endif -%}
    {{ return(own) }}
{% endmacro %}


{#- Drop the grain and slice index where they are of other columns. True if the grain's is there and right. -#}
{% macro sluice_drop_other_indexes(target, keys, recompute_by) %}
    {%- set own = sluice_own_indexes(target, keys, recompute_by) -%}
    {%- set right = [] -%}
    {%- for row in run_query(
        "select index_class.relname, (select string_agg(pg_get_indexdef(indexrelid, place, false), ', ' order by place) from generate_series(1, indnkeyatts) as place)"
        ~ " from pg_index inner join pg_class as index_class on index_class.oid = indexrelid"
        ~ " where indrelid = '" ~ target ~ "'::regclass and index_class.relname in ('" ~ target.identifier[:50] ~ "__grain', '" ~ target.identifier[:50] ~ "__slice')"
    ) -%}
        {%- if row[0] in own and row[1] == own[row[0]].columns | join(', ') -%}
            {%- do right.append(row[0]) -%}
        {%- else -%}
            {%- do run_query('drop index ' ~ adapter.quote(target.schema) ~ '.' ~ adapter.quote(row[0])) -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return(target.identifier[:50] ~ '__grain' in right) }}
{% endmacro %}


{#- After the rows are written: those of another grain may not satisfy the index. -#}
{% macro sluice_create_own_indexes(target, keys, recompute_by) %}
    {%- for name, index in sluice_own_indexes(target, keys, recompute_by).items() -%}
        {%- do run_query('create ' ~ ('unique ' if index.is_unique) ~ 'index if not exists ' ~ adapter.quote(name) ~ ' on ' ~ target ~ ' (' ~ index.columns | join(', ') ~ ')') -%}
    {%- endfor -%}
{% endmacro %}


{#-
    Fill sluice_touched(value) with the recompute_by values that may be wrong now. {is_full, count}.
    Full: the first build, a changed query, an input that was rebuilt as a whole, `--full-refresh`, more than a third touched.
-#}
{% macro sluice_touched(name, code, seq, sql, target, unique_key, recompute_by, touched_by, is_new) %}
    {%- if is_new or should_full_refresh() -%}{{ return({'is_full': true, 'count': 0}) }}{%- endif -%}
    {%- set marks = {} -%}
    {%- for row in run_query("select input, seq from ops.model_watermark where relation = '" ~ name ~ "'") -%}{%- do marks.update({row[0]: row[1]}) -%}{%- endfor -%}
    {%- if 'code:' ~ code not in marks -%}{{ return({'is_full': true, 'count': 0}) }}{%- endif -%}
    {%- for input in touched_by if input not in marks -%}{{ return({'is_full': true, 'count': 0}) }}{%- endfor -%}

    {%- set types = {} -%}
    {%- for column in adapter.get_columns_in_relation(target) -%}{%- do types.update({column.name: column.data_type}) -%}{%- endfor -%}
    {%- do run_query('create temporary table sluice_touched (value ' ~ types[recompute_by] ~ ' unique nulls not distinct) on commit drop') -%}
    {%- for node in sluice_inputs(model) -%}
        {%- set column = touched_by[node.name] -%}
        {%- set changed = sluice_changed_keys(node, marks[node.name], column, types, recompute_by) if column is not none else none -%}
        {%- if changed == 'everything' -%}{{ return({'is_full': true, 'count': 0}) }}{%- endif -%}
        {%- if changed -%}
            {%- if column == recompute_by -%}
                {%- do run_query('insert into sluice_touched ' ~ changed ~ ' on conflict do nothing') -%}
            {%- else -%}
                {#- Rows that carry the key now, and rows that will: both may be wrong. -#}
                {%- do run_query('insert into sluice_touched select distinct ' ~ recompute_by ~ ' from ' ~ target ~ ' where ' ~ column ~ ' in (' ~ changed ~ ') and ' ~ recompute_by ~ ' is not null on conflict do nothing') -%}
                {%- do sluice_for_keys('insert into sluice_touched select distinct ' ~ recompute_by ~ ' from (' ~ sql ~ ') as wanted where wanted.' ~ column ~ ' = any($1) on conflict do nothing', changed) -%}
            {%- endif -%}
        {%- endif -%}
    {%- endfor -%}
    {%- if run_query('select exists (select from sluice_touched where value is null)')[0][0] -%}
        {%- do sluice_refuse_nulls(name, [unique_key] if unique_key is string else unique_key, recompute_by, '(' ~ sql ~ ') as wanted') -%}
        {%- do run_query('delete from sluice_touched where value is null') -%}
    {%- endif -%}
    {%- do run_query('analyze sluice_touched') -%}
    {%- set count = run_query('select count(*) from sluice_touched')[0][0] | int -%}
    {%- set known = run_query("select greatest(reltuples, 0)::bigint from pg_class where oid = '" ~ target ~ "'::regclass")[0][0] | int -%}
    {{ return({'is_full': count > 1000 and count * 3 > known, 'count': count}) }}
{% endmacro %}


{#-
    Run `statement`, in which $1 stands for the array of what the query `keys` returns. The planner sees the keys as a constant:
    it pushes the filter down through windows and groups to an index, knows how many rows to expect, and hashes the keys
    where it must compare each row. A subquery in their place is compared with every row, one key after another.
-#}
{% macro sluice_for_keys(statement, keys) %}
    {%- do run_query("do $sluice$ begin execute $statement$" ~ statement ~ "$statement$ using array(" ~ keys ~ "); end $sluice$") -%}
{% endmacro %}


{#- A query for the keys of `node` that changed after `mark`, none if nothing did, 'everything' if it was rebuilt. -#}
{% macro sluice_changed_keys(node, mark, column, types, recompute_by) %}
    {%- set relation = api.Relation.create(database=node.database, schema=node.schema, identifier=node.alias) -%}
    {%- if column not in types -%}
        {%- do exceptions.raise_compiler_error(model.name ~ ': touched_by names the column ' ~ column ~ ', which the model does not have') -%}
    {%- endif -%}
    {%- set log = sluice_log_of(node) -%}
    {%- if log -%}
        {%- set batches = run_query("select batch_id from ops.batch where source = '" ~ log.source_name ~ "' and table_name = '" ~ log.name ~ "' and (published_seq > " ~ mark ~ " or superseded_seq > " ~ mark ~ ") and rows_applied + rows_deleted > 0") -%}
        {%- if batches | length == 0 -%}{{ return(none) }}{%- endif -%}
        {%- set entity = node.config.unique_key -%}
        {%- if not entity -%}
            {%- do exceptions.raise_compiler_error(node.name ~ ' needs config(unique_key=…): the key of the entity whose versions it lists') -%}
        {%- endif -%}
        {%- set ids = [] -%}{%- for row in batches -%}{%- do ids.append(row[0] | string) -%}{%- endfor -%}
        {#- Superseded rows too: what they touched must be recomputed without them. All versions of a touched key, because
            an earlier one may have carried another value of `column`. -#}
        {%- set temporary = 'sluice_changed_' ~ local_md5(node.name)[:16] -%}
        {%- do run_query("select set_config('sluice.include_superseded', 'on', true)") -%}
        {%- do run_query('create temporary table ' ~ temporary ~ ' on commit drop as select distinct ' ~ column ~ ' as value from ' ~ relation
            ~ (' where _batch_id in (' ~ ids | join(', ') ~ ')' if column == entity
               else ' where ' ~ entity ~ ' in (select ' ~ entity ~ ' from ' ~ relation ~ ' where _batch_id in (' ~ ids | join(', ') ~ '))')) -%}
        {#- A row without the key that slices the model would belong to no slice: handed on, so that it is looked for and refused. -#}
        {%- set is_lost = column == recompute_by and column != entity
            and run_query('select exists (select from ' ~ relation ~ ' where _batch_id in (' ~ ids | join(', ') ~ ') and ' ~ column ~ " is null and _op is distinct from 'delete')")[0][0] -%}
        {%- do run_query("select set_config('sluice.include_superseded', 'off', true)") -%}
        {{ return('select value::' ~ types[column] ~ ' from ' ~ temporary ~ (' where value is not null' if not is_lost)) }}
    {%- endif -%}
    {%- set input_name = relation.schema ~ '.' ~ relation.identifier -%}
    {%- set changes = run_query("select count(*), coalesce(bool_or(is_full), false) from ops.change where relation = '" ~ input_name ~ "' and seq > " ~ mark)[0] -%}
    {%- if changes[1] -%}{{ return('everything') }}{%- endif -%}
    {%- if changes[0] == 0 -%}{{ return(none) }}{%- endif -%}
    {{ return("select distinct changed_key.key::" ~ types[column] ~ " from ops.changed_key inner join ops.change using (change_id) where change.relation = '" ~ input_name ~ "' and change.seq > " ~ mark) }}
{% endmacro %}


{#- A row without its key could be found by no later run, neither to correct nor to delete it. -#}
{% macro sluice_refuse_nulls(name, keys, recompute_by, rows) %}
    {%- set columns = (keys | list + [recompute_by]) | unique | list -%}
    {%- set lost = run_query('select jsonb_build_array(' ~ columns | join(', ') ~ ')::text from ' ~ rows ~ ' where ' ~ columns | join(' is null or ') ~ ' is null limit 5') -%}
    {%- if lost | length > 0 -%}
        {%- do exceptions.raise_compiler_error(
            'gate: ' ~ name ~ ' would hold rows with NULL in (' ~ columns | join(', ') ~ '), which are its unique_key and recompute_by: ' ~ lost.columns[0].values() | join(', ')
            ~ '. Nothing was written; readers keep the rows they had'
        ) -%}
    {%- endif -%}
{% endmacro %}


{% macro sluice_refuse_duplicates(name, keys) %}
    {%- set list = keys | join(', ') -%}
    {%- set doubles = run_query('select jsonb_build_array(' ~ list ~ ')::text, count(*) from sluice_wanted group by ' ~ list ~ ' having count(*) > 1 order by 2 desc limit 5') -%}
    {%- if doubles | length > 0 -%}
        {%- set samples = [] -%}{%- for row in doubles -%}{%- do samples.append(row[0] ~ ' ×' ~ row[1]) -%}{%- endfor -%}
        {%- do exceptions.raise_compiler_error(
            'gate: ' ~ name ~ ' would hold more than one row per (' ~ list ~ '): ' ~ samples | join(', ')
            ~ '. Nothing was written; readers keep the rows they had'
        ) -%}
    {%- endif -%}
{% endmacro %}


{#- Write what this transaction did, and how far it has read. -#}
{% macro sluice_commit_change(name, code, seq, run_id, started, recompute_by, touched_by, plan, inserted, deleted, created, checks) %}
    {%- set run_id = run_id | replace("'", "''") -%}
    {%- set marks = ["('" ~ name ~ "', 'code:" ~ code ~ "', " ~ seq ~ ")"] -%}
    {%- for input in touched_by -%}{%- do marks.append("('" ~ name ~ "', '" ~ input ~ "', " ~ seq ~ ")") -%}{%- endfor -%}
    {%- do run_query("delete from ops.model_watermark where relation = '" ~ name ~ "'") -%}
    {%- do run_query('insert into ops.model_watermark (relation, input, seq) values ' ~ marks | join(', ')) -%}
    {%- do run_query(
        "insert into ops.model_run (run_id, model, relation, state, rows_inserted, rows_deleted, keys_touched, checks, seconds, started_at) values ('"
        ~ run_id ~ "', '" ~ model.name ~ "', '" ~ name ~ "', '" ~ ('success' if inserted + deleted > 0 or created else 'unchanged') ~ "', "
        ~ inserted ~ ', ' ~ deleted ~ ', ' ~ ('null' if plan.is_full else plan.count) ~ ", '" ~ tojson(checks) | replace("'", "''") ~ "', extract(epoch from clock_timestamp() - '" ~ started ~ "'::timestamptz), '" ~ started ~ "')"
    ) -%}
    {%- if inserted + deleted > 0 or created -%}
        {%- set change = run_query("insert into ops.change (relation, seq, is_full, run_id) values ('" ~ name ~ "', ops.next_seq(), " ~ created ~ ", '" ~ run_id ~ "') returning change_id")[0][0] -%}
        {%- if not created -%}
            {%- do run_query('insert into ops.changed_key (change_id, key) select ' ~ change ~ ', ' ~ recompute_by ~ '::text from sluice_come where ' ~ recompute_by ~ ' is not null union select ' ~ change ~ ', ' ~ recompute_by ~ '::text from sluice_gone where ' ~ recompute_by ~ ' is not null') -%}
        {%- endif -%}
    {%- endif -%}
{% endmacro %}
