"""Settings: what makes no sense stops the start with one line that names it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx2 as httpx
import pytest

from core.settings import is_origin
from tests.conftest import ROOT, Server


def start(
    folder: Path, *command: str, **settings: str
) -> subprocess.CompletedProcess[str]:
    environment = (
        os.environ
        | {"DATABASE_URL": f"sqlite:///{folder}/app.db", "PYTHONPATH": str(ROOT)}
        | settings
    )
    return subprocess.run(
        [sys.executable, "-m", *command],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("DATABASE_URL", "nonsense"),
        ("DATABASE_URL", "mysql://localhost/x"),
        ("DATABASE_URL", "postgresql://localhost/x"),
        ("DATABASE_URL", "postgresql+psycopg://user:hunter2@localhost:port/x"),
        ("DATABASE_URL", "postgresql+psycopg://user:hunter2@127.0.0.1:1/x"),
        ("DATABASE_URL", "sqlite:////nowhere/at/all/app.db"),
        ("DATABASE_URL", "sqlite:////tmp"),
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
    assert run.returncode != 0
    (line,) = [line for line in run.stderr.splitlines() if setting in line]
    assert "Traceback" not in run.stderr
    assert "hunter2" not in run.stderr
    assert len(line) < 250


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
        answer = httpx.get(server.url + "/health", headers={"Origin": origin})
        assert (answer.headers.get("Access-Control-Allow-Origin") == origin) is allowed
        asked = {"Origin": origin, "Access-Control-Request-Method": "PATCH"}
        preflight = httpx.options(server.url + "/api/users/me", headers=asked)
        assert (preflight.status_code == 200) is allowed
        assert ("CORS_ORIGINS" in preflight.text) is not allowed
        assert server.logged(f"A page from {origin!r} may not call") is not allowed
    exposed = httpx.get(
        server.url + "/health", headers={"Origin": "http://localhost:3000"}
    )
    assert "Link" in exposed.headers["Access-Control-Expose-Headers"]
