"""The fast lane: queries without a Session, on a connection that stays open.

It promises `read` for a query that an index answers, and `scan` for one that reads a
whole table, which makes nobody else wait and ends after 10 s. Nothing else needs you
to read this.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from anyio import CapacityLimiter, sleep, sleep_forever, to_thread
from fastapi import Request
from sqlalchemy import Connection, Executable
from sqlalchemy.exc import OperationalError

from core import errors
from core.engine import (
    ON_LOOP,
    READS,
    SCANS,
    autocommit_engine,
    ender,
    loop_connection,
    reading_engine,
)
from core.queues import Queue, run_in_thread, until_over

SCAN_SECONDS = 10

Rows = list[dict[str, Any]]
reading_threads = CapacityLimiter(READS)
scanning_threads = CapacityLimiter(SCANS)
scanning_engine = reading_engine.execution_options(seconds=SCAN_SECONDS)
scans = Queue(SCANS, SCAN_SECONDS, errors.SearchTooLong)


async def read(statement: Executable, **parameters: Any) -> Rows:
    """Run a query that finds its rows by an index; return them as dictionaries."""
    if ON_LOOP:
        return fetch(loop_connection.get(), statement, parameters)
    return await run_in_thread(reading_threads, fetch_in_thread, statement, parameters)


async def scan(request: Request, statement: Executable, **parameters: Any) -> Rows:
    """Run a query that reads a whole table; raises 503 when it waits or runs too long.

    It ends when the client has gone.
    """
    async with scans.turn(request):
        query = EndableQuery()
        task = asyncio.create_task(end_early(request, query))
        try:
            return await to_thread.run_sync(
                query.run, statement, parameters, limiter=scanning_threads
            )
        except OperationalError:
            if query.is_ended:
                raise errors.SearchTooLong from None
            raise
        finally:
            task.cancel()


def do_nothing() -> None:
    """Before a query has its connection, there is nothing to end."""


class EndableQuery:
    """A query in a thread that another thread can end."""

    def __init__(self) -> None:
        self.is_ended = False
        self.end: Callable[[], None] = do_nothing

    def run(self, statement: Executable, parameters: dict[str, Any]) -> Rows:
        with scanning_engine.connect() as connection:
            self.end = ender(connection)
            # It is closed, not used again: an end that comes a moment too late would
            # end somebody else's query.
            connection.detach()
            return fetch(connection, statement, parameters)


async def end_early(request: Request, query: EndableQuery) -> None:
    with until_over(request, SCAN_SECONDS):
        await sleep_forever()
    query.is_ended = True
    while True:  # until this is cancelled: the query may not have begun yet
        await to_thread.run_sync(query.end)
        await sleep(0.1)


def fetch_in_thread(statement: Executable, parameters: dict[str, Any]) -> Rows:
    with autocommit_engine.connect() as connection:
        return fetch(connection, statement, parameters)


def fetch(
    connection: Connection, statement: Executable, parameters: dict[str, Any]
) -> Rows:
    result = connection.execute(statement, parameters)
    names = tuple(result.keys())
    return [dict(zip(names, row, strict=True)) for row in result.all()]
