{%- set tracked = [
    'airport_id', 'length_ft', 'width_ft', 'surface', 'is_lighted', 'is_closed', 'le_ident', 'he_ident',
    'le_displaced_threshold_ft', 'he_displaced_threshold_ft',
] -%}
{{ config(
    unique_key='runway_key',
    recompute_by='runway_id',
    touched_by={
        'dim_runway': 'runway_id',
        'dim_date': none,
    },
) }}
-- depends_on: {{ ref('dim_date') }}

with versions as (

    select
        *,
        not is_closed and not is_deleted as is_open
    from {{ ref('dim_runway') }}

),

compared as (

    select
        *,
        {% for column in tracked -%}
            ({{ column }} is distinct from lag({{ column }}) over history) as {{ column }}_differs,
        {% endfor -%}
        lag(runway_key) over history as previous_runway_key,
        lag(is_open) over history as was_open,
        lag(length_ft) over history as previous_length_ft,
        lag(width_ft) over history as previous_width_ft,
        lag(surface) over history as previous_surface
    from versions
    window history as (partition by runway_id order by valid_from)

),

final as (

    select
        -- keys
        runway_key,
        previous_runway_key,
        {{ date_key(utc_date('seen_at')) }} as changed_date_key,
        runway_id,
        airport_id,

        -- attributes
        case
            when is_open and not coalesce(was_open, false) then 'opened'
            when not is_open and coalesce(was_open, true) then 'closed'
            else 'changed'
        end as change_type,
        previous_runway_key is null as is_first_seen,
        is_deleted as is_removed,
        case
            when previous_runway_key is not null then
                concat_ws(
                    ', ',
                    {% for column in tracked -%}
                        case when {{ column }}_differs then '{{ column }}' end{{ ',' if not loop.last }}
                    {% endfor %}
                )
        end as changed_columns,
        previous_surface,
        surface,

        -- measures
        length_ft - previous_length_ft as length_change_ft,
        width_ft - previous_width_ft as width_change_ft,

        -- times
        seen_at as changed_at

    from compared

)

select * from final
