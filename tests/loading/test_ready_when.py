"""What a table waits for beyond its own data: a control table, a service, another table; and how it is said."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator

import psycopg
import pytest

from sluice.declarations import load_file
from sluice.declarations.load import DeclarationError
from sluice.loading import ready
from sluice.settings import SettingsError
from tests.loading.conftest import World

TABLE = """
orders:
  description: orders
  from: {files: {connection: drop, path: "{name}.csv"}}
  mode: append
  key: [id]
  ready_when: [CONDITIONS]
  columns: {id: {type: integer, required: true}}
"""


def declare(world: World, *conditions: str) -> None:
    world.declare(TABLE.replace("CONDITIONS", ", ".join(conditions)))
    world.deliver("a.csv", "id\n1\n")


def waits_for(world: World) -> str | None:
    source = load_file(world.sources / "shop.yml")
    found = ready(source, source.tables["orders"])
    assert found.ready == (not found.waiting_for)
    return found.waiting_for or None


def test_rows_are_ready_when_a_control_table_says_so(world: World) -> None:
    declare(
        world,
        "{what: the night's export, rows: {connection: db, query: select is_done from exports where day = 1}}",
    )
    with psycopg.connect(world.source_url, autocommit=True) as source:
        assert waits_for(world) == (
            "the night's export: the query of ready_when.rows at connection db, which fails: "
            'relation "exports" does not exist'
        )
        source.execute("create table exports (day int, is_done boolean)")
        for row, said in ((None, "nothing"), (False, "false"), (True, None)):
            source.execute("truncate exports")
            if row is not None:
                source.execute("insert into exports values (1, %s)", [row])
            expected = said and f"the night's export: connection db to say that rows are ready (now: {said})"
            assert waits_for(world) == expected


def test_a_question_of_readiness_can_write_nothing_and_repeats_no_value(world: World) -> None:
    with psycopg.connect(world.source_url, autocommit=True) as source:
        source.execute("create table people (name text)")
        declare(world, "{rows: {connection: db, query: insert into people values ('x') returning true}}")
        assert "read-only transaction" in str(waits_for(world))
        declare(world, "{rows: {connection: db, query: select 'ann@example.org'}}")
        assert waits_for(world) == "connection db to answer ready_when.rows with true or a number"
        assert source.execute("select count(*) from people").fetchone() == (0,)


class _State(http.server.BaseHTTPRequestHandler):
    answer: tuple[int, bytes] = (503, b"")

    def do_GET(self) -> None:
        self.send_response(self.answer[0])
        self.end_headers()
        self.wfile.write(self.answer[1])

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[_State]]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _State)
    monkeypatch.setenv("AIRFLOW_CONN_API", f"http://127.0.0.1:{server.server_port}")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield _State
    server.shutdown()
    server.server_close()


def test_a_service_is_ready_when_it_answers_and_says_the_word(world: World, service: type[_State]) -> None:
    declare(world, "{http: {connection: api, path: /export, field: job.state, value: done}}")
    for answer, expected in (
        ((503, b""), "/export at connection api to answer 200 (now: 503)"),
        ((200, b"<html>"), "/export at connection api to have the field job.state"),
        ((200, b'{"job": {"state": "running"}}'), "/export at connection api to say job.state done"),
        ((200, b'{"job": {"state": "done"}}'), None),
    ):
        service.answer = answer
        assert waits_for(world) == expected


def test_a_service_that_is_not_there_is_waited_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_API", "http://127.0.0.1:1")
    declare(world, "{http: {connection: api, path: /export}}")
    assert waits_for(world) == "/export at connection api does not answer (ConnectError)"


def test_another_table_is_fresh_when_it_was_read_within_the_time(world: World) -> None:
    declare(world, "{fresh: {table: bank.rates, within: 2h}}")
    assert waits_for(world) == "bank.rates, which was never read"
    world.warehouse.execute(
        "insert into ops.table_read values ('bank', 'rates', clock_timestamp() - interval '3h', 'r')"
    )
    assert str(waits_for(world)).startswith("bank.rates to be read again (last: ")
    world.warehouse.execute("update ops.table_read set read_at = clock_timestamp()")
    assert waits_for(world) is None


def test_a_condition_is_of_exactly_one_kind(world: World) -> None:
    declare(world, "{what: something}")
    with pytest.raises(DeclarationError, match="give exactly one of rows, http and fresh"):
        load_file(world.sources / "shop.yml")


def test_O7_a_connection_that_is_not_set_fails_the_first_look_although_there_is_something_else_to_wait_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be missed only when the file has come: an hour later, and with the source's `wait` spent."""
    declare(world, "{http: {connection: nowhere, path: /x}}")
    (world.files / "a.csv").unlink()
    with pytest.raises(SettingsError, match=r"the connection 'nowhere' is not set\. Set AIRFLOW_CONN_NOWHERE"):
        waits_for(world)
    monkeypatch.setenv("AIRFLOW_CONN_NOWHERE", "http://127.0.0.1:1")
    assert "connection drop" in str(waits_for(world))
    monkeypatch.delenv("AIRFLOW_CONN_NOWHERE")
    path = world.sources / "shop.yml"
    path.write_text(
        path.read_text().replace("tables:\n", "clock: {connection: nowhere, query: select now()}\ntables:\n")
    )
    with pytest.raises(SettingsError, match="nowhere"):
        waits_for(world)
