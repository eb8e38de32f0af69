"""The log: who did what, from where, and nothing that it must not tell."""

import logging
import re
from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

from main import app
from tests.conftest import PASSWORD, Person, Server, wait_until

Serve = Callable[..., Server]
SECRET = "hunter2-do-not-log"


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was noted, without the lines about the database."""
    return [text for text in caplog.messages if ", from " in text]


def test_a_wrong_password_is_a_line_with_account_and_address(
    ann: Person, caplog: pytest.LogCaptureFixture
) -> None:
    for email in (ann.email, "nobody@example.com", "no address"):
        form = {"username": email, "password": SECRET}
        assert ann.client.post("/api/login", data=form).status_code == 401
    body = {"password": "new", "current_password": SECRET}
    assert ann("PATCH", "/users/me", json=body).status_code == 403
    assert lines(caplog) == [
        f"wrong password for account {ann.id}, from testclient",
        "wrong password for an unknown email, from testclient",
        "wrong password for an unknown email, from testclient",
        f"wrong password for account {ann.id}, from testclient",
    ]


def test_who_is_slowed_down_is_a_line(
    ann: Person, caplog: pytest.LogCaptureFixture
) -> None:
    form = {"username": ann.email, "password": SECRET}
    change = {"password": "new", "current_password": SECRET}
    for _ in range(11):
        login = ann.client.post("/api/login", data=form)
        patch = ann("PATCH", "/users/me", json=change)
    assert (login.status_code, patch.status_code) == (429, 429)
    assert lines(caplog)[-2:] == [
        "429 for POST /api/login, from testclient",
        "429 for PATCH /api/users/me, from testclient",
    ]


def test_what_administrators_change_is_a_line(
    ann: Person, root: Person, caplog: pytest.LogCaptureFixture
) -> None:
    change = {"name": SECRET, "email": f"{SECRET}@example.com", "password": SECRET}
    assert root("PATCH", f"/users/{ann.id}", json=change).status_code == 200
    assert root("PATCH", "/users/me", json={"is_admin": True}).status_code == 200
    assert root("DELETE", f"/users/{ann.id}").status_code == 204
    assert lines(caplog) == [
        f"account {root.id} changed name, email, password of account {ann.id},"
        " from testclient",
        f"account {root.id} changed is_admin of account {root.id}, from testclient",
        f"account {root.id} deleted account {ann.id}, from testclient",
    ]


def test_what_people_change_in_their_own_account_is_not_a_line(
    ann: Person, caplog: pytest.LogCaptureFixture
) -> None:
    change = {"name": "New", "password": "new", "current_password": PASSWORD}
    assert ann("PATCH", "/users/me", json=change).status_code == 200
    assert ann("DELETE", "/users/me").status_code == 204
    assert lines(caplog) == []


def test_a_refused_change_is_not_logged_as_made(
    ann: Person, root: Person, caplog: pytest.LogCaptureFixture
) -> None:
    taken = {"email": ann.email, "is_admin": False, "current_password": PASSWORD}
    assert root("PATCH", "/users/me", json=taken).status_code == 409
    assert ann("DELETE", f"/users/{root.id}").status_code == 403
    assert lines(caplog) == []


def test_an_address_that_a_client_has_made_up_forges_no_line(
    ann: Person, caplog: pytest.LogCaptureFixture
) -> None:
    made_up = "1.2.3.4\n\x1b[31mINFO: \x9b\u202e"
    with TestClient(app, client=(made_up, 1)) as client:
        form = {"username": ann.email, "password": SECRET}
        assert client.post("/api/login", data=form).status_code == 401
    (line,) = lines(caplog)
    assert line.endswith(r"from 1.2.3.4\n\x1b[31mINFO: \x9b\u202e")


def logged_lines(server: Server, number: int) -> list[str]:
    """Return the lines that have a request in them, once there are that many."""

    def found() -> list[str]:
        return re.findall('.* - ".*', server.log.read_text())

    wait_until(lambda: len(found()) >= number)
    return found()


def test_the_access_log_shows_no_query_and_no_control_character(serve: Serve) -> None:
    server = serve("--access-log")
    for path in (f"/api/login?password={SECRET}", f"/nowhere%1B?{SECRET}?"):
        server.client.get(path)
    server.client.get("/nowhere", headers={b"X-Forwarded-For": b"\x9b31m 1.2.3.4"})
    websocket = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    answer = server.client.get(f"/api/login?password={SECRET}", headers=websocket)
    assert answer.status_code == 403
    found = [line for line in logged_lines(server, 5) if "/health" not in line]
    shown = [re.sub(r".*127.0.0.1:\d+", "", line) for line in found]
    assert shown == [
        ' - "GET /api/login HTTP/1.1" 405 Method Not Allowed',
        ' - "GET /nowhere%1B HTTP/1.1" 404 Not Found',
        r'INFO:     \x9b31m 1.2.3.4:0 - "GET /nowhere HTTP/1.1" 404 Not Found',
        ' - "WebSocket /api/login" 403',
    ]
    assert SECRET not in server.log.read_text()


def test_a_students_own_log_lines_are_printed_as_they_are(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    log = logging.getLogger("uvicorn.error")
    log.warning("what? %s", "a?b\nc")
    log.warning("%(one)s?", {"one": "a?b"})
    assert caplog.messages[-2:] == ["what? a?b\nc", "a?b?"]
