{{ config(unique_key='customer_id') }}

select
    -- keys
    customer_id,

    -- attributes
    email,
    full_name,
    phone,
    birth_date,
    segment,
    marketing_consent as has_marketing_consent,

    -- times
    created_at,
    updated_at,

    -- the log
    {{ log_columns() }}

from {{ change_log(source('shop', 'customers')) }}
