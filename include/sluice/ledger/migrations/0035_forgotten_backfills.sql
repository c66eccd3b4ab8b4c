-- An Airflow whose database was made anew, or restored, counts its backfills from the beginning again: its number is unique only among those that run.
alter table ops.backfill drop constraint if exists backfill_engine_id_key;
alter table ops.backfill drop constraint if exists backfill_state_check;
alter table ops.backfill add constraint backfill_state_check check (state in ('running', 'success', 'failed', 'forgotten'));
create unique index backfill_at_work on ops.backfill (engine_id) where state = 'running';
