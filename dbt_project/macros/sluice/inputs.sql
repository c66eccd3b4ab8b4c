{#- What a convergent relation reads, and whether a change there can be seen. -#}


{#- Every input through which a change can come must be listed: a missing one would be a silent divergence. -#}
{% macro sluice_check_inputs(spec) %}
    {%- do sluice_refuse_blind_inputs(model) -%}
    {%- set known = [] -%}
    {%- for node in sluice_inputs(model) -%}{%- do known.append(node.name) -%}{%- endfor -%}
    {%- for name in known if name not in spec.touched_by -%}
        {%- do exceptions.raise_compiler_error(
            model.name ~ ' reads ' ~ name ~ ', which touched_by does not list; a change there would never reach this model. '
            ~ 'Add it with the column of this model that carries the key of ' ~ name
        ) -%}
    {%- endfor -%}
    {%- for name, touch in spec.touched_by.items() -%}
        {%- if name not in known -%}
            {%- do exceptions.raise_compiler_error(model.name ~ ': touched_by lists ' ~ name ~ ', which the model does not read') -%}
        {%- endif -%}
        {%- if touch and touch.by -%}{%- do sluice_check_by(name, touch.by) -%}{%- endif -%}
        {%- if touch and touch.through -%}{%- do sluice_check_through(spec, name, touch) -%}{%- endif -%}
        {%- if touch and touch.unless_in and (touch.unless_in not in spec.touched_by or not spec.touched_by[touch.unless_in] or spec.touched_by[touch.unless_in]['columns'] != touch['columns']) -%}
            {%- do exceptions.raise_compiler_error(model.name ~ ': touched_by of ' ~ name ~ ' says unless_in ' ~ touch.unless_in ~ ', which must be an input by the same column') -%}
        {%- endif -%}
    {%- endfor -%}
{% endmacro %}


{#- `through` names an input by whose own column rows are found, and may name its column with the instant of the lookup. -#}
{% macro sluice_check_through(spec, name, touch) %}
    {%- set via, says = touch.through, model.name ~ ': touched_by of ' ~ name ~ ' says through ' -%}
    {%- for word in via if word not in ('input', 'at') -%}
        {%- do exceptions.raise_compiler_error(says ~ "with '" ~ word ~ "'; it may have input, at") -%}
    {%- endfor -%}
    {%- set finds = spec.touched_by.get(via.input | string) or {} -%}
    {%- if not touch.is_lookup or not finds or finds.through or finds.unless_in -%}
        {%- do exceptions.raise_compiler_error(says ~ via.input ~ ', which must be an input that finds rows by a column of its own; and ' ~ name ~ ' is a lookup (at, or lookup)') -%}
    {%- endif -%}
    {%- set present = adapter.get_columns_in_relation(sluice_relation_of(via.input)) | map(attribute='name') | list -%}
    {%- for column in touch['columns'] + finds['columns'] + ([via.at] if via.at else []) if column not in present -%}
        {%- do exceptions.raise_compiler_error(says ~ via.input ~ ', which does not have the column ' ~ column) -%}
    {%- endfor -%}
    {%- for node in sluice_inputs(model) if node.name == via.input and not sluice_logs_of(node) -%}
        {%- if finds['columns'] != sluice_list(finds.by or node.config.get('recompute_by') or node.config.unique_key) -%}
            {%- do exceptions.raise_compiler_error(says ~ via.input ~ ', whose key this model carries as ' ~ finds['columns'] | join(', ') ~ ': call it as it is called there, or leave out through') -%}
        {%- endif -%}
    {%- endfor -%}
    {%- if via.at and not touch.at -%}{%- do exceptions.raise_compiler_error(says ~ via.input ~ ' at ' ~ via.at ~ ', and has no at itself') -%}{%- endif -%}
{% endmacro %}


{#- `by` names columns of a snapshot or convergent model; of a log, both have the column. Their values are kept for a while. -#}
{% macro sluice_check_by(name, columns) %}
    {%- for node in sluice_inputs(model) if node.name == name -%}
        {%- set present = [] if sluice_logs_of(node) else adapter.get_columns_in_relation(sluice_relation(node)) | map(attribute='name') | reject('in', sluice_personal_columns(node)) | list -%}
        {%- for column in columns if column not in present -%}
            {%- do exceptions.raise_compiler_error(model.name ~ ': touched_by of ' ~ name ~ ' says by ' ~ column ~ ', which must be a column of ' ~ name ~ ', a snapshot or convergent model, and not personal') -%}
        {%- endfor -%}
    {%- endfor -%}
{% endmacro %}


{#- The columns, each set as one text, by which other models want to hear of changes of `node`: see `by` in touched_by. -#}
{% macro sluice_asked_of(node, present) %}
    {%- set asked, noted = [], present | reject('in', sluice_personal_columns(node)) | list -%}
    {%- for other in graph.nodes.values() if other.config.get('touched_by') -%}
        {%- set touch = other.config.get('touched_by').get(node.name) -%}
        {%- if touch is mapping and touch.get('by') and not sluice_list(touch.by) | reject('in', noted) | list -%}{%- do asked.append(sluice_list(touch.by) | join(', ')) -%}{%- endif -%}
    {%- endfor -%}
    {{ return(asked | unique | list) }}
{% endmacro %}


{#- A seed, a source or a table that dbt writes keeps no record of what changed in it: it cannot be read directly. -#}
{% macro sluice_refuse_blind_inputs(node) %}
    {%- for node_id in node.depends_on.nodes -%}
        {%- set kind = none -%}
        {%- if node_id in graph.sources -%}
            {%- set input = graph.sources[node_id] -%}
            {%- if not sluice_logs_of(node) -%}{%- set kind = 'source' -%}{%- endif -%}
        {%- elif node_id in graph.nodes -%}
            {%- set input = graph.nodes[node_id] -%}
            {%- if input.config.materialized in ('view', 'ephemeral') -%}
                {%- do sluice_refuse_blind_inputs(input) -%}
            {%- elif input.config.materialized not in ('snapshot', 'convergent') -%}
                {%- set kind = input.config.materialized -%}
            {%- endif -%}
        {%- endif -%}
        {%- if kind -%}
            {%- do exceptions.raise_compiler_error(
                model.name ~ ' reads the ' ~ kind ~ ' ' ~ (input.source_name ~ '.' if kind == 'source') ~ input.name ~ (' through ' ~ node.name if node.name != model.name)
                ~ ', whose changes leave no trace: they would never reach this model. Read a staging view of a change log, a snapshot or a convergent model'
            ) -%}
        {%- endif -%}
    {%- endfor -%}
{% endmacro %}


{#- The nodes that feed a model with changes: logs (staging views), snapshots and convergent models; views are looked through. -#}
{% macro sluice_inputs(node) %}
    {%- set found = [] -%}
    {%- for node_id in node.depends_on.nodes if node_id in graph.nodes -%}
        {%- set parent = graph.nodes[node_id] -%}
        {%- if parent.config.materialized in ('snapshot', 'convergent') or sluice_logs_of(parent) -%}
            {%- if parent not in found -%}{%- do found.append(parent) -%}{%- endif -%}
        {%- elif parent.config.materialized == 'view' or parent.config.materialized == 'ephemeral' -%}
            {%- for grandparent in sluice_inputs(parent) if grandparent not in found -%}{%- do found.append(grandparent) -%}{%- endfor -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return(found) }}
{% endmacro %}


{#- Where the rows of a node are: with --defer, in the other environment if there are none here, as `ref` has it. -#}
{% macro sluice_relation(node) %}
    {%- set own = api.Relation.create(database=node.database, schema=node.schema, identifier=node.alias) -%}
    {%- set deferred = node.get('defer_relation') if invocation_args_dict.get('defer') and load_relation(own) is none else none -%}
    {{ return(api.Relation.create(database=deferred.database, schema=deferred.schema, identifier=deferred.alias) if deferred else own) }}
{% endmacro %}


{#- `sql`, which reads `rows` in the place of `relation`. A join that gives it no alias goes on to call it by its name. -#}
{% macro sluice_reading(sql, relation, rows) %}
    {%- set gap = '(?:\\s|--[^\\n]*(?:\\n|$)|/\\*(?:(?!\\*/)[\\s\\S])*\\*/)*' -%}
    {%- set next = '(?i:on|using|where|group|having|window|order|limit|offset|fetch|for|union|intersect|except|join|inner|left|right|full|cross|natural)' -%}
    {%- set without_alias = modules.re.escape(relation | string) ~ '(?=' ~ gap ~ '(?:$|[),;]|' ~ next ~ '\\b))' -%}
    {{ return(modules.re.sub(without_alias, '\\g<0> as ' ~ adapter.quote(relation.identifier), sql) | replace(relation | string, rows)) }}
{% endmacro %}


{#- The relation of one of the model's inputs, by the input's name. -#}
{% macro sluice_relation_of(name) %}
    {%- for node in sluice_inputs(model) if node.name == name -%}
        {{ return(sluice_relation(node)) }}
    {%- endfor -%}
{% endmacro %}


{#- The declared tables whose change logs a staging view shows; none of any other node. -#}
{% macro sluice_logs_of(node) %}
    {%- set logs = [] -%}
    {%- if node.resource_type == 'model' and node.config.materialized == 'view' -%}
        {%- for node_id in node.depends_on.nodes if node_id in graph.sources -%}{%- do logs.append(graph.sources[node_id]) -%}{%- endfor -%}
    {%- endif -%}
    {{ return(logs) }}
{% endmacro %}


{#- The views a model looks through, at any depth: what they say is part of what the model says. -#}
{% macro sluice_views(node) %}
    {%- set found = [] -%}
    {%- for node_id in node.depends_on.nodes if node_id in graph.nodes -%}
        {%- set parent = graph.nodes[node_id] -%}
        {%- if parent.config.materialized in ('view', 'ephemeral') -%}
            {%- if parent.config.materialized == 'view' -%}
                {%- do found.append(adapter.quote(parent.schema) ~ '.' ~ adapter.quote(parent.alias)) -%}
            {%- endif -%}
            {%- do found.extend(sluice_views(parent)) -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return(found | unique | sort) }}
{% endmacro %}


{#- A hash of everything that decides the rows, except the inputs' rows: a change of it recomputes the whole relation. -#}
{% macro sluice_code(spec) %}
    {%- set parts = [spec.sql, tojson([spec.grain, spec.slice, spec.touched_by, spec.validity], sort_keys=true)] -%}
    {%- set views = sluice_views(model) -%}
    {%- if views -%}
        {#- As they are in the database, and not as the project has them: what is read is what counts. -#}
        {%- do parts.append(run_query("select string_agg(name || ':' || coalesce(pg_get_viewdef(to_regclass(name)), ''), ';' order by name) from unnest(array['" ~ views | join("', '") ~ "']) as name")[0][0]) -%}
    {%- endif -%}
    {#- The same code in schemas with a prefix is the same code, and so it is in a copy of the database under another name. -#}
    {%- set prefix = env_var('SLUICE_SCHEMA_PREFIX', '') -%}
    {%- set text = parts | join('\n') | replace(adapter.quote(this.database) ~ '.', '') -%}
    {{ return(local_md5(text | replace(prefix ~ '_', '') if prefix else text)) }}
{% endmacro %}
