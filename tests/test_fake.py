"""tools.fake: believable accounts, and never by accident among real ones."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from core.fields import normal_address
from tests.conftest import ROOT, Server, empty_database

pytest.importorskip("faker", reason="needs: pip install -r tools/requirements.txt")


def fake(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tools.fake", *arguments],
        env=os.environ | {"DATABASE_URL": url, "COLUMNS": "200"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_fills_a_database_and_says_how_to_log_in(
    serve: Callable[..., Server],
) -> None:
    server = serve()
    filled = fake(server.database, "1500")
    assert filled.returncode == 0, filled.stderr
    assert "1,500 accounts" in filled.stdout
    name, password = re.findall(r"username=(\S+) -d password=(\S+)", filled.stdout)[0]
    login = server.client.post(
        "/api/login", data={"username": name, "password": password}
    )
    me = server.client.get(
        "/api/users/me",
        headers={"Authorization": f"Bearer {login.json()['access_token']}"},
    ).json()
    assert me["email"] == name
    assert " " in me["name"]
    emails = [email for (email,) in server.rows('SELECT email FROM "user"')]
    assert len(emails) == 1500
    assert [email for email in emails if normal_address(email) != email] == []


def test_it_adds_to_accounts_only_when_told(
    tmp_path: Path,
) -> None:
    url = empty_database(tmp_path)
    assert fake(url, "10").returncode == 0
    refused = fake(url, "10")
    assert refused.returncode == 1
    assert "--add" in refused.stderr
    assert "tools.data reset" in refused.stderr
    assert "20 accounts" in fake(url, "10", "--add").stdout


@pytest.mark.parametrize("arguments", [[], ["0"], ["many"]])
def test_a_wrong_call_says_how_to_call_it(tmp_path: Path, arguments: list[str]) -> None:
    called = fake(empty_database(tmp_path), *arguments)
    assert called.returncode == 2
    assert "usage: python -m tools.fake" in called.stderr
