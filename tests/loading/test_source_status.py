"""`sluice source list|show` and `sluice load`, as an operator and a program read them."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner, Result

from sluice.cli import app
from tests.loading.conftest import World

EVENTS = """
events:
  description: events
  from: {files: {connection: drop, path: "{date}.csv"}}
  mode: append
  key: [id]
  max_reject_share: 0.6
  columns:
    id: {type: integer}
    at: {type: date, required: true}
    mail: {type: text, personal: true}
other:
  description: another
  from: {files: {connection: drop, path: other.csv}}
  mode: full
  key: [id]
  columns:
    id: {type: integer}
"""


@pytest.fixture
def loaded(world: World) -> World:
    """Two days of events, with one row that broke the contract."""
    world.declare(EVENTS, head='schedule: "0 1 * * *"\n')
    world.deliver("2026-01-01.csv", "id,at,mail\n1,2026-01-01,a@b\n2,soon,c@d\n")
    world.deliver("2026-01-02.csv", "id,at,mail\n3,2026-01-02,e@f\n")
    return world


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_load_says_what_became_of_each_unit_and_reads_an_interval_again(loaded: World) -> None:
    first = _run("load", "shop.events")
    assert first.exit_code == 0
    assert "  2026-01-01.csv: published, 2 read, 1 applied, 1 quarantined in " in first.stderr
    assert "  2026-01-02.csv: published, 1 read, 1 applied in " in first.stderr
    assert first.stdout.splitlines()[1].split("\t") == ["shop.events", "2", "3", "2", "0", "0", "1", "0"]
    assert "shop.events: nothing new\n" in _run("load", "shop.events").stderr

    loaded.deliver("2026-01-01.csv", "id,at,mail\n1,2026-01-01,x@y\n")
    again = _run("load", "shop.events", "--from", "2026-01-01", "--to", "2026-01-01")
    assert again.exit_code == 0
    assert "  2026-01-01.csv: published, 1 read, 1 applied" in again.stderr
    assert "2026-01-02" not in again.stderr
    same = _run("load", "shop.events", "--from", "2026-01-01", "--to", "2026-01-01")
    assert "2026-01-01.csv: unchanged" in same.stderr
    none = _run("load", "shop.events", "--from", "2026-02-01", "--to", "2026-02-02")
    assert (none.exit_code, none.stderr) == (0, "shop.events: nothing new in that interval\n")


def test_one_table_that_is_refused_holds_up_no_other_and_the_exit_code_says_so(loaded: World) -> None:
    loaded.deliver("other.csv", "")
    done = _run("load", "shop")
    assert done.exit_code == 1
    assert "other.csv" in done.stderr
    assert "shop.events\t2" in done.stdout
    loaded.deliver("2026-01-03.csv", "id,at,mail\n4,never,e@f\n")
    loaded.deliver("2026-01-04.csv", "id,at,mail\n5,2026-01-04,e@f\n")
    half = _run("load", "shop.events")
    assert half.exit_code == 1
    assert "  2026-01-03.csv: refused, 1 read" in half.stderr
    assert "shop.events\t1\t1\t1" in half.stdout, "what was published beside the refused unit is counted"
    assert _run("load", "shop.nothing").exit_code == 2
    assert _run("load", "shop", "--from", "2026-01-02", "--to", "2026-01-01").exit_code == 2


def test_status_is_what_the_ledger_holds(loaded: World) -> None:
    assert _run("load", "shop.events").exit_code == 0
    loaded.warehouse.execute("insert into ops.circuit (connection, failures, opened_at) values ('drop', 5, now())")
    (source,) = json.loads(_run("source", "list", "--json").stdout)
    assert (source["source"], source["tables"], source["log_rows"], source["open_quarantine"]) == ("shop", 2, 2, 1)
    assert source["last_publish"]
    assert source["circuit"] == "drop open"
    events, other = json.loads(_run("source", "show", "shop", "--json").stdout)
    assert (events["table"], events["log_rows"], events["open_quarantine"]) == ("shop.events", 2, 1)
    assert (other["last_publish"], other["log_rows"]) == (None, 0)
    columns = json.loads(_run("source", "show", "shop.events", "--json").stdout)
    assert [(c["column"], c["key"], c["required"], c["personal"]) for c in columns] == [
        ("id", True, True, False),
        ("at", False, True, False),
        ("mail", False, False, True),
    ]


def test_without_a_warehouse_the_declared_is_shown_and_the_rest_is_not_made_up(
    loaded: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLUICE_WAREHOUSE_URL", "postgresql://nobody@127.0.0.1:1/none")
    done = _run("source", "show", "shop", "--json")
    assert done.exit_code == 0
    assert "the warehouse can't be asked: connection failed: " in done.stderr
    assert "port 1 failed: Connection refused. Only what is declared is shown\n" in done.stderr
    assert [t["log_rows"] for t in json.loads(done.stdout)] == [None, None]


@pytest.mark.parametrize("command", [["source", "list"], ["source", "show", "shop"], ["source", "show", "shop.events"]])
def test_in_80_columns_no_name_is_cut_and_a_pipe_has_no_colour(
    command: list[str], loaded: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rich.console import Console

    import sluice.cli.common as common

    assert "\x1b" not in _run(*command).stdout
    drawn: list[str] = []

    class Terminal(Console):
        def __init__(self) -> None:
            super().__init__(width=80, force_terminal=True)

        def print(self, *objects: object, **options: object) -> None:
            with self.capture() as capture:
                super().print(*objects, **options)
            drawn.append(capture.get())

    monkeypatch.setattr(common, "Console", Terminal)
    monkeypatch.setattr(common, "drawn", lambda: True)
    _run(*command)
    (text,) = drawn
    for name in {"show": ["events", "other"], "list": ["shop"]}[command[1]] if "." not in command[-1] else ["mail"]:
        assert any(line.split()[0].endswith(name) for line in text.splitlines() if line.split()), text
    assert "…" not in text
