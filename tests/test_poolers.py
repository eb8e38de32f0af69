"""PgBouncer in front of PostgreSQL, in session and in transaction mode."""

import os
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests import programs
from tests.conftest import (
    ROOT,
    Person,
    Server,
    free_port,
    sign_up,
    wait_until,
)

psycopg = pytest.importorskip(
    "psycopg", reason="needs: pip install -r tests/requirements.txt"
)
from tools.postgresql import new_database

PGBOUNCER = shutil.which("pgbouncer") or shutil.which("/usr/sbin/pgbouncer")
if PGBOUNCER is None:
    pytest.skip("needs: apt-get install pgbouncer", allow_module_level=True)

# Mode, number of connections, and the startup parameters that it ignores. `options` is
# refused, unless it is ignored. In transaction mode there are fewer connections than a
# worker opens, so that they change hands all the time.
KINDS = {
    "session": ("session", 40, "options"),
    "transaction": ("transaction", 3, ""),
}
INI = """
[databases]
* = host={host} port={port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own_port}
unix_socket_dir =
auth_type = trust
auth_file = {folder}/users.txt
pool_mode = {mode}
default_pool_size = {size}
ignore_startup_parameters = {ignored}
"""


class Pooler:
    """A PgBouncer in front of a server, and an empty database there."""

    def __init__(self, server: str, folder: Path, kind: str) -> None:
        mode, size, ignored = KINDS[kind]
        self.direct = new_database(server).replace("+psycopg", "")
        behind = psycopg.conninfo.conninfo_to_dict(self.direct)
        port = free_port()
        (folder / "users.txt").write_text(f'"{behind["user"]}" ""\n')
        (folder / "pgbouncer.ini").write_text(
            INI.format(
                host=behind["host"],
                port=behind["port"],
                own_port=port,
                folder=folder,
                mode=mode,
                size=size,
                ignored=ignored,
            )
        )
        command = [str(PGBOUNCER), str(folder / "pgbouncer.ini")]
        if os.geteuid() == 0:  # it refuses to run as root
            for path in (folder, folder.parent, folder.parent.parent):
                path.chmod(0o755)
            command[1:1] = ["-u", "nobody"]
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        name = behind["dbname"]
        self.url = f"postgres://{behind['user']}@127.0.0.1:{port}/{name}"
        wait_until(self.answers)

    def answers(self) -> bool:
        try:
            psycopg.connect(self.url).close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)


@pytest.fixture(scope="module", params=KINDS)
def pooler(
    request: pytest.FixtureRequest,
    postgresql: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Pooler]:
    found = Pooler(postgresql, tmp_path_factory.mktemp("pgbouncer"), request.param)
    yield found
    found.stop()


@pytest.fixture(scope="module")
def app(pooler: Pooler, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("app"), pooler.url)
    yield server
    server.stop()


@pytest.fixture
def ann(app: Server) -> Person:
    return Person(app.client, f"ann{time.monotonic_ns()}")


def test_every_answer_is_right_while_connections_change_hands(
    app: Server, ann: Person
) -> None:
    def ask(number: int) -> int:
        if number % 2:
            answer = ann("GET", "/users/me")
            assert answer.json() == ann.account
        else:
            body = sign_up(f"{ann.id}-{number}")
            answer = app.client.post("/api/users", json=body)
        return int(answer.status_code)

    with ThreadPoolExecutor(16) as threads:
        counts = Counter(threads.map(ask, range(400)))
    assert counts == {200: 200, 201: 200}


def test_a_search_finds_and_ends_what_it_has_begun(pooler: Pooler, ann: Person) -> None:
    with psycopg.connect(pooler.direct, autocommit=True) as other:
        other.execute('UPDATE "user" SET is_admin = true WHERE id = %s', [ann.id])
        for _ in range(10):
            found = ann("GET", f"/users?q={ann.email.upper()}&count=true")
            assert [account["id"] for account in found.json()] == [ann.id]
        left = other.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND state LIKE 'idle in%'"
        )
        assert left.fetchone() == (0,)


RECORD = """
CREATE FUNCTION record() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    NEW.name = concat_ws(' ', current_setting('statement_timeout'),
        current_setting('lock_timeout'), current_setting('timezone'));
    RETURN NEW;
END $$;
CREATE TRIGGER record BEFORE INSERT ON "user" FOR EACH ROW EXECUTE FUNCTION record()
"""


def test_each_transaction_has_its_time_outs(app: Server, pooler: Pooler) -> None:
    with psycopg.connect(pooler.direct, autocommit=True) as other:
        other.execute(RECORD)
        try:
            for number in range(10):
                body = sign_up(f"recorded-{number}")
                assert app.client.post("/api/users", json=body).status_code == 201
        finally:
            other.execute("DROP FUNCTION record CASCADE")
        names = other.execute("SELECT name FROM \"user\" WHERE email LIKE 'recorded%'")
        assert Counter(names) == {("7s 4s UTC",): 10}


def test_a_locked_table_holds_no_reader_for_ever(pooler: Pooler, ann: Person) -> None:
    with psycopg.connect(pooler.direct) as other:
        other.execute('LOCK TABLE "user"')
        assert ann("GET", "/users/me").status_code == 503
    assert ann("GET", "/users/me").json() == ann.account


def test_what_others_share_is_left_as_it_was(
    app: Server, pooler: Pooler, ann: Person
) -> None:
    for number in range(20):  # psycopg prepares a statement the sixth time
        assert ann("GET", "/users/me").status_code == 200
        body = sign_up(f"{ann.id}-again-{number}")
        assert app.client.post("/api/users", json=body).status_code == 201
    query = (
        "SELECT current_setting('statement_timeout'), current_setting('lock_timeout'),"
        " (SELECT count(*) FROM pg_prepared_statements)"
    )
    strangers: list[Any] = []
    found = set()
    try:
        for _ in range(3):  # each keeps its connection while its transaction lasts
            strangers.append(psycopg.connect(pooler.url, prepare_threshold=None))
            found.add(strangers[-1].execute(query).fetchone())
    finally:
        for stranger in strangers:
            stranger.close()
    assert found == {("0", "0", 0)}


def test_the_throttle_is_exact(app: Server, ann: Person) -> None:
    wrong = {"username": ann.email, "password": "wrong"}

    def guess(_: int) -> int:
        return int(app.client.post("/api/login", data=wrong).status_code)

    with ThreadPoolExecutor(16) as threads:
        assert Counter(threads.map(guess, range(30))) == {401: 10, 429: 20}


TEN_STARTS = """
import os
import main
from database import create_database
children = []
for _ in range(10):
    child = os.fork()
    if child == 0:
        create_database()
        os._exit(0)
    children.append(child)
print([os.waitpid(child, 0)[1] for child in children])
"""


def test_ten_starts_at_once_create_the_tables_once(
    pooler: Pooler, postgresql: str
) -> None:
    name = new_database(postgresql).rpartition("/")[2]
    url = pooler.url.rpartition("/")[0] + "/" + name
    settings = os.environ | {"DATABASE_URL": url, "PYTHONPATH": str(ROOT)}
    run = programs.run("-c", TEN_STARTS, folder=ROOT, settings=settings)
    assert (run.returncode, run.stdout) == (0, f"{[0] * 10}\n")
    assert "Error" not in run.stderr
