{{ config(unique_key='region_id') }}

select
    -- keys
    id as region_id,
    code as region_code,

    -- attributes
    local_code,
    name as region_name,
    continent as continent_code,
    iso_country as country_code,
    wikipedia_link as wikipedia_url,
    keywords,

    -- the log
    {{ log_columns() }}

from {{ change_log(source('ourairports', 'regions')) }}
