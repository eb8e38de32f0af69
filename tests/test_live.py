"""A real server under load and attack: crowds, floods, kills, locks, workers.

Right answers are counted, not time.
"""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from tests import programs
from tests.conftest import (
    GATED,
    PASSWORD,
    ROOT,
    Gate,
    Person,
    Server,
    at_once,
    empty_database,
    new_client,
    sign_up,
    wait_until,
)

Serve = Callable[..., Server]


def person(server: Server, name: str = "ann") -> Person:
    return Person(server.client, name)


def accounts(server: Server) -> list[str]:
    return [row[0] for row in server.rows('SELECT email FROM "user"')]


def sign_ups(server: Server, names: Iterable[Any]) -> list[httpx.Request]:
    build = server.client.build_request
    return [build("POST", "/api/users", json=sign_up(name)) for name in names]


def statuses(requests: list[httpx.Request]) -> Counter[int]:
    return Counter(status for status, _ in at_once(requests))


def test_a_thousand_clients_at_once_are_all_answered(serve: Serve) -> None:
    server = serve()
    ann = person(server)
    request = server.client.build_request("GET", "/api/users/me", headers=ann.headers)
    answers = at_once([request] * 1000)
    assert Counter((status, json.loads(body)["id"]) for status, body in answers) == {
        (200, ann.id): 1000
    }


def test_a_flood_of_sign_ups_and_logins_lets_readers_through(
    serve: Serve, gate: Gate
) -> None:
    server = serve(app=GATED)
    ann = person(server)
    form = {"username": ann.email, "password": PASSWORD}
    log_in = server.client.build_request("POST", "/api/login", data=form)
    flood = sign_ups(server, range(32)) + [log_in] * 32
    found: list[Counter[int]] = []
    flooding = threading.Thread(target=lambda: found.append(statuses(flood)))
    with gate.closed():  # a hash in the event loop, or in every thread, would stop it
        flooding.start()
        gate.wait_for("POST /api/users", 32)
        gate.wait_for("POST /api/login", 32)
        for _ in range(20):
            assert ann("GET", "/users/me").json() == ann.account
        renamed = ann("PATCH", "/users/me", json={"name": "New"})
        assert renamed.json()["name"] == "New"
    flooding.join()
    assert found == [{201: 32, 200: 32}]


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Provide two workers on one database."""
    folder = tmp_path_factory.mktemp("workers")
    server = Server(folder, empty_database(folder), "--workers", "2")
    yield server
    server.stop()


def test_fifty_sign_ups_of_one_email_make_one_account(workers: Server) -> None:
    assert statuses(sign_ups(workers, ["same"] * 50)) == {201: 1, 409: 49}
    assert accounts(workers).count("same@example.com") == 1


def test_several_workers_write_to_one_file_at_once(workers: Server) -> None:
    # From one address, a hundred may wait for their hash.
    names = [f"at-once-{number}" for number in range(100)]
    assert statuses(sign_ups(workers, names)) == {201: 100}
    assert set(accounts(workers)) >= {f"{name}@example.com" for name in names}


def test_the_login_throttle_counts_over_all_workers(workers: Server) -> None:
    ann = person(workers)
    form = {"username": ann.email, "password": "wrong"}
    wrong = workers.client.build_request("POST", "/api/login", data=form)
    counts = statuses([wrong] * 50)
    assert set(counts) == {401, 429}
    assert 10 <= counts[401] <= 11, "at most one more for each further worker"
    again = ann.client.post("/api/login", data=form | {"password": PASSWORD})
    assert again.status_code == 429


def test_kill_9_loses_no_account_that_was_answered(serve: Serve) -> None:
    server = serve()
    answered: list[str] = []

    def post() -> None:
        with new_client(server.url) as client:
            for number in range(10_000):
                body = sign_up(f"{threading.get_ident()}-{number}")
                try:
                    if client.post("/api/users", json=body).status_code == 201:
                        answered.append(body["email"])
                except httpx.TransportError:
                    return

    threads = [threading.Thread(target=post) for _ in range(4)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(answered) > 50)
    server.stop(subprocess.Popen.kill)
    for thread in threads:
        thread.join()
    again = serve()
    assert set(answered) <= set(accounts(again))
    assert person(again).token, "it goes on"


def test_sigterm_finishes_what_was_begun(serve: Serve, gate: Gate) -> None:
    server = serve(app=GATED)
    answers: list[tuple[int, bytes]] = []
    requests = sign_ups(server, ["late"])
    post = threading.Thread(target=lambda: answers.extend(at_once(requests)))
    with gate.closed():
        post.start()
        gate.wait_for("hashpw")
        server.process.terminate()
    post.join()
    server.stop()
    assert [status for status, _ in answers] == [201]
    assert accounts(server) == ["late@example.com"]
    assert server.process.returncode in {0, -signal.SIGTERM}


def test_head_leaves_the_connection_open_and_the_log_clean(serve: Serve) -> None:
    server = serve()
    for path in ("/docs", "/health", "/docs"):
        answer = server.client.head(path)
        assert (answer.status_code, answer.content) == (200, b"")
        assert int(answer.headers["Content-Length"]) > 0
    server.stop()
    assert "Traceback" not in server.log.read_text()
    assert "shorter than" not in server.log.read_text()


@pytest.mark.sqlite
def test_a_locked_database_is_503_for_writers_alone_and_recovers(serve: Serve) -> None:
    server = serve(app=GATED)
    ann = person(server)
    with closing(
        sqlite3.connect(
            server.database.removeprefix("sqlite:///"), isolation_level=None
        )
    ) as other:
        other.execute("BEGIN IMMEDIATE")
        answer = ann("PATCH", "/users/me", json={"name": "New"})
        assert (answer.status_code, list(answer.json())) == (503, ["detail"])
        assert int(answer.headers["Retry-After"]) >= 1
        assert ann("GET", "/users/me").json() == ann.account
        other.execute("ROLLBACK")
    assert ann("PATCH", "/users/me", json={"name": "New"}).status_code == 200


@pytest.mark.sqlite
def test_no_row_is_lost_while_the_file_is_moved_about(
    serve: Serve, tmp_path: Path
) -> None:
    """Whether a server is stopped or killed then, and whatever was there meanwhile."""
    file, away, other = (tmp_path / f"{name}.db" for name in ("app", "away", "other"))
    stored: list[str] = []
    server = serve()
    with closing(sqlite3.connect(file)) as one, closing(sqlite3.connect(other)) as two:
        one.backup(two)

    def is_503() -> bool:
        login = {"username": "x", "password": "x"}
        for answer in (
            server.client.post("/api/users", json=sign_up("x")),
            server.client.post("/api/login", data=login),
            server.client.get("/health"),
        ):
            assert answer.status_code == 503
            assert "must be started again" in answer.json()["detail"]
        return True

    for number in range(12):
        for _ in range(5):
            stored.append(person(server, f"p{len(stored)}").email)
        file.rename(away)
        if number % 3 > 0:
            other.rename(file)
        assert is_503()
        if number % 3 == 2:
            server.stop([subprocess.Popen.terminate, subprocess.Popen.kill][number % 2])
            again = serve()
            assert person(again, f"new{number}").account["id"] == number // 3 + 1
            again.stop()
            # As the log says: what was written last goes with the old file.
            for wal in tmp_path.glob("app.db.*-wal"):
                wal.rename(tmp_path / "app.db-wal")
        if number % 3 > 0:
            file.rename(other)
        away.rename(file)
        if number % 3 < 2:
            assert is_503(), "until the next start"
            server.stop([subprocess.Popen.terminate, subprocess.Popen.kill][number % 2])
        server = serve()
        assert sorted(accounts(server)) == sorted(stored)


@pytest.mark.sqlite
@pytest.mark.parametrize("is_noticed", [True, False])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_wal_that_is_removed_takes_no_row_with_it(
    serve: Serve, tmp_path: Path, workers: str, is_noticed: bool
) -> None:
    server = serve("--workers", workers)
    stored = [person(server, f"p{number}").email for number in range(20)]
    for ending in ("-wal", "-shm"):
        (tmp_path / f"app.db{ending}").unlink()
    if is_noticed:
        for answer in (
            server.client.get("/health"),
            server.client.post("/api/users", json=sign_up("late")),
        ):
            assert answer.status_code == 503
            assert "must be started again" in answer.json()["detail"]
        server.stop(subprocess.Popen.kill)
    else:
        server.stop()
    assert sorted(accounts(serve())) == sorted(stored)


def put_away(folder: Path, away: Path) -> None:
    """Move the database away while the server runs, with its companions."""
    away.mkdir()
    for file in folder.glob("app.db*"):
        file.rename(away / file.name)


@pytest.mark.sqlite
@pytest.mark.parametrize("what", ["another file", "nothing"])
def test_a_file_that_is_replaced_or_removed_is_503_until_the_next_start(
    serve: Serve, tmp_path: Path, what: str
) -> None:
    server = serve()
    ann = person(server)
    file, copy = tmp_path / "app.db", tmp_path / "copy.db"
    with closing(sqlite3.connect(file)) as one, closing(sqlite3.connect(copy)) as other:
        one.backup(other)
    before = copy.read_bytes()
    put_away(tmp_path, tmp_path / "away")
    if what == "another file":
        copy.rename(file)
    for _ in range(3):
        for answer in (
            ann("GET", "/users/me"),
            ann("PATCH", "/users/me", json={"name": "New"}),
            ann.client.post("/api/users", json=sign_up("x")),
            ann.client.get("/health"),
        ):
            assert answer.status_code == 503
            assert "must be started again" in answer.json()["detail"]
            assert int(answer.headers["Retry-After"]) >= 1
    assert ann.client.get("/live").json() == {"status": "ok"}
    told = [line for line in server.log.read_text().splitlines() if "ERROR" in line]
    assert len(told) == 1
    assert "was replaced or removed: start the server again" in told[0]
    server.stop()
    if what == "nothing":
        assert not file.exists(), "no empty one was made in its place"
        copy.rename(file)
    assert file.read_bytes() == before
    assert [*tmp_path.glob("app.db-*")] == []
    ann.client = serve().client
    assert ann("GET", "/users/me").json() == ann.account


@pytest.mark.sqlite
def test_a_file_that_is_not_a_database_is_503(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    ann = person(server)
    for file in tmp_path.glob("app.db*"):
        file.unlink()
    (tmp_path / "app.db").write_bytes(b"no database " * 1000)
    for _ in range(2):
        assert ann("GET", "/users/me").status_code == 503


def test_ten_workers_that_start_together_create_the_database_once(
    tmp_path: Path,
) -> None:
    code = "from database import create_database; import models; create_database()"
    environment = os.environ | {"DATABASE_URL": empty_database(tmp_path)}
    log = tmp_path / "starts.log"
    starts = [
        programs.start("-c", code, folder=ROOT, settings=environment, output=log)
        for _ in range(10)
    ]
    assert [start.wait(60) for start in starts] == [0] * 10, log.read_text()
    assert "Error" not in log.read_text()


@pytest.mark.sqlite
def test_the_database_may_be_in_memory(serve: Serve) -> None:
    server = serve(url="sqlite://")
    ann = person(server)

    build = server.client.build_request
    reading = build("GET", "/api/users/me", headers=ann.headers)
    requests = sign_ups(server, range(50)) + [reading] * 50
    assert statuses(requests) == {200: 50, 201: 50}


@pytest.mark.parametrize("secret", [PASSWORD, "hunter2-in-vain"])
def test_a_missing_table_is_500_with_its_traceback_and_no_secret(
    serve: Serve, secret: str
) -> None:
    server = serve()
    ann = person(server)
    ann.client.post("/api/users", json=sign_up("x", email=secret, password=secret))
    ann.client.post("/api/login", data={"username": ann.email, "password": secret})
    ((hashed,),) = server.rows('SELECT hashed_password FROM "user"')
    server.execute('ALTER TABLE "user" RENAME TO elsewhere')
    body = sign_up("x", password=secret)
    read = server.client.build_request("GET", "/api/users/me", headers=ann.headers)
    write = server.client.build_request("POST", "/api/users", json=body)
    health = server.client.build_request("GET", "/health")
    error = (500, b'{"detail":"Internal Server Error"}')
    assert at_once([read]) == at_once([write]) == [error]
    assert statuses([health]) == {503: 1}
    server.stop()
    log = server.log.read_text()
    assert "Traceback" in log
    assert "no such table" in log or "does not exist" in log, (
        "it does say what is wrong"
    )
    for told in (secret, ann.token, hashed):
        assert told not in log


@pytest.mark.sqlite
def test_after_a_clean_stop_the_file_is_alone_and_holds_everything(
    serve: Serve, tmp_path: Path
) -> None:
    server = serve("--workers", "2")
    for name in range(20):
        assert server.client.post("/api/users", json=sign_up(name)).status_code == 201
    server.stop(lambda process: process.send_signal(signal.SIGINT))
    assert [file.name for file in tmp_path.glob("app.db*")] == ["app.db"]
    shutil.copy(tmp_path / "app.db", tmp_path / "copy.db")
    with closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
        assert copy.execute("SELECT count(*) FROM user").fetchone() == (20,)


@pytest.mark.sqlite
def test_a_wal_that_grew_because_of_a_long_reader_shrinks_again(
    serve: Serve, tmp_path: Path
) -> None:
    server = serve()
    wal = tmp_path / "app.db-wal"
    with closing(sqlite3.connect(tmp_path / "app.db", isolation_level=None)) as other:
        other.execute("PRAGMA wal_autocheckpoint = 0")
        other.execute("CREATE TABLE filling (bytes)")
        with closing(sqlite3.connect(tmp_path / "app.db")) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM user").fetchall()
            for _ in range(40):
                other.execute("INSERT INTO filling VALUES (zeroblob(1000000))")
            person(server)
            assert wal.stat().st_size > 40_000_000
    for name in range(3):
        assert server.client.post("/api/users", json=sign_up(name)).status_code == 201
    assert wal.stat().st_size < 10_000_000


@pytest.mark.sqlite
def test_only_the_owner_can_read_the_file_and_its_companions(
    serve: Serve, tmp_path: Path
) -> None:
    def modes() -> dict[str, int]:
        files = tmp_path.glob("app.db*")
        return {file.name: file.stat().st_mode & 0o777 for file in files}

    private = {"app.db": 0o600, "app.db-wal": 0o600, "app.db-shm": 0o600}
    umask = os.umask(0)  # each file gets the very mode that was asked for
    try:
        server = serve()
        assert server.client.post("/api/users", json=sign_up("a")).status_code == 201
        assert modes() == private
        server.stop(subprocess.Popen.kill)
        for file in tmp_path.glob("app.db*"):  # as copies of them might be
            file.chmod(0o666)
        server = serve()
        assert server.client.post("/api/users", json=sign_up("b")).status_code == 201
        assert modes() == private
    finally:
        os.umask(umask)


@pytest.mark.sqlite
def test_a_stop_does_not_wait_for_another_reader_of_the_file(
    serve: Serve, tmp_path: Path
) -> None:
    server = serve()
    person(server)
    with closing(sqlite3.connect(tmp_path / "app.db")) as other:
        other.execute("SELECT * FROM user").fetchone()
        server.stop()
        assert server.process.returncode in {0, -signal.SIGTERM}
    assert [file.name for file in tmp_path.glob("app.db*")] == ["app.db"]


@pytest.mark.sqlite
@pytest.mark.parametrize("name", ["C#", "what?", "a%2Fb", "%41", "with space", "é"])
def test_the_file_is_in_the_folder_that_the_server_was_started_in(
    tmp_path: Path, serve: Serve, name: str
) -> None:
    folder = tmp_path / name
    folder.mkdir()
    server = serve(url="sqlite:///app.db", folder=folder)
    assert server.client.post("/api/users", json=sign_up("ann")).status_code == 201
    server.stop()
    assert [file.name for file in folder.glob("*.db*")] == ["app.db"]
    assert [*tmp_path.glob("*.db*")] == []
    made = f"WARNING:  made a new database at {folder}/app.db\n"
    assert server.log.read_text().count(made) == 1
    serve(url="sqlite:///app.db", folder=folder).stop()
    assert server.log.read_text().count(made) == 1, "the second start finds it"


@pytest.mark.sqlite
def test_what_was_answered_before_a_file_was_replaced_is_in_the_old_one(
    serve: Serve, tmp_path: Path
) -> None:
    server = serve()
    person(server)
    answered, refused = [], threading.Event()

    def post() -> None:
        number = 0
        with new_client(server.url) as client:
            while not refused.is_set():
                number += 1
                body = sign_up(f"{threading.get_ident()}-{number}")
                status = client.post("/api/users", json=body).status_code
                assert status in {201, 503}
                if status == 503:
                    refused.set()
                else:
                    answered.append(body["email"])

    threads = [threading.Thread(target=post) for _ in range(8)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(answered) > 50)
    with closing(sqlite3.connect(tmp_path / "copy.db")) as other:
        other.execute("CREATE TABLE empty (id INTEGER)")
    put_away(tmp_path, tmp_path / "away")
    (tmp_path / "copy.db").rename(tmp_path / "app.db")
    for thread in threads:
        thread.join()
    server.stop(subprocess.Popen.kill)
    with closing(sqlite3.connect(tmp_path / "away" / "app.db")) as old:
        found = {email for (email,) in old.execute("SELECT email FROM user")}
    assert set(answered) <= found
    with closing(sqlite3.connect(tmp_path / "app.db")) as new:
        tables = [name for (name,) in new.execute("SELECT name FROM sqlite_master")]
    assert tables == ["empty"]


@pytest.mark.sqlite
def test_a_write_that_was_begun_in_a_file_that_was_replaced_is_not_answered_as_done(
    serve: Serve, gate: Gate, tmp_path: Path
) -> None:
    server = serve(app=GATED)
    person(server)
    answers: list[tuple[int, bytes]] = []
    requests = sign_ups(server, ["late"])

    with (
        closing(sqlite3.connect(tmp_path / "app.db", isolation_level=None)) as one,
        closing(sqlite3.connect(tmp_path / "copy.db")) as other,
    ):
        one.backup(other)
        one.execute("BEGIN IMMEDIATE")
        thread = threading.Thread(target=lambda: answers.extend(at_once(requests)))
        with gate.closed():
            thread.start()
            gate.wait_for("hashpw")
        gate.wait_for("session")
        time.sleep(0.3)  # by now it waits for the lock, in the old file
        for file in tmp_path.glob("app.db*"):
            file.unlink()
        (tmp_path / "copy.db").rename(tmp_path / "app.db")
        one.execute("ROLLBACK")
        thread.join()
    assert [status for status, _ in answers] == [503]
    server.stop()
    assert accounts(server) == ["ann@example.com"]


@pytest.mark.sqlite
def test_a_folder_that_a_file_replaces_is_503_until_the_next_start(
    serve: Serve, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    server = serve(url=f"sqlite:///{folder}/app.db")
    ann = person(server)
    folder.rename(tmp_path / "away")
    folder.write_text("a file where the folder was")
    assert ann("GET", "/users/me").status_code == 503
    assert ann("PATCH", "/users/me", json={"name": "New"}).status_code == 503
    folder.unlink()
    (tmp_path / "away").rename(folder)
    assert ann("GET", "/users/me").status_code == 503
    server.stop()
    ann.client = serve(url=server.database).client
    assert ann("GET", "/users/me").json() == ann.account


# ---- Several event loops in one process ----

FOUR_LOOPS = """
import json
import os
import threading
from fastapi.testclient import TestClient
from main import app

first_is_over = threading.Event()
statuses = {}


def use(number, client):
    body = json.loads(os.environ["BODY"]) | {"email": f"{number}@example.com"}
    found = [client.post("/api/users", json=body).status_code]
    form = {"username": body["email"], "password": body["password"]}
    answer = client.post("/api/login", data=form)
    headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
    for _ in range(20):
        found.append(client.get("/api/users/me", headers=headers).status_code)
        change = {"name": "New"}
        answer = client.patch("/api/users/me", headers=headers, json=change)
        found.append(answer.status_code)
    return found


def serve(number):
    with TestClient(app) as client:
        found = use(f"{number}-before", client)
        if number:
            first_is_over.wait()
            found += use(f"{number}-after", client)
        statuses[number] = found
    first_is_over.set()


threads = [threading.Thread(target=serve, args=[number]) for number in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
for number in range(4):
    print(statuses[number].count(201), statuses[number].count(200))
"""


def test_servers_in_four_threads_do_not_wait_for_each_other(tmp_path: Path) -> None:
    url = empty_database(tmp_path)
    settings = os.environ | {"DATABASE_URL": url, "PYTHONPATH": str(ROOT)}
    settings["BODY"] = json.dumps(sign_up("x"))
    run = programs.run("-c", FOUR_LOOPS, folder=ROOT, settings=settings)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-4:] == ["1 40", "2 80", "2 80", "2 80"]
    assert "Traceback" not in run.stderr
