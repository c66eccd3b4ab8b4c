"""The table that is committed, and the line that is compared from commit to commit."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from loadbench.contenders import FORMATS
from loadbench.measure import Phase, Run

_TITLES = {"csv": "CSV", "jsonl": "JSON Lines", "parquet": "Parquet", "postgres": "Postgres → Postgres"}

_EXPLANATION = """\
Ratios are wall time to the first row of each table, in the same run; medians over the rounds. Ours is from the source
to the landed, audited batch, with contract, quarantine, checksum and ledger on; publication into the change log stands
beside it. Start-up (interpreter and imports) is left out for everybody that has one. CPU is user and system time of
all processes; peak memory is the sum of what each process of the client had at most; WAL is what the server wrote.
`~` marks a load of fewer rows, scaled up."""


@dataclass
class Row:
    """All runs of one contender with one format, each of `rows` rows."""

    name: str
    rows: int
    runs: list[Run] = field(default_factory=list)
    loaded: tuple[str, ...] = ()  # phases that count as loading; all, if empty

    def median(self, field_name: str, *phases: str) -> float:
        """The median over the rounds of a field of a `Phase`."""
        return statistics.median(getattr(run.phase(*(phases or self.loaded)), field_name) for run in self.good)

    @property
    def good(self) -> list[Run]:
        """The runs that did what they should."""
        return [run for run in self.runs if not run.fault]

    @property
    def fault(self) -> str:
        """Why there is nothing to compare; empty if there is."""
        return "" if self.good else (self.runs[0].fault if self.runs else "not run")

    @property
    def per_second(self) -> float:
        """Rows per second."""
        return self.rows / self.median("seconds")

    @property
    def peak(self) -> float:
        """Bytes that the client's processes had at most."""
        return statistics.median(run.peak_bytes for run in self.good)


@dataclass
class Results:
    """Everything that was measured in one run of the benchmark."""

    rows: int
    formats: dict[str, list[Row]] = field(default_factory=dict)  # the first of each is the raw one, the second ours
    small: dict[str, Row] = field(default_factory=dict)  # ours with a sixth of the rows
    bad: Row | None = None
    changed: Row | None = None
    copied_all: Row | None = None

    def ratio(self, kind: str) -> float | None:
        """Our seconds by those of the raw copy."""
        found = self.formats.get(kind, [])
        return _ratio(found[1], found[0]) if len(found) > 1 else None

    @property
    def growth(self) -> float | None:
        """The worst growth of our peak memory over the formats, from a sixth of the rows to all."""
        pairs = [(self.formats[kind][1], small) for kind, small in self.small.items() if len(self.formats[kind]) > 1]
        return max((big.peak / small.peak for big, small in pairs if big.good and small.good), default=None)

    @property
    def others(self) -> float:
        """How many processors' worth of other work the machine did meanwhile."""
        rows = [row for found in self.formats.values() for row in found]
        phases = [run.phase() for row in rows for run in row.good]
        return sum(p.others for p in phases) / max(sum(p.seconds for p in phases), 1e-9)

    def last_line(self) -> str:
        """The line for machines; a dash is what was not measured."""
        parts = [f"{kind}={_shown(self.ratio(kind))}" for kind in FORMATS]
        return f"load: {' '.join(parts)} rss_growth={_shown(self.growth)}"


def _ratio(row: Row | None, base: Row | None) -> float | None:
    if row is None or base is None or row.fault or base.fault:
        return None
    return base.per_second / row.per_second


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def markdown(results: Results, facts: Mapping[str, str]) -> str:
    """The whole page."""
    lines = ["# Loading into Postgres, side by side", ""]
    lines += [f"Written by `make bench-load`; {results.rows:,} rows of TPC-H lineitem.", ""]
    lines += [f"* {name}: {value}" for name, value in facts.items()]
    lines += [
        f"* other work on the machine meanwhile: {results.others:.2f} processors on average",
        "",
        *_EXPLANATION.splitlines(),
    ]
    for kind, rows in results.formats.items():
        lines += ["", f"## {_TITLES[kind]}", "", *_table(rows, results)]
    lines += _sides(results)
    lines += ["", f"`{results.last_line()}`", ""]
    return "\n".join(lines)


def _table(rows: Iterable[Row], results: Results) -> list[str]:
    rows = list(rows)
    lines = [
        "| | ratio | seconds | rows/s | client CPU s | server CPU s | peak memory | WAL | rounds |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        if row.fault:
            lines.append(f"| {row.name} | {row.fault.replace('|', ' ')} | | | | | | | |")
            continue
        scale, mark = results.rows / row.rows, "" if row.rows == results.rows else "~"
        cells = [
            f"{mark}{_shown(_ratio(row, rows[0]))}",
            f"{mark}{row.median('seconds') * scale:.1f}",
            f"{row.per_second:,.0f}",
            f"{mark}{row.median('client_cpu') * scale:.1f}",
            f"{mark}{row.median('server_cpu') * scale:.1f}",
            _megabytes(row.peak),
            f"{mark}{_megabytes(row.median('wal_bytes') * scale)}",
            str(len(row.good)),
        ]
        lines.append(f"| {row.name} | {' | '.join(cells)} |")
    mine = next((row for row in rows if row.loaded and row.good), None)
    if mine:
        lines += ["", _where_it_goes(mine, rows[0])]
    return lines


def _where_it_goes(row: Row, base: Row) -> str:
    named = {"landed": "landing", "audited": "audit", "published": "publication"}
    parts = []
    for phase, word in named.items():
        share = row.median("seconds", phase) / base.median("seconds") if base.good else float("nan")
        cpu = f"client {row.median('client_cpu', phase):.1f}, server {row.median('server_cpu', phase):.1f} CPU s"
        parts.append(f"{word} {row.median('seconds', phase):.1f} s ({share:.2f}; {cpu})")
    return f"Ours: {'; '.join(parts)}, and {_megabytes(row.median('wal_bytes', 'published'))} of WAL at publication."


def _sides(results: Results) -> list[str]:
    lines = ["", "## Beside it", "", "| | ratio | of | goal |", "|---|--:|---|--:|"]
    plain = next((row for row in results.formats.get("csv", []) if row.loaded), None)
    if results.bad:
        of = _seconds(results.bad, plain)
        lines.append(f"| CSV, 1 % bad rows to none | {_inverse(results.bad, plain)} | {of} | 1.10 |")
    if results.changed:
        of = _seconds(results.changed, results.copied_all)
        lines.append(
            "| full extract with 1 % changed, source to published, to copy everything, compare, write the difference | "
            f"{_inverse(results.changed, results.copied_all)} | {of} | 0.40 |"
        )
    for kind, small in results.small.items():
        big = results.formats[kind][1]
        if big.good and small.good:
            lines.append(
                f"| {_TITLES[kind]}: peak memory, {big.rows:,} rows to {small.rows:,} | {big.peak / small.peak:.2f} "
                f"| {_megabytes(big.peak)} and {_megabytes(small.peak)} | 1.20 |"
            )
    return lines


def _inverse(row: Row, base: Row | None) -> str:
    return row.fault or _shown(_ratio(row, base))


def _seconds(row: Row, base: Row | None) -> str:
    if row.fault or base is None or base.fault:
        return ""
    return f"{row.median('seconds'):.1f} and {base.median('seconds'):.1f} s"


def _megabytes(size: float) -> str:
    return f"{size / 1e6:,.0f} MB"


def progress(row: Row, kind: str, run: Run) -> str:
    """One line for whoever waits."""
    if run.fault:
        return f"  {kind:9} {row.name}: {run.fault}"
    whole: Phase = run.phase()
    parts = " + ".join(f"{p.seconds:.2f}" for p in run.phases)
    return f"  {kind:9} {row.name}: {parts} s, {row.rows / whole.seconds:,.0f} rows/s, {_megabytes(run.peak_bytes)}"
