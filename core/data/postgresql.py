"""PostgreSQL, with or without a pooler in between. Loaded only when it is in use.

Every transaction of a session sets its own time-outs, and leaves nothing behind in a
connection that a pooler such as PgBouncer may hand to others. A connection is given up
if its server does not answer, or takes no more writes.
"""

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    ExceptionContext,
    case,
    event,
    func,
)
from sqlalchemy.exc import DBAPIError
from sqlmodel import create_engine

from core.data.kinds import ENGINE_OPTIONS, Broken, first_line
from core.settings import DATABASE, POOL_SIZE
from core.start import StartRefused, keep_trying

# 20 connections become 6, 2, 2 and 10. Most are for reads, which every request makes.
WRITERS = max(1, POOL_SIZE * 3 // 10)
READERS = SCANS = max(1, POOL_SIZE // 10)
READS = POOL_SIZE - WRITERS - READERS - SCANS
READS_ON_LOOP = READ_ONLY = False

OPTIONS = DATABASE.parameters.get("options", "").replace("-", "_")
# What a transaction sets, unless the options of the URL do.
LIMITS = {
    "timezone": "UTC",
    "statement_timeout": "7s",
    "lock_timeout": "4s",
    # Our host may be cut off or frozen: then its locks must not stay for ever.
    "idle_in_transaction_session_timeout": "60s",
}
SET_LOCAL = "; ".join(
    f"SET LOCAL {name} = '{value}'"
    for name, value in LIMITS.items()
    if name not in OPTIONS
)
PATIENCE = 8.0  # seconds: by then the server has ended a statement, if it is alive
CANCEL_SECONDS = 2
PARAMETERS: dict[str, Any] = {
    # Seconds. Of several hosts, each may take as long.
    "connect_timeout": "2" if "," in DATABASE.name else "3",
    "client_encoding": "utf8",
    # When the server's host is cut off, a connection ends within 10 s.
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "2",
    "tcp_user_timeout": "8000",  # ms
    # The URL's own values replace these.
    **DATABASE.parameters,
    # A pooler gives each transaction any of its connections: what is prepared in one
    # would be missing in the next, and be there for strangers.
    "prepare_threshold": None,
}
LOCK_KEY = 7_203_911  # ours, among the advisory locks of a database
# Requests wait behind a start that waits for a table. So it does not wait for ever,
# only for longer than one of their statements may take.
TABLE_TIMEOUT = "15s"


class PatientConnection(psycopg.Connection[Any]):
    """A connection that is closed when the server says nothing for too long.

    None of the server's own time-outs helps when it is frozen: a request would wait,
    and the stop of the server with it, until somebody thaws it.
    """

    patience: float | None = PATIENCE  # seconds; None for as long as it takes

    def wait(
        self, gen: Any, interval: float = 0.1, timeout: float | None = None
    ) -> Any:
        """Wait for an answer; psycopg calls this for everything that it asks."""
        try:
            return super().wait(gen, interval, timeout or self.patience)
        except psycopg.OperationalError:
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                with contextlib.suppress(psycopg.Error):  # if the server is alive
                    self.cancel_safe(timeout=CANCEL_SECONDS)
                self.pgconn.finish()
            raise


def connect(*arguments: Any) -> PatientConnection:
    """Open a connection; the last argument has SQLAlchemy's parameters for it."""
    return PatientConnection.connect(**arguments[-1])


def begin(connection: Connection) -> None:
    """Set the limits of a session's transaction; a single query has only patience."""
    driver: Any = connection.connection.dbapi_connection
    driver.patience = None if "statement_timeout" in OPTIONS else PATIENCE
    if SET_LOCAL and not driver.autocommit:
        connection.exec_driver_sql(SET_LOCAL)


def leave_read_only_server(context: ExceptionContext) -> None:
    """Open new connections, for readers too: the primary may be another host now."""
    if isinstance(context.original_exception, psycopg.errors.ReadOnlySqlTransaction):
        context.is_disconnect = True


def hide_row(context: ExceptionContext) -> None:
    """Cut messages, for the log: on the second line PostgreSQL shows the whole row."""
    both = (context.original_exception, context.sqlalchemy_exception)
    for error in filter(None, both):
        line = str(error).partition("\n")[0]
        error.args = (line, *error.args[1:])


def make_engine() -> Engine:
    engine = create_engine(
        "postgresql+psycopg://",
        connect_args=PARAMETERS,
        pool_size=POOL_SIZE,
        max_overflow=0,
        pool_timeout=PATIENCE,
        pool_pre_ping=True,  # nobody gets an error after a server restart
        **ENGINE_OPTIONS,
    )
    event.listen(engine, "do_connect", connect)
    event.listen(engine, "begin", begin)
    event.listen(engine, "handle_error", leave_read_only_server)
    event.listen(engine, "handle_error", hide_row)
    return engine


def limit(connection: Connection, seconds: float) -> None:
    """End the queries of this transaction after so many seconds; 0 means never."""
    connection.exec_driver_sql(f"SET LOCAL statement_timeout = '{seconds}s'")
    driver: Any = connection.connection.dbapi_connection
    driver.patience = seconds + CANCEL_SECONDS if seconds else None


# ---- Start and stop ----


def open_database(engine: Engine) -> None:
    """Wait until the server is there, and check that it can store every name."""

    def reach() -> str:
        try:
            engine.connect().close()
        except DBAPIError as error:
            return first_line(error)
        return ""

    keep_trying(reach, f"DATABASE_URL: {DATABASE.name!r} cannot be opened")
    with engine.connect() as connection:
        for setting in ("server_encoding", "client_encoding"):
            encoding = connection.exec_driver_sql(f"SHOW {setting}").scalar_one()
            if encoding != "UTF8":
                raise StartRefused(
                    f"DATABASE_URL: {DATABASE.name!r} has {setting} {encoding}, which"
                    " cannot hold every name. Leave client_encoding out of the URL, and"
                    " create a database that can: CREATE DATABASE name TEMPLATE"
                    " template0 ENCODING 'UTF8' LOCALE 'C'"
                )


@contextlib.contextmanager
def alone(engine: Engine) -> Iterator[Connection]:
    """Begin a transaction that other starts wait for, as it waits for theirs."""
    with engine.begin() as connection:
        limit(connection, 0)

        def lock() -> str:
            query = f"SELECT pg_try_advisory_xact_lock({LOCK_KEY})"
            if connection.exec_driver_sql(query).scalar_one():
                return ""
            return "another start is at work on the tables"

        keep_trying(lock, DATABASE.name)
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{TABLE_TIMEOUT}'")
        yield connection


def check() -> None:
    """SQLite checks its file here."""


def close() -> None:
    """SQLite folds its -wal into the file here."""


# ---- Errors: postgresql.org/docs/current/errcodes-appendix.html ----

AWAY = "The database does not answer. Try again in a moment."
UNKNOWN = "The database did not say whether this was stored. Look before you repeat it."
COLLISION = "Two changes were in each other's way. Send it again."
# The start of a code, and what it means for whoever has sent the request.
PASSING = {
    "53100": "The database is full.",
    "53": "The database has no more room for connections or memory.",
    "57014": "The database has ended a statement that took too long.",
    "40001": COLLISION,
    "40P01": COLLISION,
    "55P03": "The database is locked by somebody else.",
    "25006": "The database is read-only.",
    "08": AWAY,  # connections
    "57": AWAY,  # it is stopping or starting
    "58": AWAY,  # its system
}
# A value that is too long, out of range, no time, no character, a negative LIMIT; and
# one that is too large for an index.
UNFIT = ("22", "54000")
RULES = {
    "23505": "UNIQUE",
    "23503": "FOREIGN KEY",
    "23001": "FOREIGN KEY",
    "23514": "CHECK",
}


def why_not_now(error: DBAPIError) -> str | None:
    """Say why the same request may succeed later, or return None if it will not."""
    sqlstate = getattr(error.orig, "sqlstate", None)
    for start, reason in PASSING.items():
        if str(sqlstate).startswith(start):
            return reason
    if error.connection_invalidated:
        # Without a statement it was a COMMIT, which the server may have done.
        return AWAY if error.statement else UNKNOWN
    if isinstance(error.orig, psycopg.OperationalError) and sqlstate is None:
        return AWAY
    return None


def is_away(error: DBAPIError) -> bool:
    """Tell whether whoever waits would wait in vain, too."""
    return why_not_now(error) in {AWAY, UNKNOWN}


def is_unfit(error: DBAPIError) -> bool:
    """Tell whether the database or its driver refused a value, as for NUL."""
    sqlstate = getattr(error.orig, "sqlstate", None)
    if sqlstate is None:
        return isinstance(error.orig, psycopg.DataError)
    return str(sqlstate).startswith(UNFIT)


def find_broken(error: DBAPIError) -> Broken:
    """Say what collided, from names alone: the server's sentences may be in French."""
    orig: Any = error.orig
    names = orig.diag.constraint_name or ""
    # The detail is like: Key (email)=(ann@example.com) already exists.
    detail = re.search(r"\((.+?)\)=\(", orig.diag.message_detail or "")
    if detail:
        names = detail[1].replace('"', "")
    rule = RULES.get(orig.sqlstate, "")
    return Broken(rule, orig.diag.table_name or "", names)


def in_lower_case(column: Any, q: str) -> ColumnElement[str]:
    """Build lower(column), even for letters of q that lower() may not know.

    With the locale C it knows only A to Z.
    """
    found: ColumnElement[str] = func.lower(column)
    if q.isascii():
        return found
    letters = [letter for letter in sorted(set(q)) if len(letter.upper()) == 1]
    capitals = [letter.upper() for letter in letters]
    found = func.translate(found, "".join(capitals), "".join(letters))
    # That takes long for many letters, and a text shorter than q cannot hold it.
    return case((func.length(column) < len(q), ""), else_=found)
