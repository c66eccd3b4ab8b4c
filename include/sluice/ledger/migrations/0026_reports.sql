-- What the reports ask (sluice.reports), at 200 tables and 400 days of history: one probe per table, not a scan.
create index if not exists batch_latest on ops.batch (source, table_name, batch_id desc);
create index if not exists batch_publication
on ops.batch (source, table_name, published_seq desc) where published_seq is not null;
create index if not exists batch_published_at on ops.batch (published_at) where published_at is not null;
create index if not exists batch_refused on ops.batch (source, table_name, batch_id) where state = 'refused';
create index if not exists gate_result_batch on ops.gate_result (batch_id) where batch_id is not null;
create index if not exists gate_result_object on ops.gate_result (object, gate_result_id desc);
create index if not exists model_run_committed on ops.model_run (committed_at);
create index if not exists model_run_model_committed on ops.model_run (model, committed_at);

-- What it took: WAL of the whole server while a model's transaction ran, or a batch was published.
alter table ops.model_run add column if not exists wal_bytes bigint;
alter table ops.batch add column if not exists wal_bytes bigint;

-- What the columns looked like when `operations` last asked Postgres' own statistics. No value of a personal column.
create table if not exists ops.column_profile (
    relation text not null,
    column_name text not null,
    position int not null,
    type text not null,
    profiled_at timestamptz not null default clock_timestamp(),
    rows bigint not null,
    null_share double precision,
    distinct_count bigint,
    average_bytes int,
    minimum text,
    maximum text,
    common jsonb, -- [{value, share}], the most frequent first
    histogram jsonb, -- bounds of buckets that hold equally many rows
    primary key (relation, column_name)
);

-- How large each relation was, once a day: what growth is projected from.
create table if not exists ops.relation_size (
    relation text not null,
    measured_on date not null,
    bytes bigint not null,
    rows bigint not null,
    primary key (relation, measured_on)
);
