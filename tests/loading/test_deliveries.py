"""How files arrive: named, dated, growing, listed, delivered again. E14 to E17 of the faults."""

from __future__ import annotations

import os
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from sluice.declarations import load_file
from sluice.declarations.paths import PathPattern
from sluice.errors import GateRefused, SourceChanged
from sluice.loading import ready
from sluice.readers import files as file_reader
from tests.loading.conftest import World

TABLE = """
items:
  description: d
  from: {{files: {{connection: drop, path: "{path}", {files}}}}}
  mode: append
  key: [sku]
  columns:
    sku: {{type: text}}
    pieces: {{type: integer}}
"""


def declare(world: World, path: str, files: str = "", columns: str = "") -> None:
    world.declare(TABLE.format(path=path, files=files) + columns)


def is_ready(world: World) -> tuple[bool, str]:
    source = load_file(world.sources / "shop.yml")
    answer = ready(source, source.tables["items"])
    return answer.ready, answer.waiting_for


def published(world: World) -> list[str]:
    rows = world.query("select unit from ops.batch where state = 'published' order by effective_at, unit")
    return [unit for (unit,) in rows]


@pytest.mark.parametrize(
    ("path", "location", "values", "interval"),
    [
        ("{date}.csv", "2026-02-01.csv", "month=2026-02 date=2026-02-01", "2026-02-01 2026-02-02"),
        ("{date:%Y%m%d}.csv", "20260201.csv", "month=2026-02 date=2026-02-01", "2026-02-01 2026-02-02"),
        ("{month}/x.csv", "2026-12/x.csv", "month=2026-12", "2026-12-01 2027-01-01"),
        ("{date:%Y}/{date:%j}_{n}", "2024/366_b-c", "month=2024-12 date=2024-12-31 n=b-c", "2024-12-31 2025-01-01"),
        (
            "{date:%y%m%d}T{hour}*",
            "260201T23.csv",
            "month=2026-02 date=2026-02-01 hour=23",
            "2026-02-01T23:00 2026-02-02",
        ),
        ("**/*.csv", "a/b/c.csv", "", ""),
        ("**/*.csv", "c.csv", "", ""),
        ("{x}/{x}.csv", "a/a.csv", "x=a", ""),
    ],
)
def test_a_path_says_which_interval_a_file_speaks_for(path: str, location: str, values: str, interval: str) -> None:
    found = PathPattern("file:///in [1]", path).match(f"file:///in [1]/{location}")
    assert found is not None
    assert (found.name, found.values) == (location, dict(pair.split("=") for pair in values.split()))
    start_and_end = tuple(datetime.fromisoformat(text).replace(tzinfo=UTC) for text in interval.split())
    assert (found.interval or ()) == start_and_end


@pytest.mark.parametrize(
    ("path", "location"),
    [
        ("{date}.csv", "2026-02-30.csv"),
        ("{date}.csv", "2026-2-3.csv"),
        ("{date}.csv", "9999-12-31.csv"),
        ("*.csv", "a/b.csv"),
        ("*.csv", ".b.csv"),
        ("**/*.csv", ".trash/b.csv"),
        ("a?.csv", "a.csv"),
        ("{x}/{x}.csv", "a/b.csv"),
        ("{date:%Y}/{date}.csv", "2025/2026-01-01.csv"),
        ("a.csv", "axcsv"),
    ],
)
def test_a_path_finds_nothing_that_it_does_not_mean(path: str, location: str) -> None:
    assert PathPattern("file:///in", path).match(f"file:///in/{location}") is None


def test_E14_markers_and_quiet_times_say_when_a_file_is_whole(world: World) -> None:
    declare(world, "{date:%Y%m%d}/**/*.csv", 'done: "{folder}/_SUCCESS", done_holds_rows: true')
    world.deliver("20260101/eu/a.csv", "sku,pieces\na,1\n")
    assert is_ready(world) == (False, "20260101/eu/a.csv at connection drop to be complete")
    assert world.load("items") == []
    world.deliver("20260101/eu/_SUCCESS", "1\n")
    world.deliver("20260102/b.csv", "sku,pieces\nb,1\n")
    assert [p.rows_applied for p in world.load("items")] == [1]
    declare(world, "{date:%Y%m%d}/**/*.csv", "stable_for: 1h")
    os.utime(world.files / "20260101/eu/a.csv", (time.time() - 7200,) * 2)
    assert not is_ready(world)[0]
    world.load("items")
    assert published(world) == ["20260101/eu/a.csv"]
    (world.files / "20260102/b.done").touch()
    declare(world, "{date:%Y%m%d}/*.csv", 'done: "{stem}.done"')
    assert is_ready(world) == (True, "")
    world.load("items")
    assert published(world) == ["20260101/eu/a.csv", "20260102/b.csv"]


def test_E14_a_file_that_grows_while_it_is_read_is_not_ingested_as_a_prefix(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(world, "{n}.csv")
    path = world.deliver("a.csv", "sku,pieces\n" + "".join(f"{n},1\n" for n in range(1000)))
    reading, grown = threading.Event(), threading.Event()
    read = file_reader.formats.read

    def slowly(*arguments: object) -> object:
        """The real reading, while another process appends to the file."""
        result = read(*arguments)  # type: ignore[arg-type]
        reading.set()
        grown.wait(10)
        return result

    def writer() -> None:
        reading.wait(10)
        with path.open("a") as file:
            file.write("late,1\n")
        grown.set()

    monkeypatch.setattr(file_reader.formats, "read", slowly)
    thread = threading.Thread(target=writer)
    thread.start()
    with pytest.raises(SourceChanged, match=r"a\.csv changed while it was read: somebody is still writing it"):
        world.load("items")
    thread.join()
    monkeypatch.undo()
    monkeypatch.setenv("AIRFLOW_CONN_DROP", f"file://{world.files}")
    assert world.query("select count(*) from pg_tables where schemaname = 'landing'") == [(0,)]


def test_E17_a_manifest_says_which_files_there_are_and_how_many_rows_each_has(world: World) -> None:
    declare(
        world,
        "{date:%Y%m%d}/{n}.csv",
        'manifest: {path: "{date:%Y%m%d}/manifest.json", name: file, rows: row_count}',
    )
    world.deliver("20260101/a.csv", "sku,pieces\na,1\nb,2\n")
    world.deliver("20260101/short.csv", "sku,pieces\nc,1\n")
    world.deliver("20260101/unlisted.csv", "sku,pieces\nx,1\n")
    assert not is_ready(world)[0]
    listed = '{"file": "a.csv", "row_count": 2}, {"file": "short.csv", "row_count": 3}'
    world.deliver("20260101/manifest.json", f'{{"files": [{listed}, {{"file": "late.csv", "row_count": 1}}]}}')
    world.deliver("20260101/unlisted.csv.keep", "")
    (world.files / "20260101/unlisted.csv").rename(world.files / "20260101/unlisted.txt")
    assert is_ready(world) == (False, "late.csv, which its manifest lists, at connection drop")
    with pytest.raises(GateRefused, match=r"20260101/short\.csv: the source announces 3 rows but 1 were read; nothing"):
        world.load("items")
    assert published(world) == ["20260101/a.csv"]
    world.deliver("20260101/manifest.json", '{"files": [{"name": "a.csv"}]}')
    with pytest.raises(GateRefused, match=r"manifest manifest\.json: an entry has no field file"):
        world.load("items")


def test_E15_E16_the_same_content_is_a_no_op_and_other_content_supersedes_and_is_said(world: World) -> None:
    declare(world, "{date:%Y%m%d}*.csv*")
    first = world.deliver("20260101.csv", "sku,pieces\na,1\nb,2\n")
    world.load("items")
    first.rename(world.files / "20260101-again.csv")  # renamed
    world.load("items")
    rows = world.query("select unit, state, verdict from ops.batch order by batch_id")
    assert rows[1:] == [("20260101-again.csv", "unchanged", "the same content as 20260101.csv")]
    world.deliver("20260101.csv", "sku,pieces\na,1\n")
    world.load("items")
    assert world.query("select check_name, verdict, severity, message from ops.gate_result where verdict = 'warn'") == [
        (
            "content_changed",
            "warn",
            "warn",
            "20260101.csv came again with other content: 1 rows, 2 before; batch 3 supersedes batch 1",
        )
    ]
    assert world.books_balance()


def test_a_backfill_reads_the_files_of_its_interval_only(world: World) -> None:
    declare(world, "{date:%Y/%m}/{date:%d}.csv", columns="    day: {type: date, from_path: date}\n")
    for day in (1, 2, 3):
        world.deliver(f"2026/01/{day:02}.csv", f"sku,pieces\nx{day},1\n")
    start = datetime(2026, 1, 2, tzinfo=UTC)
    world.load("items", interval=(start, start + timedelta(days=1)))
    assert world.query("select sku, day::text from staging.shop__items") == [("x2", "2026-01-02")]
