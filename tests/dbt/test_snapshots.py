"""Snapshots are a function of the change log. Numbers are those of docs/reference/scd2-cases.md."""

from __future__ import annotations

import itertools

import pytest

from tests.dbt.conftest import Small


def version(day: int, name: str, phone: str = "1", customer: int = 1) -> tuple:
    return ("upsert", f"2026-01-{day:02}", customer, name, phone)


def gone(day: int, customer: int = 1) -> tuple:
    return ("delete", f"2026-01-{day:02}", customer, None, None)


def test_case_1_7_21_a_late_version_splits_the_interval_and_keeps_the_earlier_key(small: Small) -> None:
    small.publish("customers", [version(1, "ann"), version(9, "anna")])
    small.build()
    keys = dict(small.query("select name, dbt_scd_id from snapshots.snap_shop__customers"))
    small.publish("customers", [version(5, "anne")])
    small.build()
    assert small.chain(1) == [("ann", "1", 0, 5), ("anne", "1", 5, 9), ("anna", "1", 9, 99)]
    assert dict(small.query("select name, dbt_scd_id from snapshots.snap_shop__customers")).items() >= keys.items()


def test_case_3_25_any_order_of_arrival_gives_the_same_rows(small: Small) -> None:
    versions = [version(1, "a"), version(3, "b"), version(6, "c")]
    seen = set()
    for customer, order in enumerate(itertools.permutations(versions), start=1):
        for row in order:
            small.publish("customers", [(*row[:2], customer, *row[3:])])
    small.build()
    for customer in range(1, 7):
        seen.add(tuple(small.chain(customer)))
    assert seen == {(("a", "1", 0, 3), ("b", "1", 3, 6), ("c", "1", 6, 99))}


def test_case_5_of_two_versions_of_one_instant_content_decides_and_arrival_does_not(small: Small) -> None:
    one, two = version(4, "x"), version(4, "y")
    for first, second in ((one, two), (two, one)):
        small.publish("customers", [first])
        small.publish("customers", [second])
        small.build()
    assert len(small.chain(1)) == 1
    assert small.query(
        "select state from ops.model_run where model = 'snap_shop__customers' order by 1 desc limit 1"
    ) == [("unchanged",)], "the same two versions in the other order decide the same"


def test_case_8_9_a_delete_closes_and_a_return_opens(small: Small) -> None:
    small.publish("customers", [version(1, "a"), gone(3), version(5, "a"), gone(7)])
    small.build()
    assert small.chain(1) == [("a", "1", 0, 3), ("a", "1", 5, 7)]


def test_case_14_a_type_1_column_changes_in_every_version_and_opens_none(small: Small) -> None:
    small.publish("customers", [version(1, "a", "1"), version(3, "b", "1")])
    small.build()
    small.publish("customers", [version(5, "b", "2")])
    small.build()
    assert small.chain(1) == [("a", "2", 0, 3), ("b", "2", 3, 99)]


def test_case_22_a_second_run_writes_nothing(small: Small) -> None:
    small.publish("customers", [version(1, "a")])
    small.build()
    small.build()
    assert small.query(
        "select state, rows_inserted, rows_deleted from ops.model_run where model = 'snap_shop__customers' order by 1 "
        "desc"
    ) == [
        ("unchanged", 0, 0),
        ("success", 1, 0),
    ]


def test_a_superseded_batch_takes_its_versions_along(small: Small) -> None:
    wrong = small.publish("customers", [version(1, "a"), version(3, "wrong"), version(2, "only there", customer=2)])
    small.build()
    small.publish("customers", [version(1, "a")], supersedes=wrong)
    small.build()
    assert small.chain(1) == [("a", "1", 0, 99)]
    assert small.chain(2) == []


def test_case_18_a_session_in_another_time_zone_changes_nothing(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    small.publish(
        "customers",
        [("upsert", "2026-03-29 00:59:59+00", 1, "a", "1"), ("upsert", "2026-03-29 01:00:00+00", 1, "b", "1")],
    )
    small.build()
    everything = (
        "select dbt_scd_id, name, dbt_valid_from::text, dbt_valid_to::text"
        " from snapshots.snap_shop__customers order by 3"
    )
    before = small.query(everything)
    monkeypatch.setenv("PGTZ", "Europe/Berlin")
    small.build("--full-refresh")
    assert small.query(everything) == before
    assert small.query("select max(rows_inserted) from ops.model_run where model_run_id > 3") == [(0,)]


def test_S12_a_full_refresh_and_an_empty_build_lose_nothing(small: Small) -> None:
    small.publish("customers", [version(1, "a"), version(3, "b")])
    small.publish("orders", [("upsert", "2026-01-02", 1, 1, 5, "2026-01-02")])
    small.build()
    for arguments in (["--full-refresh"], ["--empty"]):
        small.build(*arguments)
        assert len(small.chain(1)) == 2
        assert small.query("select count(*) from marts.fct_order") == [(1,)]


def test_a_strategy_that_has_no_meaning_here_is_refused_with_a_reason(small: Small) -> None:
    path = small.folder / "snapshots" / "snap.yml"
    path.write_text(path.read_text().replace("check_cols: [name]", "strategy: timestamp, updated_at: _effective_at"))
    done = small.dbt("build")
    assert not done.success
    assert "strategy must be check" in done.text
