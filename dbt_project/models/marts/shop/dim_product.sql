{{ config(
    unique_key='product_key',
    recompute_by='product_id',
    touched_by={
        'snap_shop__products': 'product_id',
        'stg_shop__categories': {'column': 'category_id', 'lookup': true},
        'snap_shop__categories': {'column': 'department_id', 'lookup': true},
        'stg_shop__order_lines': {'column': 'product_id', 'unless_in': 'snap_shop__products'},
    },
    validity={'from': 'valid_from', 'to': 'valid_to', 'current': 'is_current'},
) }}

-- Used more than once: `not materialized` lets the filter of a recomputation reach each use.
with versions as not materialized (

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
        dbt_is_deleted::boolean as is_deleted
    from {{ ref('snap_shop__products') }}

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

members as (

    {{ dimension_members(
        'versions',
        surrogate='product_key',
        key='product_id',
        attributes=[
            'sku', 'product_name', 'category_id', 'list_price_amount', 'currency_code', 'weight_grams', 'is_active', 'created_at',
        ],
        mentioned_in=['order_lines'],
    ) }}

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
