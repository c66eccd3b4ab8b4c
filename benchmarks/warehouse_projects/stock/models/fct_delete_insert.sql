{{ config(incremental_strategy='delete+insert', unique_key='order_line_id') }}
{{ lines() }}
{% if is_incremental() %}where lines.updated_at > (select max(updated_at) from {{ this }}){% endif %}
