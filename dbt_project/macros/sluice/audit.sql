{#-
    Audit tests in the manner of TPC-DI's audit: generic data tests that anybody may use, each a sentence about a history, a fact or
    a change log. Examples: docs/reference/audit-tests.md. Each returns the failing rows whole, so that a message can name their keys.

    `entity`: column or list, whose versions follow each other. `valid_from`, `valid_to`: half open; those of a snapshot by default.
-#}


{#- Two versions of an entity are never true at the same instant. An emptied interval (of a retired version) is true at none. -#}
{% test versions_do_not_overlap(model, entity, valid_from='dbt_valid_from', valid_to='dbt_valid_to') %}
    select *
    from (
        select *, max({{ valid_to }}) over (
            partition by {{ audit_list(entity) }} order by {{ valid_from }} rows between unbounded preceding and 1 preceding
        ) as latest_end_before
        from {{ model }}
        where {{ valid_from }} < {{ valid_to }}
    ) as chained
    where latest_end_before > {{ valid_from }}
{% endtest %}


{#- An entity's versions reach from `first` to `last` without a hole, so that a fact of any time finds one. -#}
{% test versions_cover_all_time(model, entity, valid_from='valid_from', valid_to='valid_to', first='-infinity', last='infinity') %}
    select *
    from (
        select
            *,
            lag({{ valid_to }}, 1, '{{ first }}') over chain as previous_end,
            lead({{ valid_from }}, 1, '{{ last }}') over chain as next_begin
        from {{ model }}
        where {{ valid_from }} < {{ valid_to }}
        window chain as (partition by {{ audit_list(entity) }} order by {{ valid_from }})
    ) as chained
    where previous_end <> {{ valid_from }} or next_begin <> {{ valid_to }}
{% endtest %}


{#- The end of time is `infinity`: no NULL, no 9999-12-31, and no version after it; and every version ends after it begins. -#}
{% test versions_end_properly(model, valid_from='dbt_valid_from', valid_to='dbt_valid_to') %}
    select *
    from {{ model }}
    where ({{ valid_to }} > {{ valid_from }} and {{ valid_from }} < 'infinity') is not true
        or ({{ valid_to }} >= timestamptz '9000-01-01 00:00:00+00' and {{ valid_to }} <> 'infinity')
{% endtest %}


{#- The flag of the current version says what the interval says, and one version of an entity at most carries it. -#}
{% test is_current_is_the_last(model, column_name, entity, valid_from='valid_from', valid_to='valid_to', is_deleted='false') %}
    select *
    from (
        select *, count(*) filter (where {{ column_name }}) over (partition by {{ audit_list(entity) }}) as current_count
        from {{ model }}
        where {{ valid_from }} < {{ valid_to }}
    ) as counted
    where current_count > 1
        or {{ column_name }} is distinct from ({{ valid_to }} = 'infinity' and not {{ is_deleted }})
{% endtest %}


{#- Neighbours differ in one of `columns`: a version that says what the one before said should not have been opened. -#}
{% test versions_are_consolidated(model, entity, columns, valid_from='dbt_valid_from', valid_to='dbt_valid_to') %}
    select *
    from (
        select
            *,
            lag({{ valid_to }}) over chain as previous_end,
            row({{ columns | join(', ') }}) is not distinct from lag(row({{ columns | join(', ') }})) over chain as repeats
        from {{ model }}
        where {{ valid_from }} < {{ valid_to }}
        window chain as (partition by {{ audit_list(entity) }} order by {{ valid_from }})
    ) as chained
    where repeats and previous_end = {{ valid_from }}
{% endtest %}


{#- A batch does not speak of what came after it: no row is true from later than its batch's instant, give or take `margin`. -#}
{% test effective_within_the_batch(model, margin='0 seconds', earliest=None) %}
    select logged.*
    from (select * from {{ model }}) as logged
    inner join ops.batch as batch on batch.batch_id = logged._batch_id
    where logged._effective_at > batch.effective_at + interval '{{ margin }}'
        {%- if earliest %}
        or logged._effective_at < timestamptz '{{ earliest }}'
        {%- endif %}
{% endtest %}


{#- The version that a fact points to was true at the fact's own instant. A key that resolves nowhere fails too. -#}
{% test key_is_valid_at(model, column_name, to, field, instant, valid_from='valid_from', valid_to='valid_to') %}
    select fact.*
    from (select * from {{ model }}) as fact
    left join {{ to }} as dimension on dimension.{{ field }} = fact.{{ column_name }}
    where (fact.{{ instant }} >= dimension.{{ valid_from }} and fact.{{ instant }} < dimension.{{ valid_to }}) is not true
        and fact.{{ column_name }} is not null
        and fact.{{ instant }} is not null
{% endtest %}


{#- The version of a child lies within the validity of the parents that it names: no part of it points to nothing. -#}
{% test versions_lie_within(
    model, column_name, to, field, valid_from='dbt_valid_from', valid_to='dbt_valid_to',
    parent_from='dbt_valid_from', parent_to='dbt_valid_to'
) %}
    select child.*
    from (select * from {{ model }}) as child
    left join lateral (
        select range_agg(tstzrange(parent.{{ parent_from }}, parent.{{ parent_to }}, '[)')) as times
        from {{ to }} as parent
        where parent.{{ field }} = child.{{ column_name }} and parent.{{ parent_from }} < parent.{{ parent_to }}
    ) as parents on true
    where child.{{ column_name }} is not null
        and child.{{ valid_from }} < child.{{ valid_to }}
        and (tstzrange(child.{{ valid_from }}, child.{{ valid_to }}, '[)') <@ parents.times) is not true
{% endtest %}


{#- A staging view shows as many rows of each batch as the ledger booked. Not for one that filters. -#}
{% test rows_match_the_ledger(model, source, table) %}
    select batch_id, booked, coalesce(held, 0) as held
    from (
        select batch_id, rows_applied + rows_deleted as booked
        from ops.batch
        where source = '{{ source }}' and table_name = '{{ table }}' and state = 'published'
            and published_seq <= {{ as_of_seq() }}
    ) as books
    full join (select _batch_id as batch_id, count(*) as held from {{ model }} group by _batch_id) as log using (batch_id)
    where booked is distinct from held and coalesce(booked, 0) <> coalesce(held, 0)
{% endtest %}


{#-
    Rows are fewer only where a tombstone or a correction says so: every key that `to` (a staging view) says is alive is here.
    `field` is the key there.
-#}
{% test keeps_every_live_key(model, column_name, to, field) %}
    select alive.{{ field }} as {{ column_name }}
    from (select distinct {{ field }} from {{ current_rows(to, field) }}) as alive
    where not exists (select from (select * from {{ model }}) as kept where kept.{{ column_name }} = alive.{{ field }})
{% endtest %}


{#-
    What an audit test must read in the transaction that builds its model, so that it costs what the change costs: rows that
    came, or all versions of the entities of which a version came or went. None: the test is of another kind.
-#}
{% macro audited_rows(test, target) %}
    {%- set kind, entity = test.test_metadata.name, test.test_metadata.kwargs.get('entity') -%}
    {%- if kind in ('versions_end_properly', 'key_is_valid_at') -%}{{ return('sluice_come') }}{%- endif -%}
    {%- if kind in ('versions_do_not_overlap', 'versions_cover_all_time', 'versions_are_consolidated', 'is_current_is_the_last') -%}
        {%- set names = audit_list(entity) -%}
        {{ return('(select * from ' ~ target ~ ' where (' ~ names ~ ') in (select ' ~ names ~ ' from sluice_come union all select ' ~ names ~ ' from sluice_gone)) as tested') }}
    {%- endif -%}
    {{ return(none) }}
{% endmacro %}


{% macro audit_list(columns) -%}
    {{ columns if columns is string else columns | join(', ') }}
{%- endmacro %}
