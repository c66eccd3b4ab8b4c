-- The fact once more, as a large one is written: by month, and what a customer's history touches found through the log.
{{ config(
    unique_key=['order_id', 'ordered_at'],
    recompute_by='order_id',
    touched_by={
        'stg_shop__orders': 'order_id',
        'dim_customer': {
            'column': 'customer_id', 'at': 'ordered_at', 'through': {'input': 'stg_shop__orders', 'at': 'ordered_at'}
        },
    },
    partition_by={'column': 'ordered_at', 'by': 'month'},
) }}
with orders as (select * from {{ current_rows(ref('stg_shop__orders'), 'order_id') }}),
dim_customer as (select * from {{ ref('dim_customer') }})
select orders.order_id, orders.customer_id, dim_customer.customer_key, orders.amount, orders.ordered_at
from orders left join dim_customer on {{ valid_at('dim_customer', 'orders.customer_id', 'orders.ordered_at') }}
