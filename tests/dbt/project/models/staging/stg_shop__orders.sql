{{ config(unique_key='order_id') }}
with source as (select * from {{ change_log(source('shop','orders')) }})
select order_id, customer_id, amount, ordered_at, {{ log_columns() }} from source
