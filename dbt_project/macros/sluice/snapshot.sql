{#-
    dbt snapshots whose rows are a pure function of the change log. Replaces dbt's own materialization for every snapshot
    of this project; why and what was weighed: docs/decisions/snapshots.md.
-#}
{% materialization snapshot, adapter='postgres' %}
    {%- set key = config.get('unique_key') -%}
    {%- set keys = [key] if key is string else key -%}
    {%- if keys | length != 1 -%}
        {%- do exceptions.raise_compiler_error(
            'snapshot ' ~ model.name ~ ': unique_key must be one column; make one in the staging model when the key is composite'
        ) -%}
    {%- endif -%}
    {%- if config.get('strategy') != 'check' -%}
        {%- do exceptions.raise_compiler_error(
            'snapshot ' ~ model.name ~ ': strategy must be check; its check_cols are the columns that open a version. '
            ~ 'When a version became true is known from the change log, so the timestamp strategy has no meaning here.'
        ) -%}
    {%- endif -%}
    {%- do sluice_refuse_blind_inputs(model) -%}
    {%- set sql = sql ~ '\n' -%}
    {%- set inputs = [] -%}
    {%- for node_id in model.depends_on.nodes -%}
        {%- do inputs.append(graph.nodes[node_id].name) -%}
    {%- endfor -%}
    {%- set columns = sluice_log_business_columns(sql) -%}
    {%- set chain = sluice_chain(sql, keys[0], columns, config.get('check_cols'), config.get('hard_deletes', 'invalidate'),
                                 config.get('meta', {}).get('history_begins', '-infinity')) -%}
    {%- set touched_by = {} -%}
    {%- for name in inputs -%}{%- do touched_by.update({name: keys[0]}) -%}{%- endfor -%}
    {%- set relation = sluice_converge(chain, 'dbt_scd_id', keys[0], touched_by) -%}
    {{ return({'relations': [relation]}) }}
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
{% macro sluice_chain(sql, key, columns, check_cols, hard_deletes, history_begins) %}
    {%- set attributes = columns | reject('equalto', key) | list -%}
    {%- set opening = attributes if check_cols == 'all' else check_cols -%}
    {%- set overwritten = attributes | reject('in', opening) | list -%}
    {%- for name in opening if name not in columns -%}
        {%- do exceptions.raise_compiler_error('snapshot ' ~ model.name ~ ': check_cols names ' ~ name ~ ', which its relation does not have') -%}
    {%- endfor -%}
    with instants as (

        select distinct on ({{ key }}, _effective_at) *
        from ({{ sql }}) as log
        {% if hard_deletes == 'ignore' -%}
        where _op is distinct from 'delete'
        {% endif -%}
        order by {{ key }}, _effective_at, _sequence desc, _op desc, _row_hash desc

    ),

    compared as (

        select
            {{ key }},
            {% for name in opening %}{{ name }},
            {% endfor %}
            {%- for name in overwritten %}
            first_value({{ name }}) over (
                partition by {{ key }} order by (_op = 'delete'), _effective_at desc
            ) as {{ name }},
            {%- endfor %}
            _op = 'delete' as _is_deleted,
            _effective_at,
            coalesce(lag(_op) over chain, 'delete') = 'delete' as _was_gone,
            row(_op = 'delete' {%- for name in opening %}, {{ name }}{% endfor %}) is distinct from
            lag(row(_op = 'delete' {%- for name in opening %}, {{ name }}{% endfor %})) over chain as _opens
        from instants
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
                when _is_first_version then least('{{ history_begins }}'::timestamptz, _effective_at) else _effective_at
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
        {{ version_key([key], '_begins_at') }} as dbt_scd_id,
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
