"""Faults of the server and of its neighbours while a batch is loaded. Codes are those of faults.md."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from sluice import warehouse
from sluice.declarations import load_file
from sluice.errors import GateRefused, LedgerError, SluiceError
from sluice.loading import RunContext, audit, land, pipeline, publish
from tests.loading.conftest import World

SALES = """
sales:
  description: events
  from: {files: {connection: drop, path: "{name}.csv"}}
  mode: append
  key: [id]
  max_reject_share: 0.5
  columns:
    id: {type: text, required: true}
    pieces: {type: integer}
"""


@pytest.fixture
def audited(world: World) -> list[int]:
    """A batch that only needs to be published."""
    world.declare(SALES)
    world.deliver("a.csv", "id,pieces\n1,1\n2,2\n")
    source = load_file(world.sources / "shop.yml")
    ids = land(source, source.tables["sales"], RunContext("run"))
    audit(ids)
    return ids


@pytest.fixture
def other() -> Callable[[], psycopg.Connection]:
    """Sessions of somebody else in the same warehouse."""
    return lambda: psycopg.connect(os.environ["SLUICE_WAREHOUSE_URL"])


def test_L2_publishing_again_after_a_crash_before_airflow_knew_is_a_no_op(world: World, audited: list[int]) -> None:
    publish(audited)
    assert [done.state for done in publish(audited)] == ["published"]
    assert world.query("select count(*) from staging.shop__sales") == [(2,)]


def test_L6_a_batch_of_rejects_is_one_incident_and_publishes_nothing(world: World) -> None:
    world.declare(SALES)
    world.deliver("a.csv", "id,pieces\n" + "".join(f"{i},x\n" for i in range(100)))
    with pytest.raises(GateRefused, match="100 of 100 rows break the contract"):
        world.load("sales")
    assert world.query("select check_name from ops.gate_result where verdict <> 'pass'") == [("contract",)]
    assert world.query("select count(*) from staging.shop__sales") == [(0,)]
    assert world.query("select count(*) from ops.quarantine") == [(100,)]


def test_L8_a_value_too_long_for_an_index_is_one_rejected_row_and_a_huge_one_is_loaded(world: World) -> None:
    world.declare(SALES.replace("pieces: {type: integer}", "pieces: {type: text}"))
    world.deliver("a.csv", f"id,pieces\n{'k' * 3000},x\nbig,{'v' * 20_000_000}\n")
    (done,) = world.load("sales")
    assert (done.rows_applied, done.rows_quarantined) == (1, 1)
    assert world.query("select code, length(raw) > 3000 from ops.quarantine") == [("TOO_LONG", True)]
    assert world.query("select length(pieces) from staging.shop__sales") == [(20_000_000,)]


@pytest.fixture
def small_disk(postgres: object, warehouse: psycopg.Connection) -> Iterator[Path]:
    """A real disk of 40 MB for all tables of the warehouse that are made from now on."""
    disk = Path(tempfile.mkdtemp(prefix="sluice-small-disk-"))
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("only root may mount a disk of its own")
    place = disk / "tables"
    place.mkdir()
    owner = postgres.server.data_dir.stat()  # type: ignore[attr-defined]
    os.chown(place, owner.st_uid, owner.st_gid)
    disk.chmod(0o755)
    url = os.environ["SLUICE_WAREHOUSE_URL"]
    name = url.rpartition("/")[2]
    with psycopg.connect(postgres.superuser_url(url), autocommit=True) as admin:  # type: ignore[attr-defined]
        admin.execute(sql.SQL("create tablespace small location {}").format(str(place)))
        admin.execute("grant create on tablespace small to public")
        admin.execute(sql.SQL("alter database {} set default_tablespace to small").format(sql.Identifier(name)))
        try:
            yield disk
        finally:
            admin.execute(sql.SQL("alter database {} reset default_tablespace").format(sql.Identifier(name)))
            for (table,) in admin.execute(
                "select pg_class.oid::regclass::text from pg_class inner join pg_tablespace on"
                " pg_tablespace.oid = reltablespace where spcname = 'small' and relkind = 'r'"
            ).fetchall():
                admin.execute(f"drop table if exists {table} cascade")
            admin.execute("drop tablespace small")
            subprocess.run(["umount", disk], check=True)
            disk.rmdir()


def leave_free(disk: Path, megabytes: int | None) -> None:
    """Fill the disk up but for so many megabytes; None: take the filling away."""
    ballast = disk / "ballast"
    ballast.unlink(missing_ok=True)
    if megabytes is not None:
        size = shutil.disk_usage(disk).free - megabytes * 1_000_000
        with ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)


def test_L9_a_full_disk_of_the_machine_that_reads_is_named_and_not_held_against_the_source(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Path(tempfile.mkdtemp(prefix="sluice-small-disk-"))
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("only root may mount a disk of its own")
    world.declare(SALES.replace("{name}.csv", "{name}.csv.gz"))
    world.deliver("a.csv.gz", gzip.compress(b"id,pieces\n" + b"1,1\n" * 1_000_000))
    try:
        monkeypatch.setattr(tempfile, "tempdir", str(disk))
        with pytest.raises(LedgerError, match=f"no space is left in {disk} of the machine that reads it"):
            world.load("sales")
    finally:
        subprocess.run(["umount", disk], check=True)
        disk.rmdir()
    assert world.query("select count(*) from ops.circuit where failures > 0") == [(0,)]
    assert world.query("select state from ops.batch") == [("abandoned",)]


def test_L9_a_disk_that_is_full_publishes_nothing_says_how_much_there_was_and_the_retry_works(
    world: World, small_disk: Path
) -> None:
    """INV-4: while landing, and while publishing."""
    world.declare(SALES)
    world.deliver("a.csv", "id,pieces\n" + "".join(f"{i:032d},{i}\n" for i in range(50_000)))
    source = load_file(world.sources / "shop.yml")
    run = RunContext("run")
    leave_free(small_disk, 2)
    with pytest.raises(LedgerError, match=r"DISK_FULL\) after [12]\.\d MB had landed; they were dropped") as error:
        land(source, source.tables["sales"], run)
    assert error.value.retryable
    assert world.query("select state from ops.batch") == [("abandoned",)]
    assert world.query("select count(*) from pg_tables where schemaname = 'landing'") == [(0,)]
    leave_free(small_disk, None)
    ids = land(source, source.tables["sales"], run)
    audit(ids)
    leave_free(small_disk, 2)
    with pytest.raises(LedgerError, match=r"DISK_FULL\).* nothing was published\. [4-9]\.\d MB of it are landed"):
        publish(ids)
    assert world.query("select count(*) from staging.shop__sales") == [(0,)]
    assert world.query("select state from ops.batch order by batch_id desc limit 1") == [("audited",)]
    leave_free(small_disk, None)
    assert [p.rows_applied for p in publish(ids)] == [50_000]
    assert world.books_balance()


def test_L10_a_session_that_is_cut_in_the_middle_of_a_copy_leaves_nothing_and_the_retry_loads_all(
    world: World, other: Callable[[], psycopg.Connection]
) -> None:
    world.declare(SALES)
    world.deliver("a.csv", "id,pieces\n" + "".join(f"{i},{i}\n" for i in range(120_000)))
    failed: list[BaseException] = []

    def load() -> None:
        try:
            world.load("sales", run="the-same-run")
        except (SluiceError, psycopg.OperationalError) as error:
            failed.append(error)

    worker = threading.Thread(target=load)
    worker.start()
    with other() as killer:
        killer.autocommit = True
        cut = []
        while worker.is_alive() and not cut:
            cut = killer.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = current_database() and application_name = 'sluice' and query ilike 'copy%%'"
                " and state = 'active'"
            ).fetchall()
    worker.join()
    assert cut
    assert failed, "a cut COPY is no success"
    assert world.query("select to_regclass('staging.shop__sales')") == [(None,)]
    (done,) = world.load("sales", run="the-same-run")
    assert done.rows_applied == 120_000
    assert world.books_balance()
    assert world.query("select count(*) from pg_tables where schemaname = 'landing'") == [(0,)]


def test_L11_every_session_of_the_loader_has_bounded_waits(world: World) -> None:
    with warehouse.connect() as connection:
        names = ("statement_timeout", "idle_in_transaction_session_timeout", "lock_timeout")
        assert all(connection.execute(f"show {name}").fetchone() != ("0",) for name in names)
        assert connection.execute("show client_connection_check_interval").fetchone() == ("10s",)
        given = connection.info.get_parameters()
    assert {"keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout"} <= given.keys()


def test_L11_a_loader_that_went_silent_loses_its_session_its_locks_and_then_its_lease(
    world: World, audited: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGOPTIONS", "-c idle_in_transaction_session_timeout=1s")
    with warehouse.connect() as silent:
        silent.execute("select from ops.batch where batch_id = %s for update", audited)
        pid = silent.info.backend_pid
        while world.query("select 1 from pg_stat_activity where pid = %s", pid):
            time.sleep(0.1)
        world.warehouse.execute("update ops.batch set heartbeat_at = now() where batch_id = %s", audited)
        with pytest.raises(psycopg.errors.IdleInTransactionSessionTimeout):
            silent.execute("select 1")
    monkeypatch.delenv("PGOPTIONS")  # on a busy machine the next loader may be silent for as long
    world.warehouse.execute("update ops.lease set expires_at = now() - interval '1 second'")
    (done,) = world.load("sales", run="another-run")
    assert done.rows_applied == 2


def test_L12_a_publish_is_not_held_up_by_a_reader_and_holds_up_none(
    world: World, audited: list[int], other: Callable[[], psycopg.Connection]
) -> None:
    with other() as analyst:
        analyst.execute("select count(*) from staging.shop__sales").fetchone()  # the transaction stays open
        publish(audited)
        assert analyst.execute("select count(*) from staging.shop__sales").fetchone() == (2,), "read committed"


def test_L12_a_log_that_is_locked_is_tried_again_and_then_named(
    world: World, audited: list[int], other: Callable[[], psycopg.Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGOPTIONS", "-c lock_timeout=100ms")
    monkeypatch.setattr(pipeline, "_TRIES", 2)
    with other() as vacuum:
        vacuum.execute("lock table staging.shop__sales in access exclusive mode")
        with pytest.raises(LedgerError, match=r"LockNotAvailable .* 2 times in a row; it was left as it was") as said:
            publish(audited)
        pid = vacuum.info.backend_pid
        assert f"Of staging.shop__sales: session {pid} holds it (" in str(said.value)
        assert f"idle in transaction since {datetime.now(UTC):%Y-%m-%d}" in str(said.value)
        assert str(said.value).endswith(f"or end it: select pg_terminate_backend({pid}). Then clear the task")
        vacuum.rollback()
    assert [done.rows_applied for done in publish(audited)] == [2]


def test_L13_a_deadlock_is_tried_again(
    world: World, audited: list[int], other: Callable[[], psycopg.Connection]
) -> None:
    """Somebody holds the counter and wants the batch; the loader holds the batch and wants the counter."""
    with other() as rival:
        rival.execute("select from ops.clock for update")
        done: list[object] = []
        worker = threading.Thread(target=lambda: done.extend(publish(audited)))
        worker.start()
        while not world.query("select 1 from pg_locks where not granted"):
            time.sleep(0.02)
        rival.execute("select from ops.batch where batch_id = %s for update", audited)  # who waited first gives way
        rival.rollback()
        worker.join()
    assert len(done) == 1
    assert world.query("select count(*) from staging.shop__sales") == [(2,)]
