{{ config(
    unique_key='address_id',
    post_hook="{{ log_index([location_key('country_code', 'region', 'city', 'postal_code')]) }}",
) }}

select
    -- keys
    address_id,
    customer_id,
    {{ location_key('country_code', 'region', 'city', 'postal_code') }} as location_key,

    -- attributes
    kind as address_kind,
    street,
    city,
    postal_code,
    region,
    country_code,

    -- times
    created_at,
    updated_at,

    -- the log
    {{ log_columns() }}

from {{ change_log(source('shop', 'addresses')) }}
