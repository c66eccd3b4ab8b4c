-- Models that are touched by other columns of an input than its recompute_by (`by`): which columns a commit noted the
-- values of, and of which columns a key is (null: of recompute_by).
alter table ops.change add column if not exists noted text[] not null default '{}';
alter table ops.changed_key add column if not exists key_of text;
