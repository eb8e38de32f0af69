"""tools.data: every command on every table, while the server runs."""

import csv
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from sqlmodel import create_engine

from core.texts import normal_address
from tests import programs
from tests.conftest import ROOT, Person, Server, empty_database, wait_until
from tests.pages import blocks
from tests.test_fields import FIELDS, ROWS, make_project, name_in_json
from tests.test_schema import NAME, Project

Serve = Callable[..., Server]


def data(
    url: str,
    *arguments: str,
    answer: str = "",
    project: Path = ROOT,
    tool: str = "tools.data",
) -> subprocess.CompletedProcess[str]:
    paths = f"{project}{os.pathsep}{ROOT}"
    settings = os.environ | {"DATABASE_URL": url, "PYTHONPATH": paths}
    command = ["-m", tool, *arguments]
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
        assert "user: 1 row\n" in refused.stdout
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
    assert "user: 2 rows\n" in done.stdout
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
    assert f"user: {number} rows\n" in saved.stdout
    assert f"All of that is in {file}.\n" in saved.stdout
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
@pytest.mark.parametrize("endings", [["", "-wal", "-shm"], ["", "-wal"]])
def test_what_a_killed_server_left_is_restored_with_its_wal(
    serve: Serve, tmp_path: Path, endings: list[str]
) -> None:
    server = serve()
    people = [Person(server.client, f"p{number}") for number in range(20)]
    server.stop(subprocess.Popen.kill)
    left, new = tmp_path / "left", tmp_path / "new"
    left.mkdir()
    new.mkdir()
    for ending in endings:
        shutil.move(tmp_path / f"app.db{ending}", left)
    server = serve()
    Person(server.client, "late")
    done = data(server.database, "restore", str(left / "app.db"), answer="yes\n")
    assert (done.stderr, done.returncode) == ("", 0)
    assert "user: 20 rows\n" in done.stdout
    for person in people:
        answer = server.client.get("/api/users/me", headers=person.headers)
        assert answer.json() == person.account

    # Into a place that no server has used.
    url = f"sqlite:///{new}/app.db"
    data(url, "restore", str(left / "app.db"), answer="no\n")
    assert not (new / "app.db").exists()
    done = data(url, "restore", str(left / "app.db"), "--yes")
    assert (done.stderr, done.returncode) == ("", 0)
    assert "It is not there yet: no server has used this place." in done.stdout
    assert f"Replace all of {new}/app.db with that, from {left}/app.db?" in done.stdout
    again = serve(url=url)
    assert len(again.rows('SELECT id FROM "user"')) == 20


@pytest.mark.sqlite
@pytest.mark.parametrize(
    ("statements", "told"),
    [
        (None, "file is not a database"),
        (["CREATE TABLE other (id INTEGER)"], "none of its tables is called user,"),
        (
            [
                "CREATE TRIGGER rise AFTER INSERT ON user BEGIN"
                " UPDATE user SET is_admin = 1; END"
            ],
            "it has a trigger, rise",
        ),
        (["CREATE VIEW someone AS SELECT * FROM user"], "it has a view, someone"),
        (
            [
                "DROP TABLE user",
                "CREATE VIEW user AS WITH RECURSIVE n(x) AS"
                " (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x FROM n",
            ],
            "it has a view, user",
        ),
        (["CREATE VIRTUAL TABLE words USING fts5(word)"], "it has a table, words"),
    ],
)
def test_a_file_that_must_not_take_the_place_of_the_database_is_refused(
    serve: Serve, tmp_path: Path, statements: list[str] | None, told: str
) -> None:
    server = serve()
    ann = Person(server.client, "ann")
    file = tmp_path / "odd.db"
    if statements is None:
        file.write_text("name,email\n" * 1000)
    else:
        if "other" not in statements[0]:
            assert data(server.database, "save", str(file)).returncode == 0
        with closing(sqlite3.connect(file, isolation_level=None)) as odd:
            for statement in statements:
                odd.execute(statement)
    refused = data(server.database, "restore", str(file), "--yes")
    assert refused.returncode == 1
    line, last = refused.stderr.splitlines()
    assert line.startswith(f"{file} cannot be restored: ")
    assert told in line
    assert last == "Nothing was changed."
    assert ann("GET", "/users/me").json() == ann.account
    assert Person(server.client, "bob").account["is_admin"] is False


@pytest.mark.sqlite
@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("encoding = 'UTF-16'", "encoding is UTF-16le, not UTF-8. Nothing"),
        ("page_size = 8192", "page_size is 8192, not 4096. Nothing"),
    ],
)
def test_a_file_with_other_settings_is_refused_and_moved_instead(
    serve: Serve, tmp_path: Path, setting: str, told: str
) -> None:
    server = serve()
    ann = Person(server.client, "ann")
    file, copy = tmp_path / "odd.db", tmp_path / "copy.db"
    with closing(sqlite3.connect(file)) as odd:
        odd.execute(f"PRAGMA {setting}")
        odd.execute("CREATE TABLE other (id INTEGER)")
    serve(url=f"sqlite:///{file}").stop()
    refused = data(server.database, "restore", str(file), "--yes")
    assert told in refused.stderr
    moved = data(f"sqlite:///{file}", "move", f"sqlite:///{copy}")
    assert (moved.stderr, moved.returncode) == ("", 0)
    assert ann("GET", "/users/me").json() == ann.account
    restored = data(server.database, "restore", str(copy), "--yes")
    assert (restored.stderr, restored.returncode) == ("", 0)
    assert ann("GET", "/users/me").status_code == 401, "that one was empty"


@pytest.mark.sqlite
def test_a_file_that_is_not_there_is_not_made(serve: Serve, tmp_path: Path) -> None:
    nothing = tmp_path / "nothing.db"
    missing = data(serve().database, "restore", str(nothing), "--yes")
    assert (missing.stderr, missing.returncode) == (f"There is no file {nothing}.\n", 1)
    assert not nothing.exists()


def serve_and_save(serve: Serve, folder: Path) -> tuple[Server, Person, Path]:
    """Start a server in which somebody has signed up, and save its database."""
    server = serve()
    ann = Person(server.client, "ann")
    file = folder / "saved.db"
    assert data(server.database, "save", str(file)).returncode == 0
    return server, ann, file


@pytest.mark.sqlite
def test_a_restore_that_is_killed_leaves_the_database_as_it_was(
    serve: Serve, tmp_path: Path
) -> None:
    server, ann, file = serve_and_save(serve, tmp_path)
    with closing(sqlite3.connect(file)) as large:  # so that it takes a while
        large.execute("CREATE TABLE other (content BLOB)")
        for _ in range(8):
            large.execute("INSERT INTO other VALUES (zeroblob(8000000))")
        large.execute("UPDATE user SET name = 'Restored'")
        large.commit()
    command = ["-m", "tools.data", "restore", str(file), "--yes"]
    settings = os.environ | {"DATABASE_URL": server.database, "PYTHONPATH": str(ROOT)}
    output = tmp_path / "output"
    restore = programs.start(*command, folder=ROOT, settings=settings, output=output)
    wal = tmp_path / "app.db-wal"
    while wal.stat().st_size < 10_000_000:
        assert restore.poll() is None, output.read_text()
    restore.kill()
    assert restore.wait() == -signal.SIGKILL
    assert "Done." not in output.read_text()
    assert ann("GET", "/users/me").json() == ann.account
    bob = Person(server.client, "bob")
    server.stop(subprocess.Popen.kill)
    again = serve()
    assert again.client.get("/api/users/me", headers=bob.headers).json() == bob.account
    assert len(again.rows('SELECT id FROM "user"')) == 2


@pytest.mark.sqlite
def test_a_restore_does_not_wait_for_ever_for_another_program(
    serve: Serve, tmp_path: Path
) -> None:
    server, ann, file = serve_and_save(serve, tmp_path)
    code = "from tools.data import backup; from pathlib import Path\n"
    code += "backup.START_SECONDS = 1\n"
    code += f"backup.restore(Path({str(file)!r}), agreed=True)"
    settings = os.environ | {
        "DATABASE_URL": f"{server.database}?timeout=0.1",
        "PYTHONPATH": str(ROOT),
    }
    with closing(sqlite3.connect(tmp_path / "app.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        refused = programs.run("-c", code, folder=ROOT, settings=settings)
        told = f"{tmp_path}/app.db is locked by another program. Nothing was changed.\n"
        assert (refused.stderr, refused.returncode) == (told, 1)
        other.execute("ROLLBACK")
    done = programs.run("-c", code, folder=ROOT, settings=settings)
    assert (done.stderr, done.returncode) == ("", 0)
    assert ann("GET", "/users/me").json() == ann.account


@pytest.mark.parametrize(
    "command",
    [
        ["save", "new.db"],
        ["export", "new.csv"],
        ["move", "sqlite:///new.db"],
        ["rename", "user.name", "user.title"],
        ["drop", "user.name"],
        ["reset"],
        ["ann@example.com"],
    ],
)
def test_no_tool_makes_the_database_that_it_reads(
    new_database: Callable[[Path], str], tmp_path: Path, command: list[str]
) -> None:
    url = new_database(tmp_path)
    tool = "tools.admin" if "@" in command[0] else "tools.data"
    refused = data(url, *command, project=tmp_path, tool=tool)
    assert refused.returncode == 1
    if url.startswith("sqlite"):
        assert refused.stdout == f"Database: {tmp_path}/app.db\n"
        assert refused.stderr.startswith("It is not there: run this in the folder")
    elif command[0] == "save":
        assert "pg_dump" in refused.stderr
    else:
        assert refused.stderr == "It has no tables yet: start the server once.\n"
    assert list(tmp_path.iterdir()) == []


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
    assert "Added 2 rows to user.\n" in done.stdout
    login = {"username": "zoe@example.com", "password": "secret"}
    assert server.client.post("/api/login", data=login).status_code == 200


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name,email,password,colour\n", "a row of user takes no 'colour'"),
        ("id,name,email,password\n", "a row of user takes no 'id'"),
        ("name,email,password\nA,a@example.com,x,more\n", "line 2"),
        ("\xff", "cannot be read"),
        ("name,email,password\n", "there is no row in"),
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
    assert done.stdout.endswith(f"2 rows of user in {file}.\n")
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    for person, row in zip(people, rows, strict=True):
        for name, value in person.account.items():
            assert row[name] == ("" if value is None else str(value))
    assert data(server.database, "export", str(file)).returncode == 1


MORE = """    age: int | None = None
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
    models = (ROOT / "models.py").read_text().replace(NAME, NAME + MORE)
    models = models.replace("import UTC, datetime", "import UTC, date, datetime")
    (project / "models.py").write_text(models)
    server = serve(project=project)
    done = data(server.database, "fake", "1500", project=project)
    assert (done.stderr, done.returncode) == ("", 0)
    assert "user has 1,500 rows.\nLog in as an administrator:" in done.stdout
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
    assert "1,505 rows" in added.stdout


ITEM = """

class Colour(enum.IntEnum):
    red = 1


class ItemBase(SQLModel):
    title: str = Field(max_length=6, index=True)
    code: str = Field(unique=True)
    stock: int = Field(ge=1, le=3)
    weight: Decimal = Field(gt=0, max_digits=4, decimal_places=3)
    colour: Colour
    photo: bytes | None = None
    parent_id: int | None = Field(default=None, foreign_key="item.id")
    FIELDS

class Item(ItemBase, table=True):
    id: int | None = Field(default=None, primary_key=True)
    owner_id: int = Field(foreign_key="user.id", ondelete="CASCADE")


class ItemCreate(ItemBase):
    model_config = {"extra": "forbid"}


class Like(SQLModel, table=True):
    user_id: int = Field(foreign_key="user.id", primary_key=True)
    item_id: int = Field(foreign_key="item.id", primary_key=True)


class Document(SQLModel, table=True):
    key: UUID = Field(primary_key=True)
    name: str = Field(min_length=100)
"""


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Provide a project with tables of one's own, and fields of every kind."""
    pytest.importorskip("faker", reason="needs: pip install -r tools/requirements.txt")
    project = make_project(tmp_path_factory.mktemp("items") / "project", FIELDS)
    fields = "\n    ".join(FIELDS)
    with (project / "models.py").open("a") as models:
        models.write(ITEM.replace("FIELDS", fields))
    return project


def test_rows_of_any_table_are_made_up_exported_imported_and_reset(
    items: Path, new_database: Callable[[Path], str], tmp_path: Path
) -> None:
    url = new_database(tmp_path)

    def run(*arguments: str) -> str:
        done = data(url, *arguments, project=items)
        return done.stdout + done.stderr

    assert "python -m tools.data fake 10 user" in run("fake", "5", "item")
    assert "user has 4 rows" in run("fake", "4")
    assert "team has 2 rows" in run("fake", "2", "team")
    assert "item has 1,200 rows" in run("fake", "1200", "item")
    assert "at least 100 characters. Give it a default" in run("fake", "1", "document")
    execute(url, "DELETE FROM item WHERE id > 3")
    assert "user_id, item_id is taken" in run("fake", "13", "like")
    assert "like has 6 rows" in run("fake", "6", "like")
    assert "There is no table thing. These are there: " in run("fake", "6", "thing")
    execute(url, "UPDATE item SET parent_id = 2 WHERE id = 3")
    first, second = tmp_path / "first.csv", tmp_path / "second.csv"
    assert "3 rows of item" in run("export", str(first), "item")
    assert "line 2: This id is taken." in run("import", str(first), "item")
    told = run("reset", "--yes")
    for line in ("item: 3 rows", "like: 6 rows", "team: 2 rows", "user: 4 rows"):
        assert line in told
    refused = run("import", str(first), "item")
    assert re.search("line 3: .*(owner|team)_id: there is no such row in ", refused)
    run("fake", "4")
    run("fake", "2", "team")
    assert "Added 3 rows to item." in run("import", str(first), "item")
    run("export", str(second), "item")
    assert second.read_text() == first.read_text()
    assert "item has 4 rows" in run("fake", "1", "item", "--add"), "with a new id"


def test_all_tables_move_to_postgresql_and_back(
    items: Path, postgresql: str, tmp_path: Path, serve: Serve
) -> None:
    from tools import postgresql as servers

    old, back = f"sqlite:///{tmp_path}/app.db", f"sqlite:///{tmp_path}/back.db"
    between = servers.new_database(postgresql)
    for number, table in [("1500", "team"), ("8", "user"), ("1100", "item")]:
        assert data(old, "fake", number, table, project=items).returncode == 0
    execute(old, "UPDATE item SET parent_id = 1100, home = NULL WHERE id = 1")
    server = serve(project=items, url=old)
    ann, last = Person(server.client, "ann"), Person(server.client, "last")
    for _, field, shown, *_ in ROWS:
        change = {name_in_json(field): json.loads(shown)}
        assert ann("PATCH", "/users/me", json=change).status_code == 200
    server.promote(ann)
    assert last("DELETE", "/users/me").status_code == 204
    before = ann("GET", "/users").json()
    server.stop()
    data(old, "export", f"{tmp_path}/1.csv", "item", project=items)
    for source, target in [(old, between), (between, back)]:
        typed = target.replace("postgres@", "postgres:secret@")
        moved = data(source, "move", typed, project=items)
        assert (moved.stderr, moved.returncode) == ("", 0)
        assert "item: 1,100 rows" in moved.stdout
        shown = typed.replace("secret", "PASSWORD")
        assert f"DATABASE_URL='{shown}'" in moved.stdout
        server = serve(project=items, url=target)
        ann.client = server.client
        assert ann("GET", "/users").json() == before
        new = Person(server.client, "new")
        assert new.id > last.id
        assert new("DELETE", "/users/me").status_code == 204
        last = new
        server.stop()
        data(target, "export", f"{tmp_path}/2.csv", "item", project=items)
        texts = [(tmp_path / name).read_bytes() for name in ("1.csv", "2.csv")]
        assert texts[0] == texts[1]
        (tmp_path / "2.csv").unlink()
        again = data(source, "move", target, project=items)
        assert again.returncode == 1
        assert "is not empty (team: 1,500 rows)" in again.stderr
        assert again.stderr.endswith("Nothing was copied.\n")

    with closing(sqlite3.connect(tmp_path / "app.db")) as first:
        stored = first.execute("SELECT * FROM item ORDER BY id").fetchall()
    with closing(sqlite3.connect(tmp_path / "back.db")) as second:
        assert second.execute("SELECT * FROM item ORDER BY id").fetchall() == stored


def test_a_row_that_does_not_fit_moves_nothing(
    items: Path, postgresql: str, tmp_path: Path
) -> None:
    from tools import postgresql as servers

    old, new = f"sqlite:///{tmp_path}/app.db", servers.new_database(postgresql)
    data(old, "fake", "3", project=items)
    execute(old, 'UPDATE "user" SET age = 3000000000 WHERE id = 2')
    moved = data(old, "move", new, project=items)
    assert "user.age: A whole number from -2147483648 to 2147483647" in moved.stderr
    assert "Nothing was copied." in moved.stderr
    refused = data(new, "export", str(tmp_path / "new.csv"), project=items)
    assert "It has no tables yet" in refused.stderr


@pytest.mark.parametrize("url", ["sqlite://", "mysql://host/name"])
def test_a_wrong_place_to_move_to_is_refused(tmp_path: Path, url: str) -> None:
    refused = data(empty_database(tmp_path), "move", url)
    assert (refused.returncode, len(refused.stderr.splitlines())) == (1, 1)


def test_a_column_gets_a_new_name_or_goes_and_all_else_stays(
    items: Path, new_database: Callable[[Path], str], tmp_path: Path, serve: Serve
) -> None:
    url = new_database(tmp_path)
    project = shutil.copytree(items, tmp_path / "project")
    models = project / "models.py"
    for number, table in [("3", "user"), ("2", "team"), ("5", "item"), ("2", "like")]:
        assert data(url, "fake", number, table, project=project).returncode == 0

    data(url, "fake", "1", "--add", project=project)
    execute(url, 'DELETE FROM "user" WHERE id = 4')

    def run(*arguments: str, answer: str = "") -> str:
        done = data(url, *arguments, project=project, answer=answer)
        return done.stdout + done.stderr

    assert "item has no column foto. It has: " in run("rename", "item.foto", "item.x")
    assert "There is no table x" in run("drop", "x.photo")
    assert "write TABLE.COLUMN" in run("drop", "photo")
    assert "write item.photo" in run("rename", "item.photo", "like.photo")
    taken = run("rename", "item.title", "item.photo")
    assert "item has a column photo already" in taken
    told = run("rename", "item.title", "item.headline")
    assert "Renaming item.title, which has 5 values, to item.headline" in told
    models.write_text(models.read_text().replace("    title: str", "    headline: str"))
    server = serve(url=url, project=project)
    assert "added ix_item_headline" in server.log.read_text()
    server.stop()
    question = run("drop", "item.code", answer="no\n")
    assert "Remove item.code, and 5 values in it? Type yes: " in question
    if url.startswith("sqlite"):
        assert "move sqlite:///new.db" in run("drop", "item.code", "--yes")
        dropped = ["item.headline", "item.stock", "item.motto", "user.motto"]
    else:
        dropped = ["item.code", "item.parent_id", "item.headline"]
        dropped += ["item.handle", "user.handle"]
    for name in dropped:
        assert f"{name} is gone" in run("drop", name, "--yes")
        text = models.read_text()
        field = name.partition(".")[2]
        kept = [line for line in text.splitlines() if f"    {field}: " not in line]
        models.write_text("\n".join(kept))
    server = serve(url=url, project=project)
    assert server.log.read_text().count("added") == 1, "that index"
    counts = [f'SELECT count(*) FROM "{name}"' for name in ("user", "item", "like")]
    assert [server.rows(count) for count in counts] == [[(3,)], [(5,)], [(2,)]]
    assert Person(server.client, "new").id == 5, "the last id is not given out again"


@pytest.mark.sqlite
def test_each_command_on_the_pages_works(items: Path, tmp_path: Path) -> None:
    pages = ["README.md", "docs/scaling.md", "docs/fields.md"]
    text = "".join((ROOT / page).read_text() for page in pages)
    commands = re.findall(r"\n *\.venv/bin/python -m tools\.data ([^#\n]+)", text)
    url = f"sqlite:///{tmp_path}/app.db"
    data(url, "fake", "1", "team", project=items)
    for command in commands:
        typed = re.sub(r"\w+\.(csv|db)$", rf"{tmp_path}/\g<0>", command.strip())
        typed = re.sub("postgresql://.*", f"sqlite:///{tmp_path}/new.db", typed)
        if typed == "fake 10 team":
            typed += " --add"
        if typed.startswith("import"):
            execute(url, "DELETE FROM team")
        done = data(url, *typed.split(), project=items, answer="yes\n")
        assert done.returncode == 0, (command, done.stderr)
    assert len(commands) == 10
    assert not list(tmp_path.glob("*.db-*")), "each file is complete"


@pytest.mark.sqlite
def test_the_line_for_cron_saves_and_says_when_it_could_not(
    serve: Serve, tmp_path: Path
) -> None:
    (line,) = blocks((ROOT / "docs" / "scaling.md").read_text(), "crontab")
    command = re.sub(r"^0 3 \* \* \* ", "", line).replace("\\%", "%")
    for shown, here in [
        ("/srv/users", str(ROOT)),
        ("/var/lib/users", str(tmp_path)),
        ("/var/backups/users", str(tmp_path / "saved")),
        (".venv/bin/python", sys.executable),
    ]:
        assert shown in command
        command = command.replace(shown, here)
    (tmp_path / "saved").mkdir()

    def run_by_cron() -> int:
        path = {"PATH": "/usr/bin:/bin"}  # no more, as in man 5 crontab
        done = subprocess.run(["/bin/sh", "-c", command], env=path, check=False)
        return done.returncode

    assert run_by_cron() == 1, "there is no database"
    server = serve()
    Person(server.client, "ann")
    assert run_by_cron() == 0
    (file,) = (tmp_path / "saved").iterdir()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d\.db", file.name)
    assert run_by_cron() == 1, "it does not write over a copy"
    restored = data(server.database, "restore", str(file), "--yes")
    assert "user: 1 row\n" in restored.stdout


@pytest.mark.parametrize("arguments", [[], ["fake"], ["fake", "0"], ["fake", "many"]])
def test_a_wrong_call_says_how_to_call_it(tmp_path: Path, arguments: list[str]) -> None:
    called = data(empty_database(tmp_path), *arguments)
    assert called.returncode == 2
    assert "usage: python -m tools.data" in called.stderr
