{#- A model's schema is its layer (`staging`, `snapshots`, `marts` …); a developer's is `<prefix>_<layer>`. -#}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {%- set prefix = env_var('SLUICE_SCHEMA_PREFIX', '') -%}
    {%- set layer = custom_schema_name or target.schema -%}
    {{ prefix ~ '_' ~ layer if prefix and custom_schema_name else layer }}
{%- endmacro %}
