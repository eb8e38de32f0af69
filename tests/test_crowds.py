"""Crowds, clients that have gone, a locked database: nobody else waits for them.

Every wait has an end, too. Right answers are counted, not time.
"""

import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient
from sqlalchemy import exc, text
from sqlmodel import create_engine

from accounts import passwords
from core import turns
from core.data import reads, sessions
from core.data.reads import Rows, scan
from core.turns import Line
from core.web import errors
from models import User
from tests import programs
from tests.conftest import (
    GATED,
    PASSWORD,
    ROOT,
    Crowd,
    Gate,
    Person,
    Server,
    at_once,
    empty_database,
    sign_up,
    wait_until,
)
from tests.pages import skip_if_extended

Serve = Callable[..., Server]
CORES = os.cpu_count() or 1
HASHING = {"hashpw", "checkpw"}
ELSEWHERE = "127.0.0.2"  # another address of this machine
SCANS = 2  # searches at once


def new_account(name: Any) -> dict[str, Any]:
    return {"method": "POST", "url": "/api/users", "json": sign_up(name)}


def sign_ups(number: int) -> list[dict[str, Any]]:
    return [new_account(name) for name in range(number)]


@contextmanager
def connected(server: Server, requests: list[bytes]) -> Iterator[None]:
    """Send requests, each on its own connection, and close them all unanswered."""
    sent = []
    for request in requests:
        connection = socket.create_connection(("127.0.0.1", server.port))
        connection.sendall(request)
        sent.append(connection)
    yield
    for connection in sent:
        connection.close()
    for _ in range(2):  # once another is answered, the server knows they have gone
        server.client.get("/openapi.json")


def sign_up_request(name: str) -> bytes:
    body = httpx.Request("POST", "http://x", json=sign_up(name)).read()
    head = "POST /api/users HTTP/1.1\r\nHost: x\r\nContent-Type: application/json"
    return f"{head}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def count_accounts(server: Server) -> int:
    ((number,),) = server.rows('SELECT count(*) FROM "user"')
    return int(number)


@contextmanager
def locked(server: Server) -> Iterator[None]:
    """Lock the table of accounts against writers, as another program would."""
    other = create_engine(server.database)
    with other.connect() as connection:
        if other.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.exec_driver_sql('LOCK TABLE "user" IN EXCLUSIVE MODE')
        yield
        connection.rollback()
    other.dispose()


# ---- Passwords ----


def test_a_crowd_at_one_address_lets_somebody_at_another_log_in(
    serve: Serve, gate: Gate
) -> None:
    server = serve(app=GATED, BCRYPT_ROUNDS="8")  # a hash takes longer than a query
    ann = Person(server.client, "ann")
    form = {"username": ann.email, "password": PASSWORD}
    crowd = Crowd(server, sign_ups(20 * CORES))
    one = {"method": "POST", "url": "/api/login", "data": form}
    log_in = Crowd(server, [one], ELSEWHERE)
    gate.close()
    with crowd:
        gate.wait_for("POST /api/users", 20 * CORES)
        with log_in:
            gate.wait_for("POST /api/login")
            time.sleep(0.1)  # its form has been read by now
            gate.open()
    assert crowd.statuses() == {201: 20 * CORES}
    assert log_in.statuses() == {200: 1}
    hashes = [event for event in gate.events() if event in HASHING]
    assert hashes.index("checkpw") < 10 * CORES, "before most of the crowd"


def test_no_number_of_sign_ups_from_many_addresses_makes_a_log_in_wait(
    serve: Serve, gate: Gate
) -> None:
    server = serve(app=GATED)
    ann = Person(server.client, "ann")
    form = {"username": ann.email, "password": PASSWORD}
    crowds = []
    gate.close("hashpw")
    with ExitStack() as stack:
        for number in range(10, 50):
            crowd = Crowd(server, [new_account(number)], f"127.0.0.{number}")
            crowds.append(stack.enter_context(crowd))
        gate.wait_for("POST /api/users", 40)
        answer = server.client.post("/api/login", data=form)
        assert answer.status_code == 200
        assert not any(crowd.answers for crowd in crowds), "they still wait"
        gate.open()
    assert sum((crowd.statuses() for crowd in crowds), Counter()) == {201: 40}


@pytest.mark.parametrize("what", ["a stronger hash", "a new password"])
def test_nor_does_a_hash_of_somebody_who_has_an_account_wait_for_them(
    serve: Serve, gate: Gate, what: str
) -> None:
    server = serve(app=GATED, BCRYPT_ROUNDS="8")
    ann = Person(server.client, "ann")
    change: dict[str, Any] = {"method": "POST", "url": "/api/login"}
    change["data"] = {"username": ann.email, "password": PASSWORD}
    if what == "a stronger hash":
        server.stop()
        server = serve(app=GATED, BCRYPT_ROUNDS="9")
    else:
        change = {"method": "PATCH", "url": "/api/users/me", "headers": ann.headers}
        change["json"] = {"password": "new", "current_password": PASSWORD}
    crowds = []
    gate.close("hashpw")
    with ExitStack() as stack:
        for number in range(10, 10 + 30 * CORES):
            crowd = Crowd(server, [new_account(number)], f"127.0.0.{number}")
            crowds.append(stack.enter_context(crowd))
        gate.wait_for("POST /api/users", 30 * CORES)
        one = stack.enter_context(Crowd(server, [change], ELSEWHERE))
        gate.wait_for("checkpw")
        time.sleep(0.3)  # it waits for the second hash by now
        gate.open()
        wait_until(lambda: one.answers)
        assert sum(len(crowd.answers) for crowd in crowds) < 15 * CORES
    assert one.statuses() == {200: 1}
    assert sum((crowd.statuses() for crowd in crowds), Counter()) == {201: 30 * CORES}


def test_the_101st_password_that_waits_at_one_address_is_429(
    serve: Serve, gate: Gate
) -> None:
    server = serve(app=GATED)
    ann = Person(server.client, "ann")
    form = {"username": ann.email, "password": PASSWORD}
    gate.close("hashpw")
    with Crowd(server, sign_ups(150)) as crowd:
        gate.wait_for("POST /api/users", 150)
        wait_until(lambda: len(crowd.answers) == 50 - CORES)
        gate.open()
    assert crowd.statuses() == {201: 100 + CORES, 429: 50 - CORES}
    refused = [answer for answer in crowd.answers if answer.status_code == 429]
    for answer in refused:
        assert int(answer.headers["Retry-After"]) >= 1
        assert "waiting" in answer.json()["detail"]
    assert server.client.post("/api/login", data=form).status_code == 200


def test_nothing_is_hashed_for_clients_that_have_gone(serve: Serve, gate: Gate) -> None:
    server = serve(app=GATED)
    names = [f"gone{number}" for number in range(20 * CORES)]
    gate.close("hashpw")
    with connected(server, [sign_up_request(name) for name in names]):
        gate.wait_for("POST /api/users", 20 * CORES)
        gate.wait_for("hashpw", CORES)
    gate.open()
    answer = server.client.post("/api/users", json=sign_up("here"))
    assert answer.status_code == 201
    hashes = gate.events().count("hashpw")
    assert hashes == CORES + 1, "what had begun, and the one who stayed"


def test_sigterm_answers_503_to_all_who_wait(serve: Serve, gate: Gate) -> None:
    server = serve(app=GATED)
    number = 50 + 10 * CORES
    gate.close("hashpw")
    with Crowd(server, sign_ups(number)) as crowd:
        gate.wait_for("POST /api/users", number)
        gate.wait_for("hashpw", CORES)
        server.process.terminate()
        wait_until(lambda: len(crowd.answers) == number - CORES)
        gate.open()
    server.stop()
    assert crowd.statuses() == {201: CORES, 503: number - CORES}
    assert count_accounts(server) == CORES
    for answer in crowd.answers:
        assert answer.status_code == 201 or int(answer.headers["Retry-After"]) >= 1
    assert "Traceback" not in server.log.read_text()


def test_a_server_that_ignores_a_signal_goes_on_ignoring_it(tmp_path: Path) -> None:
    program = (
        "import asyncio, os, signal\n"
        "from main import app\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "async def run():\n"
        "    async with app.router.lifespan_context(app):\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        await asyncio.sleep(0.1)\n"
        "asyncio.run(run())\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
        "print('it goes on')\n"
    )
    settings = os.environ | {"DATABASE_URL": empty_database(tmp_path)}
    run = programs.run("-c", program, folder=ROOT, settings=settings)
    assert run.stdout == "it goes on\n"
    assert len(run.stderr.splitlines()) == 1, "that it made a new database"


@pytest.mark.parametrize("line", [passwords.sign_ups, sessions.writers, reads.scans])
def test_a_client_that_has_waited_too_long_is_told_to_try_again(
    root: Person, monkeypatch: pytest.MonkeyPatch, line: Line
) -> None:
    for places in line.by_loop.values():
        monkeypatch.setattr(places, "free", 0)
    monkeypatch.setattr(line, "number", 0)
    monkeypatch.setattr(line, "seconds", 0.1)
    request: dict[str, Any] = {"method": "GET", "path": "/users?count=true"}
    if line is passwords.sign_ups:
        request = {"method": "POST", "path": "/users", "json": sign_up("late")}
    elif line is sessions.writers:
        request = {"method": "POST", "path": "/logout"}
    answer = root(**request)
    assert (answer.status_code, list(answer.json())) == (503, ["detail"])
    assert int(answer.headers["Retry-After"]) >= 1
    monkeypatch.undo()
    line.by_loop.clear()
    assert root(**request).status_code in {200, 201, 204}


def test_a_request_that_comes_while_the_server_stops_waits_only_a_moment(
    ann: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    for loop, places in sessions.writers.by_loop.items():
        monkeypatch.setattr(places, "free", 0)
        turns.stopping.add(loop)
    monkeypatch.setattr(turns, "AT_THE_END", 0.1)
    try:
        assert ann("POST", "/logout").status_code == 503
    finally:
        turns.stopping.clear()


# ---- Sessions ----


def test_two_hundred_changes_at_once_are_all_made(serve: Serve) -> None:
    server = serve()
    ann = Person(server.client, "ann")
    changes = []
    for number in range(200):
        body = {"name": f"Ann {number}"}
        changes.append(
            server.client.build_request(
                "PATCH", "/api/users/me", json=body, headers=ann.headers
            )
        )
    assert Counter(status for status, _ in at_once(changes)) == {200: 200}


def test_a_locked_database_holds_up_nobody_who_only_reads(
    serve: Serve, gate: Gate
) -> None:
    server = serve(app=GATED)
    ann = Person(server.client, "ann")
    with locked(server), Crowd(server, sign_ups(20)) as crowd:
        gate.wait_for("hashpw", 20)
        assert ann("DELETE", "/users/12345").status_code == 403
        assert ann("GET", "/users/me").json() == ann.account
        assert server.client.get("/health").status_code == 200
        assert len(crowd.answers) < 20, "the crowd is still waiting"
        server.stop()
    crowd.are_unavailable()


@pytest.mark.sqlite
def test_a_crowd_of_writers_at_a_locked_file_does_not_wait_one_by_one(
    serve: Serve,
) -> None:
    skip_if_extended()  # by a table of notes
    server = serve(app="tools.bench.notes:app")
    ann = Person(server.client, "ann")
    assert ann("POST", "/notes", json={"text": "x"}).status_code == 201
    with locked(server), Crowd(server, sign_ups(50)) as crowd:
        assert len(ann("GET", "/notes").json()) == 1, "in a session that only reads"
        assert len(crowd.answers) < 50, "the crowd is still waiting"
        crowd.thread.join()
        # Two at a time would take 100 s, and a client gives up after 60.
        assert crowd.statuses() == {503: 50}
        wrong = {"username": ann.email, "password": "wrong"}
        answer = server.client.post("/api/login", data=wrong)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    for name in ("free", "again"):
        created = server.client.post("/api/users", json=sign_up(name))
        assert created.status_code == 201


# ---- Searches and counts ----


def fill(server: Server, number: int) -> None:
    """Copy the first account a number of times, and make it an administrator."""
    names = [f'"{name}"' for name in User.model_fields if name not in {"id", "email"}]
    columns = ", ".join(names)
    server.execute(
        f'INSERT INTO "user" (email, {columns}) WITH RECURSIVE numbers (n) AS'
        f" (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {number})"
        f" SELECT 'person' || n || '@example.com', {columns}"
        ' FROM numbers, "user" WHERE id = 1'
    )
    server.execute('UPDATE "user" SET is_admin = true WHERE id = 1')


def test_searches_end_when_their_clients_go_and_when_the_server_stops(
    serve: Serve, gate: Gate
) -> None:
    server = serve(app=GATED)
    root = Person(server.client, "root")
    fill(server, 50_000)
    path = "/users?count=true&q=zz"
    head = f"GET /api{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {root.token}"
    gate.close("search")
    with connected(server, [f"{head}\r\n\r\n".encode()] * 40):
        gate.wait_for("GET /api/users", 40)
        gate.wait_for("search", SCANS)
    gate.open()
    answer = root("GET", path)
    # Each request searches twice, for the page and the count. For the clients that have
    # gone, only the searches that had already begun are run.
    assert gate.events().count("search") <= 2 * SCANS + 2
    assert (answer.status_code, answer.json()) == (200, [])
    assert answer.headers["X-Total-Count"] == "0"
    search = {"method": "GET", "url": f"/api{path}", "headers": root.headers}
    gate.close("search")
    with Crowd(server, [search] * 40) as crowd:
        gate.wait_for("GET /api/users", 40)
        gate.wait_for("search", SCANS)
        server.process.terminate()
        wait_until(lambda: len(crowd.answers) == 40 - SCANS)
        gate.open()
    server.stop()
    counts = crowd.statuses()
    assert set(counts) <= {200, 503}
    assert counts[503] >= 40 - SCANS
    assert "Traceback" not in server.log.read_text()
    for answer in crowd.answers:
        assert answer.status_code == 200 or int(answer.headers["Retry-After"]) >= 1


ENDLESS = (
    "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i FROM n)"
    " SELECT count(*) AS number FROM n"
)


@pytest.mark.parametrize(
    ("statement", "status"),
    [(ENDLESS, 503), ('SELECT no_such_column FROM "user"', 500)],
)
def test_a_search_that_takes_too_long_is_503_and_a_mistake_in_it_is_500(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, statement: str, status: int
) -> None:
    monkeypatch.setattr(reads, "SECONDS", 1)
    app = FastAPI()
    errors.install(app, {}, {})

    @app.get("/")
    async def search(request: Request) -> Rows:
        return await scan(request, text(statement))

    with TestClient(app, raise_server_exceptions=False) as other:
        answer = other.get("/")
    assert answer.status_code == status
    if status == 503:
        assert answer.json()["detail"].startswith("A search or a count may")


def test_when_no_connection_is_free_the_answer_is_503() -> None:
    app = FastAPI()
    errors.install(app, {}, {})

    @app.get("/")
    def wait_in_vain() -> None:
        raise exc.TimeoutError("QueuePool limit reached")

    with TestClient(app) as other:
        answer = other.get("/")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
