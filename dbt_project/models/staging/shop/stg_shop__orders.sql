{{ config(
    unique_key='order_id',
    post_hook="{{ log_index([['customer_id', 'placed_at'], ['shipping_address_id', 'placed_at']]) }}",
) }}

select
    -- keys
    order_id,
    customer_id,
    shipping_address_id,

    -- attributes
    status as order_status,
    channel,
    currency as currency_code,

    -- times
    placed_at,
    paid_at,
    shipped_at,
    delivered_at,
    cancelled_at,
    returned_at,
    updated_at,

    -- the log
    {{ log_columns() }}

from {{ change_log(source('shop', 'orders')) }}
