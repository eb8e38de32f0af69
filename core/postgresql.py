"""PostgreSQL: how a connection is opened, even to a pooler such as PgBouncer.

It promises that a startup waits for a server that is not there yet, and stops where
waiting cannot help; that time-outs and UTC hold in every transaction; that nothing else
is left in a connection that a pooler may hand to others; and that a connection is given
up if its server does not answer or no longer takes writes. Nothing else needs you to
read this.
"""

import contextlib
import logging
import math
import re
import threading
import time
from types import FrameType
from typing import Any

from sqlalchemy import Connection, Engine, ExceptionContext, event, text
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import ConnectionPoolEntry

from core import outages
from core.errors import first_line
from core.settings import DATABASE, exit_with
from core.signals import handled_by

log = logging.getLogger("uvicorn.error")  # the one that uvicorn prints

# Seconds; after that, the answer is 503.
LOCK_TIMEOUT = 4
STATEMENT_TIMEOUT = 7
PATIENCE = STATEMENT_TIMEOUT + 1  # the server would have ended it, if it were alive
SETTINGS = {
    "timezone": "UTC",
    "statement_timeout": f"{STATEMENT_TIMEOUT}s",
    "lock_timeout": f"{LOCK_TIMEOUT}s",
    # Our host may be cut off or frozen: then its locks must not stay for ever.
    "idle_in_transaction_session_timeout": "60s",
}
# Nor must its connections; those of a pooler are no concern of ours.
SERVER_KEEPALIVES = {
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}
READ_ONLY_TRANSACTION = "25006"
CANCEL_SECONDS = 2
NOT_NOW = "not answered a moment ago"
START_SECONDS = 30  # the longest that a startup waits for the server
# How PgBouncer, Neon's and Supabase's poolers answer `options` at the start of a
# connection (github.com/pgbouncer/pgbouncer/issues/875).
REFUSED = "unsupported startup parameter"
options_are_refused = threading.Event()
# What passes although the server answers: a pooler without its server; a server whose
# connections are all taken by the workers that are being replaced; a standby that is
# about to become what target_session_attrs asks for. The last ones are about a host
# that is not there: asking it once more would block Python, and uvicorn ends a worker
# that says nothing for 5 s.
BUSY = (
    "cannot connect to server",
    "server login has been failing",
    "too many",
    "session is read-only",
    "server is in hot standby mode",
    "connection timeout expired",
    "failed to resolve host",
    "no answer for",
    NOT_NOW,
)
# What does not pass, although libpq says that nobody has answered.
WRONG = ("does not support SSL", "certificate")


def missing_settings(options: str) -> dict[str, str]:
    """Return our settings, except those that the URL's `options` set instead."""
    found = re.findall(r"(?:-c\s*|--)([\w.-]+)\s*=", options)
    theirs = {name.replace("-", "_").lower() for name in found}
    ours = SETTINGS | SERVER_KEEPALIVES
    return {name: value for name, value in ours.items() if name not in theirs}


OPTIONS = DATABASE.parameters.get("options", "")
OUR_SETTINGS = missing_settings(OPTIONS)
OUR_OPTIONS = " ".join(f"-c {name}={value}" for name, value in OUR_SETTINGS.items())
SET_LOCAL = "; ".join(
    f"SET LOCAL {name} = '{value}'"
    for name, value in OUR_SETTINGS.items()
    if name in SETTINGS
)

# Seconds; of several hosts, each may take as long.
CONNECT_TIMEOUT = "2" if "," in DATABASE.parameters.get("host", "") else "3"
# The URL's own values replace these.
PARAMETERS = {
    "connect_timeout": CONNECT_TIMEOUT,
    "client_encoding": "utf8",
    # When the server's host is cut off, a connection ends within 10 s, even one that
    # waits for the end of a long query.
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "2",
    "tcp_user_timeout": "8000",  # ms
    **DATABASE.parameters,
}


def connect(
    dialect: Dialect,
    record: ConnectionPoolEntry,
    _arguments: object,
    parameters: dict[str, Any],
) -> Any:
    """Open a connection, unless somebody has just waited for one in vain."""
    if outages.silence.is_on():
        raise dialect.loaded_dbapi.OperationalError(NOT_NOW)
    begun = time.monotonic()
    try:
        return connect_anyway(dialect, record, parameters)
    except dialect.loaded_dbapi.OperationalError:
        if time.monotonic() - begun > 1:  # else it was refused, which costs nobody time
            outages.silence.begin()
        raise


def connect_anyway(
    dialect: Dialect, record: ConnectionPoolEntry, parameters: dict[str, Any]
) -> Any:
    """Open a connection, and see whether it leads to a pooler.

    Without a pooler, the settings go with the connection. A pooler in transaction mode
    gives each transaction any of its connections, so what is set or prepared in one
    would be missing in the next, and be there for strangers. So behind any pooler
    nothing is prepared, and `begin`, below, sets the settings in each transaction.
    """
    from core import patience  # it needs psycopg

    ours = {**parameters, "options": f"{OUR_OPTIONS} {OPTIONS}"}
    if options_are_refused.is_set():
        ours = parameters
    connection: Any
    try:
        connection = patience.Connection.connect(**ours)
    except dialect.loaded_dbapi.OperationalError as error:
        if REFUSED not in str(error):
            raise
        options_are_refused.set()  # the next connection need not ask
        connection = patience.Connection.connect(**parameters)
    # Ask in any case: a pooler may answer although its server does not.
    is_pooled = not is_direct(connection) or options_are_refused.is_set()
    if is_pooled:
        connection.prepare_threshold = None
    record.info["is_pooled"] = is_pooled
    record.info["patience"] = find_patience(connection)
    record.info["opened"] = time.monotonic()
    return connection


def find_patience(connection: Any) -> float:
    """Return how many seconds of silence in a query mean that nobody is there."""
    if "statement_timeout" in OUR_SETTINGS:
        return PATIENCE
    query = "SELECT setting FROM pg_settings WHERE name = 'statement_timeout'"
    milliseconds = ask(connection, query)
    return int(milliseconds) / 1000 + 1 if milliseconds != "0" else math.inf


def is_direct(connection: Any) -> bool:
    """Tell whether the process that answers has the id announced at the beginning.

    A pooler makes its id up, since it has no process for each client.
    """
    process = ask(connection, "SELECT pg_backend_pid()")
    return bool(process == connection.info.backend_pid)


def ask(connection: Any, query: str) -> Any:
    """Return the one value that a query finds, without beginning a transaction."""
    connection.autocommit = True
    (value,) = connection.execute(query).fetchone()
    connection.autocommit = False
    return value


def begin(connection: Connection) -> None:
    """Set in a transaction what could not be set for the connection.

    An engine's option `seconds` gives its queries other limits; 0 means none.
    """
    driver: Any = connection.connection.dbapi_connection
    driver.is_in_transaction = True
    info = connection.info
    driver.patience = info["patience"]
    if info["is_pooled"]:
        if not driver.autocommit:
            connection.exec_driver_sql(SET_LOCAL)
        else:  # the fast lane has no transaction; closing the connection rolls back
            connection.exec_driver_sql(f"BEGIN; {SET_LOCAL}")
    seconds = connection.get_execution_options().get("seconds")
    if seconds is not None:
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = '{seconds}s'")
        driver.patience = seconds or math.inf


def end(connection: Any, *_: object) -> None:
    connection.is_in_transaction = False


def leave_read_only_server(context: ExceptionContext) -> None:
    """Open new connections, for readers too: the primary may be another host now.

    Not a second time within a second, when a crowd tries to write in vain.
    """
    sqlstate = getattr(context.original_exception, "sqlstate", None)
    if sqlstate == READ_ONLY_TRANSACTION and context.connection is not None:
        age = time.monotonic() - context.connection.info["opened"]
        context.is_disconnect = True
        context.invalidate_pool_on_disconnect = age > 1


def cancel(connection: Any) -> None:
    """End a connection's query, from another thread."""
    with contextlib.suppress(connection.Error):
        connection.cancel_safe(timeout=CANCEL_SECONDS)


def install(engine: Engine) -> None:
    event.listen(engine, "do_connect", connect)
    event.listen(engine, "begin", begin)
    event.listen(engine, "reset", end)
    event.listen(engine, "handle_error", leave_read_only_server)


# ---- The start. ----


def reach(engine: Engine) -> None:
    """Wait until the server is there, and check that it can store every name."""
    # uvicorn's own handlers would only make a note of the signal.
    with handled_by(stop), wait_for(engine) as connection:
        if connection.info["is_pooled"]:
            log.info(
                "A pooler is in between: nothing is prepared in the database, and"
                " time-outs are set in each transaction."
            )
        for encoding in ("server_encoding", "client_encoding"):
            found = connection.execute(text(f"SHOW {encoding}")).scalar_one()
            if found != "UTF8":
                exit_with(explain_encoding(encoding, found))


def wait_for(engine: Engine) -> Connection:
    deadline = time.monotonic() + START_SECONDS
    is_told = False
    while True:
        try:
            return engine.connect()
        except DBAPIError as error:
            reason = first_line(error)
            if not may_come(reason) or time.monotonic() > deadline:
                exit_with(f"DATABASE_URL: {DATABASE.url!r} cannot be opened: {reason}")
            if not is_told:
                log.warning(
                    "DATABASE_URL: %r does not answer yet, so this waits for up to"
                    " %s s: %s",
                    DATABASE.url,
                    START_SECONDS,
                    reason,
                )
                is_told = True
            time.sleep(0.5)


def may_come(reason: str) -> bool:
    """Tell whether waiting may help: nobody answers, or the server is starting.

    libpq can tell that from a wrong password, in every language, as pg_isready does.
    """
    if any(words in reason for words in BUSY):
        return True
    if any(words in reason for words in WRONG):
        return False
    from psycopg import conninfo, pq

    info = conninfo.make_conninfo(**{**PARAMETERS, "connect_timeout": "2"})
    return pq.PGconn.ping(info.encode()) in {pq.Ping.REJECT, pq.Ping.NO_RESPONSE}


def explain_encoding(setting: str, found: str) -> str:
    if setting == "client_encoding":
        return f"DATABASE_URL: leave client_encoding={found} out: it must be UTF8"
    return (
        f"DATABASE_URL: {DATABASE.url!r} keeps text as {found}, which cannot hold every"
        " name. Create a database that can: CREATE DATABASE name TEMPLATE template0"
        " ENCODING 'UTF8' LOCALE 'C'"
    )


def stop(_number: int, _frame: FrameType | None) -> None:
    exit_with("Stopped while waiting for the database.")
