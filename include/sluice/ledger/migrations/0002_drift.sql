-- What a batch looked like, and what its contract said, so that an old batch stays readable when both have moved on.
alter table ops.batch add column schema_hash text; -- of the fields that came, in their order

create table ops.contract (
    source text not null,
    table_name text not null,
    contract_hash text not null,
    contract jsonb not null, -- the declaration of the table
    first_seen timestamptz not null default clock_timestamp(),
    primary key (source, table_name, contract_hash)
);
