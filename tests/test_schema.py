"""One field is one line, and a database that is older keeps its rows."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import create_engine

from tests.conftest import POSTGRESQL, ROOT, Person, Server

Serve = Callable[..., Server]
AGE = "    age: int | None = None\n"
EMAIL = "    email: str = Field(unique=True, schema_extra=EMAIL_FORMAT)\n"
NAME = "    name: str = Field(max_length=MAX_NAME)\n"


class Project:
    """The project with models to change, and a database from before the change."""

    def __init__(self, folder: Path, serve: Serve) -> None:
        self.folder, self.start = folder / "project", serve
        self.folder.mkdir()
        shutil.copy(
            ROOT / "models.py", self.folder
        )  # it goes before the project's in the path
        self.models = self.folder / "models.py"
        old = self.serve()
        self.url = old.database
        self.ann, self.bob = Person(old.client, "ann"), Person(old.client, "bob")
        old.stop()

    def serve(self) -> Server:
        return self.start(project=self.folder)

    def change(self, old: str, new: str) -> None:
        text = self.models.read_text()
        assert old in text
        self.models.write_text(text.replace(old, new, 1))

    def sql(self, statement: str) -> list[Any]:
        engine = create_engine(self.url)
        with engine.begin() as connection:
            result = connection.exec_driver_sql(statement)
            rows = [tuple(row) for row in result] if result.returns_rows else []
        engine.dispose()
        return rows

    def schema(self) -> list[Any]:
        if not POSTGRESQL:
            return self.sql(
                "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name"
            )
        columns = "table_name, column_name, column_default, is_nullable, data_type"
        tables = self.sql(
            f"SELECT {columns}, character_maximum_length"
            " FROM information_schema.columns WHERE table_schema = 'public'"
            " ORDER BY 1, 2"
        )
        return tables + self.sql(
            "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1"
        )

    def refusal(self) -> str:
        """Start where the start must fail, and give what it says."""
        before, rows = self.schema(), self.sql('SELECT * FROM "user" ORDER BY id')
        with pytest.raises(AssertionError) as failure:
            self.serve()
        text = str(failure.value).rpartition("Waiting for application startup.")[2]
        assert "Traceback" not in text, text
        assert "Nothing was changed" in text
        assert self.schema() == before
        assert self.sql('SELECT * FROM "user" ORDER BY id') == rows
        return text


@pytest.fixture
def project(tmp_path: Path, serve: Serve) -> Project:
    return Project(tmp_path, serve)


def on(server: Server, person: Person) -> Person:
    person.client = server.client
    return person


def test_one_line_is_a_field_in_the_table_in_sign_up_patch_answers_and_docs(
    project: Project,
) -> None:
    project.change(NAME, NAME + AGE)
    server = project.serve()
    ann = on(server, project.ann)
    assert ann("GET", "/users/me").json() == ann.account | {"age": None}, (
        "old rows live"
    )
    sent = {"name": "Cid", "email": "cid@example.com", "password": "x", "age": 42}
    cid = server.client.post("/api/users", json=sent)
    assert (cid.status_code, cid.json()["age"]) == (201, 42)
    assert ann("PATCH", "/users/me", json={"age": 7}).json()["age"] == 7
    assert ann("PATCH", "/users/me", json={"age": None}).json()["age"] is None
    for wrong in ("old", [1], {"a": 1}):
        assert ann("PATCH", "/users/me", json={"age": wrong}).status_code == 422
        assert (
            server.client.post("/api/users", json=sent | {"age": wrong}).status_code
            == 422
        )
    assert (
        ann("PATCH", "/users/me", json={"age": 8}).json()
        == ann("GET", "/users/me").json()
    )
    schemas = server.client.get("/openapi.json").json()["components"]["schemas"]
    assert all(
        "age" in schemas[name]["properties"]
        for name in ("UserCreate", "UserUpdate", "UserPublic")
    )
    assert [row[0] for row in project.sql('SELECT age FROM "user" ORDER BY id')] == [
        8,
        None,
        42,
    ]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ('plan: str = "it\'s 100 % free:now"', "it's 100 % free:now"),
        ("score: int = 0", 0),
        ("is_new: bool = True", True),
        ("is_old: bool = False", False),
        ("rate: float = 0.5", 0.5),
        ('plan: str = Field(default="free", max_length=20, index=True)', "free"),
    ],
)
def test_a_required_field_with_a_default_gives_it_to_old_rows(
    project: Project, field: str, value: Any
) -> None:
    name = field.partition(":")[0]
    project.change(NAME, f"{NAME}    {field}\n")
    server = project.serve()
    ann = on(server, project.ann)
    assert ann("GET", "/users/me").json() == ann.account | {name: value}
    assert ann("PATCH", "/users/me", json={name: None}).status_code == 422
    assert Person(server.client, "cid").account[name] == value
    server.stop()
    again = project.serve()
    assert on(again, ann)("GET", "/users/me").json()[name] == value


def test_a_table_and_an_index_are_added(project: Project) -> None:
    project.change(NAME, "    name: str = Field(max_length=100, index=True)\n")
    text = project.models.read_text()
    table = "class Note(SQLModel, table=True):\n"
    table += "    id: int | None = Field(default=None, primary_key=True)\n"
    project.models.write_text(f"{text}\n\n{table}")
    server = project.serve()
    assert on(server, project.ann)("GET", "/users/me").json() == project.ann.account
    assert "ix_user_name" in str(project.schema())
    assert project.sql("SELECT * FROM note") == []


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (NAME, NAME + "    age: int\n", "user.age"),
        (NAME, "    nick: str = Field(max_length=100)\n", "user.name"),
        (NAME, "    name: int\n", "user.name"),
        (NAME, "    name: str | None = Field(max_length=100)\n", "user.name"),
    ],
)
def test_what_could_lose_or_invent_data_stops_the_start_and_changes_nothing(
    project: Project, old: str, new: str, told: str
) -> None:
    project.change(old, new)
    if "nick" in new:  # else the rules and the index of the name would not import
        project.models.write_text(
            project.models.read_text().replace('"name"', '"nick"')
        )
    text = project.refusal()
    assert told in text
    assert len(text.strip().splitlines()) < 8
    shutil.copy(ROOT / "models.py", project.models)
    server = project.serve()
    assert on(server, project.ann)("GET", "/users/me").json() == project.ann.account


def test_a_unique_index_that_the_rows_break_stops_the_start(project: Project) -> None:
    project.sql("UPDATE \"user\" SET name = 'same'")
    project.change(NAME, NAME + AGE)
    project.change(
        NAME, "    name: str = Field(max_length=100, index=True, unique=True)\n"
    )
    text = project.refusal()
    assert "user.name: existing rows are not unique" in text
    assert "same" not in text


def test_a_table_that_is_somebody_elses_is_left_alone(project: Project) -> None:
    project.sql("CREATE TABLE elsewhere (id INTEGER PRIMARY KEY)")
    project.sql('CREATE INDEX mine ON "user" (is_admin)')
    project.serve()
    assert "elsewhere" in str(project.schema())
    assert "mine" in str(project.schema())


def test_ten_workers_that_start_together_add_a_field_once(project: Project) -> None:
    project.change(NAME, NAME + "    plan: str = Field(default='free', index=True)\n")
    code = "import models; from database import create_database; create_database()"
    environment = {"DATABASE_URL": project.url, "PYTHONPATH": str(ROOT)}
    starts = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env=environment,
            stderr=subprocess.PIPE,
            cwd=project.folder,
        )
        for _ in range(10)
    ]
    assert [(start.communicate()[1], start.returncode) for start in starts] == [
        (b"", 0)
    ] * 10
    assert project.sql('SELECT plan FROM "user"') == [("free",), ("free",)]


def test_a_start_that_is_killed_between_two_changes_has_made_neither(
    project: Project,
) -> None:
    project.change(NAME, NAME + AGE + "    plan: str = 'free'\n")
    code = """
import os, models
from alembic.operations import Operations
invoke, calls = Operations.invoke, []
def kill(self, change):
    invoke(self, change)
    os.kill(os.getpid(), 9)
Operations.invoke = kill
from database import create_database
create_database()"""
    before = project.schema()
    start = subprocess.run(
        [sys.executable, "-c", code],
        env={"DATABASE_URL": project.url, "PYTHONPATH": str(ROOT)},
        cwd=project.folder,
        check=False,
    )
    assert start.returncode == -9
    assert project.schema() == before
    assert on(project.serve(), project.ann)(
        "GET", "/users/me"
    ).json() == project.ann.account | {
        "age": None,
        "plan": "free",
    }


def test_with_reload_saving_the_models_is_enough(project: Project) -> None:
    server = project.start(
        "--reload", "--reload-dir", str(project.folder), project=project.folder
    )
    ann = on(server, project.ann)
    project.change(NAME, NAME + AGE)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and "age" not in ann("GET", "/users/me").text:
        time.sleep(0.1)
    assert ann("GET", "/users/me").json() == ann.account | {"age": None}


def test_what_the_readme_says_of_a_new_field_is_so(project: Project) -> None:
    section = (
        (ROOT / "README.md")
        .read_text()
        .partition("## Add a field")[2]
        .partition("\n## ")[0]
    )
    line = section.partition("```python\n")[2].partition("```")[0]
    command, shown = section.partition("```sh\n$ ")[2].partition("\n```")[0].split("\n")
    project.change(EMAIL, EMAIL + line)
    server = project.serve()
    command = command.replace("localhost:8000", f"127.0.0.1:{server.port}")
    run = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=True
    )
    changing = ('"id":', '"created_at":')
    parts = [
        [part for part in text.split(",") if not part.startswith(changing)]
        for text in (run.stdout, shown)
    ]
    assert parts[0] == parts[1]
