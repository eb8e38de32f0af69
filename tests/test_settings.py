"""Settings: one that makes no sense stops the start, in one line that names it."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.database_url import WrongURL, read_database_url
from core.engine import THROTTLE, share_connections
from core.settings import is_origin
from tests import programs
from tests.conftest import ROOT, Server


def start(
    folder: Path, *command: str, **settings: str
) -> subprocess.CompletedProcess[str]:
    environment = (
        os.environ
        | {"DATABASE_URL": f"sqlite:///{folder}/app.db", "PYTHONPATH": str(ROOT)}
        | settings
    )
    return programs.run("-m", *command, folder=folder, settings=environment)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("DATABASE_URL", "nonsense"),
        ("DATABASE_URL", "mysql://localhost/x"),
        ("DATABASE_URL", "postgresql+psycopg://user:hunter2@localhost:port/x"),
        ("DATABASE_URL", "postgresql://user:hunter2@localhost/x?sslmode=bogus"),
        ("DATABASE_URL", "sqlite:////nowhere/at/all/app.db"),
        ("DATABASE_URL", "sqlite:////tmp"),
        ("DATABASE_URL", "sqlite://app.db"),
        ("DATABASE_POOL_SIZE", "4"),
        ("DATABASE_POOL_SIZE", "many"),
        ("BCRYPT_ROUNDS", "3"),
        ("BCRYPT_ROUNDS", "32"),
        ("BCRYPT_ROUNDS", "many"),
        ("BCRYPT_ROUNDS", "12.5"),
        ("CORS_ORIGINS", "example.com"),
        ("CORS_ORIGINS", "https://*.example.com"),
    ],
)
def test_a_setting_that_makes_no_sense_stops_the_start(
    tmp_path: Path, setting: str, value: str
) -> None:
    run = start(tmp_path, "uvicorn", "main:app", "--port", "0", **{setting: value})
    assert run.returncode == 3
    (line,) = [line for line in run.stderr.splitlines() if setting in line]
    assert "Traceback" not in run.stderr
    assert "hunter2" not in run.stderr
    assert len(line) < 250


def need_driver(url: str) -> None:
    if url.lower().startswith("postgres"):  # libpq reads it
        reason = "needs: pip install -r tests/requirements.txt"
        pytest.importorskip("psycopg", reason=reason)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("'sqlite:///app.db'", "quote"),
        ('"postgres://u:hunter2@h/db"', "quote"),
        ("psql 'postgresql://u:hunter2@h/db'", "write it like"),
        ("app.db", "write it like"),
        ("sqlite:app.db", "write it like"),
        ("jdbc:postgresql://h/db", "write it like"),
        ("host=h password=hunter2", "write it like"),
        ("sqlite://app.db", "three slashes"),
        ("sqlite://localhost/app.db", "three slashes"),
        (
            "sqlite+aiosqlite:///app.db",
            "write sqlite:// instead of sqlite+aiosqlite://",
        ),
        ("sqlite:///file:app.db", "without file:"),
        ("sqlite:///file%3A///app.db", "without file:"),
        ("sqlite:///app.db?cache=shared", "not 'cache'"),
        ("sqlite:///app.db?mode=memory", "not 'memory'"),
        ("sqlite:///app.db?timeout=-1", "not '-1'"),
        ("sqlite:///app.db?timeout=61", "not '61'"),
        ("sqlite:///app.db?timeout=", "not ''"),
        ("sqlite://?mode=ro", "for a file"),
        ("postgresql+asyncpg://u:hunter2@h/db", "write postgresql:// instead of"),
        ("postgresql+psycopg2://u:hunter2@h/db", "write postgresql:// instead of"),
        ("postgres://u:hunter2@h/db\nX=1", "a line end"),
        ("postgres://u:hunter2@h/my db", "a space as %20"),
        ("postgres://u:hunter2@h/db?pgbouncer=true", "no parameter 'pgbouncer'"),
        ("postgres://u:hunter2@h/db?schema=x", "no parameter 'schema'"),
        ("postgres://u@h/db?password=x&hunter2=y", "& as %26"),
        ("postgres://u@h/db?pass%77ord=x&hunter2=y", "& as %26"),
        ("postgres://u:x/x?hunter2=y@h/db", "/ as %2F"),
        ("postgres://u:hunter2@h/db?sslmode", "cannot be read"),
        ("postgres://u:hunter2%zz@h/db", "% as %25"),
        ("postgres://u:hunter2@2@h/db", "@ as %40"),
        ("postgres://u:hunter2/2@h/db", "/ as %2F"),
        ("postgres://u:1/hunter2@h/db", "@ as %40"),
        ("postgres://u:hunter2@h:99999/db", "a number up to 65535"),
        ("postgres://u:hunter2@a:1,b:x/db", "a number up to 65535"),
    ],
)
def test_a_url_that_cannot_be_read_says_what_to_write(text: str, reason: str) -> None:
    need_driver(text)
    with pytest.raises(WrongURL) as error:
        read_database_url(text)
    assert reason in str(error.value)
    assert "hunter2" not in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (" sqlite:///app.db\r\n", (Path("app.db").absolute(), {})),
        ("sqlite+pysqlite:////srv/a%20b.db", (Path("/srv/a b.db"), {})),
        ("sqlite:///a.db?timeout=9.5&mode=rw", {"timeout": "9.5", "mode": "rw"}),
        ("sqlite://", (None, {})),
        ("sqlite:///:memory:", (None, {})),
        ("postgres://u:p%40@h/db\n", {"user": "u", "password": "p@", "host": "h"}),
        ("POSTGRESQL+psycopg://h/db", {"host": "h", "dbname": "db"}),
        ("postgres://u@a:1,b:2/db", {"host": "a,b", "port": "1,2"}),
        ("postgres:///db?host=a,b", {"host": "a,b", "dbname": "db"}),
        ("postgres:///db?host=/var/run/postgresql", {"host": "/var/run/postgresql"}),
        ("postgres://[::1]:5/db", {"host": "::1", "port": "5"}),
        ("postgres://h/db?options=-cx%3D1", {"options": "-cx=1"}),
        ("postgres://h/db?connect_timeout=9", {"connect_timeout": "9"}),
        (
            "postgres://h/db?sslmode=require&channel_binding=require",
            {"sslmode": "require", "channel_binding": "require"},
        ),
        (
            "postgres://h/db?target_session_attrs=read-write&application_name=x",
            {"target_session_attrs": "read-write", "application_name": "x"},
        ),
    ],
)
def test_a_url_is_read_as_it_is_handed_out(text: str, found: Any) -> None:
    need_driver(text)
    database = read_database_url(text)
    if isinstance(found, tuple):
        assert (database.file, database.parameters) == found
    else:
        assert found.items() <= database.parameters.items()


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("", ""),
        ("?sslmode=require&password=hunter2", "?sslmode=require&password=***"),
        ("?sslpassword=hunter2&sslmode=require", "?sslpassword=***&sslmode=require"),
        ("?pass%77ord=hunter2", "?pass%77ord=***"),
        ("?password=hunter2%26hunter2", "?password=***"),
    ],
)
def test_a_url_is_shown_without_its_password(query: str, shown: str) -> None:
    url = "postgres://u:hunter2@h/db" + query
    need_driver(url)
    database = read_database_url(url)
    assert database.url == "postgres://u:***@h/db" + shown
    assert database.name == "postgres://u:***@h/db"


@pytest.mark.parametrize("size", range(5, 101))
def test_connections_are_shared_so_that_each_kind_of_work_has_one(size: int) -> None:
    share = share_connections(size)
    assert sum(share) + THROTTLE == size
    assert min(share) >= 1
    assert share_connections(20) == (6, 2, 9, 2)


@pytest.mark.parametrize(
    ("text", "can_be_sent"),
    [
        ("https://example.com", True),
        ("http://localhost:5173", True),
        ("http://[::1]:3000", True),
        ("https://xn--mnchen-3ya.de:8443", True),
        ("chrome-extension://abcdefgh", True),
        ("example.com", False),
        ("https://example.com/", False),
        ("https://example.com/path", False),
        ("https://*.example.com", False),
        ("https://.example.com", False),
        ("https://user@example.com", False),
        ("https://Example.com", False),
        ("HTTPS://example.com", False),
        ("https://münchen.de", False),
        ("https://example.com:443", False),
        ("http://example.com:80", False),
        ("http://example.com:443", True),
        ("http://localhost:080", False),
        ("http://localhost:65536", False),
        ("http://localhost:", False),
        ("https://a.example.com https://b.example.com", False),
    ],
)
def test_an_origin_is_what_a_browser_sends(text: str, can_be_sent: bool) -> None:
    assert is_origin(text) is can_be_sent


def test_postgresql_without_its_driver_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "psycopg.py").write_text("raise ImportError('not installed')")
    url = "postgres://user:hunter2@127.0.0.1:1/x"
    path = f"{tmp_path}{os.pathsep}{ROOT}"
    settings = {"DATABASE_URL": url, "PYTHONPATH": path}
    run = start(tmp_path, "uvicorn", "main:app", "--port", "0", **settings)
    assert run.returncode != 0
    assert "pip install 'psycopg[binary]'" in run.stderr
    assert "Traceback" not in run.stderr


def test_a_browser_may_call_from_the_origins_that_are_named(
    serve: Callable[..., Server],
) -> None:
    server = serve(CORS_ORIGINS="https://a.example.com, http://localhost:3000, null")
    for origin, allowed in (
        ("http://localhost:3000", True),
        ("null", True),
        ("https://evil.example.com", False),
        ("http://localhost:5173", False),
    ):
        answer = server.client.get("/health", headers={"Origin": origin})
        assert (answer.headers.get("Access-Control-Allow-Origin") == origin) is allowed
        asked = {"Origin": origin, "Access-Control-Request-Method": "PATCH"}
        preflight = server.client.options("/api/users/me", headers=asked)
        assert (preflight.status_code == 200) is allowed
        assert ("CORS_ORIGINS" in preflight.text) is not allowed
        assert server.logged(f"A page from {origin!r} may not call") is not allowed
    named = {"Origin": "http://localhost:3000"}
    exposed = server.client.get("/health", headers=named)
    assert "Link" in exposed.headers["Access-Control-Expose-Headers"]
