"""The database. No other module knows whether it is SQLite or PostgreSQL."""

import os
import sqlite3
import sys
from functools import cache, partial
from pathlib import Path
from typing import Any, NoReturn

from anyio import CapacityLimiter, to_thread
from sqlalchemy import Connection, Engine, Executable, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import ConnectionPoolEntry
from sqlmodel import create_engine

from schema import add_what_is_new


def stop(reason: str) -> NoReturn:
    """End the start with one line and no traceback."""
    sys.tracebacklimit = 0
    raise SystemExit(reason)


try:
    url = make_url(os.environ.get("DATABASE_URL") or "sqlite:///app.db")
    SQLITE = {"sqlite": True, "postgresql+psycopg": False}[url.drivername]
    FILE = Path(url.database).absolute() if SQLITE and url.database not in {None, "", ":memory:"} else None
    LOCK = "BEGIN IMMEDIATE" if SQLITE else "SELECT pg_advisory_xact_lock(0)"
    limits = {"connect_timeout": 3, "options": "-c timezone=UTC -c statement_timeout=10s -c lock_timeout=4s"}
    if SQLITE:
        # mode=rw: a file that was moved away must not come back empty. memdb: what connections share in memory.
        path = f"{FILE.as_uri()}?mode=rw" if FILE else "file:/users?vfs=memdb"
        url, limits = make_url(f"sqlite:///{path}&uri=true"), {"timeout": 4}
    threads = CapacityLimiter(size := 4 if SQLITE else 10)  # each has a connection, and so has the event loop
    engine = create_engine(url, pool_size=size + 1, connect_args=limits, hide_parameters=True, pool_pre_ping=not SQLITE)
    reading = engine.execution_options(isolation_level="AUTOCOMMIT")  # the same connections, without BEGIN and COMMIT
except (ArgumentError, KeyError, ValueError, ImportError):
    stop(
        "DATABASE_URL must be like sqlite:///app.db or postgresql+psycopg://user:pw@host/name (with psycopg installed)"
    )

Rows = list[dict[str, Any]]
inode = 0  # of the file that is open


async def read(statement: Executable, *, slow: bool = False, **parameters: Any) -> Rows:
    """Run a query; `slow` if it reads a whole table. The event loop runs SQLite's: 10 µs, less than a thread costs."""
    if SQLITE and not slow:
        check_file()
        return fetch(reader(), statement, parameters)
    return await to_thread.run_sync(partial(transact, statement, on=reading, **parameters), limiter=threads)


async def write(*statements: Executable, alone: bool = False) -> Rows:
    """Run statements in one transaction and give the first rows; `alone` is one at a time, of all workers and hosts.
    Who waits holds neither a thread nor a connection, or 100 clients would wait for ever (fastapi#3205)."""
    return await to_thread.run_sync(partial(transact, *statements, alone=alone), limiter=threads)


def transact(*statements: Executable, alone: bool = False, on: Engine = engine, **parameters: Any) -> Rows:
    check_file()
    with on.begin() as connection:
        if alone:
            connection.exec_driver_sql(LOCK)
        results = [fetch(connection, statement, parameters) for statement in statements]
    return next(filter(None, results), [])


def fetch(connection: Connection, statement: Executable, parameters: dict[str, Any]) -> Rows:
    result = connection.execute(statement, parameters)
    names = tuple(result.keys()) if result.returns_rows else ()
    return [dict(zip(names, row, strict=True)) for row in result.all()] if names else []


@cache
def reader() -> Connection:
    """Open the event loop's connection, once: taking one from the pool takes longer than a query."""
    return reading.connect()


def check_file() -> None:
    """Open the file anew if it is another one: a connection goes on writing into a file that was moved or deleted."""
    global inode
    if FILE and inode != (inode := os.stat(FILE).st_ino):
        reader.cache_clear()
        engine.dispose()


if SQLITE:

    @event.listens_for(engine, "connect")
    def set_up(connection: sqlite3.Connection, _: ConnectionPoolEntry) -> None:
        connection.executescript("PRAGMA journal_mode = WAL; PRAGMA foreign_keys = ON; PRAGMA synchronous = FULL")
        connection.create_function("lower", 1, str.lower, deterministic=True)  # SQLite's own knows A to Z


def create_database() -> None:
    """Create the tables, or add to them what the models have more, once, however many workers start together."""
    try:
        if FILE:
            FILE.touch()
        with engine.begin() as connection:
            connection.exec_driver_sql(LOCK)
            if differences := add_what_is_new(connection):
                stop("\n".join(differences))
    except (DBAPIError, OSError) as error:
        stop(f"DATABASE_URL: {url!r} cannot be opened: {getattr(error, 'orig', error)}")
