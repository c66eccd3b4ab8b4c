{#-
    dbt snapshots whose rows are a pure function of the change log. Replaces dbt's own materialization for every snapshot
    of this project; why and what was weighed: docs/decisions/snapshots.md.
-#}
{% materialization snapshot, adapter='postgres' %}
    {%- set keys = sluice_list(config.require('unique_key')) -%}
    {%- if config.get('strategy') != 'check' -%}
        {%- do exceptions.raise_compiler_error(
            'snapshot ' ~ model.name ~ ': strategy must be check; its check_cols are the columns that open a version. '
            ~ 'When a version became true is known from the change log, so the timestamp strategy has no meaning here.'
        ) -%}
    {%- endif -%}
    {%- do sluice_refuse_blind_inputs(model) -%}
    {%- set touched_by = {} -%}
    {%- for node in sluice_inputs(model) -%}{%- do touched_by.update({node.name: keys}) -%}{%- endfor -%}
    {%- set meta = config.get('meta', {}) -%}
    {%- set chain = sluice_chain(sql ~ '\n', keys, config.get('check_cols'), config.get('hard_deletes', 'invalidate'), meta) -%}
    {%- set spec = sluice_spec(chain, 'dbt_scd_id', keys, touched_by, {'from': 'dbt_valid_from', 'to': 'dbt_valid_to'}) -%}
    {{ return({'relations': [sluice_converge(spec)]}) }}
{% endmaterialization %}


{#- Names of the columns of `sql` that are the source's own: those of the log begin with an underscore. -#}
{% macro sluice_log_business_columns(sql) %}
    {%- set names = [] -%}
    {%- for column in get_columns_in_query('select * from (' ~ sql ~ ') as probe where false') -%}
        {%- if not column.startswith('_') -%}{%- do names.append(column) -%}{%- endif -%}
    {%- endfor -%}
    {{ return(names) }}
{% endmacro %}


{#-
    The chain of versions of every key in `sql` (a staging model: all versions of a table, with the log's columns).

    Cases of docs/reference/scd2-cases.md: one version per instant, decided by source order, presence
    before absence, and content (3, 5); equal
    neighbours are one version (26); half open (17); type 1 columns show the latest value in every version (14); a
    tombstone closes once, whatever values it carries, a return opens (8, 9); the first version begins when history begins (16).
-#}
{% macro sluice_chain(sql, keys, check_cols, hard_deletes, meta) %}
    {%- set columns = sluice_log_business_columns(sql) -%}
    {%- set attributes = columns | reject('in', keys) | list -%}
    {%- set opening = attributes if check_cols == 'all' else check_cols -%}
    {%- set overwritten = attributes | reject('in', opening) | list -%}
    {%- set identity = sluice_list(meta.get('identity', [])) -%}
    {%- for name in opening + identity if name not in columns -%}
        {%- do exceptions.raise_compiler_error('snapshot ' ~ model.name ~ ': check_cols names ' ~ name ~ ', which its relation does not have') -%}
    {%- endfor -%}
    {%- set key = keys | join(', ') -%}
    {%- set reused_after = meta.get('key_reused_after') -%}
    {%- set entity = key ~ (', _incarnation' if identity or reused_after else '') -%}
    with instants as (

        select distinct on ({{ key }}, _effective_at) *
        from ({{ sql }}) as log
        {% if hard_deletes == 'ignore' -%}
        where _op is distinct from 'delete'
        {% endif -%}
        order by {{ key }}, _effective_at, _sequence desc, _op desc, _row_hash desc

    ),

    {% if entity != key -%}
    marked as (

        select
            *,
            coalesce(
                _op is distinct from 'delete' and (
                    {%- if reused_after %}
                    (lag(_op) over chain = 'delete' and _effective_at - lag(_effective_at) over chain >= interval '{{ reused_after }}')
                    {{- ' or ' if identity }}
                    {%- endif %}
                    {%- if identity %}
                    (lag(_op) over chain <> 'delete' and row({{ identity | join(', ') }}) is distinct from lag(row({{ identity | join(', ') }})) over chain)
                    {%- endif %}
                ),
                false
            ) as _is_another
        from instants
        window chain as (partition by {{ key }} order by _effective_at)

    ),

    incarnated as (

        select
            *,
            count(*) filter (where _is_another) over (partition by {{ key }} order by _effective_at) as _incarnation
        from marked

    ),

    {% endif -%}
    compared as (

        select
            {{ entity }},
            {% for name in opening %}{{ name }},
            {% endfor %}
            {%- for name in overwritten %}
            first_value({{ name }}) over (
                partition by {{ entity }} order by (_op = 'delete'), _effective_at desc
            ) as {{ name }},
            {%- endfor %}
            _op = 'delete' as _is_deleted,
            _effective_at,
            coalesce(lag(_op) over chain, 'delete') = 'delete' as _was_gone,
            row(_op = 'delete' {%- if entity != key %}, _incarnation{% endif %} {%- for name in opening %}, {{ name }}{% endfor %}) is distinct from
            lag(row(_op = 'delete' {%- if entity != key %}, _incarnation{% endif %} {%- for name in opening %}, {{ name }}{% endfor %})) over chain as _opens
        from {{ 'instants' if entity == key else 'incarnated' }}
        window chain as (partition by {{ key }} order by _effective_at)

    ),

    versions as (

        select
            *,
            lead(_effective_at, 1, 'infinity'::timestamptz) over opened as _closes_at,
            row_number() over opened = 1 as _is_first_version
        from compared
        where _opens and not (_is_deleted and _was_gone)
        window opened as (partition by {{ key }} order by _effective_at)

    ),

    dated as (

        select
            *,
            case
                when _is_first_version then least('{{ meta.get('history_begins', '-infinity') }}'::timestamptz, _effective_at) else _effective_at
            end as _begins_at
        from versions

    )

    select
        {{ key }},
        {%- for name in opening %}
        {% if hard_deletes == 'new_record' -%}
        case when _is_deleted then lag({{ name }}) over (partition by {{ key }} order by _begins_at) else {{ name }} end as {{ name }},
        {%- else -%}
        {{ name }},
        {%- endif -%}
        {%- endfor %}
        {%- for name in overwritten %}
        {{ name }},
        {%- endfor %}
        {%- if entity != key %}
        _incarnation::integer as incarnation,
        {%- endif %}
        {{ version_key(keys, '_begins_at') }} as dbt_scd_id,
        _effective_at as dbt_updated_at,
        _begins_at as dbt_valid_from,
        _closes_at as dbt_valid_to
        {%- if hard_deletes == 'new_record' %},
        _is_deleted::text as dbt_is_deleted
        {%- endif %}
    from dated
    {%- if hard_deletes != 'new_record' %}
    where not _is_deleted
    {%- endif %}
{% endmacro %}
