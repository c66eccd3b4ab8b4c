-- An aggregate of the fact by other columns than its key.
{{ config(
    unique_key=['customer_id', 'ordered_at'],
    touched_by={
        'fct_order': {'column': ['customer_id', 'ordered_at'], 'by': ['customer_id', 'ordered_at']},
    },
) }}
select customer_id, ordered_at, count(*) as order_count, sum(amount) as amount
from {{ ref('fct_order') }}
group by customer_id, ordered_at
