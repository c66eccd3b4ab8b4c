-- What a rejected row costs, besides itself: seven of eighteen microseconds were this index, and four the foreign key.

-- Only a row of a cursor table comes again with every reading, and is known again by its content.
drop index ops.quarantine_content;
alter table ops.quarantine add column content uuid; -- md5 of `raw`, of a cursor table
update ops.quarantine set content = md5(raw)::uuid
from ops.batch where batch.batch_id = quarantine.batch_id and batch.mode = 'cursor' and raw is not null;
create index quarantine_content on ops.quarantine (content) where content is not null;

-- A foreign key asks for the batch of each row. This asks once for those of a statement, and locks them as it does.
alter table ops.quarantine drop constraint quarantine_batch_id_fkey;

create function ops.quarantine_needs_batch() returns trigger language plpgsql as $$
declare
    lost bigint;
begin
    if not exists (select from added) then
        return null;
    end if;
    perform from ops.batch where batch_id in (select distinct batch_id from added) for key share;
    select min(batch_id) into lost from (select distinct batch_id from added) as given
    where not exists (select from ops.batch where batch.batch_id = given.batch_id);
    if lost is not null then
        raise foreign_key_violation using message = format('there is no batch %s for rows of ops.quarantine', lost);
    end if;
    return null;
end $$;

create trigger needs_batch after insert on ops.quarantine referencing new table as added
for each statement execute function ops.quarantine_needs_batch();

create function ops.quarantine_moves() returns trigger language plpgsql as $$
begin
    perform from ops.batch where batch_id = new.batch_id for key share;
    if not found then
        raise foreign_key_violation using message = format('there is no batch %s for a row of ops.quarantine', new.batch_id);
    end if;
    return null;
end $$;

create trigger moves after update of batch_id on ops.quarantine
for each row when (old.batch_id <> new.batch_id) execute function ops.quarantine_moves();

create function ops.batch_has_quarantine() returns trigger language plpgsql as $$
begin
    if exists (select from ops.quarantine where batch_id = old.batch_id) then
        raise foreign_key_violation using
            message = format('batch %s has rows in ops.quarantine, and must stay', old.batch_id);
    end if;
    return null;
end $$;

-- (its number never changes: it is generated always)
create trigger has_quarantine after delete on ops.batch for each row execute function ops.batch_has_quarantine();
