{{ config(incremental_strategy='microbatch', unique_key='order_line_id', event_time='placed_at', batch_size='month', lookback=3, begin='2024-01-01') }}
{{ lines() }}
