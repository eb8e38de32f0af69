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
ORIGIN = re.compile(r"\*|https?://([a-z0-9.-]+|\[[0-9a-f:]+\])(:\d+)?")
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
        if not ORIGIN.fullmatch(origin):
            exit_with(
                "CORS_ORIGINS must be origins like https://example.com,"
                f" separated by commas, not {origin[:80]!r}"
            )
    return origins


DATABASE_URL = read_database_url()
BCRYPT_ROUNDS = read_bcrypt_rounds()
CORS_ORIGINS = read_cors_origins()
CORS_ORIGIN_REGEX = None
if "CORS_ORIGINS" not in os.environ:
    CORS_ORIGIN_REGEX = LOCAL_ORIGINS
