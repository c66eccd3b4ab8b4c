{{ config(
    materialized='convergent',
    unique_key='address_version_key',
    recompute_by='address_id',
    touched_by={'snap_shop__addresses': 'address_id'},
    validity={'from': 'valid_from', 'to': 'valid_to'},
) }}

-- Only what orders look up. A corrected owner or time rewrites an address's whole history, and no order must be
-- recomputed for it.
select
    dbt_scd_id as address_version_key,
    address_id,
    location_key,
    dbt_valid_from as valid_from,
    dbt_valid_to as valid_to
from {{ ref('snap_shop__addresses') }}
