{{ config(
    unique_key='session_key',
    touched_by={
        'int_shop__sessions': {'column': 'session_key', 'by': 'session_key'},
        'dim_customer': {'column': 'customer_id', 'at': 'started_at'},
        'dim_date': none,
    },
) }}
-- depends_on: {{ ref('dim_date') }}

with sessions as (

    select * from {{ ref('int_shop__sessions') }}

),

dim_customer as (

    select * from {{ ref('dim_customer') }}

),

final as (

    select
        -- keys
        sessions.session_key,
        coalesce(dim_customer.customer_key, {{ unknown_key() }}) as customer_key,
        {{ date_key(utc_date('sessions.started_at')) }} as started_date_key,
        sessions.visitor_id,
        sessions.customer_id,

        -- attributes
        sessions.device,
        sessions.landing_page_url,
        sessions.referrer_url,
        sessions.customer_id is not null as is_identified,
        sessions.event_count = 1 as is_bounce,
        sessions.purchase_count > 0 as has_purchase,

        -- measures
        sessions.event_count,
        sessions.page_view_count,
        sessions.product_view_count,
        sessions.add_to_cart_count,
        sessions.checkout_count,
        sessions.purchase_count,
        round(extract(epoch from sessions.ended_at - sessions.started_at), 3) as duration_seconds,

        -- times
        sessions.started_at,
        sessions.ended_at

    from sessions
    left join dim_customer on {{ valid_at('dim_customer', 'sessions.customer_id', 'sessions.started_at') }}

)

select * from final
