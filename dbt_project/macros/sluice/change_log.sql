{#-
    The change log of a declared table, as a thing to select from: rows of active batches only.

        select * from {{ change_log(source('shop', 'orders')) }}

    `set sluice.as_of_seq = '<number>'` shows the log as it was known at that sequence number of `ops.clock`: batches published
    later are hidden, those superseded later are back. It is how `sluice verify` rebuilds from fixed inputs, and how a person
    asks what was known before a correction. The materializations switch `sluice.include_superseded` on for one query, to find
    the keys that a superseded batch touched.

    The inner select is for `--empty`, which gives the relation an alias of its own. The hidden batches are one value, computed
    once: no join, so that the planner still reaches the log by any index of it, and no subquery whose cost it adds to every
    look into the log, the more the longer the ledger grows.
-#}
{% macro change_log(relation) -%}
    (
        select log.*
        from (select * from {{ relation }}) as log
        where not log._batch_id <@ (
            select coalesce(range_agg(int8range(hidden.batch_id, hidden.batch_id, '[]')), '{}'::int8multirange)
            from ops.batch as hidden
            where (
                hidden.superseded_seq <= {{ as_of_seq() }}
                and coalesce(current_setting('sluice.include_superseded', true), '') <> 'on'
            )
            or hidden.published_seq > {{ as_of_seq() }}
        )
    ) as change_log
{%- endmacro %}


{#- The sequence number up to which logs are read: all of it, unless the session says otherwise. -#}
{% macro as_of_seq() -%}
    coalesce(nullif(current_setting('sluice.as_of_seq', true), '')::bigint, 9223372036854775807)
{%- endmacro %}


{#-
    How far all models of this run read the logs. A run of the scheduler: what `pending` wrote. dbt by itself: what is there as its
    first model begins, written in a transaction of its own, or the others would wait for the end of this one's.
-#}
{% macro sluice_read_as_of(run_id) %}
    {%- set run = "'" ~ run_id | replace("'", "''") ~ "'" -%}
    {%- call statement('read_as_of', fetch_result=true, auto_begin=true) -%}
        insert into ops.reads_as_of (run_id, seq)
        select '{{ invocation_id }}', seq from ops.clock
        where coalesce(current_setting('sluice.as_of_seq', true), '') = '' and not exists (select from ops.reads_as_of where run_id = {{ run }})
        on conflict do nothing;
        select coalesce(
            nullif(current_setting('sluice.as_of_seq', true), '')::bigint,
            (select seq from ops.reads_as_of where run_id = {{ run }}),
            (select seq from ops.reads_as_of where run_id = '{{ invocation_id }}')
        )
    {%- endcall -%}
    {%- do adapter.commit() -%}
    {{ return(load_result('read_as_of').table[0][0]) }}
{% endmacro %}


{#- dbt's own tests judge what the models of this run, or command, have read, and not what was published meanwhile. -#}
{% materialization test, adapter='postgres' %}
    {%- do run_query(
        "select set_config('sluice.as_of_seq', seq::text, false) from ops.reads_as_of where run_id in ('" ~ env_var('SLUICE_RUN_ID', '') | replace("'", "''") ~ "', '"
        ~ invocation_id ~ "') and coalesce(current_setting('sluice.as_of_seq', true), '') = '' order by run_id = '" ~ invocation_id ~ "' limit 1"
    ) -%}
    {{ return(materialization_test_default()) }}
{% endmaterialization %}


{#-
    For the transaction that is open: read the logs so far, but never less far than the relation has read them, so that a task of an
    old run that is cleared takes nothing back. Returns the number.
-#}
{% macro sluice_set_as_of(spec, as_of) %}
    {%- set logs = ["''"] -%}
    {%- for node in sluice_inputs(model) if sluice_logs_of(node) -%}{%- do logs.append("'" ~ node.name ~ "'") -%}{%- endfor -%}
    {{ return(run_query(
        "select set_config('sluice.as_of_seq', greatest(" ~ as_of ~ ", max(seq))::text, true)::bigint from ops.model_watermark where relation = '"
        ~ spec.name ~ "' and input in (" ~ logs | join(', ') ~ ')'
    )[0][0]) }}
{% endmacro %}


{#- The log's own columns, last in every staging model. -#}
{% macro log_columns() -%}
    _batch_id,
    _row_number,
    _op,
    _effective_at,
    _sequence,
    _row_hash,
    _rescued
{%- endmacro %}


{#-
    One row per key: its latest version by the source's order (never by arrival), without keys that were deleted.

        select * from {{ current_rows(ref('stg_shop__orders'), 'order_id') }}

    Of what is said of one instant with one number, presence counts more than absence, and then content decides.

    An anti-join and not `distinct on`: as fast for a whole log, and a filter on any column, not only on the key, reaches
    the log's indexes. Batch and row number come last, so that the same version read twice is one row.
-#}
{% macro current_rows(relation, key) -%}
    {%- set keys = [key] if key is string else key -%}
    {%- set order = ['_effective_at', '_sequence', '_op', '_row_hash', '_batch_id', '_row_number'] -%}
    (
        select latest.*
        from (select * from {{ relation }}) as latest
        where latest._op is distinct from 'delete'
            and not exists (
                select
                from (select * from {{ relation }}) as newer
                where {% for name in keys %}newer.{{ name }} = latest.{{ name }}
                    and {% endfor %}row({% for name in order %}newer.{{ name }}{{ ', ' if not loop.last }}{% endfor %})
                    > row({% for name in order %}latest.{{ name }}{{ ', ' if not loop.last }}{% endfor %})
            )
    )
{%- endmacro %}


{#-
    The one version that was true at an instant: half open, so the boundary belongs to the later version.

        left join dim_customer on {{ valid_at('dim_customer', 'orders.customer_id', 'orders.ordered_at') }}

    `dimension` is an alias in the query whose key column has the name of the last part of `key`.
-#}
{% macro valid_at(dimension, key, instant) -%}
    {{ dimension }}.{{ key.split('.') | last }} = {{ key }}
        and {{ instant }} >= {{ dimension }}.valid_from
        and {{ instant }} < {{ dimension }}.valid_to
{%- endmacro %}


{#- The surrogate key of a version: a hash of its business key and the instant it begins, so that two rebuilds agree. -#}
{% macro version_key(keys, valid_from) -%}
    md5(
        convert_to(jsonb_build_array({{ keys | join(', ') }})::text, 'UTF8') || timestamptz_send({{ valid_from }})
    )::uuid
{%- endmacro %}
