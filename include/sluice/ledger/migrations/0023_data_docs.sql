-- The latest page of Great Expectations' Data Docs per table: here, because workers share no disk.
create table ops.data_doc (
    layer text not null,
    relation text not null,
    run_id text not null,
    passed boolean not null,
    html text not null,
    written_at timestamptz not null default clock_timestamp(),
    primary key (layer, relation)
);
