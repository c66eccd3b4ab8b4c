-- Per key and history, versions follow each other; at most one is current.
{%- set histories = {
    'snap_shop__customers': 'customer_id',
    'snap_shop__addresses': 'address_id',
    'snap_shop__products': 'product_id',
    'snap_shop__categories': 'category_id',
    'snap_shop__product_costs': 'sku',
    'snap_ourairports__countries': 'country_id',
    'snap_ourairports__regions': 'region_id',
    'snap_ourairports__navaids': 'navaid_id',
    'snap_ourairports__airport_frequencies': 'airport_frequency_id',
    'snap_ourairports__runways': 'runway_id',
} %}
{{ config(severity='error') }}

{% for name, key in histories.items() -%}
    select *
    from (
        select
            '{{ name }}' as history,
            {{ key }}::text as entity,
            dbt_valid_from,
            lag(dbt_valid_to) over (partition by {{ key }} order by dbt_valid_from) as previous_valid_to
        from {{ ref(name) }}
    ) as chained
    where previous_valid_to > dbt_valid_from
    {{ 'union all' if not loop.last }}
{% endfor %}
