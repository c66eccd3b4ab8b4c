{#- Keys that are computed from what they stand for, so that two rebuilds agree. -#}


{#- A day as the integer yyyymmdd, the key of dim_date; 0 stands for "not yet, or not known". -#}
{% macro date_key(day) -%}
    coalesce((extract(year from {{ day }}) * 10000 + extract(month from {{ day }}) * 100 + extract(day from {{ day }}))::integer, 0)
{%- endmacro %}


{#- The day of an instant, in UTC, whatever the time zone of the session. -#}
{% macro utc_date(instant) -%}
    ({{ instant }} at time zone 'UTC')::date
{%- endmacro %}


{#-
    A hash of `text` as a key that begins with its instant, as a UUIDv7 does: rows that come together lie together in the indexes of the
    key. Of a random key, each new row reads and writes another page of a large index.
-#}
{% macro timed_key(text, instant) -%}
    (encode(substr(timestamptz_send({{ instant }}), 1, 6), 'hex') || substr(md5({{ text }}), 13))::uuid
{%- endmacro %}


{#-
    The key of a place in dim_location. All four empty: the place that nobody knows. Immutable, so that the log can be indexed by it.
-#}
{% macro location_key(country_code, region, city, postal_code) -%}
    md5(
        {%- for part in [country_code, region, city, postal_code] %}
        coalesce(length({{ part }})::text || ':' || {{ part }}, '-'){{ ' ||' if not loop.last }}
        {%- endfor %}
    )::uuid
{%- endmacro %}


{% macro unknown_location_key() -%}
    {{ location_key('null::text', 'null::text', 'null::text', 'null::text') }}
{%- endmacro %}


{#- The business key and the surrogate key of the members that stand for "nobody knows which". -#}
{% macro unknown_id() -%}
    -1::bigint
{%- endmacro %}


{% macro unknown_key() -%}
    {{ version_key([unknown_id()], "'-infinity'::timestamptz") }}
{%- endmacro %}


{#- The rate of a day and a currency: what one unit of `base` buys. -#}
{% macro exchange_rate_id(day, currency_code, base="'EUR'") -%}
    {{ date_key(day) }}::text || '|' || {{ base }} || '|' || {{ currency_code }}
{%- endmacro %}


{#- Day, warehouse and product. Immutable, so that the log can be indexed by it. -#}
{% macro inventory_id() -%}
    {{ date_key('inventory_date') }}::text || '|' || warehouse_code || '|' || sku
{%- endmacro %}
