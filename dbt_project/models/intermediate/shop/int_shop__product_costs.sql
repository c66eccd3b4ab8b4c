{{ config(
    materialized='convergent',
    unique_key='product_cost_key',
    recompute_by='sku',
    touched_by={
        'snap_shop__product_costs': 'sku',
        'stg_shop__exchange_rates': {'column': 'exchange_rate_id', 'lookup': true},
    },
    validity={'from': 'valid_from', 'to': 'valid_to'},
) }}

with costs as (

    select
        *,
        {{ exchange_rate_id(utc_date('dbt_updated_at'), 'currency_code') }} as exchange_rate_id
    from {{ ref('snap_shop__product_costs') }}

),

exchange_rates as (

    select * from {{ current_rows(ref('stg_shop__exchange_rates'), 'exchange_rate_id') }}

),

final as (

    select
        -- keys
        costs.dbt_scd_id as product_cost_key,
        costs.sku,
        costs.exchange_rate_id,

        -- attributes
        costs.supplier_name,
        costs.currency_code,

        -- measures
        costs.unit_cost,
        round(
            case when costs.currency_code = 'EUR' then costs.unit_cost else costs.unit_cost / exchange_rates.rate end, 4
        ) as unit_cost_eur,

        -- times
        costs.dbt_valid_from as valid_from,
        costs.dbt_valid_to as valid_to

    from costs
    left join exchange_rates on exchange_rates.exchange_rate_id = costs.exchange_rate_id

)

select * from final
