-- As dim_customer of the small project, with its history declared, and orders read for unknown customers only.
{{ config(
    unique_key='customer_key',
    recompute_by='customer_id',
    touched_by={
        'snap_shop__customers': 'customer_id',
        'stg_shop__orders': {'column': 'customer_id', 'unless_in': 'snap_shop__customers'},
    },
    validity={'from': 'valid_from', 'to': 'valid_to'},
) }}
with known as (select * from {{ ref('snap_shop__customers') }}),
orders as (select * from {{ current_rows(ref('stg_shop__orders'), 'order_id') }}),
unknown as (
    select distinct orders.customer_id from orders
    where not exists (select from known where known.customer_id = orders.customer_id)
)
select dbt_scd_id as customer_key, customer_id, name, dbt_valid_from as valid_from, dbt_valid_to as valid_to, false as is_inferred
from known
union all
select {{ version_key(['customer_id'], "'-infinity'::timestamptz") }}, customer_id, null, '-infinity', 'infinity', true
from unknown
