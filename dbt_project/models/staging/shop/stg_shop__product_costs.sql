{{ config(unique_key='sku') }}

select
    -- keys
    sku,

    -- attributes
    unit_cost,
    currency as currency_code,
    supplier as supplier_name,
    valid_from as agreed_from,

    -- the log
    {{ log_columns() }}

from {{ change_log(source('shop', 'product_costs')) }}
