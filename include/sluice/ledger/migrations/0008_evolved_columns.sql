-- Columns that a log has because its source brought them (drift.new_column: evolve), until the declaration adopts them.
create table ops.evolved_column (
    source text not null,
    table_name text not null,
    column_name text not null,
    field text not null, -- its name at the source
    type text not null, -- of all values that the batch brought in which it was first seen
    batch_id bigint references ops.batch (batch_id),
    added_at timestamptz not null default clock_timestamp(),
    primary key (source, table_name, column_name)
);
