"""Settings: one that makes no sense stops the start, in one line that names it."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.settings import ORIGIN, PSYCOPG, read_database
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
        ("DATABASE_URL", "postgresql://user:hunter2@2@localhost/x"),
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
    assert [file for file in tmp_path.iterdir() if not file.is_symlink()] == []
    (line,) = [line for line in run.stderr.splitlines() if setting in line]
    assert "Traceback" not in run.stderr
    assert "hunter2" not in run.stderr
    assert len(line) < 400


def need_driver(url: str) -> None:
    if url.lower().startswith("postgres"):  # libpq reads it
        reason = "needs: pip install -r tests/requirements.txt"
        pytest.importorskip("psycopg", reason=reason)


HINTS = {"sqlite": "?mode=ro, rw or rwc", "postgres": "@ as %40", "": "write it like"}


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("", "'sqlite:///app.db'"),
        ("", "psql 'postgresql://u:hunter2@h/db'"),
        ("", "app.db"),
        ("", "sqlite:app.db"),
        ("", "jdbc:postgresql://h/db"),
        ("", "host=h password=hunter2"),
        ("", "sqlite+aiosqlite:///app.db"),
        ("", "postgresql+asyncpg://u:hunter2@h/db"),
        ("sqlite", "sqlite://app.db"),
        ("sqlite", "sqlite://localhost/app.db"),
        ("sqlite", "sqlite:///app.db?cache=shared"),
        ("sqlite", "sqlite:///app.db?mode=memory"),
        ("sqlite", "sqlite:///app.db?timeout=-1"),
        ("sqlite", "sqlite:///app.db?timeout=61"),
        ("sqlite", "sqlite:///app.db?timeout="),
        ("sqlite", "sqlite://?mode=ro"),
        ("postgres", "postgres://u:hunter2@h/db\nX=1"),
        ("postgres", "postgres://u:hunter2@h/my db"),
        ("postgres", "postgres://u:hunter2@h/db?pgbouncer=true"),
        ("postgres", "postgres://u@h/db?password=x&hunter2=y"),
        ("postgres", "postgres://u@h/db?pass%77ord=x&hunter2=y"),
        ("postgres", "postgres://u:x/x?hunter2=y@h/db"),
        ("postgres", "postgres://u:hunter2@h/db?sslmode"),
        ("postgres", "postgres://u:hunter2%zz@h/db"),
        ("postgres", "postgres://u:hunter2@2@h/db"),
        ("postgres", "postgres://u:hunter2/2@h/db"),
        ("postgres", "postgres://u:1/hunter2@h/db"),
    ],
)
def test_a_url_that_cannot_be_read_says_what_to_write(kind: str, text: str) -> None:
    need_driver(text)
    with pytest.raises(ValueError, match=r"[Ww]rite it like") as error:
        read_database(text)
    assert HINTS[kind] in str(error.value)
    assert "hunter2" not in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("sqlite:///app.db", (Path("app.db").absolute(), {})),
        ("sqlite+pysqlite:////srv/a%20b.db", (Path("/srv/a b.db"), {})),
        ("sqlite:///a.db?timeout=9.5&mode=rw", {"timeout": "9.5", "mode": "rw"}),
        ("sqlite://", (None, {})),
        ("sqlite:///:memory:", (None, {})),
        ("postgres://u:p%40@h/db", {"user": "u", "password": "p@", "host": "h"}),
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
    database = read_database(text)
    if isinstance(found, tuple):
        assert (database.file, database.parameters) == found
    else:
        assert found.items() <= database.parameters.items()


@pytest.mark.parametrize("query", ["", "?password=hunter2", "?sslpassword=hunter2"])
def test_a_url_is_shown_without_its_password(query: str) -> None:
    url = "postgres://u:hunter2@h/db" + query
    need_driver(url)
    assert read_database(url).name == "postgresql://h/db"


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
        ("http://localhost:", False),
        ("https://a.example.com https://b.example.com", False),
    ],
)
def test_an_origin_is_what_a_browser_sends(text: str, can_be_sent: bool) -> None:
    assert (ORIGIN.fullmatch(text) is not None) is can_be_sent


def test_postgresql_without_its_driver_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "psycopg.py").write_text("raise ImportError('not installed')")
    url = "postgres://user:hunter2@127.0.0.1:1/x"
    path = f"{tmp_path}{os.pathsep}{ROOT}"
    settings = {"DATABASE_URL": url, "PYTHONPATH": path}
    run = start(tmp_path, "uvicorn", "main:app", "--port", "0", **settings)
    assert run.returncode == 3
    assert f"pip install '{PSYCOPG}'" in run.stderr
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
