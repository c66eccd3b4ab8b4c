{{ config(
    unique_key='product_key',
    recompute_by='product_id',
    touched_by={
        'snap_shop__products': 'product_id',
        'stg_shop__categories': 'category_id',
        'snap_shop__categories': 'department_id',
        'stg_shop__order_lines': 'product_id',
    },
) }}

-- Used twice: `not materialized` lets the filter of a recomputation reach both uses.
with versions as not materialized (

    select * from {{ ref('snap_shop__products') }}

),

categories as (

    select * from {{ current_rows(ref('stg_shop__categories'), 'category_id') }}

),

-- A category that was renamed touches products by their category; a department, which is a category too, by their
-- department. Two inputs, because each carries one key: the log for the one, its snapshot for the other.
departments as (

    select * from {{ ref('snap_shop__categories') }}
    where dbt_valid_to = 'infinity'

),

order_lines as (

    select * from {{ current_rows(ref('stg_shop__order_lines'), 'order_line_id') }}

),

mentioned as (

    select distinct product_id from order_lines

),

members as (

    select
        dbt_scd_id as product_key,
        product_id,
        sku,
        product_name,
        category_id,
        list_price_amount,
        currency_code,
        weight_grams,
        is_active,
        created_at,
        dbt_valid_from as valid_from,
        dbt_valid_to as valid_to,
        dbt_is_deleted::boolean as is_deleted,
        false as is_inferred
    from versions

    union all

    -- Facts that came before their product. The key is the one that the first real version will have.
    select
        {{ version_key(['mentioned.product_id'], "'-infinity'::timestamptz") }} as product_key,
        mentioned.product_id,
        null as sku,
        null as product_name,
        null as category_id,
        null as list_price_amount,
        null as currency_code,
        null as weight_grams,
        null as is_active,
        null as created_at,
        '-infinity' as valid_from,
        'infinity' as valid_to,
        false as is_deleted,
        true as is_inferred
    from mentioned
    where mentioned.product_id is not null
        and not exists (
            select
            from versions
            where versions.product_id = mentioned.product_id
        )

    union all

    -- The product of a fact that names none that is known.
    select
        {{ unknown_key() }} as product_key,
        {{ unknown_id() }} as product_id,
        null as sku,
        null as product_name,
        null as category_id,
        null as list_price_amount,
        null as currency_code,
        null as weight_grams,
        null as is_active,
        null as created_at,
        '-infinity' as valid_from,
        'infinity' as valid_to,
        false as is_deleted,
        true as is_inferred

),

final as (

    select
        -- keys
        members.product_key,
        members.product_id,
        members.sku,

        -- attributes
        members.product_name,
        members.category_id,
        categories.category_name,
        coalesce(categories.parent_category_id, members.category_id) as department_id,
        coalesce(departments.category_name, categories.category_name) as department_name,
        members.list_price_amount,
        members.currency_code,
        members.weight_grams,
        members.is_active,

        -- times
        members.created_at,
        members.valid_from,
        members.valid_to,
        members.valid_to = 'infinity' and not members.is_deleted as is_current,
        members.is_deleted,
        members.is_inferred

    from members
    left join categories on categories.category_id = members.category_id
    left join departments on departments.category_id = categories.parent_category_id

)

select * from final
