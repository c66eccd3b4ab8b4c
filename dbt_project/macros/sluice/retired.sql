{#-
    A row that others point to does not vanish under them. Dimension and facts commit one after the other, and a fact's gate may
    fail in between; so a key of the dimension that is no more is first *retired*: the row stays, its interval emptied so that no
    as-of join finds it, until the facts that pointed to it were recomputed. Who points to whom is told by `relationships` tests.
    docs/reference/convergent-models.md, "Keys that always resolve".
-#}


{#- [{relation, name, column}]: the convergent models whose rows point to `node`'s unique key, by their relationships tests. -#}
{% macro sluice_pointers_to(node) %}
    {%- set found = [] -%}
    {%- if node.config.unique_key is string and node.config.materialized == 'convergent' -%}
        {%- for test in graph.nodes.values() if test.resource_type == 'test' and test.test_metadata and test.test_metadata.name == 'relationships' -%}
            {%- set arguments = test.test_metadata.kwargs -%}
            {%- set child = graph.nodes.get(test.attached_node) -%}
            {%- if child and child.unique_id != node.unique_id and child.config.materialized == 'convergent'
                    and arguments.get('field') == node.config.unique_key and sluice_named_ref(arguments.get('to', '')) == node.name -%}
                {%- do found.append({'relation': child.schema ~ '.' ~ child.alias, 'model': child, 'column': arguments.column_name}) -%}
            {%- endif -%}
        {%- endfor -%}
    {%- endif -%}
    {{ return(found) }}
{% endmacro %}


{#- The name in `ref('…')` or `ref('package', '…')`, as a test has it. -#}
{% macro sluice_named_ref(text) %}
    {%- set found = modules.re.search("ref\\(\\s*(?:['\"][^'\"]+['\"]\\s*,\\s*)?['\"]([^'\"]+)['\"]", text) -%}
    {{ return(found.group(1) if found else none) }}
{% endmacro %}


{#- Column sluice_stays of sluice_gone: rows that are to be retired, or are so already. They are not deleted; their emptied interval is written here. -#}
{% macro sluice_retire(spec) %}
    {%- do run_query('alter table sluice_gone add column sluice_stays boolean not null default false') -%}
    {%- if not sluice_pointers_to(model) -%}{{ return(none) }}{%- endif -%}
    {%- set key = spec.grain[0] -%}
    {%- do run_query("delete from sluice_gone as gone where exists (select from ops.retired_key as retired where retired.relation = '" ~ spec.name ~ "' and retired.key = gone." ~ key ~ '::text)'
        ~ ' and not exists (select from sluice_come as come where come.' ~ key ~ ' = gone.' ~ key ~ ')') -%}
    {%- do run_query('update sluice_gone as gone set sluice_stays = not exists (select from sluice_come as come where come.' ~ key ~ ' = gone.' ~ key ~ ')') -%}
    {%- do run_query("delete from ops.retired_key as retired using sluice_come as come where retired.relation = '" ~ spec.name ~ "' and retired.key = come." ~ key ~ '::text') -%}
    {%- if spec.validity -%}
        {%- do run_query('update ' ~ spec.target ~ ' as present set ' ~ spec.validity.to ~ ' = present.' ~ spec.validity.from
            ~ (', ' ~ spec.validity.current ~ ' = false' if spec.validity.current)
            ~ ' from sluice_gone as gone where gone.sluice_stays and present.' ~ key ~ ' = gone.' ~ key) -%}
    {%- endif -%}
{% endmacro %}


{#-
    Delete retired rows that nobody points to any more: of the dimensions that this model points to, and of the model itself. In a
    transaction of its own, after the model's, and only while none of the models concerned is being written, since what it is about
    to commit cannot be seen. A model that has read the retirement points there no longer; one that takes the key from elsewhere
    (touched_by: none), or whose corrections may wait for a closed period, is looked into.
-#}
{% macro sluice_purge_retired(spec) %}
    {%- do sluice_begin() -%}
    {%- set held = run_query('select distinct relation from ops.retired_key').columns[0].values() -%}
    {%- set parents = [model] -%}
    {%- for node_id in model.depends_on.nodes if node_id in graph.nodes -%}{%- do parents.append(graph.nodes[node_id]) -%}{%- endfor -%}
    {%- for parent in parents if parent.schema ~ '.' ~ parent.alias in held -%}
        {%- set name = parent.schema ~ '.' ~ parent.alias -%}
        {%- set pointers = sluice_pointers_to(parent) -%}
        {%- set locks = ['pg_try_advisory_xact_lock(' ~ sluice_lock(name) ~ ')'] -%}
        {%- set conditions = [] -%}
        {%- for pointer in pointers -%}
            {%- do locks.append('pg_try_advisory_xact_lock_shared(' ~ sluice_lock(pointer.relation) ~ ')') -%}
            {%- if run_query("select to_regclass('" ~ pointer.relation ~ "') is not null")[0][0] -%}
                {%- set touch = (pointer.model.config.get('touched_by') or {}).get(parent.name) -%}
                {%- if touch and not pointer.model.config.get('closed_periods') -%}
                    {%- do conditions.append("retired.seq <= coalesce((select mark.seq from ops.model_watermark as mark where mark.relation = '" ~ pointer.relation ~ "' and mark.input = '" ~ parent.name ~ "'), -1)") -%}
                {%- else -%}
                    {%- do conditions.append('not exists (select from ' ~ pointer.relation ~ ' as pointing where pointing.' ~ pointer.column ~ ' = parent.' ~ parent.config.unique_key ~ ')') -%}
                {%- endif -%}
            {%- endif -%}
        {%- endfor -%}
        {%- if run_query('select ' ~ locks | join(' and '))[0][0] -%}
            {%- do run_query(
                'with purged as (delete from ' ~ name ~ ' as parent using ops.retired_key as retired'
                ~ " where retired.relation = '" ~ name ~ "' and parent." ~ parent.config.unique_key ~ '::text = retired.key'
                ~ (' and ' ~ conditions | join(' and ') if conditions) ~ ' returning retired.key)'
                ~ " delete from ops.retired_key as retired using purged where retired.relation = '" ~ name ~ "' and retired.key = purged.key"
            ) -%}
        {%- endif -%}
    {%- endfor -%}
    {%- do adapter.commit() -%}
{% endmacro %}


{#- The query, with retired rows left out: to it they are gone already. A lookup in a dimension with validity finds none in any case. -#}
{% macro sluice_without_retired(sql, touched_by) %}
    {%- set text = [sql] -%}
    {%- for node_id in model.depends_on.nodes if node_id in graph.nodes -%}
        {%- set parent = graph.nodes[node_id] -%}
        {%- set touch = touched_by.get(parent.name) -%}
        {%- if touch and not (touch.is_lookup and parent.config.get('validity')) and sluice_pointers_to(parent) -%}
            {%- set relation = sluice_relation(parent) -%}
            {%- do text.append(sluice_reading(text.pop(), relation, '(select * from ' ~ relation ~ ' where ' ~ parent.config.unique_key
                ~ "::text not in (select key from ops.retired_key where relation = '" ~ parent.schema ~ '.' ~ parent.alias ~ "'))")) -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return(text[0]) }}
{% endmacro %}
