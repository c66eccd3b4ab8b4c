-- Replayed rows are a batch of their own, a part of the unit they were rejected from.
alter table ops.batch drop constraint if exists batch_part_check;
alter table ops.batch add constraint batch_part_check check (part in ('unit', 'supplement', 'replay'));
alter table ops.batch add column replay_of bigint references ops.batch (batch_id); -- the batch whose rejects they were
create index batch_replay_of on ops.batch (replay_of) where replay_of is not null;

alter table ops.quarantine add column replayed_by bigint references ops.batch (batch_id);
alter table ops.quarantine add column corrected jsonb; -- the fields that a person gave, beside `raw`, which stays as it came
create index quarantine_replayed_by on ops.quarantine (replayed_by) where replayed_by is not null;
