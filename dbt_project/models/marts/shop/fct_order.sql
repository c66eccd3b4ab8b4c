{{ config(
    unique_key='order_id',
    touched_by={
        'stg_shop__orders': 'order_id',
        'fct_order_line': 'order_id',
        'fct_payment': 'order_id',
        'int_shop__address_places': {'column': 'shipping_address_id', 'at': 'placed_at', 'through': {'input': 'stg_shop__orders', 'at': 'placed_at'}},
        'stg_shop__exchange_rates': none,
        'dim_customer': {'column': 'customer_id', 'at': 'placed_at', 'through': {'input': 'stg_shop__orders', 'at': 'placed_at'}},
        'dim_location': none,
        'dim_date': none,
    },
) }}
-- depends_on: {{ ref('dim_location') }}, {{ ref('dim_date') }}

with orders as (

    select * from {{ ref('int_shop__orders') }}

),

order_lines as (

    select * from {{ ref('fct_order_line') }}

),

payments as (

    select * from {{ ref('fct_payment') }}

),

dim_customer as (

    select * from {{ ref('dim_customer') }}

),

-- Lateral, so that the filter of a recomputation reaches the lines and payments of those orders only.
totalled as (

    select
        orders.*,
        coalesce(dim_customer.customer_key, {{ unknown_key() }}) as customer_key,
        line_totals.line_count,
        line_totals.quantity,
        line_totals.gross_amount,
        line_totals.discount_amount,
        line_totals.net_amount,
        line_totals.net_amount_eur,
        line_totals.margin_amount_eur,
        paid.captured_amount,
        paid.refunded_amount
    from orders
    left join dim_customer on {{ valid_at('dim_customer', 'orders.customer_id', 'orders.placed_at') }}
    inner join lateral (
        select
            count(*) as line_count,
            coalesce(sum(order_lines.quantity), 0) as quantity,
            coalesce(sum(order_lines.gross_amount), 0) as gross_amount,
            coalesce(sum(order_lines.discount_amount), 0) as discount_amount,
            coalesce(sum(order_lines.net_amount), 0) as net_amount,
            -- One line that cannot be converted makes the total unknown, not small.
            case
                when count(*) = count(order_lines.net_amount_eur)
                    then coalesce(sum(order_lines.net_amount_eur), 0)
            end as net_amount_eur,
            case
                when count(*) = count(order_lines.margin_amount_eur)
                    then coalesce(sum(order_lines.margin_amount_eur), 0)
            end as margin_amount_eur
        from order_lines
        where order_lines.order_id = orders.order_id
    ) as line_totals on true
    inner join lateral (
        select
            coalesce(sum(payments.captured_amount), 0) as captured_amount,
            coalesce(sum(payments.refunded_amount), 0) as refunded_amount
        from payments
        where payments.order_id = orders.order_id
    ) as paid on true

),

final as (

    select
        -- keys
        order_id,
        customer_key,
        location_key,
        {{ date_key(utc_date('placed_at')) }} as placed_date_key,
        {{ date_key(utc_date('paid_at')) }} as paid_date_key,
        {{ date_key(utc_date('shipped_at')) }} as shipped_date_key,
        {{ date_key(utc_date('delivered_at')) }} as delivered_date_key,
        {{ date_key(utc_date('cancelled_at')) }} as cancelled_date_key,
        {{ date_key(utc_date('returned_at')) }} as returned_date_key,
        customer_id,
        shipping_address_id,

        -- attributes
        order_status,
        channel,
        currency_code,

        -- measures
        line_count,
        quantity,
        gross_amount,
        discount_amount,
        net_amount,
        net_amount_eur,
        margin_amount_eur,
        captured_amount,
        refunded_amount,
        {{ hours_between('placed_at', 'paid_at') }} as hours_to_payment,
        {{ hours_between('paid_at', 'shipped_at') }} as hours_to_shipment,
        {{ hours_between('shipped_at', 'delivered_at') }} as hours_to_delivery,
        {{ hours_between('placed_at', 'delivered_at') }} as hours_to_fulfilment,

        -- times
        placed_at,
        paid_at,
        shipped_at,
        delivered_at,
        cancelled_at,
        returned_at

    from totalled

)

select * from final
