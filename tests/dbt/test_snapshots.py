"""Snapshots are a function of the change log. The numbered cases are in test_scd2_cases.py."""

from __future__ import annotations

from tests.dbt.conftest import Small


def version(day: int, name: str, phone: str = "1", customer: int = 1) -> tuple:
    return ("upsert", f"2026-01-{day:02}", customer, name, phone)


def gone(day: int, customer: int = 1) -> tuple:
    return ("delete", f"2026-01-{day:02}", customer, None, None)


def test_a_superseded_batch_takes_its_versions_along(small: Small) -> None:
    wrong = small.publish("customers", [version(1, "a"), version(3, "wrong"), version(2, "only there", customer=2)])
    small.build()
    small.publish("customers", [version(1, "a")], supersedes=wrong)
    small.build()
    assert small.chain(1) == [("a", "1", 0, 99)]
    assert small.chain(2) == []


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
