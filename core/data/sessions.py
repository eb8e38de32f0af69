"""Sessions for requests: a few at once, and none that outlives its request.

What differs between the databases is in `database`: the module sqlite.py or
postgresql.py, whichever is in use. Both answer the same questions.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any

from anyio import CancelScope, to_thread
from fastapi.requests import HTTPConnection
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

from core import settings
from core.refusals import DatabaseUnavailable
from core.turns import NO_LIMIT, Line

if settings.SQLITE:
    from core.data import sqlite as database
else:
    from core.data import postgresql as database  # type: ignore[no-redef] # one of them

__all__ = ["close_all", "database", "engine", "open_all", "open_session"]

SECONDS = 30  # the longest that a request waits for its turn at the database

engine = database.make_engine()
# The same connections; what differs is how a transaction begins.
reading_engine = engine.execution_options(begin="BEGIN")
autocommit_engine = engine.execution_options(isolation_level="AUTOCOMMIT", begin="")

writers = Line(database.WRITERS, SECONDS, DatabaseUnavailable)
# Those who only read have a line of their own, and do not wait for writers.
readers = Line(database.READERS, SECONDS, DatabaseUnavailable)


@asynccontextmanager
async def turn_at(line: Line) -> AsyncIterator[None]:
    """Wait for a turn at the database.

    When somebody finds it away, those who wait in the same line are told at once.
    Otherwise each would wait for its own time-out, one after the other.
    """
    async with line.turn():
        try:
            yield
        except DBAPIError as error:
            if database.is_away(error):
                line.refuse_all()
            raise


@asynccontextmanager
async def open_session(connection: HTTPConnection) -> AsyncIterator[Session]:
    """Wait for a turn, and open a session; for a GET it takes no write lock.

    A WebSocket may last for hours, so it stands in no line, and locks only to write.
    """
    bind = engine
    turn: AbstractAsyncContextManager[Any] = turn_at(writers)
    if connection.scope["type"] == "websocket":
        bind, turn = reading_engine, nullcontext()
    elif connection.scope["method"] == "GET":
        bind, turn = reading_engine, turn_at(readers)
    async with turn:
        session = Session(
            bind,
            expire_on_commit=False,  # objects keep their values, and need no refresh()
            close_resets_only=False,  # a background task that uses it fails there
        )
        try:
            yield session
        finally:
            if session.in_transaction():  # a ROLLBACK takes a while elsewhere
                with CancelScope(shield=True):
                    await to_thread.run_sync(session.close, limiter=NO_LIMIT)
            else:
                session.close()
        database.check()  # or what was written may be in a file that is gone


def open_all() -> None:
    """Make SQLite's file, or wait for PostgreSQL; raises StartRefused."""
    settings.check()
    database.open_database(engine)


def close_all() -> None:
    """Close every connection of the pool."""
    engine.dispose()
    database.close()
