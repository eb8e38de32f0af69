"""The database: `SessionDep` for what is written, `read` for what every request asks.

Write your own routers with `SessionDep`, as in SQLModel's tutorial. How a connection is
opened, on SQLite and on PostgreSQL, is in core/engine.py.
"""

import logging
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, Request
from sqlmodel import Session, func, select

from core.engine import IN_MEMORY, engine, open_database, open_session
from core.reads import Rows, read
from core.schema import create_or_extend_tables
from core.settings import DATABASE
from models import User

__all__ = ["Rows", "SessionDep", "create_database", "engine", "read"]

log = logging.getLogger("uvicorn.error")  # the one that uvicorn prints


async def get_session(request: Request) -> AsyncIterator[Session]:
    """Give a session to one request.

    Only a few requests have one at once. The others wait here for their turn, without
    a thread or a connection, for half a minute at most. A request that may write has
    the database's lock from its first query on, so what it reads is still true when it
    writes. A GET has no lock: let it only read.
    """
    async with open_session(request) as session:
        yield session


# "function": the session is closed before the answer is sent. Use it in `def`, not in
# `async def`, where its queries would keep everybody waiting.
SessionDep = Annotated[Session, Depends(get_session, scope="function")]

# The fast lane is `read(statement, …)`, in core/reads.py. A query in a session costs
# 250 µs: a thread, a connection, building the statement, an object for each row.
# SQLite needs 10 µs of it. So the queries that nearly every request makes, who is
# asking and the list, are built once and run without a session. Use it in your own
# routers only where you have measured that it helps.


def create_database() -> None:
    """Create missing tables and columns, and log how many accounts there are."""
    open_database()
    count = select(func.count()).select_from(User)
    added, users = create_or_extend_tables(engine, count)
    log.info("Database: %s, accounts: %s", DATABASE.name, users)
    if IN_MEMORY:
        log.info("In memory: each worker has its own accounts, until it ends.")
    if added:
        log.info("added %s", ", ".join(added))
