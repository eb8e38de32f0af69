"""SQLite: one file, or a database in memory. Loaded only when it is in use.

A transaction that may write begins with the write lock. A file that is replaced while
the server runs is left alone, and so is the new one.
"""

import contextlib
import os
import random
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, ExceptionContext, QueuePool, event, func
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlmodel import create_engine

from core.data.kinds import ENGINE_OPTIONS, Broken, first_line
from core.refusals import DatabaseUnavailable
from core.settings import DATABASE
from core.start import StartRefused, keep_trying, log

# One writes at a time, and more threads than cores only wait for each other: 4 sessions
# that read give 0.85 of the answers that 2 give. Reads of a file need no thread at all.
WRITERS = READERS = SCANS = 2
READS = 10
FILE = DATABASE.file
# Where SQLite keeps what was written last, and an index of that (sqlite.org/wal.html).
WAL, SHM = (Path(f"{FILE}{ending}") for ending in ("-wal", "-shm"))
ASIDE = Path(f"{FILE}.{int(time.time())}-wal")
READS_ON_LOOP = FILE is not None  # in memory they may have to wait for a writer
MODE = DATABASE.parameters.get("mode", "rwc")
READ_ONLY = MODE == "ro"
LOCK_TIMEOUT = float(DATABASE.parameters.get("timeout", 4))  # seconds
MAX_WAL = 8 * 1024 * 1024  # bytes; without long reads it grows to about 4 MiB
BEGIN = "BEGIN" if READ_ONLY else "BEGIN IMMEDIATE"

FileId = tuple[int, int]  # the device, and the file's number there
Files = tuple[FileId | None, FileId | None]  # the database and its -wal


class Opened:
    """The database that was there at the start."""

    files: Files | None = None
    is_replaced = False
    # It stays open: a database in memory, or a -wal, ends with its last connection.
    connection: sqlite3.Connection | None = None


def identify(path: Path) -> FileId | None:
    """Tell which file is at a path now; None if there is none."""
    try:
        # os.stat, not Path.stat: it is half the price, and every request pays it.
        found = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    return found.st_dev, found.st_ino


def find_files() -> Files:
    """Tell which files the database and its -wal are now."""
    assert FILE is not None
    if READ_ONLY:  # then it is somebody else's -wal, who may end it
        return identify(FILE), None
    return identify(FILE), identify(WAL)


def check() -> None:
    """Raise 503 once one of them was replaced or removed, until the next start.

    Nothing is opened there: SQLite would write the old file's -wal into the new one.
    """
    if Opened.files is None:
        return
    files = find_files()
    if files == Opened.files and not Opened.is_replaced:
        return
    if not Opened.is_replaced:
        Opened.is_replaced = True
        log.error("%s was replaced or removed: start the server again", FILE)
    if not READ_ONLY:
        with contextlib.suppress(OSError, sqlite3.Error):
            save_wal(*files, *Opened.files)
    raise DatabaseUnavailable(
        "The database file was replaced or removed. The server must be started again."
    )


def save_wal(
    file: FileId | None,
    wal: FileId | None,
    our_file: FileId | None,
    our_wal: FileId | None,
) -> None:
    """Keep what was written last for our file, and out of any other."""
    if file == our_file and wal is None and ASIDE.exists():
        ASIDE.rename(WAL)
    elif file == our_file and wal is None:  # it was removed, but here it is still open
        assert Opened.connection is not None
        Opened.connection.execute("PRAGMA wal_checkpoint")
    elif file not in {our_file, None} and wal == our_wal:
        WAL.rename(ASIDE)
        SHM.unlink()  # SQLite makes it anew
        log.warning("%s is the old file's -wal: keep them together", ASIDE)


def lower(text: str | None) -> str | None:
    return text and str(text).lower()


def connect() -> sqlite3.Connection:
    check()
    uri = "file:/users?vfs=memdb"  # a database in memory that all connections share
    if FILE is not None:
        # Not rwc: a file that was moved away must not come back empty.
        uri = f"{FILE.as_uri()}?mode={'ro' if READ_ONLY else 'rw'}"
    connection = sqlite3.connect(
        uri,
        uri=True,
        timeout=LOCK_TIMEOUT,
        isolation_level=None,  # transactions begin in `begin`, below
        check_same_thread=False,
    )
    if not READ_ONLY:  # readers and a writer at once
        connection.execute("PRAGMA journal_mode = WAL")
        # A -wal that has grown during a long read shrinks again.
        connection.execute(f"PRAGMA journal_size_limit = {MAX_WAL}")
    connection.execute("PRAGMA synchronous = FULL")  # what was answered is on disk
    connection.execute("PRAGMA foreign_keys = ON")
    # SQLite's own lower() knows only A to Z.
    connection.create_function("lower", 1, lower, deterministic=True)
    return connection


def begin(connection: Connection) -> None:
    """Take the write lock first: when a reader starts to write, it may be taken."""
    if statement := connection.get_execution_options().get("begin", BEGIN):
        connection.exec_driver_sql(statement)


def end_transaction(context: ExceptionContext) -> None:
    """Roll back when a COMMIT fails, or the connection would keep the lock."""
    if context.statement is None and context.connection is not None:
        with contextlib.suppress(sqlite3.Error):
            context.connection.connection.rollback()


def make_engine() -> Engine:
    engine = create_engine(
        "sqlite://",
        # A URL would be decoded on its way: the folder C# would become another.
        creator=connect,
        poolclass=QueuePool,
        max_overflow=-1,  # no limit: the lines have theirs
        **ENGINE_OPTIONS,
    )
    event.listen(engine, "begin", begin)
    event.listen(engine, "handle_error", end_transaction)
    event.listen(engine, "checkout", lambda *_: check())
    return engine


def limit(connection: Connection, seconds: float) -> None:
    """End the queries of this connection after so many seconds."""
    driver: Any = connection.connection.dbapi_connection
    connection.detach()  # it is closed, not used again
    end = time.monotonic() + seconds
    driver.set_progress_handler(lambda: time.monotonic() > end, 100_000)


# ---- Start and stop ----

CANNOT_OPEN = f"DATABASE_URL: {DATABASE.name!r} cannot be opened"


def open_database(_engine: Engine) -> None:
    """Make the file if there is none. Only its owner can read it."""
    if FILE is None:
        Opened.connection = Opened.connection or connect()
        log.info("In memory: each worker has its own accounts, until it ends")
        return
    try:
        if MODE == "rwc":
            FILE.touch(mode=0o600)
        elif not FILE.exists():
            raise OSError(f"there is no such file, and mode={MODE} makes none")
        if FILE.is_dir():
            raise OSError("it is a folder")
    except OSError as error:
        raise StartRefused(f"{CANNOT_OPEN}: {error}") from None
    Opened.files = None  # so that `connect` takes what is there
    if Opened.connection is not None:  # of an earlier start in this process
        Opened.connection.close()
        Opened.connection = None
    # Its companions, too: a copy that was put here may have brought them.
    for file in (FILE, WAL, SHM):
        # Somebody else's file, shared with us, stays as it is.
        with contextlib.suppress(FileNotFoundError, PermissionError):
            if not READ_ONLY:
                file.chmod(0o600)
    keep_trying(open_first, CANNOT_OPEN)
    if Opened.connection is not None:
        Opened.files = find_files()
    Opened.is_replaced = False


def open_first() -> str:
    """Open a file, and its -wal: whoever makes that of a new file must be alone."""
    try:
        connection = connect()
        connection.execute("SELECT 1 FROM sqlite_master").fetchall()
        Opened.connection = connection
    except sqlite3.Error as error:  # any other is told by whoever opens it next
        if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
            return f"{error}, by another start or another program"
    return ""


@contextlib.contextmanager
def alone(engine: Engine) -> Iterator[Connection]:
    """Begin a transaction that other starts wait for, as it waits for theirs."""
    with engine.connect() as connection:

        def lock() -> str:
            try:
                connection.begin()
            except OperationalError as error:
                return f"{first_line(error)}, by another start or another program"
            return ""

        keep_trying(lock, CANNOT_OPEN)
        yield connection
        connection.commit()


def close() -> None:
    """Fold -wal into the file; the last one of all workers removes it."""
    if FILE is None or Opened.connection is None:
        return
    with contextlib.suppress(DatabaseUnavailable):
        check()
    Opened.connection.close()
    Opened.files = None
    if READ_ONLY:
        return
    for _ in range(20):  # workers that close at the same moment leave it to each other
        if WAL.exists() and not Opened.is_replaced:
            pause = random.uniform(0.02, 0.1)  # noqa: S311 # so not in step; no secret
            time.sleep(pause)
            with contextlib.suppress(sqlite3.Error):
                connect().close()


# ---- Errors ----

FULL = "The database is full, or its disk is."
# sqlite.org/rescode.html: what passes by itself, or when somebody mends it.
PASSING = {
    sqlite3.SQLITE_BUSY: "The database is locked by another program.",
    sqlite3.SQLITE_PROTOCOL: "The database is locked by another program.",
    sqlite3.SQLITE_LOCKED: "The database is locked.",
    sqlite3.SQLITE_READONLY: "The database is read-only.",
    sqlite3.SQLITE_FULL: FULL,
    sqlite3.SQLITE_IOERR_SHMSIZE: FULL,
    sqlite3.SQLITE_IOERR: "The disk of the database does not work.",
    sqlite3.SQLITE_CANTOPEN: "The database file cannot be opened.",
    sqlite3.SQLITE_NOTADB: "The database file is not a database.",
    sqlite3.SQLITE_CORRUPT: "The database file is damaged. Restore a saved copy.",
}


def why_not_now(error: DBAPIError) -> str | None:
    """Say why the same request may succeed later, or return None if it will not."""
    code = getattr(error.orig, "sqlite_errorcode", 0)
    # The higher bits add detail, which seldom matters.
    return PASSING.get(code) or PASSING.get(code & 0xFF)


def is_away(error: DBAPIError) -> bool:
    """Tell whether whoever waits to write would wait in vain, too."""
    return why_not_now(error) == PASSING[sqlite3.SQLITE_BUSY]


def is_unfit(_error: DBAPIError) -> bool:
    """PostgreSQL tells here whether it refused a value; SQLite takes nearly all."""
    return False


def find_broken(error: DBAPIError) -> Broken:
    """Say what collided, from "UNIQUE constraint failed: user.email" and the like."""
    rule, _, names = str(error.orig).partition(" constraint failed")
    names = names.removeprefix(": ")
    table = names.partition(".")[0]
    return Broken(rule, table, names.replace(f"{table}.", ""))


def in_lower_case(column: Any, _q: str) -> Any:
    """Build lower(column), which is `lower` above."""
    return func.lower(column)
