"""What a loader meets in the operational database after fourteen days."""

from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from sluice.shop import Company, Params, simulation
from sluice.shop.apply import OPEN_AT_ONCE
from sluice.shop.customers import life_of
from sluice.shop.day import Phase, entries
from sluice.shop.orders import LONGEST_LIFE_DAYS, Order
from sluice.shop.params import DAY, HOUR

END = datetime(2026, 1, 15, tzinfo=UTC)


def test_the_company_has_the_promised_size(shop_of_14_days):
    count = {table: shop_of_14_days.value(f"select count(*) from {table}") for table in ("orders", "order_lines")}
    assert 700 <= count["orders"] <= 1_000
    assert 1.5 <= count["order_lines"] / count["orders"] <= 3
    assert shop_of_14_days.value("select now from clock") == END


def test_every_status_payment_state_channel_and_currency_occurs(shop_of_14_days):
    def distinct(column, table):
        return {value for (value,) in shop_of_14_days.rows(f"select distinct {column} from {table}")}

    assert distinct("status", "orders") == {"placed", "paid", "shipped", "delivered", "cancelled", "returned"}
    assert distinct("status", "payments") == {"pending", "captured", "refunded", "failed"}
    assert distinct("channel", "orders") == {"web", "store", "phone"}
    assert distinct("currency", "orders") == {"EUR", "USD", "GBP"}


def test_payments_equal_their_orders_totals(shop_of_14_days):
    query = """
        select count(*), count(*) filter (where amount <> total or payments.currency <> orders.currency)
        from payments
        join orders using (order_id)
        join lateral (
            select sum(quantity * unit_price - discount_amount) as total from order_lines
            where order_lines.order_id = payments.order_id
        ) as lines on true
        where payments.status in ('captured', 'refunded')
    """
    ((paid, unequal),) = shop_of_14_days.rows(query)
    assert paid > 600
    assert unequal == 0


def test_an_order_is_paid_by_exactly_one_captured_payment(shop_of_14_days):
    query = """
        select count(*) from orders where status in ('paid', 'shipped', 'delivered')
        and 1 <> (
            select count(*) from payments p where p.order_id = orders.order_id and p.status = 'captured'
        )
    """
    assert shop_of_14_days.value(query) == 0
    assert shop_of_14_days.value("select count(*) from orders where paid_at < placed_at or shipped_at < paid_at") == 0


def test_lines_are_changed_and_hard_deleted(shop_of_14_days):
    changed = shop_of_14_days.value(
        "select count(*) from order_lines l join orders o using (order_id) where l.updated_at > o.placed_at"
    )
    gaps = shop_of_14_days.value(
        "select count(*) from (select order_id from order_lines group by 1 having max(line_number) > count(*)) as g"
    )
    assert changed > 10
    assert gaps > 5
    assert shop_of_14_days.value("select min(line_number) from order_lines") == 1
    without_lines = "select count(*) from orders where order_id not in (select order_id from order_lines)"
    assert shop_of_14_days.value(without_lines) == 0


def test_customers_are_hard_deleted_and_their_history_remains(shop_of_14_days):
    deleted = shop_of_14_days.rows("select customer_id, changed_at from customers_history where op = 'delete'")
    assert 2 <= len(deleted) <= 20
    for customer_id, changed_at in deleted:
        deleted_at = life_of(Company(shop_of_14_days.params), customer_id, 13).deleted_at
        assert changed_at == shop_of_14_days.params.time(deleted_at)
        assert shop_of_14_days.value("select count(*) from customers where customer_id = %s", customer_id) == 0
        assert shop_of_14_days.value("select count(*) from addresses where customer_id = %s", customer_id) == 0
    ids = [customer_id for customer_id, _ in deleted]
    assert shop_of_14_days.value("select count(*) from orders where customer_id = any(%s)", ids) > 0


@pytest.mark.parametrize(
    ("entity", "key"), [("customers", "customer_id"), ("addresses", "address_id"), ("products", "product_id")]
)
def test_the_last_version_in_a_history_is_the_row(shop_of_14_days, entity, key):
    """So the histories lack nothing, and a past state can be read from them."""
    columns = shop_of_14_days.rows(
        "select column_name from information_schema.columns where table_name = %s order by ordinal_position",
        entity,
    )
    names = ", ".join(name for (name,) in columns)
    last = f"""
        select {names} from (
            select distinct on ({key}) * from {entity}_history order by {key}, history_id desc
        ) as last where op <> 'delete'
    """
    for left, right in ((last, f"select * from {entity}"), (f"select * from {entity}", last)):
        assert shop_of_14_days.value(f"select count(*) from (({left}) except ({right})) as d") == 0
    updates = shop_of_14_days.value(f"select count(*) from {entity}_history where op = 'update'")
    assert updates > 20


def test_history_ids_rise_with_the_versions_of_a_row(shop_of_14_days):
    query = """
        select count(*) from (
            select changed_at - lag(changed_at) over (partition by customer_id order by history_id) as step
            from customers_history
        ) as steps where step <= interval '0'
    """
    assert shop_of_14_days.value(query) == 0


def test_an_order_is_committed_before_its_customer(shop_of_14_days):
    """By the server's own transaction numbers; the customer's row says it is the older of the two."""
    query = """
        select count(*) from orders join customers_history h using (customer_id)
        where h.op = 'insert' and h.created_at >= '2026-01-01' and h.created_at <= orders.placed_at
    """
    assert shop_of_14_days.value(query) > 0
    company = Company(shop_of_14_days.params)
    early = 0
    for order_id in range(1, company.orders.before(14) + 1):
        order = Order(company, order_id)
        life = life_of(company, order.customer_id, 13)
        early += order.events[0].commit_at < life.committed_at
    assert early >= 3


def test_some_rows_are_committed_after_rows_with_a_later_updated_at(shop_of_14_days):
    """An inversion in the order of transaction numbers: what a cursor on updated_at would lose."""
    query = """
        select count(*), max(ahead - updated_at) from (
            select updated_at, max(updated_at) over (order by changed_xid rows unbounded preceding) as ahead
            from payments
        ) as p where ahead > updated_at
    """
    ((inversions, furthest),) = shop_of_14_days.rows(query)
    assert inversions >= 3
    assert furthest <= timedelta(hours=6)


def test_an_open_transaction_hides_an_older_row_while_later_ones_are_read(shop_database_url, tmp_path, monkeypatch):
    """Two sessions: the reader sees rows that are newer than one it will only see later."""
    monkeypatch.setattr("sluice.shop.apply.PIPELINE", 1)
    seen: list[str] = []

    def watched(company, day):
        hidden: dict[str, int] = {}
        with psycopg.connect(shop_database_url, autocommit=True) as reader:
            for entry in entries(company, day):
                yield entry
                transaction = entry.transaction
                first = transaction.changes[0]
                if first.table != "orders" or first.op != "insert":
                    continue
                is_there = reader.execute("select 1 from orders where order_id = %s", (first.key,)).fetchone()
                if entry.phase is Phase.OPEN and len(hidden) < OPEN_AT_ONCE:
                    assert not is_there
                    hidden[transaction.name] = transaction.at
                    seen.append("hidden")
                elif entry.phase is Phase.COMMIT:
                    assert is_there
                    hidden.pop(transaction.name, None)
                    if any(at < transaction.at for at in hidden.values()):
                        sessions = reader.execute(
                            "select count(*) from pg_stat_activity"
                            " where application_name = 'sluice-shop' and state = 'idle in transaction'"
                        ).fetchone()
                        seen.append("newer row read while an older one is hidden" if sessions[0] else "nobody is open")

    monkeypatch.setattr(simulation, "entries", watched)
    simulation.init(shop_database_url, tmp_path, Params(seed=7, scale=1.0), 2)
    assert seen.count("newer row read while an older one is hidden") > 0
    assert seen.count("hidden") > 0


def test_held_over_transactions_commit_the_next_day_and_never_later():
    company = Company(Params(scale=3))
    held_over = 0
    for day in range(1, 6):
        for entry in entries(company, day):
            transaction = entry.transaction
            assert transaction.commit_at // DAY == day
            assert 0 <= transaction.commit_at - transaction.at <= 6 * HOUR
            if transaction.at // DAY < day:
                assert entry.phase is Phase.COMMIT
                held_over += 1
    assert held_over > 5


def test_nothing_is_left_open_at_the_end(shop_of_14_days):
    assert shop_of_14_days.value("select count(*) from pg_stat_activity where application_name = 'sluice-shop'") == 0
    assert shop_of_14_days.value("select progress from simulation") == ""
    assert shop_of_14_days.value("select max(updated_at) from orders") < END


def test_no_order_outlives_the_days_in_which_it_is_looked_for():
    company = Company(Params(scale=20))
    last = max(
        event.commit_at // DAY - Order(company, order_id).placed_at // DAY
        for order_id in range(1, company.orders.before(12), 2)
        for event in Order(company, order_id).events[-1:]
    )
    assert 10 <= last < LONGEST_LIFE_DAYS
