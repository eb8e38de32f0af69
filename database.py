"""The database. No other module knows whether it is SQLite or PostgreSQL."""

import os
import sqlite3
import sys
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from anyio import CapacityLimiter, to_thread
from sqlalchemy import Executable, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry
from sqlmodel import SQLModel, create_engine


def stop(reason: str) -> NoReturn:
    """End the start with one line and no traceback."""
    sys.tracebacklimit = 0
    raise SystemExit(reason)


try:
    url = make_url(os.environ.get("DATABASE_URL") or "sqlite:///app.db")
    SQLITE = {"sqlite": True, "postgresql+psycopg": False}[url.drivername]
    FILE = Path(url.database).absolute() if SQLITE and url.database not in {None, "", ":memory:"} else None
    LOCK = "BEGIN IMMEDIATE" if SQLITE else "SELECT pg_advisory_xact_lock(0)"
    limits: dict[str, Any] = {"timeout": 4}
    if SQLITE:
        # mode=rw: a file that was moved away must not come back empty. memdb: what connections share in memory.
        path = f"{FILE.as_uri()}?mode=rw" if FILE else "file:/users?vfs=memdb"
        url = make_url(f"sqlite:///{path}&uri=true")
    else:
        limits = {"connect_timeout": 3, "options": "-c timezone=UTC -c statement_timeout=10s -c lock_timeout=4s"}
    threads = CapacityLimiter(size := 4 if SQLITE else 10)  # each has a connection, and so has the event loop
    engine = create_engine(url, pool_size=size + 1, max_overflow=0, connect_args=limits, hide_parameters=True)
except (ArgumentError, KeyError, ValueError, ImportError):
    stop(
        "DATABASE_URL must be like sqlite:///app.db or, with psycopg installed, postgresql+psycopg://user:pw@host/name"
    )

Rows = list[dict[str, Any]]


async def read(statement: Executable, *, slow: bool = False, **parameters: Any) -> Rows:
    """Run a query; `slow` if it reads a whole table. SQLite answers within this process in 10 µs,
    less than a thread costs, so there it runs on the event loop."""
    if SQLITE and not slow:
        return transact(statement, **parameters)
    return await to_thread.run_sync(partial(transact, statement, **parameters), limiter=threads)


async def write(*statements: Executable, alone: bool = False) -> Rows:
    """Run statements in one transaction and give the first rows; `alone` is one at a time, of all workers and hosts.
    There is a connection for each thread, and who waits holds neither: the usual pattern holds one while it waits for
    the other, and answers nobody at 100 clients (fastapi#3205)."""
    return await to_thread.run_sync(partial(transact, *statements, alone=alone), limiter=threads)


def transact(*statements: Executable, alone: bool = False, **parameters: Any) -> Rows:
    rows: Rows = []
    with engine.begin() as connection:
        if alone:
            connection.exec_driver_sql(LOCK)
        for statement in statements:
            result = connection.execute(statement, parameters)
            if result.returns_rows and not rows:
                names = result.keys()
                rows = [dict(zip(names, row, strict=True)) for row in result]
    return rows


if SQLITE:

    @event.listens_for(engine, "connect")
    def set_up(connection: sqlite3.Connection, entry: ConnectionPoolEntry) -> None:
        connection.executescript("PRAGMA journal_mode = WAL; PRAGMA foreign_keys = ON; PRAGMA synchronous = FULL")
        connection.create_function("lower", 1, str.lower, deterministic=True)  # SQLite's own knows A to Z
        entry.info["file"] = FILE and os.stat(FILE).st_ino

    @event.listens_for(engine, "checkout")
    def check_file(_: sqlite3.Connection, entry: ConnectionPoolEntry, __: object) -> None:
        # An open connection would go on writing into a file that was moved or deleted.
        if FILE and not (FILE.exists() and os.stat(FILE).st_ino == entry.info["file"]):
            raise DisconnectionError


def create_database() -> None:
    """Create the file and the tables that are missing, once, however many workers start together."""
    try:
        if FILE:
            FILE.touch()
        with engine.begin() as connection:
            connection.exec_driver_sql(LOCK)
            SQLModel.metadata.create_all(connection)
    except (DBAPIError, OSError) as error:
        stop(f"DATABASE_URL: {url!r} cannot be opened: {getattr(error, 'orig', error)}")
