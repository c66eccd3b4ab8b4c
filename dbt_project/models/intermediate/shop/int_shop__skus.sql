{{ config(
    materialized='convergent',
    unique_key='sku',
    touched_by={'snap_shop__products': 'product_id'},
) }}

-- A live product before a deleted one, and the younger of two.
select distinct on (sku)
    sku,
    product_id
from {{ ref('snap_shop__products') }}
order by sku asc, dbt_valid_to desc, dbt_is_deleted asc, product_id desc
