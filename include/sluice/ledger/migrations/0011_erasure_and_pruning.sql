-- Each changed key asked whether its change exists, which the transaction that writes both knows. `sluice.ledger.prune` deletes both.
alter table ops.changed_key drop constraint if exists changed_key_change_id_fkey;

-- Who was erased, by whom and why: the key, which stays as a pseudonym, and how many rows; never a value that was erased.
create table ops.erasure (
    erasure_id bigint generated always as identity primary key,
    source text not null,
    column_name text not null,
    key text not null,
    rows jsonb not null, -- {relation: rows}
    asked_by text not null,
    reason text not null,
    erased_at timestamptz not null default clock_timestamp()
);
