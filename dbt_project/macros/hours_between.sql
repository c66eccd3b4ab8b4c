{#- Hours from one instant to a later one, to the hundredth; empty while either has not happened. -#}
{% macro hours_between(earlier, later) -%}
    round(extract(epoch from {{ later }} - {{ earlier }}) / 3600, 2)
{%- endmacro %}
