-- How long the steps of a batch took together. Batches of before have none.
alter table ops.batch add column if not exists seconds double precision;

-- The distribution of a column of numbers or times: shares of the rows in equal steps from its minimum to its maximum.
alter table ops.column_profile add column if not exists bins jsonb;
