{#-
    The change log of a declared table, as a thing to select from: rows of active batches only.

    The inner select is for `--empty`, which gives the relation an alias of its own. The materializations switch `sluice.include_superseded` on for one query, to find the keys that a superseded batch touched.

        select * from {{ change_log(source('shop', 'orders')) }}
-#}
{% macro change_log(relation) -%}
    (
        select log.*
        from (select * from {{ relation }}) as log
        where not exists (
            select
            from ops.batch as superseded
            where superseded.batch_id = log._batch_id
                and superseded.superseded_seq is not null
                and coalesce(current_setting('sluice.include_superseded', true), '') <> 'on'
        )
    ) as change_log
{%- endmacro %}


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
-#}
{% macro current_rows(relation, key) -%}
    {%- set keys = [key] if key is string else key -%}
    (
        select latest.*
        from (
            select distinct on ({{ keys | join(', ') }}) *
            from {{ relation }}
            order by
                {{ keys | join(', ') }},
                _effective_at desc,
                _sequence desc,
                _row_hash desc
        ) as latest
        where latest._op is distinct from 'delete'
    ) as current_rows
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
