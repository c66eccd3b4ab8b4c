{{ config(unique_key='customer_id') }}
with source as (select * from {{ change_log(source('shop','customers')) }})
select id as customer_id, name, phone, {{ log_columns() }} from source
