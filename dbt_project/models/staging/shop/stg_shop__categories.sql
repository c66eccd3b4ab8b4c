{{ config(unique_key='category_id') }}

select
    -- keys
    category_id,
    parent_category_id,

    -- attributes
    name as category_name,

    -- times
    updated_at,

    -- the log
    {{ log_columns() }}

from {{ change_log(source('shop', 'categories')) }}
