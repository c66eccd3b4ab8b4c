-- A customer and a product have a version at every instant, so that a fact of any time finds one.
-- (A retired key holds at none.)
{{ config(severity='error') }}

select *
from (
    select
        'dim_customer' as dimension,
        customer_id as entity,
        min(valid_from) as first_instant,
        max(valid_to) as last_instant,
        bool_and(valid_from = coalesce(previous_valid_to, valid_from)) as is_seamless
    from (
        select
            *,
            lag(valid_to) over (partition by customer_id order by valid_from) as previous_valid_to
        from {{ ref('dim_customer') }}
        where valid_from < valid_to
    ) as customer_versions
    group by customer_id
    union all
    select
        'dim_product' as dimension,
        product_id as entity,
        min(valid_from) as first_instant,
        max(valid_to) as last_instant,
        bool_and(valid_from = coalesce(previous_valid_to, valid_from)) as is_seamless
    from (
        select
            *,
            lag(valid_to) over (partition by product_id order by valid_from) as previous_valid_to
        from {{ ref('dim_product') }}
        where valid_from < valid_to
    ) as product_versions
    group by product_id
) as covered
where first_instant <> '-infinity' or last_instant <> 'infinity' or not is_seamless
