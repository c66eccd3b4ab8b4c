"""Which refusals still stand: one answer for the board, the incidents, the metrics and `sluice gate show`."""

# A condition on `batch`, a row of ops.batch: it was refused, and its unit was not judged otherwise since, nor had a
# person declined that content. What is read live, and each state of an undated file that is a full extract, comes under
# a name of its own every time: its next reading takes up what was refused, so that is the later word. Of files it is
# that of a later instant: one that was refused is read again with every load, after those that were taken.
STANDS = """(
    batch.state = 'refused' and not batch.details ? 'declined'
    and not exists (
        select from ops.batch as later
        where later.source = batch.source and later.table_name = batch.table_name and later.part = 'unit'
            and later.state in ('published', 'superseded', 'unchanged', 'refused')
            and (
                later.batch_id > batch.batch_id and (later.unit = batch.unit or coalesce(batch.fingerprint, '') = '')
                or batch.mode = 'full' and later.effective_at > batch.effective_at
            )
            and (
                later.unit = batch.unit or batch.interval_start is null and later.interval_start is null
            )
    )
)"""
