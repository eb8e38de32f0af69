"""The settings: read from the environment and checked once, when the app is imported.

It promises a value for each, and `exit_with` for code that finds that the server cannot
start. Nothing else needs you to read this.
"""

import os
import re
import sys
from typing import NoReturn

from core.database_url import MAX_PORT, Database, WrongURL, read_database_url
from core.workers import fail_parent

# Any port of this machine: where a front end runs while it is being written.
LOCAL_ORIGINS = r"https?://(localhost|127\.0\.0\.1)(:\d+)?"
# What a browser sends as Origin: a scheme, a host in lower case and a port, or "null"
# for a page opened as a file (html.spec.whatwg.org/multipage/browsers.html).
HOST = r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?|\[[0-9a-f:]+\]"
ORIGIN = re.compile(
    rf"(?P<scheme>[a-z][a-z0-9+.-]*)://({HOST})(:(?P<port>[1-9]\d{{0,4}}))?"
)
USUAL_PORTS = {"http": "80", "https": "443"}  # browsers leave them out
# Each of five kinds of work needs a connection (core/engine.py).
POOL_SIZES = [str(size) for size in range(5, 1001)]
ROUNDS = [str(rounds) for rounds in range(4, 32)]  # what bcrypt accepts
START_FAILED = 3  # this exit code tells uvicorn not to try again


def exit_with(reason: str) -> NoReturn:
    """Stop the startup, with a reason instead of a traceback."""
    print(reason, file=sys.stderr, flush=True)  # noqa: T201 # there is no log yet
    sys.tracebacklimit = 0
    fail_parent(START_FAILED)
    raise SystemExit(START_FAILED) from None


def read_database() -> Database:
    text = os.environ.get("DATABASE_URL", "").strip() or "sqlite:///app.db"
    try:
        return read_database_url(text)
    except WrongURL as error:
        exit_with(f"DATABASE_URL: {error}")


def read_pool_size() -> int | None:
    """Return how many connections to PostgreSQL a worker may open, if that is set."""
    text = os.environ.get("DATABASE_POOL_SIZE", "").strip()
    if not text:
        return None
    if text not in POOL_SIZES:
        exit_with(
            "DATABASE_POOL_SIZE, the connections that each worker may open, must be a"
            f" whole number from 5 to 1000, not {text[:80]!r}"
        )
    return int(text)


def read_bcrypt_rounds() -> int:
    text = os.environ.get("BCRYPT_ROUNDS") or "12"
    if text not in ROUNDS:
        exit_with(f"BCRYPT_ROUNDS must be a whole number from 4 to 31, not {text!r}")
    return int(text)


def read_cors_origins() -> list[str]:
    """Return the origins that a browser may call from."""
    text = os.environ.get("CORS_ORIGINS", "")
    origins = []
    for origin in text.split(","):
        if origin.strip():
            origins.append(origin.strip())
    for origin in origins:
        if origin not in {"*", "null"} and not is_origin(origin):
            exit_with(
                "CORS_ORIGINS must be origins as a browser sends them, like"
                " https://example.com or http://localhost:5173, separated by commas,"
                f" not {origin[:80]!r}"
            )
    return origins


def is_origin(text: str) -> bool:
    """Tell whether a browser can send this text as the origin of a page."""
    found = ORIGIN.fullmatch(text)
    if found is None:
        return False
    port = found["port"]
    return port is None or (
        port != USUAL_PORTS.get(found["scheme"]) and int(port) <= MAX_PORT
    )


def read_port() -> int:
    """Return the port for `python main.py`; hosting providers set it."""
    text = os.environ.get("PORT") or "8000"
    if not re.fullmatch("[0-9]{1,5}", text) or int(text) > MAX_PORT:
        exit_with(f"PORT must be a whole number up to {MAX_PORT}, not {text[:80]!r}")
    return int(text)


def may_call(origin: str) -> bool:
    """Tell whether pages from this origin may call the API."""
    if CORS_ORIGIN_REGEX is not None:
        return re.fullmatch(CORS_ORIGIN_REGEX, origin) is not None
    return origin in CORS_ORIGINS or "*" in CORS_ORIGINS


DATABASE = read_database()
SQLITE = DATABASE.is_sqlite
POOL_SIZE = read_pool_size()
BCRYPT_ROUNDS = read_bcrypt_rounds()
CORS_ORIGINS = read_cors_origins()
CORS_ORIGIN_REGEX = None
if "CORS_ORIGINS" not in os.environ:
    CORS_ORIGIN_REGEX = LOCAL_ORIGINS
