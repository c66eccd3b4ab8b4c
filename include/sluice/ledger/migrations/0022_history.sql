-- What a batch looked like, so that later ones can be compared with it. Aggregates of a sample, never a row.
create table ops.batch_profile (
    batch_id bigint primary key references ops.batch (batch_id) on delete cascade,
    source text not null,
    table_name text not null,
    unit text not null,
    instant timestamptz not null, -- for which the batch speaks: its place in the history
    kind text not null check (kind in ('rows', 'new rows')), -- all of the unit, or only those that the extract before did not have
    rows_read bigint not null,
    seconds double precision, -- the window that a cursor read; NULL: not by a window
    rows_profiled bigint not null,
    columns jsonb not null,
    created_at timestamptz not null default clock_timestamp()
);
create index batch_profile_history on ops.batch_profile (source, table_name, instant);

-- A person's word that lets one run go on although a check did not pass. Never deleted: it is the record.
create table ops.gate_override (
    gate_override_id bigint generated always as identity primary key,
    run_id text not null,
    gate text not null,
    check_name text not null,
    object text not null,
    unit text, -- of a batch: the same delivery may be read again by another run
    content_hash text,
    overridden_by text not null,
    reason text not null check (reason <> ''),
    created_at timestamptz not null default clock_timestamp(),
    used_at timestamptz, -- when a gate first went on because of it
    used_run_id text
);
create index gate_override_run on ops.gate_override (run_id, gate);
create index gate_override_object on ops.gate_override (object, check_name);
