"""DATABASE_URL: read as hosting providers write it, or refused with what to write.

It promises a `Database` for a URL of SQLite or PostgreSQL, and for any other text a
`WrongURL` whose message holds no password. Nothing else needs you to read this.
"""

import os
import re
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote

EXAMPLES = "sqlite:///app.db or postgresql://user:password@host/name"
ENCODE_HINT = (
    "In a password, write % as %25, / as %2F, ? as %3F, & as %26 and @ as %40."
)
POSTGRESQL = {"postgres", "postgresql"}
SQLITE_PARAMETERS = {"mode", "timeout"}
SQLITE_MODES = {"ro", "rw", "rwc"}  # sqlite.org/uri.html: read, write, create
MAX_TIMEOUT = 60
MAX_PORT = 65_535


class WrongURL(ValueError):
    """Its message says what to write instead."""


class Database(NamedTuple):
    """Where the data is."""

    url: str  # as it was written, with the password hidden
    is_sqlite: bool
    file: Path | None  # SQLite's; None in memory
    parameters: dict[str, str]  # SQLite: the two above; PostgreSQL: all of libpq's

    @property
    def name(self) -> str:
        """Name it for the log and the tools: the URL without its parameters."""
        return self.url.partition("?")[0]


def read_database_url(text: str) -> Database:
    text = text.strip()  # even the line end of a file from Windows
    if text[:1] in {"'", '"'}:
        raise WrongURL("it begins with a quote: write it without quotes")
    scheme, separator, rest = text.partition("://")
    name, _, driver = scheme.lower().partition("+")
    if not separator or name not in {"sqlite", *POSTGRESQL}:
        raise WrongURL(f"write it like {EXAMPLES}")
    if name == "sqlite":
        if driver not in {"", "pysqlite"}:
            raise WrongURL(f"write sqlite:// instead of {scheme}://")
        return read_sqlite(text, rest)
    if driver not in {"", "psycopg"}:
        raise WrongURL(f"write postgresql:// instead of {scheme}://")
    return read_postgresql(text, rest)


def read_sqlite(text: str, rest: str) -> Database:
    path, _, query = rest.partition("?")
    if path and not path.startswith("/"):
        raise WrongURL(
            "sqlite: wants three slashes before a file, four before an absolute path:"
            " sqlite:///app.db, sqlite:////srv/app.db"
        )
    path = unquote(path[1:], errors="surrogateescape")
    if path.lower().startswith("file:"):
        raise WrongURL("write the path without file: as in sqlite:///app.db")
    parameters = dict(parse_qsl(query, keep_blank_values=True))
    for parameter in parameters:
        if parameter not in SQLITE_PARAMETERS:
            raise WrongURL(
                f"for SQLite it may have mode and timeout, not {parameter!r}:"
                " leave it out"
            )
    mode = parameters.get("mode", "rwc")
    if mode not in SQLITE_MODES:
        raise WrongURL(
            f"mode must be ro, rw or rwc, not {mode!r}"
            " (in memory it is sqlite:// without a name)"
        )
    timeout = parameters.get("timeout", "0")
    if re.fullmatch(r"\d+(\.\d+)?", timeout, re.ASCII) is None or (
        float(timeout) > MAX_TIMEOUT
    ):
        raise WrongURL(
            f"timeout must be seconds from 0 to {MAX_TIMEOUT}, not {timeout!r}"
        )
    if path in {"", ":memory:"}:
        if "mode" in parameters:
            raise WrongURL("mode is for a file, as in sqlite:///app.db?mode=ro")
        return Database(text, is_sqlite=True, file=None, parameters=parameters)
    # Absolute: it stays the same file if the working directory changes.
    file = Path(path).absolute()
    return Database(text, is_sqlite=True, file=file, parameters=parameters)


def read_postgresql(text: str, rest: str) -> Database:
    """Let libpq read it, so that whatever psql accepts is accepted."""
    if re.search(r"\s", rest):
        raise WrongURL("it has a space or a line end in it: write a space as %20")
    try:
        from psycopg import ProgrammingError, conninfo
    except ImportError:
        raise WrongURL("PostgreSQL needs: pip install 'psycopg[binary]'") from None
    try:
        found = conninfo.conninfo_to_dict(f"postgresql://{rest}")
    except ProgrammingError as error:
        unknown = re.search(r'invalid URI query parameter: "(.+)"', str(error))
        query = unquote(rest.partition("?")[2])
        # A parameter that nobody knows may be a part of the password.
        if unknown is not None and "password" not in query and "@" not in query:
            raise WrongURL(
                f"libpq, which reads it, has no parameter {unknown[1]!r}: leave it out"
                " (settings of the server are written like"
                " ?options=-csearch_path%3Dother)"
            ) from None
        raise WrongURL(
            f"it cannot be read. {ENCODE_HINT} Write it like {EXAMPLES},"
            " with no parameters but those of libpq"
        ) from None
    parameters = {name: str(value) for name, value in found.items()}
    if rest.partition("?")[0].count("@") > 1 or "@" in parameters.get("dbname", ""):
        raise WrongURL(ENCODE_HINT)
    for port in parameters.get("port", "").split(","):
        if port and not is_port(port):
            raise WrongURL(f"a port must be a number up to {MAX_PORT}. {ENCODE_HINT}")
    # psql would read them, too, when the URL has none.
    parameters.setdefault("options", os.environ.get("PGOPTIONS", ""))
    url = hide_password(text)
    return Database(url, is_sqlite=False, file=None, parameters=parameters)


def is_port(text: str) -> bool:
    return text.isascii() and text.isdecimal() and 0 < int(text[:9]) <= MAX_PORT


def hide_password(text: str) -> str:
    """Hide the password where libpq finds one: before the @, or in a parameter."""
    text = re.sub(r"://([^:@/]*):[^@/]*@", r"://\1:***@", text, count=1)
    address, _, query = text.partition("?")
    if not query:
        return text
    shown = []
    for parameter in query.split("&"):
        name, _, value = parameter.partition("=")
        if unquote(name).endswith("password"):
            value = "***"
        shown.append(f"{name}={value}")
    return f"{address}?{'&'.join(shown)}"
