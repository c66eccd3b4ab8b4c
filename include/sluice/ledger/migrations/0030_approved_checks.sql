-- What a person approved: each check that had refused the batch, with the count that was shown. Approvals from before say no more than the check results.
alter table ops.batch add column approved_checks jsonb;
update ops.batch set approved_checks = (
    select jsonb_object_agg(
        check_name, case check_name when 'late' then rows_read else coalesce((details ->> 'vanished')::bigint, 0) end
    )
    from (
        select distinct check_name from ops.gate_result
        where gate_result.batch_id = batch.batch_id and verdict = 'fail' and check_name in ('late', 'deletes')
    ) as refused
)
where approved_by is not null;

-- How far the ledger's counter was when a unit began to be read: what has a later number may have been read before or after it.
alter table ops.batch add column opened_seq bigint;

-- A row of a cursor table that is read at every reading waits once.
create index quarantine_content on ops.quarantine (source, table_name, md5(raw)) where raw is not null;
