"""The tables as they are now, without secrets: what /tour/accounts shows."""

from typing import Any, NamedTuple

from sqlalchemy import Boolean, Connection, DateTime, Integer, Table, inspect
from sqlmodel import SQLModel

from core.data.sessions import autocommit_engine, database
from core.settings import SQLITE
from tools.tour import veil

ROWS = 100
LONGEST = 200  # characters of a value
# What changes with every write, whoever writes, and costs next to nothing.
VERSION = "SELECT CAST(pg_current_wal_insert_lsn() AS text)"
if SQLITE:
    VERSION = "PRAGMA data_version"


class Known(NamedTuple):
    """A table as it was read: its columns, how many rows, and the last ones by key."""

    columns: list[Any]
    number: int
    rows: dict[tuple[str, ...], tuple[Any, ...]]


class Watcher:
    """Reads the tables when somebody has written, on a connection of its own."""

    def __init__(self, seen: int) -> None:
        self.connection: Connection | None = None
        self.version: Any = None
        self.before: dict[str, Known] = {}
        self.seen = seen  # the last change that the page knows of
        self.event_id = ""

    def changed(self) -> list[dict[str, Any]] | None:
        """Return the tables, or None if they are as they were."""
        database.check()
        if self.connection is None:
            self.connection = autocommit_engine.connect()
            self.connection.detach()  # not one of those that the API may open
        connection = self.connection
        version = connection.exec_driver_sql(VERSION).scalar()
        if version == self.version:
            return None
        tables = []
        now = {}
        for table in SQLModel.metadata.tables.values():
            known = read(connection, table)
            if known is not None:
                tables.append(show(table, known, self.before.get(table.name)))
                now[table.name] = known
        self.version = version
        if now == self.before:  # it was somebody else's table, or the page was away
            return None
        self.before = now
        return tables

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None
        self.version = None


def newest_first(table: Table) -> str:
    """Write what to sort by for the newest rows: a number, a time, or else the key."""
    (*keys,) = table.primary_key.columns
    if len(keys) == 1 and isinstance(keys[0].type, Integer):
        return f"{quoted(keys[0].name)} DESC"
    times = [c for c in table.columns if isinstance(c.type, DateTime)]
    order = [f"{quoted(column.name)} DESC" for column in [*times[:1], *keys]]
    return ", ".join(order) or "1"


def quoted(name: str) -> str:
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


def read(connection: Connection, table: Table) -> Known | None:
    """Read the last rows as they are: no type of the model can refuse what is there."""
    there = inspect(connection)
    if not there.has_table(table.name, schema=table.schema):
        return None
    found = {column["name"] for column in there.get_columns(table.name)}
    columns = [column for column in table.columns if column.name in found]
    name = quoted(table.name)
    names = ", ".join(quoted(column.name) for column in columns)
    # The names are the model's own, and quoted.
    query = f"SELECT {names} FROM {name} ORDER BY {newest_first(table)} LIMIT {ROWS}"
    rows = {}
    for row in connection.exec_driver_sql(query):
        values = tuple(row)
        of_key = zip(columns, values, strict=True)
        key = tuple(str(value) for column, value in of_key if column.primary_key)
        rows[key] = values
    count = connection.exec_driver_sql(f"SELECT count(*) FROM {name}").scalar_one()
    return Known(columns, count, rows)


def show(table: Table, now: Known, before: Known | None) -> dict[str, Any]:
    """Write a table for the page, with what is new or changed since last time."""
    rows: list[dict[str, Any]] = []
    old = {} if before is None else before.rows
    left = len(old.keys() & now.rows.keys())
    added, changed = 0, 0
    for key, values in now.rows.items():
        marks: list[int] = []
        if key in old:
            left -= 1
            pairs = zip(values, old[key], strict=False)
            marks = [index for index, (new, was) in enumerate(pairs) if new != was]
        # Below the last known row come older ones, which the page did not show before.
        is_new = before is not None and key not in old
        if before is not None and before.number > ROWS and left == 0:
            is_new = False
        added += is_new
        changed += bool(marks)
        cells = [cell(*pair) for pair in zip(now.columns, values, strict=True)]
        rows.append({"cells": cells, "new": is_new, "changed": marks})
    says = []
    if before is not None:
        grown = now.number - before.number
        added = max(added, grown)
        for verb, to, number in (
            ("added", "to", added),
            ("changed", "in", changed),
            ("removed", "from", added - grown),
        ):
            if number:
                what = "1 row" if number == 1 else f"{number} rows"
                says.append(f"{verb} {what} {to} {table.name}")
    return {
        "name": table.name,
        "columns": [column.name for column in now.columns],
        "count": now.number,
        "rows": rows,
        "says": says,
    }


def cell(column: Any, value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(column.type, Boolean) and value in {0, 1}:
        value = "true" if value else "false"
    return str(veil.Veil().value(str(value), column.name))[:LONGEST]
