"""Queries without a session, for what every request asks and for whole tables.

A query in a session costs 250 µs: a thread, a connection, building the statement, an
object for each row. SQLite itself needs 10 µs of it. So `read` runs statements that are
built once, on a connection that stays open. `scan` makes nobody else wait.
"""

import contextlib
import sqlite3
import threading
import time
from typing import Any

from anyio import to_thread
from fastapi import Request
from sqlalchemy import Connection, CursorResult, Executable, literal
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError
from sqlmodel import Session, SQLModel, func, select

from core.data import prepared
from core.data.kinds import first_line
from core.data.sessions import autocommit_engine, database, reading_engine, turn_at
from core.refusals import ClientGone, DatabaseUnavailable, SearchTooLong
from core.settings import DATABASE
from core.start import StartRefused
from core.turns import NO_LIMIT, Line

SECONDS = 10  # the longest that a query waits for its turn, and that a scan takes
LOOP_TIMEOUT = 20  # ms: everybody waits with the event loop

Rows = list[dict[str, Any]]
# What SQLite, or a type that writes a value, may raise.
FAILURES = (
    sqlite3.Error,
    ArithmeticError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
)

reads = Line(database.READS, SECONDS, DatabaseUnavailable)
scans = Line(database.SCANS, SECONDS, SearchTooLong)


class LoopConnection(threading.local):
    """The connection of the event loop in this thread, which stays open."""

    connection: Connection | None = None

    def get(self) -> Connection:
        database.check()
        if self.connection is None:
            self.connection = autocommit_engine.connect()
            self.connection.detach()  # it never goes back into the pool
            self.connection.exec_driver_sql(f"PRAGMA busy_timeout = {LOOP_TIMEOUT}")
        return self.connection

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None


loop_connection = LoopConnection()


async def read(statement: Executable, **parameters: Any) -> Rows:
    """Run a query that finds its rows by an index; return them as dictionaries."""
    if database.READS_ON_LOOP:
        return fetch_on_loop(loop_connection.get(), statement, parameters)
    async with turn_at(reads):
        return await to_thread.run_sync(
            read_in_thread, statement, parameters, limiter=NO_LIMIT
        )


async def scan(request: Request, statement: Executable, **parameters: Any) -> Rows:
    """Run a query that reads a whole table; raises 503 when it waits or runs too long.

    It is not run for a client that has gone.
    """
    async with turn_at(scans):
        if await request.is_disconnected():
            raise ClientGone
        return await to_thread.run_sync(
            scan_in_thread, statement, parameters, limiter=NO_LIMIT
        )


async def check_readable(table: type[SQLModel]) -> None:
    """Raise 503 if a table cannot be read, whatever the reason."""
    statement = select(literal(1)).select_from(table).limit(1)
    try:
        await read(statement)
    except SQLAlchemyError:
        raise DatabaseUnavailable from None


def count_rows(table: type[SQLModel]) -> int:
    """Count all rows of a table, for the start; raises StartRefused."""
    try:
        with Session(reading_engine) as session:
            return session.exec(select(func.count()).select_from(table)).one()
    except DBAPIError as error:
        reason = database.why_not_now(error) or first_line(error)
        place = f"DATABASE_URL: {DATABASE.name!r}"
        raise StartRefused(f"{place} cannot be read: {reason}") from None


def read_in_thread(statement: Executable, parameters: dict[str, Any]) -> Rows:
    with autocommit_engine.connect() as connection:
        return as_rows(connection.execute(statement, parameters))


def scan_in_thread(statement: Executable, parameters: dict[str, Any]) -> Rows:
    end = time.monotonic() + SECONDS
    try:
        with reading_engine.connect() as connection:
            database.limit(connection, SECONDS)
            return as_rows(connection.execute(statement, parameters))
    except OperationalError:
        if time.monotonic() > end:
            raise SearchTooLong from None
        raise


def fetch_on_loop(
    connection: Connection, statement: Executable, parameters: dict[str, Any]
) -> Rows:
    """Run a query on SQLite's own cursor, once SQLAlchemy has run it twice."""
    if found := prepared.find(statement, connection):
        driver: Any = connection.connection.dbapi_connection
        with contextlib.suppress(*FAILURES):  # SQLAlchemy says better what is wrong
            return found.run(driver, parameters)
    result = connection.execute(statement, parameters)
    prepared.note(statement, list(result.keys()), connection)
    return as_rows(result)


def as_rows(result: CursorResult[Any]) -> Rows:
    names = tuple(result.keys())
    return [dict(zip(names, row, strict=True)) for row in result.all()]
