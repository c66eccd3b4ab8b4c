-- What the lines of the last full extract of a file were: ops.lines_<n> holds their hashes and keys.
create table ops.extract_lines (
    source text not null,
    table_name text not null,
    lines_id bigint generated always as identity,
    seq bigint not null default -1, -- the publication whose state the lines are of; -1: of none
    shape text not null default '', -- how they were read: declaration, dialect, header
    rows bigint not null default 0, -- how many hashes there must be
    checksum bigint not null default 0, -- all of them, by exclusive or
    primary key (source, table_name)
);
