{{ config(unique_key='product_id') }}

select
    -- keys
    product_id,
    sku,
    category_id,

    -- attributes
    name as product_name,
    list_price as list_price_amount,
    currency as currency_code,
    weight_grams,
    is_active,

    -- times
    created_at,
    updated_at,

    -- the log
    {{ log_columns() }}

from {{ change_log(source('shop', 'products')) }}
