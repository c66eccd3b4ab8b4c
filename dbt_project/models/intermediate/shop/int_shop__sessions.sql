{{ config(
    materialized='convergent',
    unique_key='session_key',
    recompute_by='visitor_id',
    touched_by={'stg_shop__clickstream': 'visitor_id'},
) }}

with events as (

    select * from {{ current_rows(ref('stg_shop__clickstream'), 'event_id') }}

),

marked as (

    select
        *,
        coalesce(occurred_at - lag(occurred_at) over visit >= interval '30 minutes', true) as opens_session
    from events
    window visit as (partition by visitor_id order by occurred_at, event_id)

),

numbered as (

    select
        *,
        count(*) filter (where opens_session) over visit as session_number
    from marked
    window visit as (partition by visitor_id order by occurred_at, event_id)

),

grouped as (

    select
        visitor_id,
        session_number,
        -- One event opens a session, the first: no order is needed to find it.
        any_value(event_id) filter (where opens_session) as first_event_id,
        array_agg(customer_id order by occurred_at, event_id) filter (where customer_id is not null) as customer_ids,
        any_value(device) filter (where opens_session) as device,
        any_value(page_url) filter (where opens_session) as landing_page_url,
        any_value(referrer_url) filter (where opens_session) as referrer_url,
        min(occurred_at) as started_at,
        max(occurred_at) as ended_at,
        count(*) as event_count,
        count(*) filter (where event_type = 'page_view') as page_view_count,
        count(*) filter (where event_type = 'product_view') as product_view_count,
        count(*) filter (where event_type = 'add_to_cart') as add_to_cart_count,
        count(*) filter (where event_type = 'checkout') as checkout_count,
        count(*) filter (where event_type = 'purchase') as purchase_count
    from numbered
    group by visitor_id, session_number

),

final as (

    select
        -- keys
        {{ timed_key('first_event_id::text || visitor_id', 'started_at') }} as session_key,
        visitor_id,
        customer_ids[cardinality(customer_ids)] as customer_id,
        first_event_id,

        -- attributes
        device,
        landing_page_url,
        referrer_url,

        -- measures
        event_count,
        page_view_count,
        product_view_count,
        add_to_cart_count,
        checkout_count,
        purchase_count,

        -- times
        started_at,
        ended_at

    from grouped

)

select * from final
