{{ config(unique_key='navaid_id') }}

select
    -- keys
    id as navaid_id,
    ident as navaid_code,

    -- attributes
    filename as file_name,
    name as navaid_name,
    type as navaid_type,
    frequency_khz,
    latitude_deg,
    longitude_deg,
    elevation_ft,
    iso_country as country_code,
    dme_frequency_khz,
    dme_channel,
    dme_latitude_deg,
    dme_longitude_deg,
    dme_elevation_ft,
    slaved_variation_deg,
    magnetic_variation_deg,
    usage_type,
    power,
    associated_airport as airport_code,

    -- the log
    {{ log_columns() }}

from {{ change_log(source('ourairports', 'navaids')) }}
