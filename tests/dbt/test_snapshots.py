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


def snapshot(small: Small, old: str, new: str) -> None:
    path = small.folder / "snapshots" / "snap.yml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_case_12_a_key_of_several_columns_needs_no_column_of_its_own(small: Small) -> None:
    snapshot(
        small, "unique_key: customer_id, check_cols: [name]", "unique_key: [customer_id, name], check_cols: [phone]"
    )
    path = small.folder / "models" / "staging" / "stg_shop__customers.sql"
    path.write_text(path.read_text().replace("unique_key='customer_id'", "unique_key=['customer_id', 'name']"))
    small.publish(
        "customers", [version(1, "a", "1"), version(1, "b", "1"), version(1, "a", "1", 2), version(1, "b", "1", 2)]
    )
    small.dbt("snapshot")
    small.dbt("run", "--select", "stg_shop__customers")
    assert small.dbt("snapshot").success
    small.publish("customers", [version(3, "b", "2"), version(3, "a", "9", 2)])
    assert small.dbt("snapshot").success
    chain = (
        "select customer_id, name, phone, extract(day from nullif(dbt_valid_from, '-infinity'))::int"
        " from snapshots.snap_shop__customers order by 1, 2, dbt_valid_from"
    )
    assert small.query(chain) == [
        (1, "a", "1", None),
        (1, "b", "1", None),
        (1, "b", "2", 3),
        (2, "a", "1", None),
        (2, "a", "9", 3),
        (2, "b", "1", None),
    ]
    assert small.query("select keys_touched from ops.model_run order by model_run_id desc limit 1") == [(2,)]
    assert small.query("select key from ops.changed_key order by 1") == [('[1, "b"]',), ('[2, "a"]',)]


def test_case_10_a_key_that_is_given_to_another_person_keeps_the_first_ones_type_1_values(small: Small) -> None:
    snapshot(small, "hard_deletes: new_record", "hard_deletes: new_record, meta: {key_reused_after: 10 days}")
    small.publish(
        "customers", [version(1, "ann", "1"), gone(3), version(5, "ann", "2"), gone(7), version(20, "bob", "9")]
    )
    assert small.dbt("build", "--exclude", "dim_customer", "fct_order").success
    assert small.query(
        "select name, phone, incarnation from snapshots.snap_shop__customers where dbt_is_deleted = 'false'"
        " order by dbt_valid_from"
    ) == [("ann", "2", 0), ("ann", "2", 0), ("bob", "9", 1)], "back after two days is the same person, after 13 another"


def test_case_10_another_identity_is_another_person(small: Small) -> None:
    snapshot(small, "hard_deletes: new_record", "hard_deletes: new_record, meta: {identity: name}")
    small.publish("customers", [version(1, "ann", "1"), version(5, "bob", "2"), version(6, "bob", "3")])
    assert small.dbt("build", "--exclude", "dim_customer", "fct_order").success
    assert small.query(
        "select name, phone, incarnation from snapshots.snap_shop__customers order by dbt_valid_from"
    ) == [
        ("ann", "1", 0),
        ("bob", "3", 1),
    ]


def test_case_26_27_columns_that_flip_and_noise_in_values_open_no_version(small: Small) -> None:
    path = small.folder / "models" / "staging" / "stg_shop__customers.sql"
    path.write_text(path.read_text().replace("name, phone,", "phone, name::jsonb as name,"))
    small.publish(
        "customers",
        [
            version(1, '{"a": 1.0, "b": 2}', "x"),
            version(2, '{"b":2,  "a":1.00}', "y"),
            version(3, '{"a": 1, "b": 2}', "z"),
        ],
    )
    assert small.dbt("build", "--exclude", "dim_customer", "fct_order").success
    assert small.query("select phone from snapshots.snap_shop__customers") == [("z",)]


def test_case_12_S2_a_log_row_without_its_key_is_refused_in_a_later_run_too(small: Small) -> None:
    small.publish("customers", [version(1, "a")])
    small.build()
    bad = small.publish("customers", [("upsert", "2026-01-02", None, "nobody", "1")])
    done = small.dbt("snapshot")
    assert not done.success
    assert "NULL in (" in done.text
    assert "nobody" not in done.text
    small.publish("customers", [version(2, "b")], supersedes=bad)
    small.build()
    assert small.chain(1) == [("a", "1", 0, 2), ("b", "1", 2, 99)]


def test_a_staging_view_over_two_tables_follows_both(small: Small) -> None:
    small.warehouse.execute("create table staging.shop__guests (like staging.shop__customers)")
    path = small.folder / "models" / "staging" / "src.yml"
    path.write_text(path.read_text() + "      - name: guests\n        identifier: shop__guests\n")
    path = small.folder / "models" / "staging" / "stg_shop__customers.sql"
    path.write_text(
        "{{ config(unique_key='customer_id') }}\n"
        "select id as customer_id, name, phone, {{ log_columns() }} from {{ change_log(source('shop','customers')) }}\n"
        "union all\n"
        "select id as customer_id, name, phone, {{ log_columns() }} from {{ change_log(source('shop','guests')) }}\n"
    )
    small.publish("customers", [version(1, "a")])
    small.build()
    small.publish("guests", [version(2, "g", customer=2)])
    small.build()
    small.publish("customers", [version(3, "b")])
    small.build()
    assert small.chain(1) == [("a", "1", 0, 3), ("b", "1", 3, 99)]
    assert small.chain(2) == [("g", "1", 0, 99)]
