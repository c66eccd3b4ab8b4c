-- Periods that are closed for a relation, by whom and why; and what became of corrections into them.
create table if not exists ops.period_lock (
    period_lock_id bigint generated always as identity primary key,
    relation text not null,
    period_from date not null,
    period_to date not null, -- excluded
    locked_by text not null,
    reason text not null,
    locked_at timestamptz not null default clock_timestamp(),
    unlocked_by text,
    unlocked_reason text,
    unlocked_at timestamptz,
    check (period_from < period_to)
);
create index if not exists period_lock_relation on ops.period_lock (relation) where unlocked_at is null;

create table if not exists ops.period_correction (
    relation text not null,
    key text not null, -- of the slice: a JSON array
    decision text not null check (decision in ('waits', 'moved', 'restated')),
    period date not null, -- the earliest day concerned
    rows bigint not null,
    run_id text not null,
    decided_at timestamptz not null default clock_timestamp(),
    primary key (relation, key, decision)
);
