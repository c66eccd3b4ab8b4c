{{ config(unique_key='exchange_rate_id') }}

select
    -- keys
    {{ exchange_rate_id('rate_date', 'currency', 'base_currency') }} as exchange_rate_id,
    rate_date,
    base_currency as base_currency_code,
    currency as currency_code,

    -- measures
    rate,

    -- the log
    {{ log_columns() }}

from {{ change_log(source('shop', 'exchange_rates')) }}
