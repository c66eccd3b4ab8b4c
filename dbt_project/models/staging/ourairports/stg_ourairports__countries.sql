{{ config(unique_key='country_id') }}

select
    -- keys
    id as country_id,
    code as country_code,

    -- attributes
    name as country_name,
    continent as continent_code,
    wikipedia_link as wikipedia_url,
    keywords,

    -- the log
    {{ log_columns() }}

from {{ change_log(source('ourairports', 'countries')) }}
