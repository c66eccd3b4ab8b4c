-- How far an attempt at a unit got, committed with the rows that it had landed by then. The next attempt takes both over.
create table ops.checkpoint (
    batch_id bigint primary key references ops.batch (batch_id) on delete cascade,
    identity text not null, -- how the unit was asked for
    progress jsonb not null, -- the reader's own
    rows_landed bigint not null,
    rows_rejected bigint not null,
    saved_at timestamptz not null default clock_timestamp()
);

-- A connection that fails again and again is left alone: open while opened_at is set, until next_try_at.
create table ops.circuit (
    connection text primary key,
    failures integer not null default 0, -- in a row
    opened_at timestamptz,
    next_try_at timestamptz,
    last_error text, -- its kind, never its text
    last_failure_at timestamptz
);

-- What sources did that somebody should know: one row when it begins and one when it ends, not one per task.
create table ops.source_event (
    source_event_id bigint generated always as identity primary key,
    code text not null, -- CIRCUIT_OPENED, CIRCUIT_CLOSED, CLOCK_SKEW
    connection text not null,
    source text,
    table_name text,
    batch_id bigint references ops.batch (batch_id) on delete set null,
    message text not null,
    created_at timestamptz not null default clock_timestamp()
);
