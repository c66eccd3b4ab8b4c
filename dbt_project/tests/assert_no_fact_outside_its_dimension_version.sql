-- The version that a fact points to was true at the fact's own instant.
-- (A retired key, until its facts are recomputed, at none.)
{{ config(severity='error') }}

-- `not materialized` where one is used twice: each use reads only its own columns and joins on its own.
with dim_customer as not materialized (

    select * from {{ ref('dim_customer') }}
    where valid_from < valid_to

),

dim_product as not materialized (

    select * from {{ ref('dim_product') }}
    where valid_from < valid_to

),

fct_order_line as not materialized (

    select * from {{ ref('fct_order_line') }}

),

fct_order as (

    select * from {{ ref('fct_order') }}

),

fct_session as (

    select * from {{ ref('fct_session') }}

),

fct_inventory_daily as (

    select * from {{ ref('fct_inventory_daily') }}

)

select
    'fct_order_line' as fact,
    fct_order_line.order_line_id::text as fact_id
from fct_order_line
inner join dim_customer on dim_customer.customer_key = fct_order_line.customer_key
where fct_order_line.placed_at < dim_customer.valid_from
    or fct_order_line.placed_at >= dim_customer.valid_to

union all

select
    'fct_order_line' as fact,
    fct_order_line.order_line_id::text as fact_id
from fct_order_line
inner join dim_product on dim_product.product_key = fct_order_line.product_key
where fct_order_line.placed_at < dim_product.valid_from
    or fct_order_line.placed_at >= dim_product.valid_to

union all

select
    'fct_order' as fact,
    fct_order.order_id::text as fact_id
from fct_order
inner join dim_customer on dim_customer.customer_key = fct_order.customer_key
where fct_order.placed_at < dim_customer.valid_from
    or fct_order.placed_at >= dim_customer.valid_to

union all

select
    'fct_session' as fact,
    fct_session.session_key::text as fact_id
from fct_session
inner join dim_customer on dim_customer.customer_key = fct_session.customer_key
where fct_session.started_at < dim_customer.valid_from
    or fct_session.started_at >= dim_customer.valid_to

union all

select
    'fct_inventory_daily' as fact,
    fct_inventory_daily.inventory_id as fact_id
from fct_inventory_daily
inner join dim_product on dim_product.product_key = fct_inventory_daily.product_key
where fct_inventory_daily.counted_at < dim_product.valid_from
    or fct_inventory_daily.counted_at >= dim_product.valid_to
