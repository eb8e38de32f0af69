"""The engine: how connections and transactions begin and end, on both databases.

It promises an `engine` that writes and two that only read; that on SQLite a transaction
which may write begins with the write lock; that a replaced file is noticed; and that
after `close` SQLite's file is the only one and holds everything. Nothing else needs you
to read this.
"""

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from pydantic_core import to_json
from sqlalchemy import Connection, Engine, ExceptionContext, QueuePool, event
from sqlalchemy.exc import DisconnectionError, OperationalError
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection
from sqlmodel import Session, create_engine

from core import foreign_keys, outages, postgresql
from core.errors import DatabaseUnavailable
from core.postgresql import LOCK_TIMEOUT
from core.queues import Queue
from core.settings import DATABASE, POOL_SIZE, SQLITE, exit_with

IN_MEMORY = SQLITE and DATABASE.file is None
FILE = DATABASE.file or Path().absolute()
MODE = DATABASE.parameters.get("mode", "rwc")
READ_ONLY = SQLITE and MODE == "ro"

# Queries of a file run in the event loop. In memory they may wait for a writer.
ON_LOOP = SQLITE and not IN_MEMORY


THROTTLE = 1  # stores wrong passwords, one at a time


class Share(NamedTuple):
    """How a worker's connections are divided; the rest of a crowd waits."""

    writers: int
    readers: int  # sessions that only read, so that they do not wait for writers
    reads: int
    scans: int  # read a whole table: few, so that they slow nobody else down


def share_connections(size: int) -> Share:
    """Divide the connections to PostgreSQL that a worker may open.

    20 become 6, 2, 9 and 2. Most are for reads, which every request makes; each kind of
    work has at least one.
    """
    writers = max(1, size * 3 // 10)
    readers = max(1, size // 10)
    scans = max(1, size // 10)
    return Share(writers, readers, size - writers - readers - scans - THROTTLE, scans)


if SQLITE:
    # It has one writer at a time, and more threads than cores only wait for each
    # other: 4 sessions that read give 0.85 of the answers that 2 give.
    SHARE = Share(writers=2, readers=2, reads=1 if ON_LOOP else 10, scans=2)
else:
    SHARE = share_connections(POOL_SIZE or 20)
WRITERS, READERS, READS, SCANS = SHARE
# Seconds. The event loop must not wait longer, since everybody waits with it.
LOCK_TIMEOUT_ON_LOOP = 0.02
SHORT_LOCK_TIMEOUT = 20  # ms, after somebody has waited in vain
MAX_WAL = 8 * 1024 * 1024  # bytes; without long reads it grows to about 4 MiB

FileId = tuple[int, int] | None


def file_id() -> FileId:
    """Tell which file is at the path now; None if there is none, or none is used."""
    if not ON_LOOP:
        return None
    try:
        # os.stat, not Path.stat: it is half the price, and every request pays it.
        found = os.stat(FILE)  # noqa: PTH116
    except OSError:
        return None
    return found.st_dev, found.st_ino


class FileConnection(sqlite3.Connection):
    """A connection that remembers which file it was opened with."""

    file_id: FileId = None


class LockTimeout(threading.local):
    """How long a connection that this thread opens waits for a lock."""

    seconds: float = float(DATABASE.parameters.get("timeout", LOCK_TIMEOUT))


lock_timeout = LockTimeout()


def lower(text: str | None) -> str | None:
    return text and str(text).lower()


def connect_sqlite() -> sqlite3.Connection:
    if IN_MEMORY:
        uri = "file:/users?vfs=memdb"  # a database that all connections share
    else:
        mode = "rw"  # not rwc: a file that was moved away must not come back empty
        if READ_ONLY:
            mode = "ro"
        uri = f"{FILE.as_uri()}?mode={mode}"
    file = file_id()
    connection = sqlite3.connect(
        uri,
        uri=True,
        timeout=lock_timeout.seconds,
        isolation_level=None,  # transactions begin in begin_sqlite, below
        check_same_thread=False,
        factory=FileConnection,
    )
    connection.file_id = file
    if not READ_ONLY:  # readers and a writer at once
        connection.execute("PRAGMA journal_mode = WAL")
        # A -wal that has grown during a long read shrinks again.
        connection.execute(f"PRAGMA journal_size_limit = {MAX_WAL}")
    connection.execute("PRAGMA synchronous = FULL")  # what was answered is on disk
    connection.execute("PRAGMA foreign_keys = ON")
    # SQLite's own lower() knows only A to Z.
    connection.create_function("lower", 1, lower, deterministic=True)
    return connection


def write_json(value: object) -> str:
    """Write a JSON column, even with what json.dumps does not know: times, models."""
    return to_json(value).decode()


def make_engine() -> Engine:
    if SQLITE:
        return create_engine(
            "sqlite://",
            # A URL would be decoded on its way: the folder C# would become another.
            creator=connect_sqlite,
            poolclass=QueuePool,
            pool_size=sum(SHARE) + THROTTLE,
            hide_parameters=True,  # the log shows no secret
            json_serializer=write_json,
        )
    return create_engine(
        "postgresql+psycopg://",
        connect_args=postgresql.PARAMETERS,
        pool_size=sum(SHARE) + THROTTLE,
        pool_pre_ping=True,  # nobody gets an error after a server restart
        hide_parameters=True,
        json_serializer=write_json,
    )


engine = make_engine()
# The same connections; what differs is how a transaction begins.
reading_engine = engine.execution_options(begin="BEGIN")
autocommit_engine = engine.execution_options(isolation_level="AUTOCOMMIT", begin="")
BEGIN_WRITING = "BEGIN IMMEDIATE"


@event.listens_for(engine, "handle_error")
def hide_rows(context: ExceptionContext) -> None:
    """Cut messages to their first line: below it PostgreSQL shows the whole row."""
    errors = [context.original_exception, context.sqlalchemy_exception]
    for error in filter(None, errors):
        message = [str(part).partition("\n")[0] for part in error.args[:1]]
        error.args = (*message, *error.args[1:])


@event.listens_for(engine, "handle_error")
def forget_statements(context: ExceptionContext) -> None:
    """Open new connections if another startup, or a reset, has changed a table.

    PostgreSQL refuses statements that a connection has prepared for the old table.
    """
    diagnosis = getattr(context.original_exception, "diag", None)
    if getattr(diagnosis, "source_function", None) == "RevalidateCachedQuery":
        context.is_disconnect = True


if SQLITE:

    @event.listens_for(engine, "handle_error")
    def name_foreign_key(context: ExceptionContext) -> None:
        error = context.original_exception
        if str(error) == "FOREIGN KEY constraint failed":
            error.args = (f"{error}: {foreign_keys.explain(context)}",)

    @event.listens_for(engine, "handle_error")
    def end_transaction(context: ExceptionContext) -> None:
        """Roll back when a COMMIT fails, or the connection would keep the lock."""
        if context.statement is None and context.connection is not None:
            with contextlib.suppress(sqlite3.Error):
                context.connection.connection.rollback()

    @event.listens_for(engine, "begin")
    def begin_sqlite(connection: Connection) -> None:
        """Take the write lock first: when a reader starts to write, it may be taken."""
        options = connection.get_execution_options()
        begin = options.get("begin", BEGIN_WRITING)
        if begin == BEGIN_WRITING:
            take_write_lock(connection)
        elif begin:
            connection.exec_driver_sql(begin)

    def take_write_lock(connection: Connection) -> None:
        """Wait for the lock, but do not make a crowd wait seconds each, one by one."""
        driver: Any = connection.connection.dbapi_connection
        is_short = outages.locked_file.is_on()
        if is_short:
            driver.execute(f"PRAGMA busy_timeout = {SHORT_LOCK_TIMEOUT}")
        try:
            connection.exec_driver_sql(BEGIN_WRITING)
        except OperationalError:
            outages.locked_file.begin()
            raise
        else:
            outages.locked_file.finish()
        finally:
            if is_short:
                milliseconds = int(lock_timeout.seconds * 1000)
                driver.execute(f"PRAGMA busy_timeout = {milliseconds}")

    @event.listens_for(engine, "checkout")
    def check_file(
        connection: FileConnection,
        _entry: ConnectionPoolEntry,
        _proxy: PoolProxiedConnection,
    ) -> None:
        """Open another connection if the file was replaced: this one has the old file.

        The others in the pool are closed first, since the last one to leave a file
        deletes its -wal, and by then that could be the new file's.
        """
        if connection.file_id != file_id():
            engine.pool.dispose()
            raise DisconnectionError

else:
    postgresql.install(engine)


writers = Queue(WRITERS, 30, DatabaseUnavailable, outages.writing)
readers = Queue(READERS, 30, DatabaseUnavailable)


@contextlib.asynccontextmanager
async def open_session(request: Request) -> AsyncIterator[Session]:
    """Wait for a turn, and open a session; for a GET it takes no write lock."""
    bind, queue = engine, writers
    if request.method == "GET":
        bind, queue = reading_engine, readers
    async with queue.turn(request), open_session_now(bind) as session:
        yield session


@contextlib.asynccontextmanager
async def open_session_now(bind: Engine) -> AsyncIterator[Session]:
    """Open a session.

    Raises 503 if the file was replaced meanwhile: what it wrote may be in the old one.
    """
    file = file_id()
    # Objects keep their values after a commit, so they need no refresh().
    session = Session(bind, expire_on_commit=False)
    try:
        yield session
    finally:
        if SQLITE or not session.in_transaction():
            session.close()
        else:  # a ROLLBACK, which another host may be slow to answer
            await run_in_threadpool(session.close)
    if file_id() != file:
        raise DatabaseUnavailable


def ender(connection: Connection) -> Callable[[], None]:
    """Return what another thread calls to end a query, with an OperationalError."""
    driver: Any = connection.connection.driver_connection
    if SQLITE:
        return partial(interrupt, driver)
    return partial(postgresql.cancel, driver)


def interrupt(connection: sqlite3.Connection) -> None:
    with contextlib.suppress(sqlite3.ProgrammingError):  # it has just been closed
        connection.interrupt()


class LoopConnection:
    """The event loop's connection. It stays open: a checkout costs more than a read."""

    def __init__(self) -> None:
        self.connection: Connection | None = None
        self.file_id: FileId = None

    def get(self) -> Connection:
        """Return the connection, reopened if the file was replaced."""
        file = file_id()
        if self.connection is None or file != self.file_id:
            self.close()
            lock_timeout.seconds = LOCK_TIMEOUT_ON_LOOP
            try:
                self.connection = autocommit_engine.connect()
            finally:
                del lock_timeout.seconds
            self.file_id = file
        return self.connection

    def close(self) -> None:
        if self.connection is not None:
            connection = self.connection
            self.connection = None
            connection.detach()  # not back into the pool: its file may be an old one
            connection.close()


loop_connection = LoopConnection()


def open_database() -> None:
    """Create SQLite's file if there is none, or wait for PostgreSQL.

    Stops the startup if that fails. Only its owner can read the file.
    """
    if not SQLITE:
        postgresql.reach(engine)
    if not ON_LOOP:
        return
    try:
        if FILE.is_dir():
            raise IsADirectoryError("a folder, not a file")
        if not FILE.parent.is_dir():
            raise NotADirectoryError(f"there is no folder {str(FILE.parent)!r}")
        if MODE == "rwc":
            FILE.touch(mode=0o600)
        elif not FILE.exists():
            raise FileNotFoundError(
                f"there is no such file, and mode={MODE} makes none"
            )
    except OSError as error:
        exit_with(f"DATABASE_URL: {DATABASE.url!r} cannot be opened: {error}")
    if READ_ONLY:
        return
    # Its companions, too: a copy that was put here may have brought them.
    for ending in ("", "-wal", "-shm"):
        # Somebody else's file, shared with us, stays as it is.
        with contextlib.suppress(FileNotFoundError, PermissionError):
            FILE.with_name(FILE.name + ending).chmod(0o600)


def close() -> None:
    """Close every connection. The last one of all workers folds -wal into the file."""
    loop_connection.close()
    engine.dispose()
    wal = FILE.with_name(FILE.name + "-wal")
    for _ in range(20):  # workers that close at the same moment leave it to each other
        if READ_ONLY or not (ON_LOOP and FILE.exists() and wal.exists()):
            break
        time.sleep(0.05)
        with contextlib.suppress(sqlite3.Error):
            connect_sqlite().close()
