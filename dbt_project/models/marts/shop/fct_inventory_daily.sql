{{ config(
    unique_key='inventory_id',
    touched_by={
        'stg_shop__inventory': 'inventory_id',
        'snap_shop__products': 'product_id',
        'int_shop__product_costs': 'sku',
        'dim_product': 'product_id',
        'dim_date': none,
    },
    indexes=[{'columns': ['product_id']}, {'columns': ['sku']}],
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
