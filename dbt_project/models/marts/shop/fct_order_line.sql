{{ config(
    unique_key='order_line_id',
    recompute_by='order_id',
    touched_by={
        'stg_shop__order_lines': 'order_id',
        'stg_shop__orders': 'order_id',
        'int_shop__address_places': {'column': 'shipping_address_id', 'at': 'placed_at', 'through': {'input': 'stg_shop__orders', 'at': 'placed_at'}},
        'stg_shop__exchange_rates': {'column': 'exchange_rate_id', 'lookup': true},
        'int_shop__product_costs': {'column': 'sku', 'at': 'placed_at', 'through': 'dim_product'},
        'dim_customer': {'column': 'customer_id', 'at': 'placed_at', 'through': {'input': 'stg_shop__orders', 'at': 'placed_at'}},
        'dim_product': {'column': 'product_id', 'at': 'placed_at'},
        'dim_location': none,
        'dim_date': none,
    },
    indexes=[{'columns': ['placed_at'], 'type': 'brin'}],
) }}
-- depends_on: {{ ref('dim_location') }}, {{ ref('dim_date') }}

with order_lines as (

    select * from {{ current_rows(ref('stg_shop__order_lines'), 'order_line_id') }}

),

orders as (

    select * from {{ ref('int_shop__orders') }}

),

dim_customer as (

    select * from {{ ref('dim_customer') }}

),

dim_product as (

    select * from {{ ref('dim_product') }}

),

costs as (

    select * from {{ ref('int_shop__product_costs') }}

),

joined as (

    select
        order_lines.*,
        orders.customer_id,
        orders.shipping_address_id,
        orders.exchange_rate_id,
        orders.order_status,
        orders.channel,
        orders.currency_code,
        orders.euro_rate,
        orders.placed_at,
        dim_product.sku,
        costs.unit_cost_eur,
        coalesce(dim_customer.customer_key, {{ unknown_key() }}) as customer_key,
        coalesce(dim_product.product_key, {{ unknown_key() }}) as product_key,
        coalesce(orders.location_key, {{ unknown_location_key() }}) as location_key,
        order_lines.quantity * order_lines.unit_price as gross_amount,
        order_lines.quantity * order_lines.unit_price - order_lines.discount_amount as net_amount
    from order_lines
    left join orders on orders.order_id = order_lines.order_id
    left join dim_customer on {{ valid_at('dim_customer', 'orders.customer_id', 'orders.placed_at') }}
    left join dim_product on {{ valid_at('dim_product', 'order_lines.product_id', 'orders.placed_at') }}
    left join costs on {{ valid_at('costs', 'dim_product.sku', 'orders.placed_at') }}

),

final as (

    select
        -- keys
        order_line_id,
        order_id,
        customer_key,
        product_key,
        location_key,
        {{ date_key(utc_date('placed_at')) }} as placed_date_key,
        customer_id,
        product_id,
        sku,
        shipping_address_id,
        exchange_rate_id,

        -- attributes
        line_number,
        order_status,
        channel,
        currency_code,

        -- measures
        quantity,
        unit_price,
        gross_amount,
        discount_amount,
        net_amount,
        round(net_amount / euro_rate, 2) as net_amount_eur,
        round(quantity * unit_cost_eur, 2) as cost_amount_eur,
        round(net_amount / euro_rate, 2) - round(quantity * unit_cost_eur, 2) as margin_amount_eur,

        -- times
        placed_at

    from joined

)

select * from final
