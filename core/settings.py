"""The settings, read from the environment when this is imported.

An import ends no process: a value that makes no sense is remembered until the start
asks `check`. Until then, its default stands in for it.
"""

import os
import re
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote

from core.start import StartRefused

EXAMPLES = (
    "sqlite:///app.db, sqlite:////srv/app.db or postgresql://user:password@host/name"
)
IN_SQLITE = (
    f"write it like {EXAMPLES}. For SQLite it may have ?timeout= in seconds, up to 60,"
    " and ?mode=ro, rw or rwc"
)
IN_POSTGRESQL = (
    f"libpq cannot read it. Write it like {EXAMPLES}, with no parameters but those of"
    " libpq. In a user or a password, write % as %25, / as %2F, ? as %3F, & as %26,"
    " @ as %40 and a space as %20"
)
PSYCOPG = "psycopg[binary]==3.3.9"  # as in tests/requirements.txt
# Any port of this machine: where a front end runs while it is being written.
LOCAL_ORIGINS = r"https?://(localhost|127\.0\.0\.1)(:\d+)?"
# What a browser sends as Origin: a scheme, a host in lower case and a port that is not
# the scheme's own; or "null" for a page opened as a file
# (html.spec.whatwg.org/multipage/browsers.html).
ORIGIN = re.compile(
    r"\*|null|(?!http://.*:80$|https://.*:443$)"
    r"[a-z][a-z0-9+.-]*://([a-z0-9][a-z0-9._-]*|\[[0-9a-f:]+\])(:[1-9]\d{0,4})?"
)

mistakes: list[str] = []


def check() -> None:
    """Raise StartRefused if a setting makes no sense."""
    if mistakes:
        raise StartRefused(mistakes[0])


class Database(NamedTuple):
    """Where the data is."""

    name: str  # for people: without a password
    is_sqlite: bool
    file: Path | None  # SQLite's; None in memory
    parameters: dict[str, str]  # SQLite: mode and timeout; PostgreSQL: libpq's


def read_database(text: str) -> Database:
    """Read DATABASE_URL as hosting providers write it; raises ValueError."""
    scheme, _, rest = text.partition("://")
    if scheme.lower() in {"sqlite", "sqlite+pysqlite"}:
        return read_sqlite(rest)
    if scheme.lower() in {"postgres", "postgresql", "postgresql+psycopg"}:
        return read_postgresql(rest)
    raise ValueError(f"write it like {EXAMPLES}")


def read_sqlite(rest: str) -> Database:
    path, _, query = rest.partition("?")
    path = unquote(path, errors="surrogateescape")
    parameters = dict(parse_qsl(query, keep_blank_values=True))
    is_in_memory = path in {"", "/", "/:memory:"}
    is_right = (
        (path == "" or path.startswith("/"))
        and parameters.keys() <= {"timeout", "mode"}
        and not (is_in_memory and "mode" in parameters)
        and parameters.get("mode", "rwc") in {"ro", "rw", "rwc"}  # sqlite.org/uri.html
        and re.fullmatch(r"(60|[0-5]?\d)(\.\d+)?", parameters.get("timeout", "0"))
    )
    if not is_right:
        raise ValueError(IN_SQLITE)
    if is_in_memory:
        return Database("sqlite://", True, None, parameters)
    # Absolute: it stays the same file if the working directory changes.
    file = Path(path.removeprefix("/")).absolute()
    return Database(f"sqlite://{path}", True, file, parameters)


def read_postgresql(rest: str) -> Database:
    """Let libpq read it, so that whatever psql takes is taken."""
    try:
        from psycopg import ProgrammingError, conninfo
    except ImportError:
        raise ValueError(f"PostgreSQL needs: pip install '{PSYCOPG}'") from None
    try:
        found = conninfo.conninfo_to_dict(f"postgresql://{rest}")
    except ProgrammingError:  # whose text may hold the password
        raise ValueError(IN_POSTGRESQL) from None
    parameters = {name: str(value) for name, value in found.items()}
    place = f"{parameters.get('host', '')}/{parameters.get('dbname', '')}"
    # An @ there is a part of a password that was not written as %40.
    if "@" in place or re.search(r"\s", rest):
        raise ValueError(IN_POSTGRESQL)
    # psql would read it, too, when the URL has none.
    parameters.setdefault("options", os.environ.get("PGOPTIONS", ""))
    return Database(f"postgresql://{place}", False, None, parameters)


def read_url() -> Database:
    text = os.environ.get("DATABASE_URL", "").strip() or "sqlite:///app.db"
    try:
        return read_database(text)
    except ValueError as error:
        mistakes.append(f"DATABASE_URL: {error}")
        return read_sqlite("")  # in memory, where what does not `check` does no harm


def read_number(name: str, default: int, least: int, most: int) -> int:
    text = os.environ.get(name, "").strip() or str(default)
    if re.fullmatch("[0-9]{1,5}", text) and least <= int(text) <= most:
        return int(text)
    mistakes.append(
        f"{name} must be a whole number from {least} to {most}, not {text[:80]!r}"
    )
    return default


def read_origins() -> list[str]:
    """Return the origins that a browser may call from."""
    parts = os.environ.get("CORS_ORIGINS", "").split(",")
    origins = [part.strip() for part in parts if part.strip()]
    for origin in origins:
        if not ORIGIN.fullmatch(origin):
            mistakes.append(
                "CORS_ORIGINS must be origins as a browser sends them, like"
                " https://example.com or http://localhost:5173, separated by commas,"
                f" not {origin[:80]!r}"
            )
    return origins


def may_call(origin: str) -> bool:
    """Tell whether pages from this origin may call the API."""
    if CORS_ORIGIN_REGEX is not None:
        return re.fullmatch(CORS_ORIGIN_REGEX, origin) is not None
    return origin in CORS_ORIGINS or "*" in CORS_ORIGINS


DATABASE = read_url()
SQLITE = DATABASE.is_sqlite
# On PostgreSQL, each of four kinds of work needs a connection (core/data/sessions.py).
POOL_SIZE = read_number("DATABASE_POOL_SIZE", 20, 5, 1000)
BCRYPT_ROUNDS = read_number("BCRYPT_ROUNDS", 12, 4, 31)  # what bcrypt takes
PORT = read_number("PORT", 8000, 0, 65_535)  # hosting providers set it
CORS_ORIGINS = read_origins()
CORS_ORIGIN_REGEX = None
if "CORS_ORIGINS" not in os.environ:
    CORS_ORIGIN_REGEX = LOCAL_ORIGINS
