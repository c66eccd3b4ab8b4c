-- The ledger. Everything that decides what happens next is here, committed with the data it speaks of.
-- The base, idempotent: run when its text has changed. A change to an existing table is a numbered file in migrations/.

create schema if not exists ops;
create schema if not exists landing;
create schema if not exists staging;
create schema if not exists snapshots;
create schema if not exists intermediate;
create schema if not exists marts;

-- One row, one counter. Taking the row lock orders commits: who sees a number sees all smaller ones.
create table if not exists ops.clock (
    one boolean primary key default true check (one),
    seq bigint not null default 0
);
insert into ops.clock default values on conflict do nothing;

create or replace function ops.next_seq() returns bigint
language sql as $$ update ops.clock set seq = seq + 1 returning seq $$;

create table if not exists ops.batch (
    batch_id bigint generated always as identity primary key,
    source text not null,
    table_name text not null,
    unit text not null,
    state text not null check (
        state in ('landing', 'landed', 'audited', 'published', 'superseded', 'unchanged', 'refused', 'abandoned')
    ),
    mode text not null check (mode in ('append', 'full', 'cursor')),
    part text not null default 'unit' check (part in ('unit', 'supplement')),
    run_id text not null,
    lease_token bigint,
    -- what was read
    content_hash text,
    fingerprint text,
    contract_hash text,
    effective_at timestamptz,
    watermark_from text,
    watermark_to text,
    interval_start timestamptz,
    interval_end timestamptz,
    bytes_read bigint,
    control_total bigint,
    -- the books: rows, exact
    rows_read bigint not null default 0,
    rows_applied bigint not null default 0,
    rows_unchanged bigint not null default 0,
    rows_duplicate bigint not null default 0,
    rows_quarantined bigint not null default 0,
    rows_late bigint not null default 0,
    rows_deleted bigint not null default 0, -- tombstones: keys that vanished; beside the books
    -- what was decided
    verdict text,
    deletes_withheld boolean not null default false,
    approved_by text,
    approved_reason text,
    details jsonb not null default '{}', -- how the landing table maps to the contract
    started_at timestamptz not null default clock_timestamp(),
    heartbeat_at timestamptz not null default clock_timestamp(),
    landed_at timestamptz,
    audited_at timestamptz,
    published_at timestamptz,
    published_seq bigint unique,
    superseded_seq bigint,
    superseded_by bigint references ops.batch (batch_id),
    constraint books_balance check (
        state not in ('published', 'superseded')
        or rows_read = rows_applied + rows_unchanged + rows_duplicate + rows_quarantined + rows_late
    ),
    constraint published_has_seq check (state not in ('published', 'superseded') or published_seq is not null)
);
create index if not exists batch_unit on ops.batch (source, table_name, unit, batch_id desc);
create index if not exists batch_superseded on ops.batch (batch_id) where superseded_seq is not null;
create index if not exists batch_superseded_seq on ops.batch (superseded_seq) where superseded_seq is not null;
create index if not exists batch_content on ops.batch (source, table_name, content_hash);
create index if not exists batch_run on ops.batch (run_id);

create table if not exists ops.lease (
    source text not null,
    table_name text not null,
    unit text not null,
    token bigint not null,
    holder text not null,
    expires_at timestamptz not null,
    primary key (source, table_name, unit)
);

create table if not exists ops.watermark (
    source text not null,
    table_name text not null,
    value text not null,
    batch_id bigint references ops.batch (batch_id),
    moved_at timestamptz not null default clock_timestamp(),
    primary key (source, table_name)
);

-- When a table in staging was last known to be what the source held: published, or read and found to hold nothing new.
create table if not exists ops.table_read (
    source text not null,
    table_name text not null,
    read_at timestamptz not null,
    run_id text not null,
    primary key (source, table_name)
);

create table if not exists ops.quarantine (
    quarantine_id bigint generated always as identity primary key,
    batch_id bigint not null references ops.batch (batch_id),
    source text not null,
    table_name text not null,
    row_number bigint not null,
    key text, -- the business key as a JSON array, where it could be read: this key is present, its values are not known
    column_name text,
    code text not null,
    reason text not null,
    raw text,
    raw_bytes bytea, -- when the row cannot be stored as text (NUL, invalid UTF-8)
    state text not null default 'open' check (state in ('open', 'replayed', 'discarded', 'superseded')),
    state_reason text,
    state_by text,
    state_at timestamptz,
    created_at timestamptz not null default clock_timestamp()
);
create index if not exists quarantine_batch on ops.quarantine (batch_id);
create index if not exists quarantine_open on ops.quarantine (source, table_name) where state = 'open';

create table if not exists ops.schema_event (
    schema_event_id bigint generated always as identity primary key,
    batch_id bigint references ops.batch (batch_id),
    source text not null,
    table_name text not null,
    unit text not null,
    kind text not null,
    column_name text,
    message text not null,
    created_at timestamptz not null default clock_timestamp()
);

create table if not exists ops.gate_result (
    gate_result_id bigint generated always as identity primary key,
    run_id text not null,
    gate text not null,
    check_name text not null,
    object text not null,
    severity text not null check (severity in ('block', 'quarantine', 'warn')),
    verdict text not null check (verdict in ('pass', 'fail', 'warn', 'error', 'missing')),
    observed text,
    bound text,
    failing_rows bigint,
    sample_keys jsonb,
    message text,
    batch_id bigint references ops.batch (batch_id),
    checked_at timestamptz not null default clock_timestamp()
);
create index if not exists gate_result_run on ops.gate_result (run_id, gate);

-- What a model commit changed, for the models downstream.
create table if not exists ops.change (
    change_id bigint generated always as identity primary key,
    relation text not null,
    seq bigint not null unique,
    is_full boolean not null, -- every key may have changed
    run_id text not null,
    created_at timestamptz not null default clock_timestamp()
);
create index if not exists change_relation on ops.change (relation, seq);

create table if not exists ops.changed_key (
    change_id bigint not null references ops.change (change_id) on delete cascade,
    key text not null,
    primary key (change_id, key)
);

create table if not exists ops.model_watermark (
    relation text not null,
    input text not null,
    seq bigint not null,
    moved_at timestamptz not null default clock_timestamp(),
    primary key (relation, input)
);

create table if not exists ops.model_run (
    model_run_id bigint generated always as identity primary key,
    run_id text not null,
    model text not null,
    relation text not null,
    state text not null check (state in ('success', 'unchanged')),
    rows_inserted bigint not null default 0,
    rows_deleted bigint not null default 0,
    keys_touched bigint,
    checks jsonb not null default '[]',
    seconds double precision,
    started_at timestamptz not null,
    committed_at timestamptz not null default clock_timestamp()
);
create index if not exists model_run_run on ops.model_run (run_id, model);
create index if not exists model_run_model on ops.model_run (model, model_run_id desc);

-- A backfill that a person asked for: past intervals of a DAG, run through Airflow's own backfill.
create table if not exists ops.backfill (
    backfill_id bigint generated always as identity primary key,
    dag_id text not null,
    engine_id bigint not null unique, -- Airflow's own number of it
    range_start timestamptz not null,
    range_end timestamptz not null,
    intervals int not null,
    reprocess text not null check (reprocess in ('none', 'failed', 'completed')),
    state text not null default 'running' check (state in ('running', 'success', 'failed')),
    runs_succeeded int not null default 0,
    runs_failed int not null default 0,
    rows_applied bigint not null default 0,
    rows_deleted bigint not null default 0,
    asked_by text not null,
    asked_at timestamptz not null default clock_timestamp(),
    finished_at timestamptz,
    reason text,
    plan text -- the reviewed file it came from
);
