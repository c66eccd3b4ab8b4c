"""The shape of a change log follows its contract: columns are added, and widened where no value changes.

Every change is a short transaction of its own that waits for readers a moment at a time, never in front of them: a
waiting ALTER TABLE would hold up each query that comes after it.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field

import psycopg
from psycopg import sql

from sluice import warehouse
from sluice.declarations import Table
from sluice.errors import GateRefused, LedgerError
from sluice.loading import log

_PATIENCE = "2s"  # how long readers that come now may have to wait behind us
_TRIES = 5
_WHOLE = ("smallint", "integer", "bigint")
_NUMERIC = re.compile(r"^numeric\((\d+),(\d+)\)$")


class Unfit(GateRefused):
    """The log can't follow the declaration. `kind` and `column` are those of the schema event."""

    def __init__(self, message: str, kind: str, column: str) -> None:
        super().__init__(message)
        self.kind, self.column = kind, column


@dataclass(frozen=True)
class Changes:
    """What a log lacks of its contract."""

    create: bool = False
    add: tuple[str, ...] = ()
    widen: dict[str, str] = field(default_factory=dict)  # column -> the type that it has

    def __bool__(self) -> bool:
        return self.create or bool(self.add or self.widen)


def is_wider(declared: str, present: str) -> bool:
    """Whether every value of `present` is a value of `declared`, and the same one: equal, and of equal hash.

    Both as Postgres spells them. real to double precision is not: 0.1 would not be the 0.1 that is read tomorrow.
    """
    if declared in _WHOLE and present in _WHOLE:
        return _WHOLE.index(declared) > _WHOLE.index(present)
    old, new = _NUMERIC.match(present), _NUMERIC.match(declared)
    if old and declared == "numeric":
        return True
    if old and new:
        (digits, scale), (more, finer) = map(int, old.groups()), map(int, new.groups())
        return finer >= scale and more - finer >= digits - scale
    return False


def pending(connection: psycopg.Connection, table: Table) -> Changes:
    """What the log lacks. Raises `Unfit` for a type that would change values, or that may not be widened."""
    name = log.relation(table).as_string(connection)
    if connection.execute("select to_regclass(%s)", [name]).fetchone()[0] is None:  # type: ignore[index]
        return Changes(create=True)
    present = dict(
        connection.execute(
            "select attname, format_type(atttypid, atttypmod) from pg_attribute"
            " where attrelid = %s::regclass and attnum > 0 and not attisdropped",
            [name],
        ).fetchall()
    )
    widen = {}
    for column, declared in ((n, log.spelled(c.type)) for n, c in table.log_columns.items() if n in present):
        was = present[column]
        if was == declared:
            continue
        if not is_wider(declared, was):
            raise Unfit(
                f"staging.{table.log_name}.{column} is {was}, and the declaration now says {declared}; nothing was "
                "published, since values would be changed in silence. Declare the new type under a new column name",
                "changed_type",
                column,
            )
        if table.drift.wider_type == "block":
            raise Unfit(
                f"staging.{table.log_name}.{column} is {was}, and the declaration now says {declared}; nothing was "
                "published: drift.wider_type is block",
                "wider_type",
                column,
            )
        widen[column] = was
    return Changes(False, tuple(name for name in table.log_columns if name not in present), widen)


def ensure(connection: psycopg.Connection, table: Table) -> None:
    """Create the log, add the columns that the contract gained, widen those it widened. Nothing is ever taken away.

    `connection` is only asked; the work is done and committed in a session of its own, under the lock of the log's
    publisher.
    """
    if not pending(connection, table):
        return
    with warehouse.connect() as own:
        own.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"sluice:log:{table.log_name}"])
        changes = pending(own, table)  # another may have been first
        if changes.create:
            log.create(own, table)
        if changes.widen:
            _widen(own, table, changes.widen)
        if changes.add:
            _lock(own, table)
        for name in changes.add:
            own.execute(
                sql.SQL("alter table {} add column {} {}").format(
                    log.relation(table), sql.Identifier(name), sql.SQL(table.log_columns[name].type)
                )
            )
        own.commit()


def _lock(connection: psycopg.Connection, table: Table, views: list[_View] | None = None) -> None:
    """Keep readers out until the commit. Asked for again and again for a moment, so that none queues behind us.

    With `views`, those are dropped first, the outermost before the inner: in the order in which their readers lock
    them, or the two would wait for each other.
    """
    connection.execute("select set_config('lock_timeout', %s, true)", [_PATIENCE])
    for attempt in range(_TRIES):
        try:
            with connection.transaction():
                for view in reversed(views or []):
                    connection.execute(sql.SQL("drop view {}").format(view.name))
                connection.execute(sql.SQL("lock table {} in access exclusive mode").format(log.relation(table)))
            return
        except psycopg.errors.LockNotAvailable:
            time.sleep(0.2 * 2**attempt)
    who = warehouse.holder(f"staging.{table.log_name}", exclusive=True)
    raise LedgerError(
        f"staging.{table.log_name} is to get another shape, and a transaction that reads it did not end; nothing was "
        f"changed and nothing published. As of now {who}. Then clear the task"
    )


# -- widening -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _View:
    """A view that depends on the log, with all that must be put back."""

    oid: int
    name: sql.Identifier
    definition: str
    options: list[str]


def _widen(connection: psycopg.Connection, table: Table, widen: dict[str, str]) -> None:
    """Copy the log beside itself with the new types while readers go on, then take its place, with its views, at once.

    `alter column type` refuses, since views depend on the column, and keeps readers out while it rewrites the table.
    """
    old, new = log.relation(table), sql.Identifier("staging", f"{table.log_name[:50]}__wider")
    views = _views(connection, old)
    rights = [*_rights(connection, old), *(grant for view in views for grant in _rights(connection, view.name))]
    connection.execute(sql.SQL("create table {} (like {} including all excluding indexes)").format(new, old))
    for column in widen:
        connection.execute(
            sql.SQL("alter table {} alter column {} type {}").format(
                new, sql.Identifier(column), sql.SQL(table.log_columns[column].type)
            )
        )
    connection.execute(sql.SQL("insert into {} select * from {}").format(new, old))
    indexes = _copy_indexes(connection, old, new)
    connection.execute(sql.SQL("analyze {}").format(new))
    _lock(connection, table, views)
    try:
        connection.execute(sql.SQL("drop table {}").format(old))
    except psycopg.errors.DependentObjectsStillExist:
        raise Unfit(
            f"staging.{table.log_name} has a wider column declared, and something besides views depends on the log; "
            "nothing was changed and nothing published. Drop it, load, and make it again",
            "wider_type",
            next(iter(widen)),
        ) from None
    connection.execute(sql.SQL("alter table {} rename to {}").format(new, sql.Identifier(table.log_name)))
    for temporary, name in indexes:
        connection.execute(
            sql.SQL("alter index {} rename to {}").format(sql.Identifier("staging", temporary), sql.Identifier(name))
        )
    for view in views:
        options = sql.SQL(" with ({})").format(sql.SQL(", ").join(map(sql.SQL, view.options)))
        connection.execute(
            sql.SQL("create view {}{} as {}").format(
                view.name, options if view.options else sql.SQL(""), sql.SQL(view.definition)
            )
        )
    for statement in rights:
        connection.execute(statement)
    for column, was in widen.items():
        connection.execute(
            """
            insert into ops.schema_event (source, table_name, unit, kind, column_name, message)
            values (%s, %s, '', 'wider_type', %s, %s)
            """,
            [
                table.source,
                table.name,
                column,
                f"staging.{table.log_name}.{column} was {was} and is {table.log_columns[column].type} now, as declared",
            ],
        )


def _views(connection: psycopg.Connection, relation: sql.Identifier) -> list[_View]:
    """Every view above the log, those nearest to it first."""
    rows = connection.execute(
        """
        with recursive above (oid, depth) as (
            select %(log)s::regclass::oid, 0
            union all
            select rule.ev_class, above.depth + 1
            from above
            inner join pg_depend on pg_depend.refclassid = 'pg_class'::regclass and pg_depend.refobjid = above.oid
                and pg_depend.classid = 'pg_rewrite'::regclass
            inner join pg_rewrite as rule on rule.oid = pg_depend.objid and rule.ev_class <> above.oid
        )

        select view.oid, namespace.nspname, view.relname, pg_get_viewdef(view.oid), coalesce(view.reloptions, '{}')
        from (select oid, max(depth) as depth from above where depth > 0 group by oid) as known
        inner join pg_class as view on view.oid = known.oid and view.relkind = 'v'
        inner join pg_namespace as namespace on namespace.oid = view.relnamespace
        order by known.depth, view.oid
        """,
        {"log": relation.as_string(connection)},
    ).fetchall()
    return [
        _View(oid, sql.Identifier(schema, name), definition.rstrip().rstrip(";"), list(options))
        for oid, schema, name, definition, options in rows
    ]


def _rights(connection: psycopg.Connection, relation: sql.Identifier) -> list[sql.Composable]:
    """Statements that give a new relation of this name the owner, the grants and the comments of the present one."""
    name = relation.as_string(connection)
    statements: list[sql.Composable] = []
    owner, comment, kind = connection.execute(
        "select pg_get_userbyid(relowner), obj_description(oid, 'pg_class'), relkind from pg_class"
        " where oid = %s::regclass",
        [name],
    ).fetchone()  # type: ignore[misc]
    what = sql.SQL("view" if kind == "v" else "table")
    statements.append(sql.SQL("alter {} {} owner to {}").format(what, relation, sql.Identifier(owner)))
    if comment:
        statements.append(sql.SQL("comment on {} {} is {}").format(what, relation, comment))
    grants = connection.execute(
        """
        select null as column_name, acl.* from pg_class, aclexplode(relacl) as acl where oid = %(name)s::regclass
        union all
        select attname, acl.* from pg_attribute, aclexplode(attacl) as acl where attrelid = %(name)s::regclass
        """,
        {"name": name},
    ).fetchall()
    for column, _, grantee, privilege, grantable in grants:
        role = connection.execute("select rolname from pg_roles where oid = %s", [grantee]).fetchone()
        statements.append(
            sql.SQL("grant {}{} on {} to {}{}").format(
                sql.SQL(privilege.lower()),
                sql.SQL(" ({})").format(sql.Identifier(column)) if column else sql.SQL(""),
                relation,
                sql.Identifier(role[0]) if role else sql.SQL("public"),
                sql.SQL(" with grant option" if grantable else ""),
            )
        )
    comments = connection.execute(
        """
        select attname, col_description(attrelid, attnum) from pg_attribute
        where attrelid = %s::regclass and attnum > 0 and col_description(attrelid, attnum) is not null
        """,
        [name],
    ).fetchall()
    for column, text in comments:
        schema, table = relation._obj  # type: ignore[attr-defined]
        statements.append(sql.SQL("comment on column {} is {}").format(sql.Identifier(schema, table, column), text))
    return statements


def _copy_indexes(connection: psycopg.Connection, old: sql.Identifier, new: sql.Identifier) -> list[tuple[str, str]]:
    """Build the old table's indexes on the new one. Returns the temporary name of each, and the name it is to have."""
    rows = connection.execute(
        """
        select relname, indisunique, pg_get_indexdef(indexrelid)
        from pg_index inner join pg_class on pg_class.oid = indexrelid where indrelid = %s::regclass order by indexrelid
        """,
        [old.as_string(connection)],
    ).fetchall()
    names = []
    for number, (name, unique, definition) in enumerate(rows):
        temporary = f"{name[:50]}__w{number}"
        connection.execute(
            sql.SQL("create {} {} on {} using {}").format(
                sql.SQL("unique index" if unique else "index"),
                sql.Identifier(temporary),
                new,
                sql.SQL(definition.split(" USING ", 1)[1]),  # the catalogue's own text
            )
        )
        names.append((temporary, name))
    return names
