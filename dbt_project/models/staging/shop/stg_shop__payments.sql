{{ config(unique_key='payment_id', post_hook="{{ log_index(['order_id']) }}") }}

select
    -- keys
    payment_id,
    order_id,

    -- attributes
    method as payment_method,
    amount as payment_amount,
    currency as currency_code,
    status as payment_status,

    -- times
    created_at,
    updated_at,

    -- the log
    {{ log_columns() }}

from {{ change_log(source('shop', 'payments')) }}
