-- One incident per cause, messages that are never lost, and silences that end.
create table ops.incident (
    incident_id bigint generated always as identity primary key,
    kind text not null,
    subject text not null, -- what it is about: a source, a table, a task, a connection
    severity text not null check (severity in ('page', 'warn')),
    title text not null,
    detail text not null default '', -- never a row's value
    owner text not null default '',
    source text,
    job text, -- the DAG
    step text, -- its task
    run_id text,
    log_url text,
    runbook text not null,
    affected text[] not null default '{}', -- what is made from it
    last_good_at timestamptz, -- when a batch of it was last published
    caused_by bigint references ops.incident (incident_id), -- another tells it already
    count int not null default 1,
    opened_at timestamptz not null default clock_timestamp(),
    last_seen_at timestamptz not null default clock_timestamp(),
    acknowledged_at timestamptz,
    acknowledged_by text,
    acknowledged_reason text,
    resolved_at timestamptz,
    resolved_reason text
);
create unique index incident_open on ops.incident (kind, subject) where resolved_at is null;
create index incident_job on ops.incident (job, step) where resolved_at is null;

-- The outbox: what is to be told by which channel. A row stays until its channel has taken it.
create table ops.alert_delivery (
    delivery_id bigint generated always as identity primary key,
    incident_id bigint not null references ops.incident (incident_id) on delete cascade,
    event text not null check (event in ('opened', 'reminder', 'resolved')),
    channel text not null,
    created_at timestamptz not null default clock_timestamp(),
    attempts int not null default 0,
    next_try_at timestamptz not null default clock_timestamp(),
    last_error text, -- its kind, never its text: an address may hold a secret
    sent_at timestamptz,
    withdrawn_at timestamptz -- the channel is gone, or it was resolved before it could be told
);
create index alert_delivery_pending on ops.alert_delivery (next_try_at) where sent_at is null and withdrawn_at is null;
create index alert_delivery_incident on ops.alert_delivery (incident_id);

create table ops.alert_silence (
    silence_id bigint generated always as identity primary key,
    kind text, -- NULL: every kind
    subject text not null, -- a pattern as of a shell: shop, shop.*, *
    reason text not null,
    made_by text not null,
    made_at timestamptz not null default clock_timestamp(),
    ends_at timestamptz not null
);

-- One row: that the watcher lives.
create table ops.watcher (
    one boolean primary key default true check (one),
    beat_at timestamptz not null
);
