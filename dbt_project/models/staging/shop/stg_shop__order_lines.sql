{{ config(unique_key='order_line_id', post_hook="{{ log_index(['order_id', 'product_id']) }}") }}

select
    -- keys
    order_line_id,
    order_id,
    product_id,

    -- attributes
    line_number,
    quantity,
    unit_price,
    discount_amount,

    -- times
    updated_at,

    -- the log
    {{ log_columns() }}

from {{ change_log(source('shop', 'order_lines')) }}
