{{ config(
    unique_key='customer_key',
    recompute_by='customer_id',
    touched_by={
        'snap_shop__customers': 'customer_id',
        'stg_shop__orders': {'column': 'customer_id', 'unless_in': 'snap_shop__customers'},
        'stg_shop__clickstream': {'column': 'customer_id', 'unless_in': 'snap_shop__customers'},
    },
    validity={'from': 'valid_from', 'to': 'valid_to', 'current': 'is_current'},
) }}

-- Used more than once: `not materialized` lets the filter of a recomputation reach each use.
with versions as not materialized (

    select
        dbt_scd_id as customer_key,
        customer_id,
        full_name,
        email,
        phone,
        birth_date,
        segment,
        has_marketing_consent,
        created_at as signed_up_at,
        dbt_valid_from as valid_from,
        dbt_valid_to as valid_to,
        dbt_is_deleted::boolean as is_deleted
    from {{ ref('snap_shop__customers') }}

),

orders as (

    select * from {{ current_rows(ref('stg_shop__orders'), 'order_id') }}

),

events as (

    select * from {{ current_rows(ref('stg_shop__clickstream'), 'event_id') }}

),

members as (

    {{ dimension_members(
        'versions',
        surrogate='customer_key',
        key='customer_id',
        attributes=['full_name', 'email', 'phone', 'birth_date', 'segment', 'has_marketing_consent', 'signed_up_at'],
        mentioned_in=['orders', 'events'],
    ) }}

),

final as (

    select
        -- keys
        customer_key,
        customer_id,

        -- attributes
        full_name,
        email,
        phone,
        birth_date,
        segment,
        has_marketing_consent,

        -- times
        signed_up_at,
        valid_from,
        valid_to,
        valid_to = 'infinity' and not is_deleted as is_current,
        is_deleted,
        is_inferred

    from members

)

select * from final
