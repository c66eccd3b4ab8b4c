{{ config(unique_key='event_id', post_hook="{{ log_index(['visitor_id', 'customer_id']) }}") }}

select
    -- keys
    event_id,
    visitor_id,
    customer_id,
    product_id,

    -- attributes
    event_type,
    url as page_url,
    referrer as referrer_url,
    device,
    properties,

    -- times
    occurred_at,

    -- the log
    {{ log_columns() }}

from {{ change_log(source('shop', 'clickstream')) }}
