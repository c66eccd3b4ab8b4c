{{ config(
    unique_key='location_key',
    touched_by={'stg_shop__addresses': 'location_key', 'snap_shop__addresses': none},
) }}
-- Built after what facts compute their key from, so that it has each place that they can name.
-- depends_on: {{ ref('snap_shop__addresses') }}

with addresses as (

    select * from {{ ref('stg_shop__addresses') }}

),

-- Every place that any version of an address was in: an order keeps the place to which it went.
places as (

    select distinct
        location_key,
        country_code,
        region,
        city,
        postal_code
    from addresses
    where _op = 'upsert'

),

final as (

    select
        location_key,
        country_code,
        region,
        city,
        postal_code,
        false as is_unknown
    from places
    where location_key <> {{ unknown_location_key() }}

    union all

    select
        {{ unknown_location_key() }} as location_key,
        null as country_code,
        null as region,
        null as city,
        null as postal_code,
        true as is_unknown

)

select * from final
