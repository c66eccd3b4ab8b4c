"""What `ops` says, as metrics. One read-only transaction; labels are names that a declaration or a DAG gives.

Ages are given as the instant they count from: the age grows by itself while nobody can read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import psycopg
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from sluice import settings
from sluice.ledger.refused import STANDS

MOST_SERIES = 2000  # of one metric; what lies beyond is counted in sluice_exporter_series_left_out
_OPTIONS = "-c timezone=UTC -c default_transaction_read_only=on -c statement_timeout=10s -c lock_timeout=2s"


@dataclass(frozen=True)
class Family:
    """One metric: its name, what it says, its labels, and whether it only ever grows."""

    name: str
    help: str
    labels: tuple[str, ...] = ()
    counts: bool = False


@dataclass(frozen=True)
class Query:
    """A statement whose rows hold the labels first, then one value per family; NULL gives no sample."""

    sql: str
    families: tuple[Family, ...] = field(default_factory=tuple)


def _table(name: str, text: str, *more: str, counts: bool = False) -> Family:
    return Family(f"sluice_table_{name}", text, ("source", "table", *more), counts)


QUERIES = (
    Query(
        """
        select o.source, split_part(o.subject, '.', 2),
            extract(epoch from coalesce(r.read_at, o.declared_at)), (r.read_at is not null)::int,
            extract(epoch from o.freshness), extract(epoch from coalesce(n.last_rows, o.declared_at)),
            extract(epoch from o.max_quiet), extract(epoch from n.last_publish), extract(epoch from w.moved_at)
        from ops.objective as o
        left join ops.table_read as r on r.source = o.source and r.table_name = split_part(o.subject, '.', 2)
        left join ops.watermark as w on w.source = o.source and w.table_name = split_part(o.subject, '.', 2)
        left join (
            select source, table_name, max(published_at) as last_publish,
                max(published_at) filter (where rows_applied + rows_deleted > 0) as last_rows
            from ops.batch where state in ('published', 'superseded') group by 1, 2
        ) as n on n.source = o.source and n.table_name = split_part(o.subject, '.', 2)
        where o.kind = 'table' order by 1, 2
        """,
        (
            _table("known_current_timestamp_seconds", "When staging was last known to hold what the source holds; "
                   "of a table that was never read, when it was declared"),
            _table("was_read", "1 once a reading has succeeded"),
            _table("freshness_objective_seconds", "How old that instant may be, as declared"),
            _table("last_rows_timestamp_seconds", "When a reading last brought a new row, or when it was declared"),
            _table("quiet_objective_seconds", "How long readings may find nothing new, as declared"),
            _table("last_publish_timestamp_seconds", "When a batch was last published"),
            _table("watermark_moved_timestamp_seconds", "When the watermark of a cursor last moved"),
        ),
    ),
    Query(
        """
        select o.source, split_part(o.subject, '.', 2), b.state, count(*)
        from ops.batch as b inner join ops.objective as o
            on o.kind = 'table' and o.source = b.source and b.table_name = split_part(o.subject, '.', 2)
        group by 1, 2, 3 order by 1, 2, 3
        """,
        (_table("batches", "Batches by what became of them", "state"),),
    ),
    Query(
        """
        select b.source, b.table_name, counted.kind, sum(rows) from ops.batch as b
        inner join ops.objective as o on o.kind = 'table' and o.source = b.source
            and b.table_name = split_part(o.subject, '.', 2)
        cross join lateral (values ('read', b.rows_read), ('applied', b.rows_applied), ('deleted', b.rows_deleted),
            ('unchanged', b.rows_unchanged), ('duplicate', b.rows_duplicate), ('quarantined', b.rows_quarantined),
            ('late', b.rows_late)) as counted (kind, rows)
        where b.state in ('published', 'superseded') group by 1, 2, 3 order by 1, 2, 3
        """,
        (_table("rows", "Rows of published batches, by what became of them", "kind", counts=True),),
    ),
    Query(
        """
        select b.source, b.table_name,
            sum(abs(rows_read - rows_applied - rows_unchanged - rows_duplicate - rows_quarantined - rows_late))
        from ops.batch as b inner join ops.objective as o on o.kind = 'table' and o.source = b.source
            and b.table_name = split_part(o.subject, '.', 2)
        where b.state in ('published', 'superseded') group by 1, 2 order by 1, 2
        """,
        (_table("conservation_imbalance_rows", "Rows that are in no column of the books; 0 is good"),),
    ),
    Query(
        f"""
        select o.source, split_part(o.subject, '.', 2), exists (
            select from ops.batch as batch
            where (batch.source, batch.table_name) = (o.source, split_part(o.subject, '.', 2)) and {STANDS}
        )::int
        from ops.objective as o where o.kind = 'table' order by 1, 2
        """,
        (_table("last_batch_refused", "1 while the latest word on a unit is a refusal"),),
    ),
    Query(
        """
        select o.source, split_part(o.subject, '.', 2), count(q.quarantine_id), extract(epoch from min(q.created_at))
        from ops.objective as o left join ops.quarantine as q on q.state = 'open' and q.source = o.source
            and q.table_name = split_part(o.subject, '.', 2)
        where o.kind = 'table' group by 1, 2 order by 1, 2
        """,
        (
            _table("quarantine_rows", "Rows that wait in quarantine"),
            _table("quarantine_oldest_timestamp_seconds", "Since when the oldest of them waits"),
        ),
    ),
    Query(
        "select distinct source, owner, 1 from ops.objective where kind = 'table' order by 1",
        (Family("sluice_source_info", "Who answers for a source", ("source", "owner")),),
    ),
    Query(
        "select connection, (opened_at is not null)::int, failures from ops.circuit order by 1",
        (
            Family("sluice_circuit_open", "1 while a connection is left alone", ("connection",)),
            Family("sluice_connection_failures_in_a_row", "Failures since it last answered", ("connection",)),
        ),
    ),
    Query(
        """
        select job, step, extract(epoch from min(beat_at) filter (where ended_at is null)),
            count(*) filter (where ended_at is null),
            extract(epoch from max(ended_at) filter (where succeeded))
        from ops.step group by 1, 2 order by 1, 2
        """,
        (
            Family("sluice_step_heartbeat_timestamp_seconds", "Last sign of life of a running step", ("job", "step")),
            Family("sluice_step_running", "How many runs are at this step", ("job", "step")),
            Family("sluice_step_last_success_timestamp_seconds", "When the step last succeeded", ("job", "step")),
        ),
    ),
    Query(
        """
        with gates as (
            select gate, (
                select run_id from ops.gate_result as latest where latest.gate = gates.gate
                order by gate_result_id desc limit 1
            ) as run_id
            from unnest(array['pending', 'staging', 'snapshots', 'intermediate', 'marts', 'tests', 'freshness',
                'verify']) as gates (gate)
        )
        select g.gate, extract(epoch from max(r.checked_at)),
            (case when (array_agg(r.check_name order by r.gate_result_id desc))[1] = 'layer_is_complete'
                then (array_agg(r.verdict order by r.gate_result_id desc))[1] = 'pass' -- what a retry mended is mended
                else not bool_or(r.severity = 'block' and r.verdict <> 'pass') end)::int,
            count(*) filter (where r.verdict = 'pass'), count(*) filter (where r.verdict = 'warn'),
            count(*) filter (where r.verdict = 'fail'), count(*) filter (where r.verdict in ('error', 'missing'))
        from gates as g inner join ops.gate_result as r on r.run_id = g.run_id and r.gate = g.gate
        group by 1 order by 1
        """,
        (
            Family("sluice_gate_last_judged_timestamp_seconds", "When the gate last judged", ("gate",)),
            Family("sluice_gate_passed", "1 if nothing in its last judgement blocks", ("gate",)),
            Family("sluice_gate_checks_passed", "Checks of the last judgement that passed", ("gate",)),
            Family("sluice_gate_checks_warned", "Checks that only warn", ("gate",)),
            Family("sluice_gate_checks_failed", "Checks that failed", ("gate",)),
            Family("sluice_gate_checks_without_result", "Checks that errored or were missing", ("gate",)),
        ),
    ),
    Query(
        # A layer is complete when its gate has passed, or when a run found nothing that it had not read.
        """
        select o.subject, extract(epoch from o.freshness), extract(epoch from coalesce(greatest(
            (select max(checked_at) from ops.gate_result
             where gate = o.subject and check_name = 'layer_is_complete' and verdict = 'pass'),
            (select max(checked_at) from ops.gate_result where gate = 'pending' and observed = '0')
        ), o.declared_at))
        from ops.objective as o where o.kind = 'layer' order by 1
        """,
        (
            Family("sluice_layer_freshness_objective_seconds", "How old its rows may be, as declared", ("layer",)),
            Family("sluice_layer_complete_timestamp_seconds", "When a run last found all of it built and judged",
                   ("layer",)),
        ),
    ),
    Query(
        # The rows of a relation are as old as what it has not read yet, or as the last reading of its source.
        """
        with mark as (
            select relation, min(seq) as seq from ops.model_watermark where input not like 'code:%' group by 1
        ),
        unread as (
            select m.relation, b.source, b.table_name, min(b.published_at) as since
            from mark as m inner join ops.batch as b
                on greatest(b.published_seq, b.superseded_seq) > m.seq and b.rows_applied + b.rows_deleted > 0
            where b.published_at > clock_timestamp() - interval '30 days'
            group by 1, 2, 3
        )
        select l.relation, l.source, extract(epoch from min(least(
            coalesce(r.read_at, o.declared_at), coalesce(u.since, 'infinity')
        ))), extract(epoch from min(u.since))
        from ops.lineage as l
        inner join ops.objective as o on o.kind = 'table' and o.subject = l.source || '.' || l.table_name
        left join ops.table_read as r on (r.source, r.table_name) = (l.source, l.table_name)
        left join unread as u on (u.relation, u.source, u.table_name) = (l.relation, l.source, l.table_name)
        where l.layer = 'marts' group by 1, 2 order by 1, 2
        """,
        (
            Family("sluice_mart_current_timestamp_seconds", "The instant as of which a mart shows a source",
                   ("relation", "source")),
            Family("sluice_mart_unread_timestamp_seconds", "Since when a publication waits that it has not read",
                   ("relation", "source")),
        ),
    ),
    Query(
        """
        select m.relation, greatest(0, coalesce((
            select max(greatest(published_seq, superseded_seq)) from ops.batch where rows_applied + rows_deleted > 0
        ), 0) - max(seq)) from ops.model_watermark as m where input not like 'code:%' and input like 'stg\\_%'
        group by 1 order by 1
        """,
        (Family("sluice_model_watermark_lag", "Sequence numbers between the last publication of all and what a model "
                "has read; it is 0 or grows by those of other sources too", ("relation",)),),
    ),
    Query(
        """
        select subject, count(*), extract(epoch from max(missed_at)) from ops.deadline_miss
        where subject <> 'canary' group by 1 order by 1
        """,
        (
            Family("sluice_deadline_missed", "Deadlines missed so far", ("subject",), counts=True),
            Family("sluice_deadline_last_miss_timestamp_seconds", "When one was last missed", ("subject",)),
        ),
    ),
    Query(
        """
        select extract(epoch from coalesce(max(missed_at), (select min(declared_at) from ops.objective)))
        from ops.deadline_miss where subject = 'canary'
        """,
        (Family("sluice_canary_last_miss_timestamp_seconds", "When the canary last missed its deadline, as it must"),),
    ),
    Query(
        """
        select kind, severity, count(*) filter (where resolved_at is null and caused_by is null), count(*)
        from ops.incident group by 1, 2 order by 1, 2
        """,
        (
            Family("sluice_incidents_open", "Incidents that are not over, without those caused by others",
                   ("kind", "severity")),
            Family("sluice_incidents", "Incidents kept in the ledger", ("kind", "severity")),
        ),
    ),
    Query(
        """
        select channel, count(*) filter (where sent_at is null and withdrawn_at is null),
            extract(epoch from min(created_at) filter (where sent_at is null and withdrawn_at is null)),
            count(sent_at), sum(attempts) - count(sent_at)
        from ops.alert_delivery group by 1 order by 1
        """,
        (
            Family("sluice_alert_undelivered", "Messages that wait for their channel", ("channel",)),
            Family("sluice_alert_oldest_undelivered_timestamp_seconds", "Since when the oldest waits", ("channel",)),
            Family("sluice_alert_delivered", "Messages that were taken", ("channel",), counts=True),
            Family("sluice_alert_delivery_failed", "Tries that were not taken", ("channel",), counts=True),
        ),
    ),
    Query(
        "select extract(epoch from beat_at) from ops.watcher",
        (Family("sluice_watcher_beat_timestamp_seconds", "When the watcher last looked"),),
    ),
    Query(
        """
        select dag_id, count(*) filter (where state = 'running'), count(*) filter (where state = 'failed'),
            extract(epoch from min(asked_at) filter (where state = 'running'))
        from ops.backfill group by 1 order by 1
        """,
        (
            Family("sluice_backfill_running", "Backfills at work", ("dag",)),
            Family("sluice_backfill_failed", "Backfills that ended with failed runs", ("dag",), counts=True),
            Family("sluice_backfill_oldest_running_timestamp_seconds", "When the oldest was asked for", ("dag",)),
        ),
    ),
)  # fmt: skip


class Ledger:
    """Reads the metrics from the warehouse, over one connection that is opened again when it broke."""

    def __init__(self, url: str | None = None) -> None:
        self._url = url
        self._connection: psycopg.Connection | None = None

    def read(self) -> list[Metric]:
        """Every metric, of one instant. Raises `psycopg.Error` when the ledger can't be read."""
        try:
            return list(self._read(self._connected()))
        except psycopg.Error:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connected(self) -> psycopg.Connection:
        if self._connection is None or self._connection.closed:
            url = self._url or exporter_url()
            self._connection = psycopg.connect(
                url, connect_timeout=5, options=_OPTIONS, application_name="sluice exporter", tcp_user_timeout=15_000
            )
            self._connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            self._connection.read_only = True
        return self._connection

    def _read(self, connection: psycopg.Connection) -> Iterator[Metric]:
        left_out = 0
        with connection.transaction():
            for query in QUERIES:
                rows = connection.execute(query.sql).fetchall()  # type: ignore[arg-type]
                left_out += max(0, len(rows) - MOST_SERIES)
                yield from samples(query, rows[:MOST_SERIES])
        yield gauge("sluice_exporter_series_left_out", "Series beyond the limit of one metric", left_out)


def exporter_url() -> str:
    """`SLUICE_EXPORTER_DATABASE_URL`, a role that may only read, or the warehouse's own."""
    return settings.variable("SLUICE_EXPORTER_DATABASE_URL") or settings.warehouse_url()


def samples(query: Query, rows: Iterable[tuple]) -> Iterator[Metric]:
    """The rows of a query as one metric for each of its families."""
    rows = list(rows)
    for index, family in enumerate(query.families):
        kind = CounterMetricFamily if family.counts else GaugeMetricFamily
        metric = kind(family.name, family.help, labels=family.labels)
        width = len(family.labels)
        for row in rows:
            value = row[width + index]
            if value is not None:
                metric.add_metric([str(label) for label in row[:width]], float(value))
        yield metric


def gauge(name: str, text: str, value: float) -> Metric:
    """A metric of one sample."""
    return GaugeMetricFamily(name, text, value=value)
