{#-
    The members of a dimension with history: every version; one inferred member for each key that a fact names and that has no version;
    and the unknown member, for facts that name none.

        members as (

            {{ dimension_members(
                'versions',
                surrogate='customer_key',
                key='customer_id',
                attributes=['full_name', 'segment'],
                mentioned_in=['orders'],
            ) }}

        )

    `versions` and each of `mentioned_in` are names of CTEs. `versions` has the surrogate, the key, the attributes, valid_from,
    valid_to and is_deleted; the others have the key. Added is is_inferred. An inferred member has the surrogate key that the first
    real version will have, so that no fact changes when it comes. The unknown member has the key -1, in the key's own type: integer or text.

    In `touched_by`, an input that only mentions keys is `{column: customer_id, unless_in: snap_shop__customers}`: a mention of a
    key that has versions changes nothing.
-#}
{% macro dimension_members(versions, surrogate, key, attributes, mentioned_in) -%}
    select
        {{ surrogate }},
        {{ key }},
        {% for name in attributes -%}
        {{ name }},
        {% endfor -%}
        valid_from,
        valid_to,
        is_deleted,
        false as is_inferred
    from {{ versions }}

    union all

    select
        {{ version_key(['mentioned.' ~ key], "'-infinity'::timestamptz") }} as {{ surrogate }},
        mentioned.{{ key }},
        {% for name in attributes -%}
        null as {{ name }},
        {% endfor -%}
        '-infinity' as valid_from,
        'infinity' as valid_to,
        false as is_deleted,
        true as is_inferred
    from (
        {%- for name in mentioned_in %}
        {{ 'union' if not loop.first }}
        select distinct {{ key }}
        from {{ name }}
        where {{ key }} is not null
            and not exists (select from {{ versions }} where {{ versions }}.{{ key }} = {{ name }}.{{ key }})
        {%- endfor %}
    ) as mentioned

    union all

    select
        {{ unknown_key() }} as {{ surrogate }},
        '-1' as {{ key }},
        {% for name in attributes -%}
        null as {{ name }},
        {% endfor -%}
        '-infinity' as valid_from,
        'infinity' as valid_to,
        false as is_deleted,
        true as is_inferred
{%- endmacro %}
