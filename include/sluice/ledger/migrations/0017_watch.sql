-- What was promised, and what is being done: read by the exporter and the watcher, which run without Airflow.

-- What the declarations promise, as it was last read from them. A declaration with a fault keeps its last good row.
create table ops.objective (
    kind text not null check (kind in ('table', 'layer')),
    subject text not null, -- shop.orders, marts
    source text, -- of a table
    owner text not null,
    freshness interval, -- how old it may be
    max_quiet interval, -- how long a source may bring nothing new
    deadline interval, -- how long a run may take
    declared_at timestamptz not null default clock_timestamp(), -- a table that was never read is as old as its promise
    read_at timestamptz not null default clock_timestamp(),
    primary key (kind, subject)
);

-- From which declared tables a relation of the warehouse is made, through however many models.
create table ops.lineage (
    relation text not null,
    layer text not null,
    source text not null,
    table_name text not null,
    primary key (relation, source, table_name)
);

-- The steps that run now, and the last one of each that ended. A row whose beat stands still is a step that was killed.
create table ops.step (
    job text not null, -- the DAG, or the command
    step text not null, -- the task
    run_id text not null,
    host text not null,
    pid int not null,
    started_at timestamptz not null default clock_timestamp(),
    beat_at timestamptz not null default clock_timestamp(),
    ended_at timestamptz,
    succeeded boolean,
    primary key (job, step, run_id)
);

-- Deadlines that were missed. `subject` is a DAG, or a DAG and a layer of it.
create table ops.deadline_miss (
    subject text not null,
    run_id text not null,
    allowed interval not null,
    owner text not null,
    missed_at timestamptz not null default clock_timestamp(),
    primary key (subject, run_id)
);
create index deadline_miss_at on ops.deadline_miss (subject, missed_at desc);

-- The latest verdict of a gate is asked for at every scrape; those of single batches are many and are asked by batch.
create index gate_result_gate on ops.gate_result (gate, gate_result_id desc) where gate <> 'batch';
