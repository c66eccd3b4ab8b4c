{{ config(unique_key='airport_frequency_id') }}

select
    -- keys
    id as airport_frequency_id,
    airport_ref as airport_id,
    airport_ident as airport_code,

    -- attributes
    type as frequency_type,
    description as frequency_description,
    frequency_mhz,

    -- the log
    {{ log_columns() }}

from {{ change_log(source('ourairports', 'airport_frequencies')) }}
