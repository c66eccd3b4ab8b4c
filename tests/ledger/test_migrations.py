"""The ledger of an older release becomes the present one, once, whoever starts first."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from sluice.cli import main
from sluice.ledger import migrate
from sluice.ledger.migrate import migrations
from tests.conftest import PostgresForTests

_FIRST = Path(__file__).with_name("first_schema.sql").read_text()
_SHAPE = """
    select table_name, column_name, data_type, is_nullable from information_schema.columns
    where table_schema = 'ops' order by 1, 2
"""


@pytest.fixture
def first_release(postgres: PostgresForTests) -> str:
    """A database with the first release's ledger and one published batch in it."""
    url = postgres.database()
    with psycopg.connect(url) as connection:
        connection.execute(_FIRST)
        connection.execute(
            "insert into ops.batch (source, table_name, unit, state, mode, run_id, published_seq)"
            " values ('shop', 'orders', 'u', 'published', 'append', 'r', 1)"
        )
    return url


def test_a_database_of_the_first_release_becomes_the_present_one_and_keeps_its_rows(
    first_release: str, warehouse: psycopg.Connection
) -> None:
    applied = migrate(first_release)
    assert [name for _, name, _ in migrations()] == applied[1:]
    with psycopg.connect(first_release) as connection:
        assert connection.execute("select unit, state, replay_of from ops.batch").fetchall() == [
            ("u", "published", None)
        ]
        assert connection.execute(_SHAPE).fetchall() == warehouse.execute(_SHAPE).fetchall(), "as if made new"
        recorded = connection.execute("select number, name from ops.migration where number > 0 order by 1").fetchall()
    assert recorded == [(number, name) for number, name, _ in migrations()]


def test_a_second_start_changes_nothing(first_release: str) -> None:
    migrate(first_release)
    assert migrate(first_release) == []


def test_two_processes_at_once_apply_each_migration_once(first_release: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(migrate, [first_release] * 4))
    assert sorted(map(len, results)) == [0, 0, 0, len(migrations()) + 1]


def test_a_migration_that_fails_leaves_the_ledger_as_it_was(
    first_release: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = migrations()[0]
    target = sys.modules["sluice.ledger.migrate"]  # the package's attribute of that name is the function
    monkeypatch.setattr(target, "migrations", lambda: [good, (9999, "broken", "alter table ops.nowhere add x int")])
    with pytest.raises(psycopg.errors.UndefinedTable):
        migrate(first_release)
    with psycopg.connect(first_release) as connection:
        assert connection.execute("select to_regclass('ops.migration')").fetchone() == (None,)


def test_each_file_has_a_number_of_its_own_and_is_in_order() -> None:
    """Gaps are allowed: numbers are reserved for work that lands later."""
    numbers = [number for number, _, _ in migrations()]
    assert numbers == sorted(set(numbers))
    assert numbers[0] == 1


def _command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["sluice", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_without_airflow_a_database_gets_its_ledger_by_one_command_which_every_other_names(
    postgres: PostgresForTests, first_release: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd
) -> None:
    (tmp_path / "t.csv").write_text("id\n1\n")
    (tmp_path / "s.yml").write_text(
        "source: s\ndescription: d\nowner: o\ntables:\n  t:\n    description: d\n"
        "    from: {files: {connection: drop, path: t.csv}}\n    mode: full\n    key: [id]\n"
        "    columns:\n      id: {type: bigint}\n"
    )
    monkeypatch.setenv("SLUICE_SOURCES_DIR", str(tmp_path))
    monkeypatch.setenv("AIRFLOW_CONN_DROP", f"file://{tmp_path}")
    new = postgres.database()
    for url, problem in (
        (new, "the warehouse has no ledger yet. Make it: sluice migrate"),
        (first_release, "the ledger is older than this command. Bring it up to date: sluice migrate"),
    ):
        monkeypatch.setenv("SLUICE_WAREHOUSE_URL", url)
        assert _command(monkeypatch, "load", "s") == 1
        assert f"sluice: {problem}" in capfd.readouterr().err
        assert _command(monkeypatch, "source", "list") == 0
        assert f"the warehouse can't be asked: {problem}" in capfd.readouterr().err
        assert _command(monkeypatch, "migrate") == 0
        assert "the ledger was brought up to date, in " in capfd.readouterr().out
        assert _command(monkeypatch, "migrate") == 0
        assert capfd.readouterr().out == "the ledger is up to date\n"
        assert _command(monkeypatch, "source", "list") == 0
        assert "can't be asked" not in capfd.readouterr().err
    monkeypatch.setenv("SLUICE_WAREHOUSE_URL", new)
    assert _command(monkeypatch, "load", "s") == 0
    assert "1 unit published" in capfd.readouterr().err
    with psycopg.connect(new, autocommit=True) as connection:
        connection.execute("drop table ops.circuit")
    assert _command(monkeypatch, "source", "list") == 0
    assert 'relation "ops.circuit" does not exist, though the ledger is up to date' in capfd.readouterr().err


def test_a_role_that_may_make_no_ledger_is_told_what_it_lacks(
    postgres: PostgresForTests, monkeypatch: pytest.MonkeyPatch, capfd
) -> None:
    url = postgres.database()
    monkeypatch.setenv("SLUICE_WAREHOUSE_URL", psycopg.conninfo.make_conninfo(url, user="lodger", password="lodger"))
    with psycopg.connect(postgres.superuser_url(url), autocommit=True) as connection:
        connection.execute("create role lodger login password 'lodger'")
        try:
            assert _command(monkeypatch, "migrate") == 1
        finally:
            connection.execute("drop role lodger")
    assert "the ledger can't be made: permission denied for database" in capfd.readouterr().err


def test_a_rejected_row_has_its_batch_and_a_batch_that_has_one_stays(warehouse: psycopg.Connection) -> None:
    """As by a foreign key, which would ask for the batch of each row (migration 45)."""
    insert = "insert into ops.quarantine (batch_id, source, table_name, row_number, code, reason)"
    batch, other = (
        warehouse.execute(
            "insert into ops.batch (source, table_name, unit, state, mode, run_id)"
            " values ('shop', 'orders', %s, 'landed', 'append', 'r') returning batch_id",
            [unit],
        ).fetchone()[0]  # type: ignore[index]
        for unit in ("one", "other")
    )
    with pytest.raises(psycopg.errors.ForeignKeyViolation), warehouse.transaction():
        warehouse.execute(f"{insert} values (%s, 's', 't', 1, 'C', 'r'), (-1, 's', 't', 2, 'C', 'r')", [batch])
    warehouse.execute(f"{insert} select %s, 's', 't', n, 'C', 'r' from generate_series(1, 3) as n", [batch])
    for statement in (
        "delete from ops.batch where batch_id = %s",
        "update ops.quarantine set batch_id = -1 where batch_id = %s",
    ):
        with pytest.raises(psycopg.errors.ForeignKeyViolation), warehouse.transaction():
            warehouse.execute(statement, [batch])
    with pytest.raises(psycopg.errors.FeatureNotSupported), warehouse.transaction():
        warehouse.execute("truncate ops.batch")
    assert warehouse.execute("delete from ops.batch where batch_id = %s", [other]).rowcount == 1
    assert warehouse.execute("select count(*) from ops.quarantine where batch_id = %s", [batch]).fetchone() == (3,)


def test_of_a_rejected_row_that_is_being_written_the_batch_can_not_be_deleted(
    warehouse: psycopg.Connection, warehouse_url: str
) -> None:
    warehouse.execute(
        "insert into ops.batch (source, table_name, unit, state, mode, run_id)"
        " values ('shop', 'orders', 'held', 'landed', 'append', 'r')"
    )
    insert = (
        "insert into ops.quarantine (batch_id, source, table_name, row_number, code, reason)"
        " select batch_id, 's', 't', 1, 'C', 'r' from ops.batch where unit = 'held'"
    )
    with ThreadPoolExecutor(1) as pool, psycopg.connect(warehouse_url) as writer:
        writer.execute(insert)
        deleting = pool.submit(warehouse.execute, "delete from ops.batch where unit = 'held'")
        waits = "select true from pg_locks where pid = %s and not granted"
        while not writer.execute(waits, [warehouse.info.backend_pid]).fetchone():
            assert not deleting.done(), "it must wait for whoever writes"
        writer.commit()
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            deleting.result()
