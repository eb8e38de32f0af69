"""The database: `SessionDep` for what is written, `read` for what every request pays.

Write your own routers with `SessionDep`, as in SQLModel's tutorial. How a connection is
opened, on SQLite and on PostgreSQL, is in core/engine.py.
"""

import logging
from collections.abc import AsyncIterator
from typing import Annotated, Any

from anyio import CapacityLimiter, to_thread
from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool
from sqlalchemy import Executable
from sqlmodel import Session, func, select

from core.engine import (
    READS,
    SCANS,
    SESSIONS,
    SQLITE,
    autocommit_engine,
    create_file,
    engine,
    loop_connection,
    reading_engine,
    refuse_if_file_is_replaced,
)
from core.schema import create_or_extend_tables
from core.settings import DATABASE_URL
from models import User

log = logging.getLogger("uvicorn.error")


async def get_session(request: Request) -> AsyncIterator[Session]:
    """Give a session to one request, and close it before the answer is sent.

    On SQLite its transaction begins with the write lock, so what you read in it is
    still true when you write. A GET takes no lock: let it only read.
    """
    bind = engine
    if request.method == "GET":
        bind = reading_engine
    # Objects keep their values after a commit, so they need no refresh().
    session = Session(bind, expire_on_commit=False)
    with refuse_if_file_is_replaced():
        try:
            yield session
        finally:
            if SQLITE or not session.in_transaction():
                session.close()
            else:
                await run_in_threadpool(session.close)


# Callers that wait for a session hold neither a thread nor a connection (fastapi#3205).
SessionDep = Annotated[
    Session, Depends(get_session, scope="function", max_concurrency=SESSIONS)
]


# ---- The fast lane. Who is asking, and the list: what nearly every request reads. ----
#
# A query through a session costs 250 µs: a thread, a connection from the pool, building
# the statement, an object for each row. SQLite needs 10 µs of it. So the two or three
# statements that are asked all the time are built once, and run by the event loop on a
# connection that stays open. You need this when a measurement says so, not before.

Rows = list[dict[str, Any]]
reading = CapacityLimiter(max(1, READS))
scanning = CapacityLimiter(SCANS)


async def read(statement: Executable, **parameters: Any) -> Rows:
    """Run a query that finds its rows by an index, and give them as dictionaries."""
    if SQLITE:
        return fetch(loop_connection.get(), statement, parameters)
    return await to_thread.run_sync(
        fetch_in_thread, statement, parameters, limiter=reading
    )


async def scan(statement: Executable, **parameters: Any) -> Rows:
    """Run a query that reads a whole table: in a thread, a few at a time."""
    return await to_thread.run_sync(
        fetch_in_thread, statement, parameters, limiter=scanning
    )


def fetch_in_thread(statement: Executable, parameters: dict[str, Any]) -> Rows:
    with autocommit_engine.connect() as connection:
        return fetch(connection, statement, parameters)


def fetch(connection: Any, statement: Executable, parameters: dict[str, Any]) -> Rows:
    result = connection.execute(statement, parameters)
    names = tuple(result.keys())
    return [dict(zip(names, row, strict=True)) for row in result.all()]


def create_database() -> None:
    """Create the tables, or add what the models have more, and say what is there."""
    create_file()
    added = create_or_extend_tables(engine)
    with Session(reading_engine) as session:
        users = session.exec(select(func.count()).select_from(User)).one()
    log.info("Database: %s, %s accounts", DATABASE_URL, users)
    if added:
        log.info("added %s", ", ".join(added))
