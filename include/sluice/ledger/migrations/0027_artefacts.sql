-- What `operations` builds for the pages, each replaced as a whole: here, because workers and the web server share no disk.
create table if not exists ops.artefact (
    name text primary key, -- lineage (JSON), dbt-docs (one page of HTML)
    built_at timestamptz not null default clock_timestamp(),
    content bytea not null
);

-- The few results that did not pass, of the many that did: what the board asks of each table.
create index if not exists gate_result_not_passed
on ops.gate_result (object, gate_result_id desc) where verdict <> 'pass';
