-- How far one run of the models reads the change logs: all models of a run read the same publications, so that facts
-- and their dimensions agree however much is published beside them. By `pending` for a run of the DAG, by its first
-- model for an invocation of dbt.
create table if not exists ops.reads_as_of (
    run_id text primary key, -- of the scheduler, or dbt's invocation_id
    seq bigint not null,
    decided_at timestamptz not null default clock_timestamp()
);
