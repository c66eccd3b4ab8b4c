"""A change costs what it touches: between which instants a dimension answers differently, which facts asked in
between, and keys that resolve for every reader at every instant."""

from __future__ import annotations

import threading

import psycopg
import pytest

from tests.dbt.conftest import Small
from tests.dbt.test_convergent import customer, edit, facts, order


def look_up_as_of_the_order(small: Small) -> None:
    """Declare the dimension's history, and have facts ask for the version at their own instant."""
    edit(
        small,
        "marts/dim_customer.sql",
        "unique_key='customer_key'",
        "validity={'from': 'valid_from', 'to': 'valid_to'}, unique_key='customer_key'",
    )
    edit(
        small,
        "marts/fct_order.sql",
        "'dim_customer':'customer_id'",
        "'dim_customer': {'column': 'customer_id', 'at': 'ordered_at'}",
    )


@pytest.fixture
def dated(small: Small) -> Small:
    """The small project, with the dimension's history declared and looked up as of the order."""
    look_up_as_of_the_order(small)
    return small


def touched(small: Small, model: str = "fct_order") -> int:
    return small.query(f"select keys_touched from ops.model_run where model = '{model}' order by model_run_id desc")[0][
        0
    ]


def dangling(connection: psycopg.Connection) -> int:
    row = connection.execute(
        "select count(*) from marts.fct_order left join marts.dim_customer using (customer_key)"
        " where dim_customer.customer_key is null"
    ).fetchone()
    return int(row[0])  # type: ignore[index]


def test_case_1_33_only_facts_between_the_instants_that_answer_differently_are_recomputed(dated: Small) -> None:
    dated.publish("customers", [customer(1, 1, "a"), customer(20, 1, "c")])
    dated.publish("orders", [order(day, day, 1) for day in range(1, 29)])
    dated.build()
    dated.publish("customers", [customer(10, 1, "b")])
    dated.build()
    assert dated.query(
        "select extract(day from changed_from)::int, extract(day from changed_to)::int from ops.changed_key"
        " inner join ops.change using (change_id) where relation = 'marts.dim_customer'"
    ) == [(10, 20)], "version a ends earlier, b is new, c is what it was"
    assert touched(dated) == 10, "the orders of the 10th to the 19th"
    assert [name for _, name, _ in facts(dated)] == ["a"] * 9 + ["b"] * 10 + ["c"] * 9


def test_a_type_1_correction_reaches_every_fact_and_a_mention_of_a_known_key_reaches_no_dimension(dated: Small) -> None:
    edit(
        dated,
        "marts/dim_customer.sql",
        "'stg_shop__orders':'customer_id'",
        "'stg_shop__orders': {'column': 'customer_id', 'unless_in': 'snap_shop__customers'}",
    )
    dated.publish("customers", [customer(1, 1, "a")])
    dated.publish("orders", [order(2, 1, 1)])
    dated.build()
    dated.publish("orders", [order(3, 2, 1), order(3, 3, 2)])
    dated.build()
    assert touched(dated, "dim_customer") == 1, "customer 2, whom nobody knew; not customer 1"
    assert facts(dated) == [(1, "a", False), (2, "a", False), (3, None, True)]
    dated.publish("orders", [order(4, 3, 1)])
    dated.build()
    assert dated.query("select customer_id from marts.dim_customer order by 1") == [(1,)], "nobody names customer 2 now"


def test_S10_INV4_case_33_a_fact_points_to_a_member_at_every_instant_though_its_own_gate_fails(
    dated: Small, warehouse_url: str
) -> None:
    wrong = dated.publish("customers", [customer(1, 1, "a"), customer(10, 1, "b"), customer(20, 1, "c")])
    dated.publish("orders", [order(day, day, 1) for day in range(1, 29)])
    dated.build()
    stop, failures, seen = threading.Event(), [], set()

    def read() -> None:
        with psycopg.connect(warehouse_url, autocommit=True) as reader:
            while not stop.is_set():
                if count := dangling(reader):
                    failures.append(count)
                seen.add(reader.execute("select count(*) from marts.fct_order").fetchone())

    thread = threading.Thread(target=read)
    thread.start()
    try:
        # b never was, c began on another day: two keys vanish. The fact cannot follow: its own gate fails.
        dated.publish("customers", [customer(1, 1, "a"), customer(22, 1, "c")], supersedes=wrong)
        bad = dated.publish("orders", [order(5, 99, 1, amount=-1)])
        done = dated.dbt("build")
        assert not done.success
        assert "is_true_fct_order_amount" in done.text
        assert dangling(dated.warehouse) == 0
        assert dated.query(
            "select count(*), count(*) filter (where valid_from = valid_to) from marts.dim_customer"
            " where customer_id = 1"
        ) == [(4, 2)], "the members that are no more stay, where no as-of join finds them"
        assert dated.query("select count(*) from ops.retired_key where relation = 'marts.dim_customer'") == [(2,)]
        dated.publish("orders", [order(5, 99, 1)], supersedes=bad)
        dated.build()
    finally:
        stop.set()
        thread.join()
    assert not failures, f"{len(failures)} reads saw facts without a member"
    assert seen == {(28,), (29,)}
    assert dated.query("select count(*) from ops.retired_key") == [(0,)]
    assert dated.query("select name from marts.dim_customer where customer_id = 1 order by valid_from") == [
        ("a",),
        ("c",),
    ]
    assert [name for _, name, _ in facts(dated)] == ["a"] * 21 + ["c"] * 7 + ["a"]


def test_a_retired_member_that_returns_is_a_member_again(dated: Small) -> None:
    both = dated.publish("customers", [customer(1, 1, "a"), customer(10, 1, "b")])
    dated.publish("orders", [order(15, 1, 1)])
    dated.build()
    one = dated.publish("customers", [customer(1, 1, "a")], supersedes=both)
    dated.build("--exclude", "fct_order")
    dated.publish("customers", [customer(1, 1, "a"), customer(10, 1, "b")], supersedes=one)
    dated.build()
    assert facts(dated) == [(1, "b", False)]
    assert dated.query("select count(*) from ops.retired_key") == [(0,)]
    dated.build(prefix="clean")
    for table in ("dim_customer", "fct_order"):
        assert dated.query(f"table marts.{table} except all table clean_marts.{table}") == []
        assert dated.query(f"table clean_marts.{table} except all table marts.{table}") == []


def test_an_error_about_a_value_does_not_show_the_value(dated: Small) -> None:
    edit(
        dated,
        "marts/dim_customer.sql",
        "customer_id, name, dbt_valid_from",
        "customer_id, name::int::text as name, dbt_valid_from",
    )
    dated.publish("customers", [customer(1, 1, "Jane Doe")])
    done = dated.dbt("build")
    assert not done.success
    assert "22P02" in done.text
    assert "Jane" not in done.text
    assert "Jane Doe" in dated.dbt("build", prefix="dev").text, "a developer sees it, in schemas of their own"


@pytest.mark.parametrize("place", ["the model", "the declaration"])
def test_a_key_that_is_marked_personal_is_not_shown_when_it_is_there_twice(dated: Small, place: str) -> None:
    if place == "the model":
        edit(
            dated,
            "marts/m.yml",
            "{name: order_id, data_type: bigint}",
            "{name: order_id, data_type: bigint, meta: {personal: true}}",
        )
    else:
        path = dated.folder / "models" / "staging" / "src.yml"
        path.write_text(
            path.read_text().rstrip()
            + "\n        columns:\n          - {name: order_id, config: {meta: {personal: true}}}\n"
        )
    edit(
        dated,
        "marts/fct_order.sql",
        "from orders left join",
        "from orders cross join (values (1), (2)) as twice left join",
    )
    dated.publish("orders", [order(2, 4711, 1)])
    done = dated.dbt("build")
    assert not done.success
    assert "more than one row per (order_id)" in done.text
    assert "4711" not in done.text


PERSON = """
{{ config(unique_key='person_key', recompute_by='customer_id', touched_by={'stg_shop__customers': 'customer_id'}) }}
select md5(customer_id::text)::uuid as person_key, customer_id, name
from {{ current_rows(ref('stg_shop__customers'), 'customer_id') }}
"""


def equal_to_a_rebuild(small: Small, *tables: str) -> None:
    small.build(prefix="clean")
    for table in tables:
        assert small.query(f"table {table} except all table clean_{table}") == [], table
        assert small.query(f"table clean_{table} except all table {table}") == [], table


def test_S10_a_member_without_history_that_is_looked_up_and_goes_leaves_no_fact_pointing_to_it(small: Small) -> None:
    """Its retired row has no interval that could be emptied: the lookup must not find it."""
    (small.folder / "models" / "marts" / "dim_person.sql").write_text(PERSON)
    edit(
        small,
        "marts/fct_order.sql",
        "touched_by={",
        "touched_by={'dim_person': {'column':'customer_id','lookup':true},",
    )
    edit(small, "marts/fct_order.sql", "orders.amount,", "dim_person.person_key, orders.amount,")
    path = small.folder / "models" / "marts" / "fct_order.sql"
    path.write_text(
        path.read_text()
        + " left join {{ ref('dim_person') }} as dim_person on dim_person.customer_id = orders.customer_id"
    )
    edit(
        small,
        "marts/m.yml",
        "      - name: amount",
        "      - name: person_key\n        tests:\n"
        "          - relationships: {arguments: {to: \"ref('sluice', 'dim_person')\", field: person_key}}\n"
        "      - name: amount",
    )
    small.publish("customers", [customer(1, 1, "a"), customer(1, 2, "b")])
    small.publish("orders", [order(2, 1, 1), order(2, 2, 2)])
    small.build()
    small.publish("customers", [("delete", "2026-01-09", 2, None, None)])
    small.build("--select", "+dim_person", "--indirect-selection", "cautious")
    assert small.query("select count(*) from ops.retired_key where relation = 'marts.dim_person'") == [(1,)]
    small.build()
    assert small.query("select order_id, person_key is not null from marts.fct_order order by 1") == [
        (1, True),
        (2, False),
    ]
    assert small.query("select count(*) from ops.retired_key") == [(0,)]
    equal_to_a_rebuild(small, "marts.dim_person", "marts.fct_order")


def test_a_version_that_is_no_longer_current_and_else_the_same_is_a_change(dated: Small) -> None:
    edit(dated, "marts/dim_customer.sql", "'to': 'valid_to'}", "'to': 'valid_to', 'current': 'is_current'}")
    edit(
        dated,
        "marts/dim_customer.sql",
        "false as is_inferred from",
        "false as is_inferred, phone <> 'left' as is_current from",
    )
    edit(dated, "marts/dim_customer.sql", "'infinity', true from", "'infinity', true, true from")
    edit(
        dated,
        "marts/m.yml",
        "      - {name: is_inferred, data_type: boolean}",
        "      - {name: is_inferred, data_type: boolean}\n      - {name: is_current, data_type: boolean}",
    )
    (dated.folder / "models" / "marts" / "mart_present.sql").write_text(
        "{{ config(unique_key='customer_id', touched_by={'dim_customer': 'customer_id'}) }}\n"
        "select customer_id, name from {{ ref('dim_customer') }} where is_current and valid_to = 'infinity'"
    )
    dated.publish("customers", [customer(1, 1, "a"), customer(1, 2, "b")])
    dated.build()
    dated.publish("customers", [("upsert", "2026-01-05", 2, "b", "left")])
    dated.build()
    assert dated.query("select customer_id from marts.mart_present") == [(1,)]


def aggregate(small: Small, name: str, columns: list[str]) -> None:
    (small.folder / "models" / "marts" / f"{name}.sql").write_text(
        "{{ config(unique_key=" + repr(columns) + ", touched_by={'fct_order': {'column': " + repr(columns) + ", 'by': "
        f"{columns!r}" + "}}) }}\n"
        f"select {', '.join(columns)}, count(*) as orders, sum(amount) as amount"
        " from {{ ref('fct_order') }} group by " + ", ".join(columns)
    )


def test_an_aggregate_of_a_fact_by_other_columns_than_its_key_follows_what_its_rows_were_and_are(small: Small) -> None:
    aggregate(small, "mart_customer", ["customer_id"])
    aggregate(small, "mart_customer_day", ["customer_id", "ordered_at"])
    both = ("marts.mart_customer", "marts.mart_customer_day")
    first = small.publish("orders", [order(2, key, key % 5 + 1) for key in range(1, 31)])
    small.publish("orders", [order(3, 40, 6)])
    small.build()
    small.publish("orders", [order(4, 1, 3, ordered=2), order(4, 40, 6, amount=9, ordered=3), order(4, 50, 8)])
    small.build()
    assert touched(small, "mart_customer") == 4, "customer 2, who had order 1; 3, who has it; 6 and 8"
    assert small.query("select * from marts.mart_customer where customer_id in (2, 3, 6, 8) order by 1") == [
        (2, 5, 25),
        (3, 7, 35),
        (6, 1, 9),
        (8, 1, 5),
    ]
    assert touched(small, "mart_customer_day") == 4, "of 6, the day that was corrected"
    small.publish("orders", [order(2, 3, 4), ("delete", "2026-01-09", 40, None, None, None)], supersedes=first)
    small.build()
    assert small.query("select customer_id, orders from marts.mart_customer order by 1") == [(3, 1), (4, 1), (8, 1)]
    assert small.query("select customer_id from marts.mart_customer_day order by 1") == [(3,), (4,), (8,)]
    # a commit that did not note what is asked, as that of other code: everything is computed, nothing is missed
    small.publish("orders", [order(9, 50, 3)])
    small.build("--select", "fct_order", "dim_customer", "--indirect-selection", "cautious")
    small.warehouse.execute("update ops.change set noted = '{}'")
    small.warehouse.execute("delete from ops.changed_key where key_of is not null")
    small.build()
    assert touched(small, "mart_customer") is None
    equal_to_a_rebuild(small, *both)
    edit(small, "marts/mart_customer.sql", "'by': ['customer_id']", "'by': ['customer']")
    done = small.dbt("run")
    assert not done.success
    assert "mart_customer: touched_by of fct_order says by customer, which must be a column of fct_order" in done.text


def test_rows_whose_looked_up_key_comes_from_a_dimension_are_found_through_it_without_an_index(small: Small) -> None:
    """An order has its customer's name, and by that a price. Prices change, names change, and both at once."""
    (small.folder / "models" / "marts" / "int_price.sql").write_text(
        "{{ config(unique_key='name', touched_by={'stg_shop__customers': 'name'}) }}\n"
        "select name, max(phone) as price"
        " from {{ current_rows(ref('stg_shop__customers'), 'customer_id') }} group by name"
    )
    edit(
        small,
        "marts/fct_order.sql",
        "touched_by={",
        "touched_by={'int_price': {'column': 'name', 'lookup': true, 'through': 'dim_customer'}, ",
    )
    edit(small, "marts/fct_order.sql", "orders.amount,", "dim_customer.name, int_price.price, orders.amount,")
    path = small.folder / "models" / "marts" / "fct_order.sql"
    path.write_text(
        path.read_text() + " left join {{ ref('int_price') }} as int_price on int_price.name = dim_customer.name"
    )
    edit(
        small,
        "marts/m.yml",
        "      - name: amount",
        "      - {name: name}\n      - {name: price}\n      - name: amount",
    )
    small.publish("customers", [("upsert", "2026-01-01", key, f"name {key % 4}", "1") for key in range(1, 41)])
    small.publish("orders", [order(2, key, key) for key in range(1, 41)])
    small.build()
    assert small.query(
        "select count(*) from pg_indexes where tablename = 'fct_order' and indexdef like '%(name)%'"
    ) == [(0,)]
    small.publish("customers", [("upsert", "2026-01-03", 4, "name 0", "2")])  # the price of name 0; no name
    small.build()
    assert small.query("select count(*) from marts.fct_order where price = '2'") == [(10,)]
    assert touched(small, "fct_order") == 10
    small.publish("customers", [("upsert", "2026-01-01", 5, "name 9", "7"), ("upsert", "2026-01-04", 6, "name 0", "8")])
    small.build()
    equal_to_a_rebuild(small, "marts.int_price", "marts.fct_order")

    edit(small, "marts/fct_order.sql", "'through': 'dim_customer'", "'through': 'int_price'")
    assert "says through int_price, which must be an input that finds rows" in small.dbt("run").text
    edit(small, "marts/fct_order.sql", "'through': 'int_price'", "'through': 'dim_customer'")
    edit(small, "marts/fct_order.sql", "'dim_customer':'customer_id'", "'dim_customer':'name'")
    assert "through dim_customer, whose key this model carries as name" in small.dbt("run").text


def test_rows_are_found_through_the_log_that_gave_them_their_key_at_the_instant_that_it_gave(dated: Small) -> None:
    """Orders have their customer and their day from their log, whose index finds what a customer's history touches."""
    lookup = "{'column': 'customer_id', 'at': 'ordered_at'"
    through = lookup + ", 'through': {'input': 'stg_shop__orders', 'at': 'ordered_at'}"
    edit(dated, "marts/fct_order.sql", lookup, through)
    dated.publish("customers", [customer(1, 1, "a"), customer(20, 1, "c"), customer(1, 2, "x")])
    dated.publish("orders", [order(day, day, 1 + day % 2) for day in range(1, 29)])
    dated.build()
    assert dated.query(
        "select count(*) from pg_indexes where tablename = 'fct_order' and indexdef like '%(customer_id%'"
    ) == [(0,)]
    dated.publish("customers", [customer(10, 1, "b")])
    dated.build()
    assert touched(dated) == 5, "the orders of customer 1 from the 10th to the 19th"
    # an order goes to the other customer while his history changes; another comes back by the end of its correction
    wrong = dated.publish("orders", [order(12, 11, 1), order(12, 14, 2)])
    dated.publish("customers", [customer(11, 1, "d"), customer(2, 2, "y")])
    dated.build()
    dated.publish("orders", [order(12, 14, 2)], supersedes=wrong)
    dated.publish("customers", [customer(3, 2, "z")])
    dated.build()
    equal_to_a_rebuild(dated, "marts.fct_order")

    for wrong_words, told in (
        ("'at': 'moment'}", "says through stg_shop__orders, which does not have the column moment"),
        ("'by': 'ordered_at'}", "says through with 'by'; it may have input, at"),
    ):
        edit(dated, "marts/fct_order.sql", through, through.replace("'at': 'ordered_at'}", wrong_words))
        assert f"fct_order: touched_by of dim_customer {told}" in dated.dbt("run").text
        edit(dated, "marts/fct_order.sql", through.replace("'at': 'ordered_at'}", wrong_words), through)


def test_a_value_that_is_equal_and_written_otherwise_reaches_all_facts_though_its_version_ends_earlier_too(
    dated: Small,
) -> None:
    """1.0 became 1.00, and a later version closed it: not only what comes after its new end is another row."""
    edit(dated, "marts/dim_customer.sql", "customer_id, name, dbt", "customer_id, name::numeric as name, dbt")
    edit(dated, "marts/dim_customer.sql", "customer_id, null, '-inf", "customer_id, null::numeric, '-inf")
    edit(dated, "marts/m.yml", "{name: name, data_type: text}", "{name: name, data_type: numeric}")
    edit(dated, "marts/fct_order.sql", "orders.amount,", "dim_customer.name, orders.amount,")
    edit(dated, "marts/m.yml", "      - name: amount", "      - {name: name}\n      - name: amount")
    first = dated.publish("customers", [customer(1, 1, "1.0")])
    dated.publish("orders", [order(5, 5, 1), order(20, 20, 1)])
    dated.build()
    dated.publish("customers", [customer(1, 1, "1.00"), customer(10, 1, "2")], supersedes=first)
    dated.build()
    assert dated.query("select order_id, name::text from marts.fct_order order by 1") == [(5, "1.00"), (20, "2")]
