"""A REST source that misbehaves: nothing half read is published, and nothing that was had is asked for again."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

import psycopg
import pytest
from psycopg import sql

from sluice.declarations import load_file
from sluice.errors import BadResponse, GateRefused, SourceUnavailable, StaleLease
from sluice.loading import RunContext, land
from tests.loading.conftest import World
from tests.loading.server import Answer, Request, Server, serving
from tests.loading.test_crashes import Killed

RATES = """
rates:
  description: rates
  from:
    rest:
      connection: api
      path: /rates
      total: total
      retries: 0
      page: {param: page, size_param: size, size: 3}
  mode: full
  key: [code]
  deletes: {max_share: 0.5}
  columns:
    code: {type: text, required: true}
    rate: {type: numeric}
    extra: {type: jsonb}
"""


CLOCK = "clock: {connection: db, query: select timestamptz '2026-01-04 01:00+00'}\n"


class Api:
    """Eight rates in pages of three, and what the test wants otherwise."""

    def __init__(self, server: Server) -> None:
        self.rows = [{"code": f"C{i}", "rate": i} for i in range(8)]
        self.server, server.answer = server, self.page
        self.other: Callable[[int], Answer | None] = lambda page: None

    def page(self, request: Request) -> Answer:
        number = int(request.query.get("page", 1))
        rows = self.rows[(number - 1) * 3 : number * 3]
        body = {"items": rows, "total": len(self.rows), "pages": -(-len(self.rows) // 3)}
        return self.other(number) or (200, {}, body)

    def asked(self) -> list[int]:
        """The pages asked for since the last call."""
        pages = [int(request.query["page"]) for request in self.server.asked]
        self.server.asked.clear()
        return pages


@pytest.fixture
def api(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    with serving() as server:
        monkeypatch.setenv("AIRFLOW_CONN_API", server.url)
        world.declare(RATES)
        yield Api(server)


def down_at(number: int, answer: Answer = (503, {"Retry-After": "0"}, {})) -> Callable[[int], Answer | None]:
    return lambda page: answer if page == number else None


def fail(world: World, api: Api, number: int = 3) -> None:
    """One attempt that lands the pages before `number`."""
    api.other = down_at(number)
    with pytest.raises(SourceUnavailable):
        world.load("rates")
    api.other = down_at(0)
    api.asked()


def assert_all_is_there_once(world: World, api: Api) -> None:
    """Exactly what the source holds, under exact books, and nothing left behind."""
    held = world.query(
        "select code, rate::int from staging.shop__rates as log"
        " where not exists (select from ops.batch where batch_id = _batch_id and superseded_seq is not null) order by 1"
    )
    assert held == sorted((row["code"], row["rate"]) for row in api.rows)
    assert world.query("select rows_read, rows_applied, control_total from ops.batch where state = 'published'") == [
        (len(api.rows), len(api.rows), len(api.rows))
    ]
    assert world.books_balance()
    assert world.query("select count(*) from pg_tables where schemaname = 'landing'") == [(0,)]
    assert world.query("select count(*) from ops.checkpoint") == [(0,)]
    assert world.query("select count(*) from ops.batch where state in ('landing', 'landed', 'audited')") == [(0,)]


def empty(world: World) -> None:
    """Forget all loads, and keep the world."""
    world.warehouse.execute("truncate ops.batch, ops.circuit, ops.lease cascade")
    world.warehouse.execute("drop table if exists staging.shop__rates")


def test_E18_a_character_that_cannot_be_stored_puts_its_row_in_quarantine_and_no_other(world: World, api: Api) -> None:
    """Also where the attempt breaks off after that page, and the next one goes on."""
    world.declare(RATES.replace("mode: full", "mode: full\n  max_reject_share: 0.9"))
    api.rows[1]["code"] = "C\0"
    api.rows[2]["extra"] = {"a": ["\0"]}
    api.rows[3]["unknown"] = {"\ud800": 1}
    api.rows[4]["code"] = "\udc00"
    api.rows[5]["extra"] = {"path": "C:\\u0000dir"}
    fail(world, api)
    world.load("rates")
    assert api.asked() == [2, 3]
    assert world.query("select row_number, code from ops.quarantine where state = 'open' order by 1") == [
        (2, "NUL_BYTE"),
        (3, "NUL_BYTE"),
        (4, "ENCODING"),
        (5, "ENCODING"),
    ]
    assert world.query("select code, extra ->> 'path' from staging.shop__rates order by 1") == [
        ("C0", None),
        ("C5", "C:\\u0000dir"),
        ("C6", None),
        ("C7", None),
    ]
    assert world.query("select rows_read, rows_quarantined from ops.batch where state = 'published'") == [(8, 4)]
    assert world.books_balance()


def test_D1_D2_a_field_that_the_rows_have_anew_or_no_more_is_said_once_also_after_a_resumed_attempt(
    world: World, api: Api
) -> None:
    api.rows[0]["extra"] = 1  # on a page that the attempt that fails has landed
    api.rows[1]["colour"] = "red"
    fail(world, api)
    world.load("rates")
    events = "select kind, column_name from ops.schema_event order by schema_event_id"
    assert world.query(events) == [("new_column", "colour")]
    del api.rows[0]["extra"]
    world.load("rates")
    world.load("rates")
    assert world.query(events) == [("new_column", "colour"), ("missing_column", "extra")]
    world.declare(RATES.replace("max_share: 0.5}", "max_share: 0.5}\n  drift: {new_column: block}"))
    api.rows[0]["rate"] = 99
    with pytest.raises(GateRefused, match="has the fields colour, unknown to the contract"):
        world.load("rates")


def test_E11_a_storm_of_429_and_503_is_waited_out(world: World, api: Api) -> None:
    storm = iter([(429, {"Retry-After": "0"}, {}), (503, {}, {})])
    world.declare(RATES.replace("retries: 0", "retries: 2"))
    api.other = lambda page: next(storm, None) if page == 2 else None
    world.load("rates")
    assert api.asked() == [1, 2, 2, 2, 3]
    assert_all_is_there_once(world, api)


def test_E11_a_source_that_stays_down_publishes_nothing_and_the_retry_goes_on_at_the_page_that_failed(
    world: World, api: Api
) -> None:
    api.other = down_at(3)
    with pytest.raises(
        SourceUnavailable, match=r"status 503 after 1 tries.* page 3 is missing.* the next attempt goes on"
    ):
        world.load("rates", run="scheduled__1")
    assert world.query("select state, rows_applied from ops.batch") == [("abandoned", 0)]
    assert api.asked() == [1, 2, 3]
    api.other = down_at(3)
    with pytest.raises(SourceUnavailable):
        world.load("rates", run="scheduled__1")
    assert api.asked() == [2, 3], "the page that landed last is compared, and nothing before it is asked for"
    api.other = down_at(0)
    world.load("rates", run="scheduled__2")
    assert api.asked() == [2, 3]
    assert_all_is_there_once(world, api)
    assert world.query("select count(distinct unit), count(*) from ops.batch") == [(1, 3)], "three attempts at one unit"


def test_pages_that_landed_are_not_gone_on_from_once_something_else_is_asked_or_answered(
    world: World, api: Api
) -> None:
    def other_question() -> None:
        world.declare(RATES.replace("path: /rates", "path: /rates\n      params: {base: EUR}"))

    def other_contract() -> None:
        world.declare(RATES.replace("rate: {type: numeric}", "rate: {type: numeric, minimum: -1}"))

    def other_total() -> None:
        api.rows = [*api.rows, {"code": "C8", "rate": 8}]

    def rows_that_moved() -> None:
        api.rows = [*api.rows[1:], {"code": "C9", "rate": 9}]

    def too_old() -> None:
        world.query("update ops.checkpoint set saved_at = saved_at - interval '61 minutes' returning 1")

    def landing_emptied_by_a_crash() -> None:
        for (name,) in world.query("select tablename from pg_tables where schemaname = 'landing'"):
            world.warehouse.execute(f"truncate landing.{name}")

    def never_declared() -> None:
        world.declare(RATES.replace("retries: 0", "retries: 0\n      resume_within: 0s"))

    changes = (
        other_question,
        other_contract,
        other_total,
        rows_that_moved,
        too_old,
        landing_emptied_by_a_crash,
        never_declared,
    )
    for change in changes:
        empty(world)
        world.declare(RATES)
        fail(world, api)
        change()
        world.load("rates")
        pages = api.asked()
        assert [page for page in pages if page != 2] == [1, 3], f"{change.__name__}: all is read anew"
        assert_all_is_there_once(world, api)


def test_a_half_read_resource_is_not_finished_once_a_later_reading_was_published(world: World, api: Api) -> None:
    fail(world, api)
    world.query(
        "update ops.lease set holder = 'a run that hangs', expires_at = now() + interval '1 minute' returning 1"
    )
    world.load("rates")
    world.query("update ops.lease set expires_at = now() - interval '1 minute' returning 1")
    api.asked()
    world.load("rates")
    assert api.asked() == [1, 2, 3]


def test_a_live_resource_that_is_read_anew_speaks_for_now_not_for_the_instant_of_the_failed_attempt(
    world: World, api: Api
) -> None:
    fail(world, api)
    (before,) = world.query("select clock_timestamp()")[0]
    world.load("rates")
    assert world.query("select effective_at < %s from ops.batch where state = 'published'", before) == [(True,)]
    fail(world, api)
    (before,) = world.query("select clock_timestamp()")[0]
    api.rows = [*api.rows[1:], {"code": "C9", "rate": 9}]
    world.load("rates")
    assert world.query("select effective_at > %s from ops.batch order by batch_id desc limit 1", before) == [(True,)]


def test_L1_killed_at_any_statement_that_keeps_or_takes_over_pages_the_rows_are_there_once(
    world: World, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other statements of a batch are swept in test_crashes."""
    one_day = RATES.replace("path: /rates", "path: '/rates/{date}'").replace("mode:", "start: 2026-01-03\n  mode:")
    world.declare(one_day, head=CLOCK)
    real, count, kill = psycopg.Cursor.execute, 0, 0

    def execute(self: psycopg.Cursor, query: object, *args: object, **kwargs: object) -> psycopg.Cursor:
        nonlocal count
        text = query.as_string(self.connection) if isinstance(query, sql.Composable) else str(query)
        if any(part in text for part in ("ops.checkpoint", "update ops.lease", "rename to")):
            count += 1
            if count == kill:
                self.connection.close()
                raise Killed
        return real(self, query, *args, **kwargs)  # type: ignore[arg-type]

    went_on = 0
    for k in range(1, 30):
        kill = k
        empty(world)
        count = -1000
        fail(world, api)
        count = 0
        with monkeypatch.context() as patch, contextlib.suppress(Killed):
            patch.setattr(psycopg.Cursor, "execute", execute)
            world.load("rates", run="the-same-run")
            break
        api.asked()
        world.load("rates", run="the-same-run")
        went_on += api.asked() in ([2, 3], [3])
        assert_all_is_there_once(world, api)
    assert 8 < kill < 29, "the sweep went over every such statement"
    assert went_on > 5, "most of the crashes were gone on from"


def test_L3_an_attempt_that_was_overtaken_lands_no_further_page(world: World, api: Api) -> None:
    asked, free = threading.Event(), threading.Event()

    def hold_the_first(page: int) -> None:
        if page == 3 and not asked.is_set():
            asked.set()
            assert free.wait(10)

    api.other = hold_the_first  # type: ignore[assignment]
    source = load_file(world.sources / "shop.yml")
    outcome: list[BaseException] = []

    def attempt() -> None:
        try:
            land(source, source.tables["rates"], RunContext("run"))
        except BaseException as error:
            outcome.append(error)

    zombie = threading.Thread(target=attempt)
    zombie.start()
    assert asked.wait(10)
    world.load("rates", run="run")  # a retry of the same run, while the first attempt still waits for page 3
    free.set()
    zombie.join(10)
    assert isinstance(outcome[0], StaleLease)
    assert_all_is_there_once(world, api)


CURSORS = """
rates:
  description: rates
  from: {rest: {connection: api, path: /rates, retries: 0, page: {by: cursor, next: next}}}
  mode: append
  key: [code]
  columns: {code: {type: text, required: true}}
"""


def test_E12_a_cursor_that_expires_midway_restarts_the_window_without_duplicates(world: World, api: Api) -> None:
    world.declare(CURSORS)
    generation, expiries = 0, 1

    def answer(request: Request) -> Answer:
        nonlocal generation, expiries
        if "cursor" not in request.query:
            generation += 1
            return 200, {}, {"items": [{"code": "A"}, {"code": "B"}], "next": f"{generation}-2"}
        if request.query["cursor"] == f"{generation}-2":
            return 200, {}, {"items": [{"code": "C"}], "next": f"{generation}-3"}
        if expiries:
            expiries -= 1
            return 410, {}, {"error": "cursor expired"}
        return 200, {}, {"items": [{"code": "D"}]}

    api.server.answer = answer
    (published,) = world.load("rates")
    assert (published.rows_read, published.rows_applied, published.rows_duplicate) == (4, 4, 0)
    assert world.query("select string_agg(code || _row_number, ',' order by code) from staging.shop__rates") == [
        ("A1,B2,C3,D4",)
    ]
    expiries = 2
    with pytest.raises(BadResponse, match="answered 410 for page 3"):
        world.load("rates")
    assert world.query("select count(*) from staging.shop__rates") == [(4,)]


NO_DATA: tuple[Answer, ...] = (
    (200, {"content-type": "text/html"}, b"<html>maintenance</html>" + b"x" * 50_000),
    (200, {}, b'{"items": [{"code"'),
    (200, {}, {"error": "no"}),
    (200, {}, {"items": [], "total": "8", "pages": 3}),
    (200, {}, {"items": [], "total": 8}),
    (404, {}, {"error": "gone"}),
)


def test_E13_an_answer_that_is_no_data_refuses_the_unit_as_a_whole_and_is_kept(world: World, api: Api) -> None:
    letters = "select code, row_number, length(raw) between 9 and 16384, state from ops.quarantine"
    for answer in NO_DATA:
        empty(world)
        api.other = down_at(2, answer)
        with pytest.raises(BadResponse, match=r"nothing (of .*)?was published") as error:
            world.load("rates")
        assert error.value.retryable
        assert world.query(letters) == [("BAD_RESPONSE", 2, True, "open")]
        assert world.query("select state, rows_applied from ops.batch") == [("refused", 0)]
        api.other = down_at(0)
        world.load("rates")
        assert_all_is_there_once(world, api)
        assert world.query(letters) == [("BAD_RESPONSE", 2, True, "superseded")]


def test_E13_a_day_that_is_no_data_does_not_hold_up_the_days_after_it(world: World, api: Api) -> None:
    daily = CURSORS.replace("path: /rates", "path: '/rates/{date}'").replace("mode:", "start: 2026-01-01\n  mode:")
    world.declare(
        daily,
        head=CLOCK,
    )
    api.server.answer = lambda request: (
        (200, {}, b"<html>") if request.path.endswith("02") else (200, {}, {"items": [{"code": request.path[-2:]}]})
    )
    with pytest.raises(BadResponse, match="2026-01-02"):
        world.load("rates")
    assert world.query("select code from staging.shop__rates order by 1") == [("01",), ("03",)]


def test_rows_that_move_between_pages_are_noticed(world: World, api: Api) -> None:
    def lose_one(page: int) -> None:
        if page == 2:
            api.rows.pop(0)

    api.other = lose_one  # type: ignore[assignment]
    with pytest.raises(SourceUnavailable, match="changed while it was read"):
        world.load("rates")
    api.other = down_at(0)
    world.load("rates")
    assert_all_is_there_once(world, api)


def test_E17_a_total_that_the_rows_do_not_reach_is_refused(world: World, api: Api) -> None:
    api.other = lambda page: (200, {}, {"items": api.rows[:2], "total": 3, "pages": 1})
    with pytest.raises(GateRefused, match="announces 3 rows but 2 were read"):
        world.load("rates")


def test_numbers_keep_their_digits(world: World, api: Api) -> None:
    body = b'{"total": 1, "pages": 1, "items": [{"code": "A", "rate": 12345678901234567.890, "extra": {"x": 0.10}}]}'
    api.other = lambda page: (200, {}, body)
    world.load("rates")
    assert world.query("select rate::text, extra::text from staging.shop__rates") == [
        ("12345678901234567.890", '{"x": 0.10}')
    ]
