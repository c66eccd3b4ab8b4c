{{ config(
    unique_key='customer_key',
    recompute_by='customer_id',
    touched_by={
        'snap_shop__customers': 'customer_id',
        'stg_shop__orders': 'customer_id',
        'stg_shop__clickstream': 'customer_id',
    },
) }}

-- Used twice: `not materialized` lets the filter of a recomputation reach both uses.
with versions as not materialized (

    select * from {{ ref('snap_shop__customers') }}

),

orders as (

    select * from {{ current_rows(ref('stg_shop__orders'), 'order_id') }}

),

events as (

    select * from {{ current_rows(ref('stg_shop__clickstream'), 'event_id') }}

),

mentioned as (

    select customer_id from orders
    union
    select customer_id from events

),

members as (

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
        dbt_is_deleted::boolean as is_deleted,
        false as is_inferred
    from versions

    union all

    -- Facts that came before their customer. The key is the one that the first real version will have.
    select
        {{ version_key(['mentioned.customer_id'], "'-infinity'::timestamptz") }} as customer_key,
        mentioned.customer_id,
        null as full_name,
        null as email,
        null as phone,
        null as birth_date,
        null as segment,
        null as has_marketing_consent,
        null as signed_up_at,
        '-infinity' as valid_from,
        'infinity' as valid_to,
        false as is_deleted,
        true as is_inferred
    from mentioned
    where mentioned.customer_id is not null
        and not exists (
            select
            from versions
            where versions.customer_id = mentioned.customer_id
        )

    union all

    -- The customer of a fact that names none.
    select
        {{ unknown_key() }} as customer_key,
        {{ unknown_id() }} as customer_id,
        null as full_name,
        null as email,
        null as phone,
        null as birth_date,
        null as segment,
        null as has_marketing_consent,
        null as signed_up_at,
        '-infinity' as valid_from,
        'infinity' as valid_to,
        false as is_deleted,
        true as is_inferred

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
