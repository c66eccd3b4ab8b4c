-- After how long a model is taken for complete (`config.meta.horizon`): rows of its tables that come later restate what readers took for final.
alter table ops.lineage add column horizon interval;
