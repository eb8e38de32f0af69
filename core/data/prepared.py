"""Statements that are compiled once, and then run on sqlite3's own cursor.

SQLAlchemy finds out anew each time how a statement runs and what becomes of its values:
80 µs, beside 10 µs in SQLite. Here the same functions of SQLAlchemy's types are found
once. Values and rows are the same; test_prepared.py compares them.
"""

import contextlib
import sqlite3
from collections.abc import Callable
from datetime import datetime
from logging import INFO
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from sqlalchemy import Connection, Executable, Select
from sqlmodel.sql.sqltypes import UTCDateTime

Convert = Callable[[Any], Any]


class Prepared:
    """A statement, and what its values and its rows go through."""

    def __init__(
        self, statement: Select[Any], names: list[str], connection: Connection
    ) -> None:
        """Compile it; raises ValueError if its SQL depends on the values."""
        dialect = connection.dialect
        compiled: Any = statement.compile(dialect=dialect)
        self.sql = compiled.string
        self.names = names
        self.defaults: dict[str, Any] = {}
        self.writers: list[tuple[str, Convert | None]] = []
        for key in compiled.positiontup:
            bound = compiled.binds[key]
            if bound.expanding or bound.literal_execute or bound.callable:
                raise ValueError("IN (…) has a place for each value")
            if not bound.required:
                self.defaults[bound.key] = bound.value
            write = bound.type.dialect_impl(dialect).bind_processor(dialect)
            self.writers.append((bound.key, write))
        self.readers: list[tuple[str, Convert]] = []
        for name, column in zip(names, statement.selected_columns, strict=True):
            read: Any = read_moment
            if type(column.type) is not UTCDateTime:
                kind = column.type.dialect_impl(dialect)
                read = kind.result_processor(dialect, None)
            if read is not None:
                self.readers.append((name, read))

    def run(
        self, driver: sqlite3.Connection, values: dict[str, Any]
    ) -> list[dict[str, Any]]:
        values = self.defaults | values
        arguments = []
        for name, write in self.writers:
            value = values[name]
            arguments.append(value if write is None else write(value))
        found = driver.execute(self.sql, arguments)
        rows = [dict(zip(self.names, row)) for row in found]  # noqa: B905 # strict: twice as slow
        for name, read in self.readers:
            for row in rows:
                row[name] = read(row[name])
        return rows


def read_moment(text: str | None) -> datetime | None:
    """Read a moment as SQLModel's type does, in an eighth of the time."""
    return None if text is None else datetime.fromisoformat(f"{text}+00:00")


# Statements that SQLAlchemy has run, as long as somebody keeps them. One that is built
# for each request runs once, which costs less than to prepare it.
once: WeakSet[Executable] = WeakSet()
known: WeakKeyDictionary[Executable, Prepared | None] = WeakKeyDictionary()


def find(statement: Executable, connection: Connection) -> Prepared | None:
    """Return what runs a statement, unless SQLAlchemy has to.

    It has to while somebody listens to it, as the tour does, or it logs (echo).
    """
    engine = connection.engine
    if engine.dispatch.before_cursor_execute or engine.logger.isEnabledFor(INFO):
        return None
    return known.get(statement)


def note(statement: Executable, names: list[str], connection: Connection) -> None:
    """Note that SQLAlchemy has run a statement; prepare it at the second time."""
    if statement not in once:
        once.add(statement)
    elif statement not in known:
        known[statement] = None
        if isinstance(statement, Select) and len(set(names)) == len(names):
            with contextlib.suppress(ValueError):
                known[statement] = Prepared(statement, names, connection)
