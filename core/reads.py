"""The fast lane: queries without a Session, on a connection that stays open.

It promises `read` for a query that an index answers, and `scan` for one that reads a
whole table, which makes nobody else wait. Nothing else needs you to read this.
"""

from typing import Any

from anyio import CapacityLimiter, to_thread
from sqlalchemy import Connection, Executable

from core.engine import ON_LOOP, READS, SCANS, autocommit_engine, loop_connection
from core.queues import run_in_thread

Rows = list[dict[str, Any]]
reading_threads = CapacityLimiter(READS)
scanning_threads = CapacityLimiter(SCANS)


async def read(statement: Executable, **parameters: Any) -> Rows:
    """Run a query that finds its rows by an index, and give them as dictionaries."""
    if ON_LOOP:
        return fetch(loop_connection.get(), statement, parameters)
    return await run_in_thread(reading_threads, fetch_in_thread, statement, parameters)


async def scan(statement: Executable, **parameters: Any) -> Rows:
    """Run a query that reads a whole table: in a thread, a few at a time."""
    return await to_thread.run_sync(
        fetch_in_thread, statement, parameters, limiter=scanning_threads
    )


def fetch_in_thread(statement: Executable, parameters: dict[str, Any]) -> Rows:
    with autocommit_engine.connect() as connection:
        return fetch(connection, statement, parameters)


def fetch(
    connection: Connection, statement: Executable, parameters: dict[str, Any]
) -> Rows:
    result = connection.execute(statement, parameters)
    names = tuple(result.keys())
    return [dict(zip(names, row, strict=True)) for row in result.all()]
