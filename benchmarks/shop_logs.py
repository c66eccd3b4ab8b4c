"""The change logs of a shop of any size, written by set-based SQL as if the loader had published them."""

# ruff: noqa: E501 - one SQL line is one thing

from __future__ import annotations

from dataclasses import dataclass

import psycopg

from sluice import settings
from sluice.declarations.load import load_file
from sluice.loading import log

DAYS = 730  # of history, before BEGIN + DAYS
BEGIN = "timestamptz '2024-01-01 00:00+00'"
NOW = f"({BEGIN} + interval '{DAYS} days')"


@dataclass(frozen=True)
class Size:
    """How many of each thing there are, in proportion to `lines`."""

    lines: int

    @property
    def orders(self) -> int:
        return self.lines * 2 // 5

    @property
    def customers(self) -> int:
        return self.lines // 25

    @property
    def products(self) -> int:
        return max(self.lines // 500, 1)

    @property
    def events(self) -> int:
        return self.lines // 5


class Logs:
    """The logs of the declared shop in one warehouse."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self.connection = connection
        source = load_file(settings.home() / "include" / "sources" / "shop.yml")
        self.tables = source.tables
        for table in self.tables.values():
            log.create(connection, table)

    def publish(self, table: str, rows: str) -> int:
        """Append `rows`, a query of the business columns and `_at` (and `_delete` if some are tombstones), as one batch."""
        query = self.connection.execute
        columns = ", ".join(self.tables[table].columns)
        relation = f"staging.{self.tables[table].log_name}"
        hash_type = query(
            "select format_type(atttypid, -1) from pg_attribute where attrelid = %s::regclass and attname = '_row_hash'",
            [relation],
        ).fetchone()[0]  # type: ignore[index]
        digest = "hashtextextended(rows::text, 0)"
        digest = f"lpad(to_hex({digest}), 32, '0')::uuid" if hash_type == "uuid" else digest
        with self.connection.transaction():
            batch = query(
                "insert into ops.batch (source, table_name, unit, state, mode, run_id) values "
                "('shop', %s, 'bench ' || clock_timestamp(), 'landing', 'append', 'bench') returning batch_id",
                [table],
            ).fetchone()[0]  # type: ignore[index]
            count = query(
                f"insert into {relation} ({columns}, _batch_id, _row_number, _op, _effective_at, _sequence, _row_hash)"
                f" select {columns}, {batch}, row_number() over (), 'upsert', _at, 0, {digest} from ({rows}) as rows"
            ).rowcount
            query(
                "update ops.batch set state = 'published', rows_read = %(n)s, rows_applied = %(n)s,"
                " published_seq = ops.next_seq() where batch_id = %(batch)s",
                {"n": count, "batch": batch},
            )
        log.index(self.connection, self.tables[table])  # as the loader does after the first rows
        log.summarize(self.connection, self.tables[table])
        return count

    def fill(self, size: Size) -> None:
        """Two years of a shop."""
        for table, rows in _history(size).items():
            self.publish(table, rows)
        self.connection.execute("vacuum analyze")

    def change(self, size: Size, lines: int) -> int:
        """About `lines` order lines of new and changed orders (a tenth of the new ones up to 90 days late), and as many changes of
        everything else in proportion; a tenth of the dimensions' changes rewrite their history. Returns the rows published."""
        return sum(self.publish(table, rows) for table, rows in _changes(size, Size(lines)).items())


def _placed(order: str, size: Size) -> str:
    return f"{BEGIN} + {order}::float / {size.orders} * interval '{DAYS} days'"


def _history(size: Size) -> dict[str, str]:
    return {
        "categories": f"select c as category_id, 'category ' || c as name, nullif((c - 1) / 8, 0) as parent_category_id,"
        f" {BEGIN} as updated_at, {BEGIN} as _at from generate_series(1, 40) as c",
        "exchange_rates": "select day::date as rate_date, 'EUR' as base_currency, currency, 1.1 + random() / 10 as rate, day as _at"
        f" from generate_series({BEGIN}, {NOW} + interval '2 days', interval '1 day') as day"
        " cross join unnest(array['USD', 'GBP', 'CHF', 'SEK']) as currency",
        "products": _products(f"generate_series(1, {size.products}) as p cross join generate_series(0, 1) as v", f"{BEGIN} + v * interval '300 days'"),
        "product_costs": _costs(f"generate_series(1, {size.products}) as p cross join generate_series(0, 1) as v", f"{BEGIN} + v * interval '200 days'"),
        "customers": _customers(
            f"generate_series(1, {size.customers}) as c cross join generate_series(0, 1) as v where v = 0 or c % 3 = 0",
            f"{BEGIN} + v * (100 + c % 500) * interval '1 day'",
        ),
        "addresses": _addresses(f"generate_series(1, {size.customers}) as c", BEGIN),
        "orders": _orders(f"generate_series(1, {size.orders}) as o", _placed("o", size), size, "delivered"),
        "order_lines": _lines(f"generate_series(1, {size.lines}) as l", "(l - 1)::bigint * 2 / 5 + 1", _placed("((l - 1)::bigint * 2 / 5 + 1)", size), size),
        "payments": _payments(f"generate_series(1, {size.orders}) as o", _placed("o", size)),
        "clickstream": _events(f"generate_series(1, {size.events}) as e", f"{BEGIN} + e::float / {size.events} * interval '{DAYS} days'", size),
        "inventory": _inventory(size.products, f"({NOW} - interval '14 days')", 14),
    }  # fmt: skip


def _changes(size: Size, part: Size) -> dict[str, str]:
    """`part` is the size of the change; three of ten orders in it exist already and have just been returned."""
    old = part.orders * 3 // 10
    day = f"{NOW} + (n::float / {part.orders}) * interval '1 day'"
    late = f"case when n % 10 = 0 then {NOW} - random() * interval '90 days' else {day} end"
    new_orders = f"(select {size.orders} + n as o, {late} as at, {day} as seen from generate_series(1, {part.orders - old}) as n) as fresh"
    old_orders = (
        f"(select {size.orders} - n * 5 as o, {_placed(f'({size.orders} - n * 5)', size)} as at, {day} as seen"
        f" from generate_series(1, {old}) as n where {size.orders} > n * 5) as returned"
    )
    effective = f"case when n % 10 = 0 then {NOW} - interval '60 days' else {NOW} + interval '1 hour' end"
    return {
        "exchange_rates": f"select ({NOW} + interval '3 days')::date as rate_date, 'EUR' as base_currency, currency, 1.15 as rate, {NOW} as _at"
        " from unnest(array['USD', 'GBP', 'CHF', 'SEK']) as currency",
        "products": _products(_some("p", part.products, size.products), effective, 2),
        "product_costs": _costs(_some("p", part.products, size.products), f"{NOW} + interval '1 hour'", 2),
        "customers": _customers(_some("c", part.customers, size.customers), effective, 2),
        "addresses": _addresses(_some("c", part.customers, size.customers), f"{NOW} + interval '1 hour'", 1),
        "orders": f"{_orders(new_orders, 'at', size, 'placed', 'seen')} union all {_orders(old_orders, 'at', size, 'returned', 'seen')}",
        "order_lines": _lines(
            f"{new_orders} cross join lateral (select {size.lines} + (o - {size.orders}) * 3 + i as l from generate_series(1, 2 + (o % 2)::int) as i) as lines",
            "o", "at", size, "seen",
        ),
        "payments": _payments(new_orders, "at", "seen"),
        "clickstream": _events(f"generate_series({size.events} + 1, {size.events + part.events}) as e cross join lateral (select e - {size.events} as n) as numbered",
                               f"{NOW} + (n::float / {part.events}) * interval '1 day'", size),
        "inventory": _inventory(min(part.products, size.products), NOW, 1),
    }  # fmt: skip


def _some(name: str, count: int, total: int) -> str:
    """`count` of 1…`total`, spread over all of them, as `name`; `n` counts them."""
    return f"(select n * {max(total // count, 1)} as {name}, 2 as v, n from generate_series(1, {count}) as n) as picked"


def _products(rows: str, at: str, version: int | None = None) -> str:
    v = "v" if version is None else str(version)
    return (
        f"select {at} as changed_at, p * 10 + {v} as history_id, p as product_id, 'SKU-' || p as sku, 'product ' || p as name,"
        f" 1 + p % 40 as category_id, 5 + p % 90 + {v} as list_price, 'EUR' as currency, 100 + p % 900 as weight_grams,"
        f" true as is_active, {BEGIN} as created_at, {at} as updated_at, {at} as _at from {rows}"
    )


def _costs(rows: str, at: str, version: int | None = None) -> str:
    v = "v" if version is None else str(version)
    return (
        f"select 'SKU-' || p as sku, 2 + p % 40 + {v} as unit_cost, case p % 3 when 0 then 'USD' else 'EUR' end as currency,"
        f" 'supplier ' || p % 50 as supplier, ({at})::date as valid_from, {at} as _at from {rows}"
    )


def _customers(rows: str, at: str, version: int | None = None) -> str:
    v = "v" if version is None else str(version)
    return (
        f"select {at} as changed_at, c * 10 + {v} as history_id, c as customer_id, 'c' || c || '@example.com' as email,"
        f" 'customer ' || c as full_name, '+31' || c as phone, date '1980-01-01' + (c % 9000)::int as birth_date,"
        f" (array['consumer', 'business', 'vip'])[1 + (c + {v}) % 3] as segment, c % 2 = 0 as marketing_consent,"
        f" {BEGIN} as created_at, {at} as updated_at, {at} as _at from {rows}"
    )


def _addresses(rows: str, at: str, version: int = 0) -> str:
    return (
        f"select {at} as changed_at, c * 10 + {version} as history_id, c as address_id, c as customer_id, 'shipping' as kind,"
        f" 'street ' || c as street, 'town ' || (c + {version}) % 500 as city, lpad(((c + {version}) % 500)::text, 5, '0') as postal_code,"
        f" 'region ' || (c + {version}) % 500 % 20 as region, 'NL' as country_code, {BEGIN} as created_at, {at} as updated_at, {at} as _at from {rows}"
    )


def _orders(rows: str, at: str, size: Size, status: str, seen: str | None = None) -> str:
    return (
        f"select o as order_id, 1 + (o::bigint * 7919) % {size.customers} as customer_id, 1 + (o::bigint * 7919) % {size.customers} as shipping_address_id,"
        f" '{status}' as status, 'web' as channel, (array['EUR', 'EUR', 'EUR', 'USD', 'GBP'])[1 + o % 5] as currency,"
        f" {at} as placed_at, {at} + interval '1 hour' as paid_at, null::timestamptz as shipped_at, null::timestamptz as delivered_at,"
        f" null::timestamptz as cancelled_at, {seen if status == 'returned' else 'null::timestamptz'} as returned_at,"
        f" {seen or at} as updated_at, {seen or at} as _at from {rows}"
    )


def _lines(rows: str, order: str, at: str, size: Size, seen: str | None = None) -> str:
    return (
        f"select l as order_line_id, {order} as order_id, 1 + l % 3 as line_number, 1 + (l::bigint * 104729) % {size.products} as product_id,"
        f" 1 + l % 4 as quantity, 5 + l % 90 as unit_price, (l % 5)::numeric as discount_amount, {seen or at} as updated_at, {seen or at} as _at from {rows}"
    )


def _payments(rows: str, at: str, seen: str | None = None) -> str:
    return (
        "select o as payment_id, o as order_id, 'card' as method, 50 + o % 100 as amount, (array['EUR', 'EUR', 'EUR', 'USD', 'GBP'])[1 + o % 5] as currency,"
        f" 'captured' as status, {at} as created_at, {seen or at} as updated_at, {seen or at} as _at from {rows}"
    )


def _events(rows: str, at: str, size: Size) -> str:
    return (
        f"select lpad(to_hex(e), 32, '0')::uuid as event_id, 'visitor ' || (e::bigint * 7919) % {max(size.events // 8, 1)} as visitor_id,"
        f" case when e % 4 = 0 then 1 + (e::bigint * 31) % {size.customers} end as customer_id, 'page_view' as event_type, null::bigint as product_id,"
        f" '/p/' || e % 1000 as url, null as referrer, 'desktop' as device, {at} as occurred_at, null::jsonb as properties, {at} as _at from {rows}"
    )


def _inventory(products: int, first: str, days: int) -> str:
    return (
        f"select ({first} + d * interval '1 day')::date as inventory_date, w as warehouse_code, 'SKU-' || p as sku, (p % 50)::int as on_hand, 0 as reserved,"
        f" 5 as reorder_point, {first} + d * interval '1 day' + interval '6 hours' as counted_at, {first} + d * interval '1 day' as _at"
        f" from generate_series(1, {products}) as p cross join generate_series(0, {days - 1}) as d cross join unnest(array['AMS', 'BER', 'MIL']) as w"
    )
