"""The settings: read from the environment, checked once, when the app is imported.

It promises a value for each, and `exit_with` for whoever finds that the server cannot
start. Nothing else needs you to read this.
"""

import os
import re
import sys
from typing import NoReturn

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

# Any port of this machine: where a front end runs while somebody writes it.
LOCAL_ORIGINS = r"https?://(localhost|127\.0\.0\.1)(:\d+)?"
# What a browser sends as Origin: a scheme, a host in lower case and a port; of a page
# that was opened as a file, "null" (html.spec.whatwg.org/multipage/browsers.html).
HOST = r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?|\[[0-9a-f:]+\]"
ORIGIN = re.compile(
    rf"(?P<scheme>[a-z][a-z0-9+.-]*)://({HOST})(:(?P<port>[1-9]\d{{0,4}}))?"
)
USUAL_PORTS = {"http": "80", "https": "443"}  # no browser sends them
MAX_PORT = 65_535
ROUNDS = [str(rounds) for rounds in range(4, 32)]  # what bcrypt takes
START_FAILED = 3  # by this exit code uvicorn knows that trying again is in vain


def exit_with(reason: str) -> NoReturn:
    """End the start with a reason instead of a traceback."""
    print(reason, file=sys.stderr, flush=True)  # noqa: T201 # there is no log yet
    sys.tracebacklimit = 0
    raise SystemExit(START_FAILED) from None


def read_database_url() -> URL:
    text = os.environ.get("DATABASE_URL", "").strip() or "sqlite:///app.db"
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        url = URL.create("none")
    if url.drivername in {"postgres", "postgresql"}:
        url = url.set(drivername="postgresql+psycopg")
    if url.drivername not in {"sqlite", "postgresql+psycopg"}:
        exit_with(
            "DATABASE_URL must be like sqlite:///app.db"
            " or postgresql://user:password@host/name"
        )
    return url


def read_bcrypt_rounds() -> int:
    text = os.environ.get("BCRYPT_ROUNDS") or "12"
    if text not in ROUNDS:
        exit_with(f"BCRYPT_ROUNDS must be a whole number from 4 to 31, not {text!r}")
    return int(text)


def read_cors_origins() -> list[str]:
    """Give the origins that a browser may call from."""
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
    """Tell whether a browser can send a text as the origin of a page."""
    found = ORIGIN.fullmatch(text)
    if found is None:
        return False
    port = found["port"]
    return port is None or (
        port != USUAL_PORTS.get(found["scheme"]) and int(port) <= MAX_PORT
    )


def read_port() -> int:
    """Give the port for `python main.py`; hosting providers choose it."""
    text = os.environ.get("PORT") or "8000"
    if not re.fullmatch("[0-9]{1,5}", text) or int(text) > MAX_PORT:
        exit_with(f"PORT must be a whole number up to {MAX_PORT}, not {text[:80]!r}")
    return int(text)


def may_call(origin: str) -> bool:
    """Tell whether a page from an origin may call from a browser."""
    if CORS_ORIGIN_REGEX is not None:
        return re.fullmatch(CORS_ORIGIN_REGEX, origin) is not None
    return origin in CORS_ORIGINS or "*" in CORS_ORIGINS


DATABASE_URL = read_database_url()
SQLITE = DATABASE_URL.drivername == "sqlite"
BCRYPT_ROUNDS = read_bcrypt_rounds()
CORS_ORIGINS = read_cors_origins()
CORS_ORIGIN_REGEX = None
if "CORS_ORIGINS" not in os.environ:
    CORS_ORIGIN_REGEX = LOCAL_ORIGINS
