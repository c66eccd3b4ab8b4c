-- The version that a fact points to was true at the fact's own instant.
{{ config(severity='error') }}

select 'fct_order_line' as fact, facts.order_line_id::text as fact_id
from (select * from {{ ref('fct_order_line') }}) as facts
inner join (select * from {{ ref('dim_customer') }}) as versions on versions.customer_key = facts.customer_key
where not (facts.placed_at >= versions.valid_from and facts.placed_at < versions.valid_to)
union all
select 'fct_order_line' as fact, facts.order_line_id::text as fact_id
from (select * from {{ ref('fct_order_line') }}) as facts
inner join (select * from {{ ref('dim_product') }}) as versions on versions.product_key = facts.product_key
where not (facts.placed_at >= versions.valid_from and facts.placed_at < versions.valid_to)
union all
select 'fct_order' as fact, facts.order_id::text as fact_id
from (select * from {{ ref('fct_order') }}) as facts
inner join (select * from {{ ref('dim_customer') }}) as versions on versions.customer_key = facts.customer_key
where not (facts.placed_at >= versions.valid_from and facts.placed_at < versions.valid_to)
union all
select 'fct_session' as fact, facts.session_key::text as fact_id
from (select * from {{ ref('fct_session') }}) as facts
inner join (select * from {{ ref('dim_customer') }}) as versions on versions.customer_key = facts.customer_key
where not (facts.started_at >= versions.valid_from and facts.started_at < versions.valid_to)
union all
select 'fct_inventory_daily' as fact, facts.inventory_id as fact_id
from (select * from {{ ref('fct_inventory_daily') }}) as facts
inner join (select * from {{ ref('dim_product') }}) as versions on versions.product_key = facts.product_key
where not (facts.counted_at >= versions.valid_from and facts.counted_at < versions.valid_to)
