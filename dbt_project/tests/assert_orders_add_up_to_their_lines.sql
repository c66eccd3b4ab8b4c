-- What all orders say they hold is what all lines of known orders hold: nothing fans out, nothing is lost.
{{ config(severity='error') }}

with orders as (

    select
        coalesce(sum(line_count), 0) as line_count,
        coalesce(sum(net_amount), 0) as net_amount
    from {{ ref('fct_order') }}

),

lines as (

    select
        count(*) as line_count,
        coalesce(sum(net_amount), 0) as net_amount
    from {{ ref('fct_order_line') }}
    where placed_at is not null

)

select
    orders.line_count,
    lines.line_count as line_count_in_lines,
    orders.net_amount,
    lines.net_amount as net_amount_in_lines
from orders
cross join lines
where orders.line_count <> lines.line_count or orders.net_amount <> lines.net_amount
