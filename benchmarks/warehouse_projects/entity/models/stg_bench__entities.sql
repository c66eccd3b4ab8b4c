{{ config(unique_key='entity_id') }}

select
    entity_id,
    name,
    segment,
    email,
    is_active,
    updated_at,
    {{ log_columns() }}
from {{ change_log(source('bench', 'entities')) }}
