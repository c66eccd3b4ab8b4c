{#- Write what this transaction did, and how far it has read. -#}
{% macro sluice_commit_change(spec, shape, plan, done, checks) %}
    {%- set run_id = spec.run_id | replace("'", "''") -%}
    {%- set has_changes = done.inserted + done.deleted > 0 or shape.created -%}
    {%- set marks = ["('" ~ spec.name ~ "', 'code:" ~ spec.code ~ "', " ~ spec.seq ~ ")"] -%}
    {%- for node in sluice_inputs(model) -%}
        {%- do marks.append("('" ~ spec.name ~ "', '" ~ node.name ~ "', " ~ (spec.as_of if sluice_logs_of(node) else spec.seq) ~ ")") -%}
    {%- endfor -%}
    {%- do run_query("delete from ops.model_watermark where relation = '" ~ spec.name ~ "'") -%}
    {%- do run_query('insert into ops.model_watermark (relation, input, seq) values ' ~ marks | join(', ')) -%}
    {%- set run = run_query(
        "insert into ops.model_run (run_id, model, relation, state, rows_inserted, rows_deleted, keys_touched, checks, seconds, started_at) values ('"
        ~ run_id ~ "', '" ~ model.name ~ "', '" ~ spec.name ~ "', '" ~ ('success' if has_changes else 'unchanged') ~ "', "
        ~ done.inserted ~ ', ' ~ done.deleted ~ ', ' ~ ('null' if plan.is_full else plan.count) ~ ", '" ~ tojson(checks) | replace("'", "''")
        ~ "', extract(epoch from clock_timestamp() - '" ~ spec.started ~ "'::timestamptz), '" ~ spec.started ~ "') returning model_run_id, pg_stat_force_next_flush()"
    )[0] -%}
    {%- do spec.update({'model_run_id': run[0]}) -%}
    {%- if not has_changes -%}{{ return(none) }}{%- endif -%}
    {%- set is_full = shape.created or not shape.has_grain or done.come == spec.target -%}
    {%- if is_full -%}{%- do run_query("delete from ops.retired_key where relation = '" ~ spec.name ~ "'") -%}{%- else -%}{%- do sluice_changed_ranges(spec) -%}{%- endif -%}
    {%- set asked = [] if is_full else sluice_asked_of(model, sluice_column_types('sluice_come')) -%}
    {%- set change = run_query("insert into ops.change (relation, seq, is_full, noted, run_id) values ('" ~ spec.name ~ "', ops.next_seq(), " ~ is_full ~ ", string_to_array('" ~ asked | join(';') ~ "', ';'), '" ~ run_id ~ "') returning change_id, seq")[0] -%}
    {%- if not is_full -%}
        {%- do run_query('insert into ops.changed_key (change_id, key, changed_from, changed_to) select ' ~ change[0] ~ ', key, changed_from, changed_to from sluice_ranges') -%}
        {%- for columns in asked -%}
            {%- do run_query('insert into ops.changed_key (change_id, key, key_of) select ' ~ change[0] ~ ', ' ~ sluice_key_text(columns.split(', ')) ~ ", '" ~ columns ~ "' from (select "
                ~ columns ~ ' from sluice_come union select ' ~ columns ~ ' from sluice_gone) as changed where (' ~ columns ~ ') is not null') -%}
        {%- endfor -%}
        {%- if sluice_pointers_to(model) -%}
            {%- do run_query("insert into ops.retired_key (relation, key, seq) select '" ~ spec.name ~ "', " ~ spec.grain[0] ~ '::text, ' ~ change[1] ~ ' from sluice_gone where sluice_stays') -%}
        {%- endif -%}
    {%- endif -%}
{% endmacro %}


{#- A key as one text, as ops.changed_key has it. -#}
{% macro sluice_key_text(columns) -%}
    {{ columns[0] ~ '::text' if columns | length == 1 else 'jsonb_build_array(' ~ columns | join(', ') ~ ')::text' }}
{%- endmacro %}


{#- WAL that this session has written, as far as its transactions have ended: the statistics know no earlier. -#}
{% macro sluice_wal_of_session() -%}
    coalesce((select wal_bytes::bigint from pg_stat_get_backend_wal(pg_backend_pid())), 0)
{%- endmacro %}


{#- What the transaction that has just been committed wrote; if this is never reached, it is not known. -#}
{% macro sluice_charge_wal(spec) %}
    {%- call statement('charge', auto_begin=true) -%}
        set local synchronous_commit = off;
        update ops.model_run set wal_bytes = {{ sluice_wal_of_session() }} - {{ spec.wal }} where model_run_id = {{ spec.model_run_id }}
    {%- endcall -%}
    {%- do adapter.commit() -%}
{% endmacro %}


{#-
    sluice_ranges(key, changed_from, changed_to): which keys changed and, of a relation with validity, between which instants the
    answer to "which row held at t" is another one now. A row whose end alone moved answers differently only between the two ends.
-#}
{% macro sluice_changed_ranges(spec) %}
    {%- set key = sluice_key_text(spec.slice) -%}
    {%- if not spec.validity -%}
        {%- do run_query('create temporary table sluice_ranges on commit drop as select ' ~ key ~ " as key, '-infinity'::timestamptz as changed_from, 'infinity'::timestamptz as changed_to from (select "
            ~ spec.slice | join(', ') ~ ' from sluice_come union select ' ~ spec.slice | join(', ') ~ ' from sluice_gone) as changed') -%}
        {{ return(none) }}
    {%- endif -%}
    {%- set begins, ends = spec.validity.from, spec.validity.to -%}
    {%- set content = [] -%}
    {%- for column in sluice_column_types('sluice_come') if column not in (ends, spec.validity.current) -%}{%- do content.append(column) -%}{%- endfor -%}
    {%- set columns = content | join(', ') ~ ", coalesce(" ~ ends ~ ", 'infinity') as " ~ ends -%}
    {%- do run_query(
        'create temporary table sluice_ranges on commit drop as'
        ~ ' with come as materialized (select ' ~ columns ~ " from sluice_come), gone as materialized (select " ~ columns ~ ' from sluice_gone),'
        ~ ' moved as (select come.' ~ spec.grain | join(', come.') ~ ', least(come.' ~ ends ~ ', gone.' ~ ends ~ ') as changed_from, greatest(come.' ~ ends ~ ', gone.' ~ ends ~ ') as changed_to'
        ~ ' from come inner join gone on ' ~ sluice_same(spec.grain, 'come', 'gone')
        ~ ' where come.' ~ ends ~ ' <> gone.' ~ ends ~ ' and row(' ~ sluice_prefixed(content, 'come') ~ ')::record *= row(' ~ sluice_prefixed(content, 'gone') ~ ')::record),'
        ~ ' spans as ('
        ~ ' select ' ~ key ~ " as key, coalesce(moved.changed_from, rows." ~ begins ~ ", '-infinity') as changed_from, coalesce(moved.changed_to, rows." ~ ends ~ ") as changed_to"
        ~ ' from (table come union all table gone) as rows left join moved using (' ~ spec.grain | join(', ') ~ '))'
        ~ ' select key, lower(span) as changed_from, upper(span) as changed_to'
        ~ " from (select key, unnest(range_agg(tstzrange(changed_from, greatest(changed_from, changed_to)))) as span from spans group by key) as ranges"
    ) -%}
{% endmacro %}
