{{ config(unique_key='runway_id') }}

select
    -- keys
    id as runway_id,
    airport_ref as airport_id,
    airport_ident as airport_code,

    -- attributes
    length_ft,
    width_ft,
    surface,
    lighted::integer = 1 as is_lighted,
    closed::integer = 1 as is_closed,
    le_ident,
    le_latitude_deg,
    le_longitude_deg,
    le_elevation_ft,
    le_heading_degt as le_heading_deg,
    le_displaced_threshold_ft,
    he_ident,
    he_latitude_deg,
    he_longitude_deg,
    he_elevation_ft,
    he_heading_degt as he_heading_deg,
    he_displaced_threshold_ft,

    -- the log
    {{ log_columns() }}

from {{ change_log(source('ourairports', 'runways')) }}
