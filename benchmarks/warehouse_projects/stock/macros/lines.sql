{#- In a CTE: of a relation that microbatch filters by time, dbt makes a subquery with an alias of its own. -#}
{% macro lines() %}
with lines as (select * from {{ source('bench', 'lines_now') }}),

orders as (select * from {{ source('bench', 'orders_now') }})

select
    lines.order_line_id,
    lines.order_id,
    customers.dbt_scd_id as customer_key,
    products.dbt_scd_id as product_key,
    orders.customer_id,
    lines.product_id,
    orders.status,
    orders.channel,
    orders.currency,
    lines.quantity,
    lines.unit_price,
    lines.quantity * lines.unit_price as gross_amount,
    lines.discount_amount,
    lines.quantity * lines.unit_price - lines.discount_amount as net_amount,
    lines.placed_at,
    lines.updated_at
from lines
left join orders on orders.order_id = lines.order_id
left join {{ ref('snap_customers') }} as customers
    on customers.customer_id = orders.customer_id
        and lines.placed_at >= customers.dbt_valid_from
        and lines.placed_at < coalesce(customers.dbt_valid_to, 'infinity')
left join {{ ref('snap_products') }} as products
    on products.product_id = lines.product_id
        and lines.placed_at >= products.dbt_valid_from
        and lines.placed_at < coalesce(products.dbt_valid_to, 'infinity')
{% endmacro %}
