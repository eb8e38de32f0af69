"""How long anybody waits for a PostgreSQL that says nothing at all.

A cable was pulled, a server was frozen, a COMMIT waits for a standby that is gone: then
none of the server's own time-outs ends a query. It promises a `Connection` on which
nothing waits for ever. Nothing else needs you to read this.
"""

import time
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.waiting import Wait

from core import errors, outages

T = TypeVar("T")

# Seconds. When the server is gone, the ping of a connection from the pool and opening
# another (connect_timeout in core/postgresql.py) take less than 10 together.
FOR_PING = 3.0
FOR_COMMIT = 5.0


class NoAnswer(psycopg.OperationalError):
    """The server has said nothing for too long."""


class UnknownOutcome(psycopg.OperationalError):
    """The connection ended between a COMMIT and its answer."""

    refusal = errors.UnknownOutcome


class Connection(psycopg.Connection[Any]):
    """A connection that is closed when the server says nothing for too long."""

    patience = 0.0  # in a transaction
    is_in_transaction = False  # else it is a ping
    is_committing = False

    def wait(
        self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None
    ) -> T:
        """Wait for the answer; psycopg calls this for everything that it asks."""
        try:
            wanted = next(gen)
        except StopIteration as end:  # there was nothing to ask
            result: T = end.value
            return result
        seconds = FOR_PING
        if self.is_in_transaction:
            seconds = self.patience
        if self.is_committing:
            seconds = min(seconds, FOR_COMMIT)
        try:
            return super().wait(until_silent(gen, wanted, seconds), interval, timeout)
        except NoAnswer:
            self.give_up()
            raise

    def give_up(self) -> None:
        if self.is_committing:
            outages.writing.keep(self.pgconn.socket)
        elif self.is_in_transaction:
            outages.silence.begin()
        # Otherwise something between us may have forgotten this connection, which was
        # idle for long: another one may get an answer.
        self.pgconn.finish()

    def commit(self) -> None:
        self.is_committing = True
        try:
            super().commit()
        except psycopg.OperationalError as error:
            if self.closed:
                raise UnknownOutcome(*error.args) from None
            raise
        finally:
            self.is_committing = False


def until_silent(generator: PQGen[T], wanted: Wait, seconds: float) -> PQGen[T]:
    """Do what psycopg does, until nothing comes for so many seconds."""
    heard = time.monotonic()
    try:
        while True:
            ready = yield wanted
            if ready:
                heard = time.monotonic()
            elif time.monotonic() > heard + seconds:  # checked every 0.1 s
                raise NoAnswer(f"no answer for {seconds:g} s")
            wanted = generator.send(ready)
    except StopIteration as end:
        result: T = end.value
        return result
