-- Between which instants a key answers differently now; the whole of time where the relation keeps no history.
alter table ops.changed_key drop constraint if exists changed_key_pkey;
alter table ops.changed_key
add column if not exists changed_from timestamptz not null default '-infinity',
add column if not exists changed_to timestamptz not null default 'infinity';
create index if not exists changed_key_change on ops.changed_key (change_id);

-- Keys that a dimension has no longer and that facts may still point to: their rows stay until those were recomputed.
create table if not exists ops.retired_key (
    relation text not null,
    key text not null,
    seq bigint not null, -- of the dimension's commit
    retired_at timestamptz not null default clock_timestamp(),
    primary key (relation, key)
);
