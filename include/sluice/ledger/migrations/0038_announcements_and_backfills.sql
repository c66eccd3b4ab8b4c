-- Up to where the publications of a source were announced to the warehouse, and by which run. `since_seq` is where that
-- announcement began, so that the run can make it again if its task was killed before Airflow knew.
create table ops.announcement (
    source text primary key,
    run_id text not null,
    since_seq bigint not null,
    seq bigint not null,
    announced_at timestamptz not null default clock_timestamp()
);

-- Past intervals that were read without Airflow have no number of its own; their batches have this run_id.
alter table ops.backfill alter column engine_id drop not null;
alter table ops.backfill add column run_id text;
-- Of a plan: what its rehearsal found, and what was run therefore.
alter table ops.backfill add column rehearsed text;
