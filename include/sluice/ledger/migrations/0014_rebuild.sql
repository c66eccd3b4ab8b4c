-- Models that a person has rebuilt: who, why, which; the difference itself is in the schema `rebuild`.
create schema if not exists rebuild;
create table ops.rebuild (
    rebuild_id bigint generated always as identity primary key,
    selection text not null, -- a dbt selection, and which rows
    state text not null check (state in ('rehearsed', 'applied', 'accepted', 'undone', 'dropped')),
    as_of_seq bigint not null, -- the logs were read up to here
    plan jsonb not null, -- per model: how its rows are told apart, how many go and come
    asked_by text not null,
    asked_at timestamptz not null default clock_timestamp(),
    applied_by text,
    applied_at timestamptz,
    reason text,
    ended_by text, -- accepted or undone
    ended_at timestamptz,
    ended_reason text
);
