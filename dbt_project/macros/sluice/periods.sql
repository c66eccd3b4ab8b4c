{#-
    Closed periods. `sluice period lock` says that the rows of a relation between two days are final; the model says where a correction
    goes: `closed_periods={'column': 'inventory_date', 'correction': 'refuse'}`.

      refuse          it waits: nothing of its slice is written until the period is unlocked
      restate         it is written, and counted
      current_period  a row that is new gets the first open day in `column`; a correction of a row that is there waits

    Whatever is decided stands in ops.period_correction, one row per slice. A slice that waits or was moved is looked at again in every
    run, so that it lands where it belongs once the period is open.
-#}
{% macro sluice_period_locks(spec, shape) %}
    {%- set locks = run_query("select exists (select from ops.period_lock where relation = '" ~ spec.name ~ "' and unlocked_at is null)")[0][0] -%}
    {%- if locks and not config.get('closed_periods') -%}
        {%- do exceptions.raise_compiler_error(model.name ~ ' has a locked period and declares no closed_periods, so nothing says where a correction goes. Nothing was written') -%}
    {%- endif -%}
    {%- if locks and not shape.has_grain -%}
        {%- do exceptions.raise_compiler_error(spec.name ~ ' has a locked period, and would be made anew (it was dropped, or its unique_key or partition_by changed): what was closed could not be kept. Nothing was written. Unlock it first: sluice period list') -%}
    {%- endif -%}
    {{ return(locks) }}
{% endmacro %}


{#- The slices whose correction waits or was moved are touched again. -#}
{% macro sluice_touch_waiting(spec, types) %}
    {%- if not config.get('closed_periods') -%}{{ return(none) }}{%- endif -%}
    {%- set values = [] -%}
    {%- for column in spec.slice -%}{%- do values.append('(key::jsonb ->> ' ~ loop.index0 ~ ')::' ~ types[column]) -%}{%- endfor -%}
    {%- do run_query('insert into sluice_found select ' ~ values | join(', ') ~ " from ops.period_correction where relation = '" ~ spec.name ~ "' and decision in ('waits', 'moved')") -%}
{% endmacro %}


{#- Give new rows of a closed period the first open day, and those that have one already the day they have. `present`: the rows there are. -#}
{% macro sluice_move_to_open(spec, present) %}
    {%- set column = config.get('closed_periods').column -%}
    {%- set others = spec.grain | reject('equalto', column) | list -%}
    {%- do run_query(
        'create temporary table sluice_moved on commit drop as select ' ~ sluice_slice_key(spec, 'wanted') ~ ' as key, wanted.ctid as row_id, wanted.' ~ column ~ ' as was, coalesce('
        ~ '(select max(present.' ~ column ~ ') from ' ~ present ~ ' as present where ' ~ sluice_same(others, 'present', 'wanted') ~ '),'
        ~ " (select max(lock.period_to) from ops.period_lock as lock where lock.relation = '" ~ spec.name ~ "' and lock.unlocked_at is null)) as becomes from sluice_wanted as wanted"
        ~ ' where ' ~ sluice_is_closed(spec, 'wanted') ~ ' and not exists (select from ' ~ present ~ ' as present where ' ~ sluice_same(others, 'present', 'wanted') ~ ' and ' ~ sluice_is_closed(spec, 'present') ~ ')'
    ) -%}
    {%- do run_query('update sluice_wanted as wanted set ' ~ column ~ ' = moved.becomes from sluice_moved as moved where wanted.ctid = moved.row_id') -%}
    {%- do run_query("insert into ops.period_correction (relation, key, decision, period, rows, run_id) select '" ~ spec.name ~ "', key, 'moved', min(was)::date, count(*), '" ~ spec.run_id | replace("'", "''")
        ~ "' from sluice_moved group by key on conflict (relation, key, decision) do nothing") -%}
{% endmacro %}


{#- Take corrections of closed periods out of sluice_come and sluice_gone, or count them, as the model declares. -#}
{% macro sluice_hold_corrections(spec) %}
    {%- set key, run_id = sluice_slice_key(spec, 'changed'), spec.run_id | replace("'", "''") -%}
    {%- set decision = 'restated' if config.get('closed_periods').correction == 'restate' else 'waits' -%}
    {%- set column = config.get('closed_periods').column -%}
    {%- do run_query(
        'create temporary table sluice_corrected on commit drop as select ' ~ key ~ ' as key, min(' ~ column ~ ')::date as period, count(*) as rows from (select * from sluice_come union all select * from sluice_gone) as changed where '
        ~ sluice_is_closed(spec, 'changed') ~ ' group by 1'
    ) -%}
    {%- do run_query(
        "insert into ops.period_correction (relation, key, decision, period, rows, run_id) select '" ~ spec.name ~ "', key, '" ~ decision ~ "', period, rows, '" ~ run_id
        ~ "' from sluice_corrected on conflict (relation, key, decision) do update set rows = excluded.rows, run_id = excluded.run_id"
    ) -%}
    {%- if decision == 'waits' -%}
        {%- for rows in ('sluice_come', 'sluice_gone') -%}
            {%- do run_query('delete from ' ~ rows ~ ' as changed using sluice_corrected as corrected where corrected.key = ' ~ key) -%}
        {%- endfor -%}
    {%- endif -%}
{% endmacro %}


{#- What waited or was moved, and no longer is, is done. -#}
{% macro sluice_settle_corrections(spec, plan) %}
    {%- set still = [] -%}
    {%- for name in ('sluice_corrected', 'sluice_moved') if run_query("select to_regclass('pg_temp." ~ name ~ "') is not null")[0][0] -%}{%- do still.append('select key from ' ~ name) -%}{%- endfor -%}
    {%- do run_query("delete from ops.period_correction where relation = '" ~ spec.name ~ "' and decision in ('waits', 'moved')"
        ~ (' and key not in (' ~ still | join(' union ') ~ ')' if still)) -%}
{% endmacro %}


{% macro sluice_is_closed(spec, alias) -%}
    exists (
        select from ops.period_lock as lock
        where lock.relation = '{{ spec.name }}' and lock.unlocked_at is null
            and {{ alias }}.{{ config.get('closed_periods').column }} >= lock.period_from
            and {{ alias }}.{{ config.get('closed_periods').column }} < lock.period_to
    )
{%- endmacro %}


{#- A slice as one text, always as an array. -#}
{% macro sluice_slice_key(spec, alias) -%}
    jsonb_build_array({{ sluice_prefixed(spec.slice, alias) }})::text
{%- endmacro %}
