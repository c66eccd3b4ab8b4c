{{ config(unique_key='inventory_id', post_hook="{{ log_index([inventory_id(), 'sku']) }}") }}

select
    -- keys
    {{ inventory_id() }} as inventory_id,
    inventory_date,
    warehouse_code,
    sku,

    -- measures
    on_hand as on_hand_count,
    reserved as reserved_count,
    reorder_point as reorder_point_count,

    -- times
    counted_at,

    -- the log
    {{ log_columns() }}

from {{ change_log(source('shop', 'inventory')) }}
