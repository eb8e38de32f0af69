"""tools.data: save, restore, reset, import, export and fake, while the server runs."""

import csv
import os
import re
import sqlite3
import subprocess
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from sqlmodel import create_engine

from core.texts import normal_address
from tests import programs
from tests.conftest import ROOT, Person, Server, empty_database, wait_until
from tests.test_schema import NAME, Project

Serve = Callable[..., Server]


def data(
    url: str, *arguments: str, answer: str = "", project: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    paths = f"{project}{os.pathsep}{ROOT}"
    settings = os.environ | {"DATABASE_URL": url, "PYTHONPATH": paths}
    command = ["-m", "tools.data", *arguments]
    return programs.run(*command, folder=project, settings=settings, typed=answer)


def execute(url: str, statement: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()


def test_reset_asks_first_and_only_yes_deletes(serve: Serve) -> None:
    server = serve()
    ann = Person(server.client, "ann")
    for answer in ("no\n", "y\n", ""):
        refused = data(server.database, "reset", answer=answer)
        assert "Delete 1 account from " in refused.stdout
        assert "Type yes: " in refused.stdout
        assert (refused.stderr, refused.returncode) == ("Nothing was changed.\n", 1)
    assert ann("GET", "/users/me").json() == ann.account


def test_the_server_goes_on_with_empty_tables(serve: Serve) -> None:
    server = serve()
    ann, bob = Person(server.client, "ann"), Person(server.client, "bob")
    for _ in range(20):  # psycopg has prepared its statements by now
        assert ann("GET", "/users/me").status_code == 200
        assert bob("PATCH", "/users/me", json={"name": "Bo"}).status_code == 200
    done = data(server.database, "reset", answer="yes\n")
    assert (done.stderr, done.returncode) == ("", 0)
    assert "Delete 2 accounts" in done.stdout
    for _ in range(20):
        assert ann("GET", "/users/me").status_code == 401
    cid = Person(server.client, "cid")
    assert cid("GET", "/users/me").json() == cid.account
    assert server.rows('SELECT email FROM "user"') == [(cid.email,)]
    server.stop()
    again = serve()
    cid.client = again.client
    assert cid("GET", "/users/me").json() == cid.account
    assert "added" not in again.log.read_text()


def test_reset_works_where_models_and_database_differ(
    tmp_path: Path, serve: Serve
) -> None:
    project = Project(tmp_path, serve)
    old = project.models.read_text()
    project.change(
        NAME,
        NAME + "    team_id: int | None = Field(default=None, foreign_key='team.id')\n"
        "    mood: Mood = Mood.GOOD\n",
    )
    project.change(
        "class UserBase(",
        "from enum import Enum\n\n"
        "class Mood(Enum):\n    GOOD = 'good'\n\n"
        "class Team(SQLModel, table=True):\n"
        "    id: int | None = Field(default=None, primary_key=True)\n"
        "    owner_id: int | None = Field(default=None, foreign_key='user.id')\n\n"
        "class UserBase(",
    )
    server = project.serve()
    project.sql("INSERT INTO team (owner_id) VALUES (1)")
    project.sql('UPDATE "user" SET team_id = 1')
    project.sql("CREATE TABLE elsewhere (id INTEGER PRIMARY KEY)")
    project.sql("INSERT INTO elsewhere VALUES (7)")
    project.sql("CREATE TABLE note (id INTEGER REFERENCES team(id))")
    project.sql("INSERT INTO note VALUES (1)")
    project.sql('CREATE VIEW emails AS SELECT email FROM "user"')
    server.stop()
    project.models.write_text(old)
    project.change("is_admin: bool = False", "is_admin: bool | None = False")
    assert "python -m tools.data reset" in project.refusal()
    done = data(project.url, "reset", "--yes", project=project.folder)
    assert (done.stderr, done.returncode) == ("", 0)
    told = "Tables that refer to them are dropped, too: "
    assert sorted(done.stdout.split(told)[1].split(".")[0].split(", ")) == [
        "note",
        "team",
    ]
    server = project.serve()
    assert Person(server.client, "ann").account["name"] == "Ann"
    assert project.sql("SELECT id FROM elsewhere") == [(7,)]
    schema = str(project.schema())
    assert "team" not in schema
    assert "note" not in schema


def test_reset_works_where_the_table_of_accounts_is_broken(serve: Serve) -> None:
    server = serve()
    Person(server.client, "ann")
    execute(server.database, 'ALTER TABLE "user" RENAME TO elsewhere')
    done = data(server.database, "reset", answer="yes\n")
    assert (done.stderr, done.returncode) == ("", 0)
    assert "Delete an unknown number of accounts (" in done.stdout
    assert Person(server.client, "ann").account["name"] == "Ann"
    assert server.rows("SELECT name FROM elsewhere") == [("Ann",)]


def test_what_stops_a_reset_is_said_in_one_line(serve: Serve) -> None:
    server = serve()
    ann = Person(server.client, "ann")
    execute(server.database, "DROP INDEX ix_user_name_id")
    execute(server.database, "CREATE TABLE ix_user_name_id (id INTEGER)")
    failed = data(server.database, "reset", "--yes")
    assert failed.returncode == 1
    assert len(failed.stderr.splitlines()) == 2
    assert "ix_user_name_id" in failed.stderr
    assert failed.stderr.endswith("Nothing was changed.\n")
    assert ann("GET", "/users/me").json() == ann.account


@pytest.mark.sqlite
def test_what_is_saved_while_the_server_writes_can_be_restored(
    serve: Serve, tmp_path: Path
) -> None:
    server = serve()
    ann = Person(server.client, "ann")
    file = tmp_path / "saved.db"
    stop = threading.Event()
    signed_up: list[str] = []

    def write() -> None:
        while not stop.is_set():
            signed_up.append(Person(server.client, f"p{len(signed_up)}").email)

    writer = threading.Thread(target=write)
    writer.start()
    wait_until(lambda: signed_up)
    saved = data(server.database, "save", str(file))
    stop.set()
    writer.join()
    assert (saved.stderr, saved.returncode) == ("", 0)
    assert file.stat().st_mode & 0o777 == 0o600
    with closing(sqlite3.connect(file)) as copy:
        (number,) = copy.execute('SELECT count(*) FROM "user"').fetchone()
    assert 2 <= number <= len(signed_up) + 1
    assert f"{number} accounts in {file}." in saved.stdout
    again = data(server.database, "save", str(file))
    assert (again.returncode, "there already" in again.stderr) == (1, True)

    late = Person(server.client, "late")
    assert ann("PATCH", "/users/me", json={"name": "Changed"}).status_code == 200
    refused = data(server.database, "restore", str(file), answer="no\n")
    assert (refused.stderr, refused.returncode) == ("Nothing was changed.\n", 1)
    restored = data(server.database, "restore", str(file), answer="yes\n")
    assert (restored.stderr, restored.returncode) == ("", 0)
    assert ann("GET", "/users/me").json() == ann.account, "the server goes on"
    assert late("GET", "/users/me").status_code == 401
    assert Person(server.client, "new").account["name"] == "New"
    server.stop()
    ann.client = serve().client
    assert ann("GET", "/users/me").json() == ann.account


@pytest.mark.sqlite
def test_a_copy_that_differs_from_the_models_leaves_the_database_as_it_was(
    serve: Serve, tmp_path: Path
) -> None:
    server = serve()
    Person(server.client, "ann")
    execute(server.database, 'CREATE UNIQUE INDEX names ON "user" (name)')
    file = tmp_path / "saved.db"
    saved = data(server.database, "save", str(file))
    assert saved.returncode == 0, "a copy can be made even if the start is refused"
    execute(server.database, "DROP INDEX names")
    bob = Person(server.client, "bob")
    refused = data(server.database, "restore", str(file), "--yes")
    assert refused.returncode == 1
    assert "user.name: unique in the database alone" in refused.stderr
    assert bob("GET", "/users/me").json() == bob.account
    assert sorted(path.name for path in tmp_path.glob("*.db")) == ["app.db", "saved.db"]


@pytest.mark.sqlite
def test_a_file_that_is_not_a_saved_database_is_not_restored(
    serve: Serve, tmp_path: Path
) -> None:
    server = serve()
    ann = Person(server.client, "ann")
    text, empty = tmp_path / "text.db", tmp_path / "empty.db"
    text.write_text("name,email\n" * 1000)
    sqlite3.connect(empty).execute("CREATE TABLE other (id INTEGER)").close()
    for file in (text, empty):
        refused = data(server.database, "restore", str(file), "--yes")
        assert refused.returncode == 1
        (line,) = refused.stderr.splitlines()
        assert line.startswith(f"{file} is not a database of this API: ")
    assert ann("GET", "/users/me").json() == ann.account
    nothing = tmp_path / "nothing.db"
    missing = data(server.database, "restore", str(nothing), "--yes")
    assert (missing.stderr, missing.returncode) == (f"There is no file {nothing}.\n", 1)
    assert not nothing.exists()


def test_postgresql_has_a_tool_of_its_own_for_copies(
    new_database: Callable[[Path], str], tmp_path: Path
) -> None:
    url = new_database(tmp_path)
    file = tmp_path / "saved.db"
    saved = data(url, "save", str(file))
    if url.startswith("sqlite"):
        assert (saved.stdout, saved.returncode) == (f"0 accounts in {file}.\n", 0)
    else:
        assert (saved.returncode, "pg_dump" in saved.stderr) == (1, True)
        assert not file.exists()


def test_a_file_of_people_is_imported_whole_or_not_at_all(
    serve: Serve, tmp_path: Path
) -> None:
    server = serve()
    Person(server.client, "ann")
    file = tmp_path / "people.csv"

    def imported(*lines: str) -> subprocess.CompletedProcess[str]:
        file.write_text("\n".join(["name,email,password", *lines]), encoding="utf-8")
        return data(server.database, "import", str(file))

    wrong = imported("Zoë,zoe@example.com,secret", ",x@example.com,x", "Bob,bob,x")
    assert "line 3: name: Field required" in wrong.stdout
    assert "line 4: email: An email address looks like" in wrong.stdout
    assert (wrong.stderr, wrong.returncode) == ("Nothing was imported.\n", 1)
    twice = imported(
        "Z,zoe@example.com,x", "A,ann@example.com,x", "Z,ZOE@example.com,x"
    )
    assert "line 3: Email already registered." in twice.stdout
    assert "line 4: Email already registered." in twice.stdout
    many = imported(*(f"x,{number},x" for number in range(50)))
    assert "and 30 more" in many.stdout
    assert server.rows('SELECT count(*) FROM "user"') == [(1,)]

    done = imported("Zoë,Zoe@example.com,secret", "Bob,bob@example.com,other")
    assert (done.stderr, done.returncode) == ("", 0)
    assert "Added 2 accounts." in done.stdout
    login = {"username": "zoe@example.com", "password": "secret"}
    assert server.client.post("/api/login", data=login).status_code == 200


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name,email,password,colour\n", "no field of an account is called 'colour'"),
        ("id,name,email,password\n", "each new account gets its own id"),
        ("name,email,password\nA,a@example.com,x,more\n", "line 2"),
        ("\xff", "cannot be read"),
        ("name,email,password\n", "there is no account in"),
        ("name,email,password\n[1],bob,x\n", "line 2: email: An email address"),
    ],
)
def test_a_file_that_is_not_one_of_people_is_refused(
    tmp_path: Path, text: str, told: str
) -> None:
    (tmp_path / "people.csv").write_text(text, encoding="latin-1")
    url = empty_database(tmp_path)
    refused = data(url, "import", str(tmp_path / "people.csv"))
    assert refused.returncode == 1
    assert told in refused.stdout + refused.stderr
    assert "Traceback" not in refused.stderr


def test_all_accounts_are_exported_as_the_api_shows_them(
    serve: Serve, tmp_path: Path
) -> None:
    server = serve()
    people = [Person(server.client, name) for name in ("ann", "bob")]
    file = tmp_path / "people.csv"
    done = data(server.database, "export", str(file))
    assert (done.stdout, done.returncode) == (f"2 accounts in {file}.\n", 0)
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    for person, row in zip(people, rows, strict=True):
        for name, value in person.account.items():
            assert row[name] == ("" if value is None else str(value))
    assert data(server.database, "export", str(file)).returncode == 1


FIELDS = """    age: int | None = None
    nick: str = Field(unique=True)
    level: int = Field(default=1, ge=1, le=5)
    born: date | None = None
"""


def test_made_up_accounts_fill_the_fields_and_one_is_an_administrator(
    tmp_path: Path, serve: Serve
) -> None:
    pytest.importorskip("faker", reason="needs: pip install -r tools/requirements.txt")
    project = tmp_path / "project"
    project.mkdir()
    models = (ROOT / "models.py").read_text().replace(NAME, NAME + FIELDS)
    models = models.replace("import UTC, datetime", "import UTC, date, datetime")
    (project / "models.py").write_text(models)
    server = serve(project=project)
    done = data(server.database, "fake", "1500", project=project)
    assert (done.stderr, done.returncode) == ("", 0)
    assert "1,500 accounts. Log in as an administrator:" in done.stdout
    form = re.findall(r"username=(\S+) -d password=(\S+)", done.stdout)[0]
    login = dict(zip(("username", "password"), form, strict=True))
    token = server.client.post("/api/login", data=login).json()["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    page = server.client.get("/api/users?limit=100&count=true", headers=headers)
    assert page.headers["X-Total-Count"] == "1500"
    assert all(isinstance(account["age"], int) for account in page.json())
    assert all(1 <= account["level"] <= 5 for account in page.json())
    emails = [email for (email,) in server.rows('SELECT email FROM "user"')]
    assert [email for email in emails if normal_address(email) != email] == []
    refused = data(server.database, "fake", "5", project=project)
    assert (refused.returncode, "--add" in refused.stderr) == (1, True)
    added = data(server.database, "fake", "5", "--add", project=project)
    assert "1,505 accounts" in added.stdout


@pytest.mark.parametrize("arguments", [[], ["fake"], ["fake", "0"], ["fake", "many"]])
def test_a_wrong_call_says_how_to_call_it(tmp_path: Path, arguments: list[str]) -> None:
    called = data(empty_database(tmp_path), *arguments)
    assert called.returncode == 2
    assert "usage: python -m tools.data" in called.stderr
