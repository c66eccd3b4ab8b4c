{{ config(
    unique_key='runway_key',
    recompute_by='runway_id',
    touched_by={'snap_ourairports__runways': 'runway_id'},
    validity={'from': 'valid_from', 'to': 'valid_to', 'current': 'is_current'},
) }}

with versions as (

    select * from {{ ref('snap_ourairports__runways') }}

),

final as (

    select
        -- keys
        dbt_scd_id as runway_key,
        runway_id,
        airport_id,
        airport_code,

        -- attributes
        length_ft,
        width_ft,
        surface,
        is_lighted,
        is_closed,
        le_ident,
        he_ident,
        le_displaced_threshold_ft,
        he_displaced_threshold_ft,
        le_latitude_deg,
        le_longitude_deg,
        le_elevation_ft,
        le_heading_deg,
        he_latitude_deg,
        he_longitude_deg,
        he_elevation_ft,
        he_heading_deg,

        -- times
        dbt_updated_at as seen_at,
        dbt_valid_from as valid_from,
        dbt_valid_to as valid_to,
        dbt_valid_to = 'infinity' and not dbt_is_deleted::boolean as is_current,
        dbt_is_deleted::boolean as is_deleted

    from versions

)

select * from final
