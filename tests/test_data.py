"""tools.data: it empties the database, whatever is in it, and while the server runs."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from sqlmodel import create_engine

from tests.conftest import POSTGRESQL, ROOT, Person, Server
from tests.test_schema import NAME, Project

Serve = Callable[..., Server]


def data(
    url: str, *arguments: str, answer: str = "", project: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tools.data", *arguments],
        env=os.environ
        | {"DATABASE_URL": url, "PYTHONPATH": f"{project}{os.pathsep}{ROOT}"},
        cwd=project,
        input=answer,
        capture_output=True,
        text=True,
        check=False,
    )


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
        assert "Delete 1 accounts from " in refused.stdout
        assert "Type yes: " in refused.stdout
        assert (refused.stderr, refused.returncode) == ("Nothing was deleted.\n", 1)
    assert ann("GET", "/users/me").json() == ann.account


def test_the_server_goes_on_with_empty_tables(serve: Serve) -> None:
    server = serve()
    ann, bob = Person(server.client, "ann"), Person(server.client, "bob")
    for _ in range(20):  # PostgreSQL has prepared its statements by now
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
    if POSTGRESQL:
        assert project.sql("SELECT typname FROM pg_type WHERE typtype = 'e'") == []


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
    assert failed.returncode == 3
    assert len(failed.stderr.splitlines()) == 2
    assert "ix_user_name_id" in failed.stderr
    assert failed.stderr.endswith("Nothing was deleted.\n")
    assert ann("GET", "/users/me").json() == ann.account
