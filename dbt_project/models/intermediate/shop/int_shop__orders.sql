{{ config(unique_key='order_id') }}

-- Without CTEs, because it is a view: Postgres plans a view that begins with `with` as a whole, and would read all
-- orders to recompute one.
-- noqa: disable=ST05
select
    -- keys
    orders.order_id,
    orders.customer_id,
    orders.shipping_address_id,
    coalesce(addresses.location_key, {{ unknown_location_key() }}) as location_key,
    orders.exchange_rate_id,

    -- attributes
    orders.order_status,
    orders.channel,
    orders.currency_code,
    case when orders.currency_code = 'EUR' then 1 else exchange_rates.rate end as euro_rate,

    -- times
    orders.placed_at,
    orders.paid_at,
    orders.shipped_at,
    orders.delivered_at,
    orders.cancelled_at,
    orders.returned_at

from (
    select
        *,
        {{ exchange_rate_id(utc_date('placed_at'), 'currency_code') }} as exchange_rate_id
    from {{ current_rows(ref('stg_shop__orders'), 'order_id') }}
) as orders
left join (select * from {{ ref('int_shop__address_places') }}) as addresses
    on addresses.address_id = orders.shipping_address_id
        and orders.placed_at >= addresses.valid_from
        and orders.placed_at < addresses.valid_to
left join (
    select * from {{ current_rows(ref('stg_shop__exchange_rates'), 'exchange_rate_id') }}
) as exchange_rates
    on exchange_rates.exchange_rate_id = orders.exchange_rate_id
