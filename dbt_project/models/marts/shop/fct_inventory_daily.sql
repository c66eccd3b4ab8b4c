{{ config(
    unique_key=['inventory_id', 'inventory_date'],
    recompute_by='inventory_id',
    partition_by={'column': 'inventory_date', 'by': 'month'},
    closed_periods={'column': 'inventory_date', 'correction': 'refuse'},
    touched_by={
        'stg_shop__inventory': 'inventory_id',
        'int_shop__skus': {'column': 'sku', 'lookup': true},
        'int_shop__product_costs': {'column': 'sku', 'at': 'counted_at'},
        'dim_product': {'column': 'product_id', 'at': 'counted_at'},
        'dim_date': none,
    },
) }}
-- depends_on: {{ ref('dim_date') }}

with inventory as (

    select * from {{ current_rows(ref('stg_shop__inventory'), 'inventory_id') }}

),

skus as (

    select * from {{ ref('int_shop__skus') }}

),

dim_product as (

    select * from {{ ref('dim_product') }}

),

costs as (

    select * from {{ ref('int_shop__product_costs') }}

),

final as (

    select
        -- keys
        inventory.inventory_id,
        {{ date_key('inventory.inventory_date') }} as inventory_date_key,
        coalesce(dim_product.product_key, {{ unknown_key() }}) as product_key,
        inventory.inventory_date,
        inventory.warehouse_code,
        inventory.sku,
        skus.product_id,

        -- measures
        inventory.on_hand_count,
        inventory.reserved_count,
        inventory.on_hand_count - inventory.reserved_count as available_count,
        inventory.reorder_point_count,
        inventory.on_hand_count < inventory.reorder_point_count as is_below_reorder_point,
        round(inventory.on_hand_count * costs.unit_cost_eur, 2) as stock_value_amount_eur,

        -- times
        inventory.counted_at

    from inventory
    left join skus on skus.sku = inventory.sku
    left join dim_product on {{ valid_at('dim_product', 'skus.product_id', 'inventory.counted_at') }}
    left join costs on {{ valid_at('costs', 'inventory.sku', 'inventory.counted_at') }}

)

select * from final
