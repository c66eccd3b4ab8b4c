{#-
    materialized='convergent': an incremental model that always equals a clean rebuild. The reference, with examples, is
    docs/reference/convergent-models.md.
-#}
{% materialization convergent, adapter='postgres', supported_languages=['sql'] %}
    {%- set spec = sluice_spec(sql, config.require('unique_key'), config.get('recompute_by'), config.get('touched_by', {}), config.get('validity')) -%}
    {%- do sluice_check_inputs(spec) -%}
    {{ return({'relations': [sluice_converge(spec)]}) }}
{% endmaterialization %}


{#-
    What the macros of this folder hand around: {name, target, sql, grain, slice: the columns whose values are
    recomputed as a whole, touched_by: {input: {columns, by, is_lookup, at, through, unless_in} or none}, validity: {from, to, current} or none}.
-#}
{% macro sluice_spec(sql, unique_key, recompute_by, touched_by, validity) %}
    {%- set target = this.incorporate(type='table') -%}
    {%- set keys = sluice_list(unique_key) -%}
    {%- set inputs = {} -%}
    {%- for input, touch in touched_by.items() -%}
        {%- if touch is none -%}{%- do inputs.update({input: none}) -%}
        {%- elif touch is mapping -%}
            {%- for word in touch if word not in ('column', 'by', 'lookup', 'at', 'through', 'unless_in') -%}
                {%- do exceptions.raise_compiler_error(model.name ~ ": touched_by of " ~ input ~ " has '" ~ word ~ "'; it may have column, by, lookup, at, through, unless_in") -%}
            {%- endfor -%}
            {%- do inputs.update({input: {'columns': sluice_list(touch.column), 'at': touch.get('at'), 'is_lookup': touch.get('lookup', false) or 'at' in touch, 'unless_in': touch.get('unless_in')}}) -%}
            {%- if touch.by -%}{%- do inputs[input].update({'by': sluice_list(touch.by)}) -%}{%- endif -%}
            {%- if touch.through -%}{%- do inputs[input].update({'through': touch.through if touch.through is mapping else {'input': touch.through}}) -%}{%- endif -%}
        {%- else -%}{%- do inputs.update({input: {'columns': sluice_list(touch), 'at': none, 'is_lookup': false, 'unless_in': none}}) -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return({
        'name': target.schema ~ '.' ~ target.identifier,
        'target': target,
        'sql': sluice_without_retired(sql ~ '\n', inputs),
        'grain': keys,
        'slice': sluice_list(recompute_by) if recompute_by else keys,
        'touched_by': inputs,
        'validity': validity,
    }) }}
{% endmacro %}


{% macro sluice_list(value) %}
    {{ return([value] if value is string else value | list) }}
{% endmacro %}


{#- The heart: one transaction that takes a relation from what it is to what its query says, at the cost of what changed. -#}
{% macro sluice_converge(spec) %}
    {%- set target = spec.target -%}
    {%- if flags.EMPTY -%}
        {#- `dbt build --empty` proves that the SQL runs; an empty input must never empty a table. -#}
        {%- if load_cached_relation(this) is none -%}
            {%- do sluice_create(spec) -%}
        {%- endif -%}
        {%- call statement('main') -%} select * from ({{ spec.sql }}) as probe where false {%- endcall -%}
        {%- do adapter.commit() -%}
        {{ return(target) }}
    {%- endif -%}

    {%- do sluice_refuse_autocommit(spec.name) -%}
    {{ run_hooks(pre_hooks, inside_transaction=False) }}
    {%- do spec.update({'run_id': env_var('SLUICE_RUN_ID', invocation_id)}) -%}
    {%- set as_of = sluice_read_as_of(spec.run_id) -%}
    {%- do sluice_begin() -%}
    {{ run_hooks(pre_hooks, inside_transaction=True) }}
    {%- do run_query("select set_config('timezone', 'UTC', true), set_config('datestyle', 'ISO, YMD', true), set_config('client_min_messages', 'warning', true)") -%}
    {%- do run_query('select pg_advisory_xact_lock(' ~ sluice_lock(spec.name) ~ ')') -%}
    {%- set begun = run_query('select clock_timestamp()::text, seq, ' ~ sluice_wal_of_session() ~ ' from ops.clock')[0] -%}
    {%- do spec.update({'started': begun[0], 'seq': begun[1], 'wal': begun[2], 'as_of': sluice_set_as_of(spec, as_of)}) -%}

    {#- 1. what the relation must become: its columns, and how much of it -#}
    {%- set shape = sluice_prepare_target(spec) -%}
    {%- do spec.update({'code': sluice_code(spec)}) -%}
    {%- do sluice_expect_cached_pages() -%}
    {%- set plan = sluice_touched(spec, shape) -%}
    {%- if plan.is_full -%}{%- do run_query('set local seq_page_cost = default; set local random_page_cost = default; set local enable_mergejoin = default') -%}{%- endif -%}

    {#- 2. the rows it should have, for what was touched, and the difference -#}
    {%- if plan.is_full or plan.count > 0 -%}
        {%- set done = sluice_write_difference(spec, shape, plan) -%}
        {%- if done is none -%}{{ return(sluice_converge(spec)) }}{%- endif -%}
    {%- else -%}
        {%- call statement('main') -%} select 'nothing changed upstream of {{ spec.name }}' {%- endcall -%}
        {%- set done = {'inserted': 0, 'deleted': 0, 'come': none} -%}
    {%- endif -%}

    {#- 3. the gate: a failed blocking test raises, and the transaction is rolled back -#}
    {%- set checks = sluice_gate(spec, done.come) -%}

    {%- do apply_grants(target, config.get('grants'), should_revoke=should_revoke(not shape.created, full_refresh_mode=False)) -%}
    {%- do persist_docs(target, model) -%}
    {{ run_hooks(post_hooks, inside_transaction=True) }}

    {#- 4. the ledger, last, because its counter orders commits and must be held briefly -#}
    {%- do sluice_commit_change(spec, shape, plan, done, checks) -%}
    {%- do adapter.commit() -%}
    {%- do sluice_charge_wal(spec) -%}
    {%- do sluice_purge_retired(spec) -%}
    {{ run_hooks(post_hooks, inside_transaction=False) }}
    {{ return(target) }}
{% endmacro %}


{% macro sluice_refuse_autocommit(name) %}
    {%- if target.autocommit -%}
        {%- do exceptions.raise_compiler_error('the dbt profile says autocommit: readers would see half of ' ~ name ~ '. Nothing was written. Take autocommit out of the profile') -%}
    {%- endif -%}
{% endmacro %}


{#- dbt leaves this to its driver, which begins the first transaction of a connection only: after a commit, statements stand alone. -#}
{% macro sluice_begin() %}
    {%- call statement('begin') -%} begin {%- endcall -%}
{% endmacro %}


{#-
    What a run touches was mostly touched lately, and is in memory: looking it up by key is much cheaper than the planner expects, beside
    reading all of a table (40,000 orders in a log of 10 million lines: 1.6 s instead of 2.4). It makes one thing look too cheap: a merge join reads all rows
    of a table in the order of an index, here and there (28,000 facts beside 530,000 customers: 0.8 s; by hash or lookup 0.25). For this transaction.
-#}
{% macro sluice_expect_cached_pages() %}
    {%- do run_query('set local seq_page_cost = 0.1; set local random_page_cost = 0.1; set local enable_mergejoin = off') -%}
{% endmacro %}


{#- The key of the advisory lock that everyone who writes a relation holds until the end of the transaction. -#}
{% macro sluice_lock(name) -%}
    hashtextextended('sluice:{{ name }}', 0)
{%- endmacro %}


{#-
    Compute the rows of the slices, and write what differs: temporary tables sluice_wanted (what should be), sluice_come and
    sluice_gone (what is written and removed). Returns {inserted, deleted, come: the relation that holds the rows that are new}; none if
    nothing was done yet but to commit partitions, and the model must begin anew.
-#}
{% macro sluice_write_difference(spec, shape, plan) %}
    {%- set target, keys = spec.target, spec.grain -%}
    {%- set names = adapter.get_columns_in_relation(target) | map(attribute='quoted') | list -%}
    {%- set columns = names | join(', ') -%}
    {%- set rows = 'select ' ~ columns ~ ' from (' ~ spec.sql ~ ') as wanted' -%}

    {%- set has_locks = sluice_period_locks(spec, shape) -%}
    {%- if plan.is_full and not sluice_partition_column(spec) and not has_locks and not run_query('select exists (select from ' ~ target ~ ')')[0][0] -%}
        {#- Nothing to compare with: straight into the table. -#}
        {%- call statement('main') -%} {{ sluice_guarded('insert into ' ~ target ~ ' (' ~ columns ~ ') ' ~ rows) }} {%- endcall -%}
        {%- do sluice_refuse_nulls(spec, target) -%}
        {%- do sluice_refuse_overlaps(spec, target) -%}
        {%- do sluice_create_own_indexes(spec) -%}
        {%- do run_query('analyze ' ~ target) -%}
        {{ return({'inserted': run_query('select count(*) from ' ~ target)[0][0] | int, 'deleted': 0, 'come': target}) }}
    {%- endif -%}

    {%- do run_query('create temporary table sluice_wanted on commit drop as select ' ~ columns ~ ' from ' ~ target ~ ' where false') -%}
    {%- if plan.is_full -%}
        {%- do run_query(sluice_guarded('insert into sluice_wanted ' ~ rows)) -%}
        {%- set present = '(select ' ~ columns ~ ' from ' ~ target ~ ')' -%}
    {%- else -%}
        {%- for part in sluice_parts(spec) -%}
            {%- do sluice_for_keys('insert into sluice_wanted select ' ~ columns ~ ' from (' ~ sluice_narrowed(spec, part.sql) ~ ') as wanted where ' ~ sluice_in_slice(spec, 'wanted', part.rows), spec.slice, part.rows) -%}
        {%- endfor -%}
        {%- set present = 'sluice_present' -%}
        {%- do run_query('create temporary table sluice_present on commit drop as select ' ~ columns ~ ' from ' ~ target ~ ' where false') -%}
        {%- do sluice_for_keys('insert into sluice_present select ' ~ columns ~ ' from ' ~ target ~ ' as present where ' ~ sluice_in_slice(spec, 'present'), spec.slice, 'sluice_touched') -%}
        {%- do sluice_analyze(spec, 'sluice_present') -%}
    {%- endif -%}
    {%- do sluice_analyze(spec, 'sluice_wanted') -%}
    {%- do sluice_refuse_nulls(spec, 'sluice_wanted') -%}
    {%- if has_locks and config.get('closed_periods').correction == 'current_period' -%}{%- do sluice_move_to_open(spec, present) -%}{%- endif -%}
    {%- do sluice_refuse_duplicates(spec, 'sluice_wanted') -%}
    {%- do sluice_refuse_overlaps(spec, 'sluice_wanted') -%}
    {%- if sluice_commits_partitions(spec, shape, 'sluice_wanted') -%}{{ return(none) }}{%- endif -%}

    {%- set fresh = [] -%}
    {%- if shape.has_grain -%}
        {#- By key and then by the bytes of the row: exact, and much less work than `except` over wide rows. Rows are put side by side once. -#}
        {%- set pairs = ['wanted.ctid as sluice_wanted_at'] -%}
        {%- for name in names -%}{%- do pairs.append('present.' ~ name) -%}{%- endfor -%}
        {%- do run_query('create temporary table sluice_pairs on commit drop as select ' ~ pairs | join(', ') ~ ' from sluice_wanted as wanted full join ' ~ present ~ ' as present on '
            ~ sluice_same(keys, 'wanted', 'present') ~ ' where wanted.' ~ keys[0] ~ ' is null or present.' ~ keys[0] ~ ' is null or wanted.* *<> present.*') -%}
        {%- do run_query('create temporary table sluice_come on commit drop as select wanted.* from sluice_wanted as wanted inner join sluice_pairs as pairs on pairs.sluice_wanted_at = wanted.ctid') -%}
        {%- do run_query('create temporary table sluice_gone on commit drop as select ' ~ columns ~ ' from sluice_pairs where ' ~ keys[0] ~ ' is not null') -%}
        {%- if has_locks -%}{%- do sluice_hold_corrections(spec) -%}{%- endif -%}
        {%- do sluice_retire(spec) -%}
        {%- if sluice_is_unique_by_grain_alone(spec) -%}
            {#- A row that stays under its key is updated in place: where no indexed column changes, no index is written. -#}
            {%- set replaced = 'exists (select from sluice_gone as gone where ' ~ sluice_same(keys, 'come', 'gone') ~ ')' -%}
            {%- do run_query(sluice_guarded('update ' ~ target ~ ' as present set (' ~ columns ~ ') = row(' ~ sluice_prefixed(names, 'come') ~ ') from sluice_come as come where '
                ~ sluice_same(keys, 'present', 'come') ~ ' and ' ~ replaced)) -%}
            {%- do run_query('delete from ' ~ target ~ ' as present using sluice_gone as gone where ' ~ sluice_same(keys, 'present', 'gone')
                ~ ' and not gone.sluice_stays and not exists (select from sluice_come as come where ' ~ sluice_same(keys, 'come', 'gone') ~ ')') -%}
            {%- do fresh.append(' as come where not ' ~ replaced) -%}
        {%- else -%}
            {%- do run_query('delete from ' ~ target ~ ' as present using sluice_gone as gone where ' ~ sluice_same(keys, 'present', 'gone') ~ ' and not gone.sluice_stays') -%}
        {%- endif -%}
        {%- if plan.is_full -%}
            {%- do run_query('delete from ' ~ target ~ ' where ' ~ keys | join(' is null or ') ~ ' is null') -%}
        {%- endif -%}
    {%- else -%}
        {#- The rows present are of another grain: its key does not tell them apart. -#}
        {%- do run_query('create temporary table sluice_gone on commit drop as select ' ~ columns ~ ', false as sluice_stays from ' ~ target) -%}
        {%- do run_query('create temporary table sluice_come on commit drop as table sluice_wanted') -%}
        {%- do run_query('delete from ' ~ target) -%}
    {%- endif -%}
    {%- if config.get('closed_periods') -%}{%- do sluice_settle_corrections(spec, plan) -%}{%- endif -%}
    {%- do sluice_ensure_partitions(spec, 'sluice_come') -%}
    {%- call statement('main') -%}
        {{ sluice_guarded('insert into ' ~ target ~ ' (' ~ columns ~ ') select ' ~ columns ~ ' from sluice_come' ~ fresh | join) }}
    {%- endcall -%}
    {%- do sluice_create_own_indexes(spec) -%}
    {%- do sluice_analyze(spec, 'sluice_come') -%}
    {#- Its readers are next, and autovacuum may not have come by: without statistics they would plan for an empty table. -#}
    {%- if plan.is_full -%}{%- do run_query('analyze ' ~ target) -%}{%- endif -%}
    {%- set counts = run_query('select (select count(*) from sluice_come), (select count(*) from sluice_gone)')[0] -%}
    {{ return({'inserted': counts[0] | int, 'deleted': counts[1] | int, 'come': 'sluice_come'}) }}
{% endmacro %}


{#-
    Whether rows can be updated in place: under a second unique index, such as a snapshot's, two rows that swap their values would
    collide on the way, which a delete before the insert avoids.
-#}
{% macro sluice_is_unique_by_grain_alone(spec) %}
    {{ return(run_query(
        "select not exists (select from pg_index inner join pg_class on pg_class.oid = indexrelid where indrelid = '" ~ spec.target
        ~ "'::regclass and (indisunique or indisexclusion) and relname <> '" ~ spec.target.identifier[:50] ~ "__grain')"
    )[0][0]) }}
{% endmacro %}


{#- Statistics of the columns that rows are joined by: looking at every column of a wide row costs more than writing it. -#}
{% macro sluice_analyze(spec, rows) %}
    {%- do run_query('analyze ' ~ rows ~ ' (' ~ (spec.grain + spec.slice) | unique | join(', ') ~ ')') -%}
{% endmacro %}


{#-
    The query, and the touched slices to run it for. Of inputs that only mention keys (`unless_in`), nothing is read for slices that
    the other input has: the query for those is without them, or all orders of a customer would be read to learn that she is known.
-#}
{% macro sluice_parts(spec) %}
    {%- set sql, others = [spec.sql], [] -%}
    {%- for node in sluice_inputs(model) if (spec.touched_by[node.name] or {}).get('unless_in') and spec.touched_by[node.name]['columns'] == spec.slice -%}
        {%- set relation = sluice_relation(node) -%}
        {%- do sql.append(sluice_reading(sql.pop(), relation, '(select * from ' ~ relation ~ ' where false)')) -%}
        {%- do others.append(spec.touched_by[node.name].unless_in) -%}
    {%- endfor -%}
    {%- if others | unique | list | length != 1 -%}{{ return([{'sql': spec.sql, 'rows': 'sluice_touched'}]) }}{%- endif -%}
    {%- set holder = sluice_relation_of(others[0]) -%}
    {%- set known = 'exists (select from ' ~ holder ~ ' as known where ' ~ sluice_same(spec.slice, 'known', 'touched') ~ ')' -%}
    {%- set parts = [] -%}
    {%- for part in [{'sql': sql[0], 'rows': 'known', 'where': known}, {'sql': spec.sql, 'rows': 'unknown', 'where': 'not ' ~ known}] -%}
        {%- set rows = 'sluice_' ~ part.rows -%}
        {%- do run_query('create temporary table ' ~ rows ~ ' on commit drop as select * from sluice_touched as touched where ' ~ part.where) -%}
        {%- if run_query('select exists (select from ' ~ rows ~ ')')[0][0] -%}{%- do parts.append({'sql': part.sql, 'rows': rows}) -%}{%- endif -%}
    {%- endfor -%}
    {{ return(parts) }}
{% endmacro %}


{#-
    The query, in which views that are keyed by the slice itself are read for the touched slices only: a row of theirs matters to the slice of
    its own key, as `touched_by` says of their log. Postgres carries `= any` over no join: it would look up each row's parent by itself, or read all
    parents. Not where the version of a key may be in another slice, which it would hide.
-#}
{% macro sluice_narrowed(spec, sql) %}
    {%- set text = [sql] -%}
    {%- for node_id in model.depends_on.nodes if node_id in graph.nodes -%}
        {%- set node = graph.nodes[node_id] -%}
        {%- if node.config.materialized == 'view' and sluice_list(node.config.unique_key or []) == spec.slice -%}
            {%- for input in [node] + sluice_inputs(node) if sluice_logs_of(input) and (spec.touched_by[input.name] or {}).get('columns') == spec.slice and sluice_list(input.config.unique_key) == spec.slice -%}
                {%- if loop.first -%}
                    {%- set relation = sluice_relation(node) -%}
                    {%- do text.append(sluice_reading(text.pop(), relation, '(select * from ' ~ relation ~ ' as narrowed where ' ~ sluice_any(spec.slice, 'narrowed') ~ ')')) -%}
                {%- endif -%}
            {%- endfor -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return(text[0]) }}
{% endmacro %}


{#- `left.a = right.a and …` -#}
{% macro sluice_same(columns, left, right) -%}
    {%- for column in columns -%} {{ left }}.{{ column }} = {{ right }}.{{ column }}{{ ' and ' if not loop.last }} {%- endfor -%}
{%- endmacro %}


{#- A row without its key could be found by no later run, neither to correct nor to delete it. -#}
{% macro sluice_refuse_nulls(spec, rows) %}
    {%- set columns = (spec.grain + spec.slice) | unique | list -%}
    {%- set lost = run_query('select ' ~ sluice_shown_key(columns) ~ ' from ' ~ rows ~ ' where ' ~ columns | join(' is null or ') ~ ' is null limit 5') -%}
    {%- if lost | length > 0 -%}
        {%- do exceptions.raise_compiler_error(
            'gate: ' ~ spec.name ~ ' would hold rows with NULL in (' ~ columns | join(', ') ~ '), which are its unique_key and recompute_by: ' ~ lost.columns[0].values() | join(', ')
            ~ '. Nothing was written; readers keep the rows they had'
        ) -%}
    {%- endif -%}
{% endmacro %}


{% macro sluice_refuse_duplicates(spec, rows) %}
    {%- set list = spec.grain | join(', ') -%}
    {%- set doubles = run_query('select ' ~ sluice_shown_key(spec.grain) ~ ', times from (select ' ~ list ~ ', count(*) as times from ' ~ rows ~ ' group by ' ~ list ~ ' having count(*) > 1) as doubled order by times desc limit 5') -%}
    {%- if doubles | length > 0 -%}
        {%- set samples = [] -%}{%- for row in doubles -%}{%- do samples.append(row[0] ~ ' ×' ~ row[1]) -%}{%- endfor -%}
        {%- do exceptions.raise_compiler_error(
            'gate: ' ~ spec.name ~ ' would hold more than one row per (' ~ list ~ '): ' ~ samples | join(', ')
            ~ '. Nothing was written; readers keep the rows they had'
        ) -%}
    {%- endif -%}
{% endmacro %}


{#- Versions of a slice follow each other: a row that began before the previous one ended would answer one question twice. -#}
{% macro sluice_refuse_overlaps(spec, rows) %}
    {%- if not spec.validity -%}{{ return(none) }}{%- endif -%}
    {%- set begins, ends, slice = spec.validity.from, spec.validity.to, spec.slice | join(', ') -%}
    {%- set found = run_query('select distinct ' ~ sluice_shown_key(spec.slice) ~ ' from (select ' ~ slice ~ ', ' ~ begins ~ ', coalesce(' ~ ends ~ ", 'infinity') as closes, lag(coalesce(" ~ ends ~ ", 'infinity')) over (partition by "
        ~ slice ~ ' order by ' ~ begins ~ ') as previous from ' ~ rows ~ ') as chained where previous > ' ~ begins ~ ' or closes <= ' ~ begins ~ ' limit 5') -%}
    {%- if found | length > 0 -%}
        {%- do exceptions.raise_compiler_error(
            'gate: ' ~ spec.name ~ ' would hold versions that overlap or are empty, for (' ~ slice ~ ') = ' ~ found.columns[0].values() | join(' ')
            ~ '. Nothing was written; readers keep the rows they had'
        ) -%}
    {%- endif -%}
{% endmacro %}


{#-
    `statement`, so that an error about a value does not carry the value: Postgres quotes it, and dbt prints that in the task's log.
    What kind of error, and of which column where Postgres says so, remains. A developer in schemas of their own sees all of it;
    the schemas of `sluice verify` and `sluice rebuild` are nobody's own.
-#}
{% macro sluice_guarded(statement, using='', what='') -%}
    {%- set using = ' using ' ~ using if using -%}
    {%- if env_var('SLUICE_SCHEMA_PREFIX', '') not in ('', 'sluice_verify') -%}
        do $sluice$ begin execute $statement${{ statement }}$statement${{ using }}; end $sluice$
    {%- else -%}
        do $sluice$
        declare
            place text;
        begin
            execute $statement${{ statement }}$statement${{ using }};
        exception when data_exception or integrity_constraint_violation then
            get stacked diagnostics place = column_name;
            raise exception using
                errcode = sqlstate,
                message = '{{ what | replace("'", "''") }}a value cannot be computed or stored (' || sqlstate || coalesce(', column ' || nullif(place, ''), '')
                    || '); it is not shown here, since it may be personal',
                hint = 'Nothing was written. To see it, build this model in make dev; what SQLSTATE means: PostgreSQL, appendix A.';
        end $sluice$
    {%- endif -%}
{%- endmacro %}
