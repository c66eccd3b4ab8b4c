{{ config(
    unique_key='payment_id',
    recompute_by='order_id',
    touched_by={
        'stg_shop__payments': 'order_id',
        'stg_shop__orders': 'order_id',
        'stg_shop__exchange_rates': {'column': 'exchange_rate_id', 'lookup': true},
        'int_shop__address_places': none,
        'dim_customer': {'column': 'customer_id', 'at': 'created_at'},
        'dim_date': none,
    },
) }}
-- depends_on: {{ ref('dim_date') }}

with payments as (

    select * from {{ current_rows(ref('stg_shop__payments'), 'payment_id') }}

),

orders as (

    select * from {{ ref('int_shop__orders') }}

),

dim_customer as (

    select * from {{ ref('dim_customer') }}

),

joined as (

    select
        payments.*,
        orders.customer_id,
        orders.exchange_rate_id,
        coalesce(dim_customer.customer_key, {{ unknown_key() }}) as customer_key,
        -- An order is paid in its own currency; an amount in another one cannot be converted by its rate.
        case
            when payments.currency_code = orders.currency_code
                then round(payments.payment_amount / orders.euro_rate, 2)
        end as payment_amount_eur
    from payments
    left join orders on orders.order_id = payments.order_id
    left join dim_customer on {{ valid_at('dim_customer', 'orders.customer_id', 'payments.created_at') }}

),

final as (

    select
        -- keys
        payment_id,
        order_id,
        customer_key,
        {{ date_key(utc_date('created_at')) }} as created_date_key,
        customer_id,
        exchange_rate_id,

        -- attributes
        payment_method,
        payment_status,
        currency_code,

        -- measures
        payment_amount,
        payment_amount_eur,
        case when payment_status = 'captured' then payment_amount else 0 end as captured_amount,
        case when payment_status = 'refunded' then payment_amount else 0 end as refunded_amount,

        -- times
        created_at,
        updated_at as status_changed_at

    from joined

)

select * from final
