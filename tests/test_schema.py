"""One field is one line, and an older database keeps its rows."""

import contextlib
import copy
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import create_engine

from tests import programs
from tests.conftest import (
    POSTGRESQL,
    ROOT,
    Person,
    Server,
    empty_database,
    sign_up,
    wait_until,
)
from tests.pages import skip_if_extended

Serve = Callable[..., Server]
AGE = "    age: int | None = None\n"
EMAIL = "    email: Email = Field(unique=True, schema_extra=EMAIL_IN_DOCS)\n"
NAME = "    name: Name = Field(max_length=MAX_NAME, schema_extra="
NAME += '{"examples": ["John Doe"]})\n'


class Project:
    """The project with models to change, and a database from before the change."""

    def __init__(
        self, folder: Path, serve: Serve, like: "Project | None" = None
    ) -> None:
        skip_if_extended()
        self.folder, self.start = folder / "project", serve
        self.folder.mkdir()
        self.models = self.folder / "models.py"  # ahead of the project's in the path
        shutil.copy(ROOT / "models.py", self.models)
        if like is None:
            old = self.serve()
            self.url = old.database
            self.ann, self.bob = Person(old.client, "ann"), Person(old.client, "bob")
            old.stop()
        else:
            file = shutil.copy(like.folder.parent / "app.db", folder / "app.db")
            self.url = f"sqlite:///{file}"
            self.ann, self.bob = copy.copy(like.ann), copy.copy(like.bob)

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
        """Start, which must fail, and return what it says."""
        before, rows = self.schema(), self.sql('SELECT * FROM "user" ORDER BY id')
        with pytest.raises(AssertionError) as failure:
            self.serve()
        text = str(failure.value).rpartition("Waiting for application startup.")[2]
        assert "direct cause" not in text, "one exception, and not how it came about"
        assert self.schema() == before
        assert self.sql('SELECT * FROM "user" ORDER BY id') == rows
        told = text.partition("ERROR:    core.start.StartRefused: ")[2]
        return told.partition("\n\n")[0].strip()


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Project | None:
    """Provide a project whose file each test copies: making one takes a start."""
    if POSTGRESQL:
        return None
    folder = tmp_path_factory.mktemp("old")
    return Project(folder, partial(Server, folder, empty_database(folder)))


@pytest.fixture
def project(tmp_path: Path, serve: Serve, old: Project | None) -> Project:
    return Project(tmp_path, serve, like=old)


def on(server: Server, person: Person) -> Person:
    person.client = server.client
    return person


def test_one_line_is_a_field_in_the_table_in_sign_up_patch_answers_and_docs(
    project: Project,
) -> None:
    project.change(NAME, NAME + AGE)
    server = project.serve()
    ann = on(server, project.ann)
    old = ann("GET", "/users/me").json()
    assert old == ann.account | {"age": None}
    sent = sign_up("cid", age=42)
    cid = server.client.post("/api/users", json=sent)
    assert (cid.status_code, cid.json()["age"]) == (201, 42)
    for age in (7, None, 8):
        changed = ann("PATCH", "/users/me", json={"age": age})
        assert changed.json() == old | {"age": age}
    assert ann("GET", "/users/me").json() == changed.json()
    for wrong in ("old", [1], {"a": 1}):
        assert ann("PATCH", "/users/me", json={"age": wrong}).status_code == 422
        answer = server.client.post("/api/users", json=sent | {"age": wrong})
        assert answer.status_code == 422
    schemas = server.client.get("/openapi.json").json()["components"]["schemas"]
    for name in ("UserCreate", "UserUpdate", "UserPublic"):
        assert "age" in schemas[name]["properties"]
    ages = project.sql('SELECT age FROM "user" ORDER BY id')
    assert ages == [(8,), (None,), (42,)]


IMPORTS = """
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from uuid import UUID, uuid4

from sqlalchemy import JSON, Column, Integer, Table, func
from sqlmodel import Relationship


class Mood(Enum):
    GOOD = "good"
    BAD = "bad"
    AWFUL = "awful"


class Team(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str


class UserBase("""
# Each with the value that old rows get, and one to send.
FIELDS: dict[str, tuple[Any, Any]] = {
    "age: int | None = None": (None, 42),
    'plan: str = "it\'s 100 % free:now \\\\ é"': ("it's 100 % free:now \\ é", "x"),
    'tier: str = Field(default="free", max_length=20, index=True)': ("free", "gold"),
    "score: int = 0": (0, -1),
    "rate: float = -0.5": (-0.5, 1.25),
    "is_new: bool = True": (True, False),
    "is_old: bool = False": (False, True),
    "tag: str | None = Field(default=None, unique=True)": (None, "one"),
    "nick: str | None = Field(default=None, unique=True, index=True)": (None, "two"),
    "team_id: int | None = Field(default=None, foreign_key='team.id',"
    " ondelete='SET NULL', index=True)": (None, 1),
    "likes: list[str] = Field(default=[], sa_type=JSON)": ([], ["tea"]),
    "notes: list[str] = Field(default_factory=list, sa_type=JSON)": ([], ["a:b"]),
    "conf: dict[str, str] = Field(default={'a': \"it's 1 %\"}, sa_type=JSON)": (
        {"a": "it's 1 %"},
        {"b": "c"},
    ),
    "more: dict[str, int] = Field(default_factory=dict, sa_type=JSON)": ({}, {"b": 1}),
    "mood: Mood = Mood.GOOD": ("good", "bad"),
    "last_mood: Mood | None = None": (None, "good"),
    "born: date = date(2020, 1, 2)": ("2020-01-02", "1999-12-31"),
    "wakes: time = time(7, 30)": ("07:30:00", "08:00:01"),
    "paid: datetime = datetime(2020, 1, 2, tzinfo=UTC)": (
        "2020-01-02T00:00:00Z",
        "2021-05-06T07:08:09Z",
    ),
    "seen: datetime | None = Field(default_factory=now)": (None, None),
    "span: timedelta = timedelta(days=1, seconds=3)": ("P1DT3S", "PT5S"),
    "owes: Decimal = Field(default=Decimal('1.50'), max_digits=7, decimal_places=2)": (
        "1.50",
        "-20.25",
    ),
    "key: UUID = UUID('12345678123456781234567812345678')": (
        "12345678-1234-5678-1234-567812345678",
        "00000000-0000-0000-0000-000000000001",
    ),
    'raw: bytes = b"it\'s \\x00"': ("it's \0", "abc"),
}


def name_of(field: str) -> str:
    return field.partition(":")[0]


def added(server: Server) -> str:
    """Return what the last start said it added."""
    last = server.log.read_text().rpartition("Started server process")[2]
    found = re.search("added (.*)", last)
    return found[1] if found else ""


def test_fields_of_every_kind_join_a_table_that_has_rows(project: Project) -> None:
    lines = "".join(f"    {field}\n" for field in FIELDS)
    project.change("class UserBase(", IMPORTS)
    project.change(NAME, NAME + lines)
    project.change(
        "    hashed_password: str\n",
        "    hashed_password: str\n"
        '    team: Team | None = Relationship(back_populates="users")\n',
    )
    users = '    users: list["User"] = Relationship(back_populates="team")\n'
    project.change("    name: str\n", "    name: str\n" + users)
    server = project.serve()
    names = {f"user.{name_of(field)}" for field in FIELDS}
    indexes = {f"ix_user_{name}" for name in ("tier", "nick", "team_id")}
    assert {*added(server).split(", ")} == names | indexes | {"team", "uq_user_tag"}
    project.sql("INSERT INTO team (name) VALUES ('blue')")
    old = {name_of(field): value for field, (value, _sent) in FIELDS.items()}
    ann, bob = on(server, project.ann), on(server, project.bob)
    assert ann("GET", "/users/me").json() == ann.account | old
    sent = {name_of(field): value for field, (_old, value) in FIELDS.items()}
    del sent["seen"]
    answer = ann("PATCH", "/users/me", json=sent)
    assert answer.json() == ann.account | old | sent, answer.text
    assert ann("GET", "/users/me").json() == answer.json()
    assert ann("PATCH", "/users/me", json={"score": None}).status_code == 422
    for taken in ({"tag": "one"}, {"nick": "two"}, {"team_id": 99}):
        assert bob("PATCH", "/users/me", json=taken).status_code == 409, taken
    cid = Person(server.client, "cid").account
    assert {name: cid[name] for name in old} == old | {"seen": cid["seen"]}
    assert cid["seen"] is not None
    schema = project.schema()
    server.stop()

    server = project.serve()
    assert added(server) == "", "the second start finds nothing to do"
    assert project.schema() == schema
    server.stop()

    project.change('    AWFUL = "awful"\n', '    BEST = "best"\n')  # no row has it
    project.change("MAX_NAME = 100", "MAX_NAME = 200")
    server = project.serve()
    assert added(server) == ("user.name (longer)" if POSTGRESQL else "")
    sent = {"mood": "best", "name": "n" * 200}
    ann = on(server, project.ann)
    assert ann("PATCH", "/users/me", json=sent).status_code == 200
    answer = ann("GET", "/users/me").json()
    assert {name: answer[name] for name in sent} == sent
    server.stop()

    project.change('    BEST = "best"\n', "")  # a row has it
    server = project.serve()
    assert on(server, project.ann)("GET", "/users/me").json()["mood"] == "BEST"


BEFORE = """
    nick: str | None = None
    age: int | None = None
    level: int = 0
    score: int | None = None
    team_id: int | None = None
"""
AFTER = """
    alias: str | None = Field(default=None, max_length=80)
    motto: str = Field(max_length=80)
    age: int
    level: int | None = None
    score: str | None = None
    team_id: int | None = Field(default=None, foreign_key="team.id")
    count: int
    rate: float = Field(ge=0)
    mood: Mood
    owes: Decimal
    tags: list[str] = Field(sa_type=JSON)
    seen: datetime = Field(default_factory=now)
    club_id: int = Field(foreign_key="team.id")
"""
REQUIRED = "required, and rows that exist have none. In models.py: "
DIFFERS = "unique, foreign_key or ondelete is not as in the database. Put it back"
DATA = "python -m tools.data"
TOLD = {
    "team.name": "in the database, not in models.py, and it must not be empty\n"
    f"  To remove it, and what it holds: {DATA} drop team.name",
    "plain.size": f"{REQUIRED}size: int | None = Field(…)",
    "user.age": "may be empty in the database. Write in models.py: age: int | None",
    "user.club_id": f"{REQUIRED}club_id: int | None ="
    ' Field(default=None, foreign_key="team.id")',
    "user.count": f"{REQUIRED}count: int = 0, or count: int | None = None",
    "user.level": "is never empty in the database. Write in models.py: level: int",
    "user.owes": f"{REQUIRED}owes: Decimal | None = None",
    "user.nick": "in the database, not in models.py\n"
    f"  If it is alias now: {DATA} rename user.nick user.alias\n"
    f"  If it is motto now: {DATA} rename user.nick user.motto\n"
    f"  If it is mood now: {DATA} rename user.nick user.mood\n"
    f"  To remove it, and what it holds: {DATA} drop user.nick",
    "user.rate": f"{REQUIRED}rate: float | None = Field(…)",
    "user.score": "INTEGER in the database, VARCHAR in models.py. Put its type back",
    "user.seen": f"{REQUIRED}seen: datetime | None = Field(…)",
    "user.tags": f"{REQUIRED}tags: list[str] | None = Field(…)",
    "user.team_id": DIFFERS,
}
if POSTGRESQL:  # of SQLite's tables, SQLAlchemy does not read every rule
    TOLD["token.user_id"] = DIFFERS
    TOLD["user.email"] = (
        "unique in the database alone. Put it back, or end it in SQL:"
        ' ALTER TABLE "user" DROP CONSTRAINT "user_email_key"'
    )
ENDING = (
    "Nothing was changed. To have it as models.py says, keep a copy"
    f" ({DATA} save FILE) and start with empty tables: {DATA} reset"
)
MENDED = """
    alias: str | None = Field(default=None, max_length=80)
    motto: str = Field(default="", max_length=80)
    age: int | None = None
    level: int = 0
    score: int | None = None
    team_id: int | None = None
    count: int = 0
    rate: float | None = Field(ge=0)
    mood: Mood = Mood.GOOD
    owes: Decimal | None = None
    tags: list[str] | None = Field(sa_type=JSON)
    seen: datetime | None = Field(default_factory=now)
    club_id: int | None = Field(default=None, foreign_key="team.id")
"""
PLAIN = """
plain = Table("plain", SQLModel.metadata, Column("id", Integer, primary_key=True))


class UserBase("""


def test_what_could_lose_or_invent_data_is_refused_and_each_way_out_works(
    project: Project,
) -> None:
    project.change("class UserBase(", IMPORTS)
    project.change("class UserBase(", PLAIN)
    project.change(NAME, NAME + BEFORE)
    project.serve().stop()
    project.sql("UPDATE \"user\" SET nick = 'Annie' WHERE id = 1")
    project.change(BEFORE, AFTER)
    project.change(', ondelete="CASCADE"', "")
    project.change("unique=True, schema_extra=EMAIL", "schema_extra=EMAIL")
    project.change("primary_key=True)\n    name: str\n", "primary_key=True)\n")
    project.change("primary_key=True))\n", "primary_key=True), SIZE)\n")
    project.change(
        "plain = ", 'SIZE = Column("size", Integer, nullable=False)\nplain = '
    )
    *told, ending = re.split(r"\n(?! )", project.refusal())
    assert dict(line.split(": ", 1) for line in told) == TOLD
    assert ending == ENDING

    # What the commands do.
    project.sql('ALTER TABLE "user" RENAME COLUMN nick TO alias')
    project.sql("ALTER TABLE team DROP COLUMN name")
    project.change(AFTER, MENDED)
    project.change('foreign_key="user.id"', 'foreign_key="user.id", ondelete="CASCADE"')
    project.change("schema_extra=EMAIL", "unique=True, schema_extra=EMAIL")
    project.change("nullable=False", "nullable=True")
    ann = on(project.serve(), project.ann)
    assert ann("GET", "/users/me").json() == ann.account | {
        "alias": "Annie",
        "motto": "",
        "age": None,
        "level": 0,
        "score": None,
        "team_id": None,
        "count": 0,
        "rate": None,
        "mood": "good",
        "owes": None,
        "tags": None,
        "seen": None,
        "club_id": None,
    }


def test_the_version_before_starts_with_what_a_newer_one_added(
    project: Project,
) -> None:
    old = project.models.read_text()
    nick = "    nick: str | None = Field(default=None, unique=True)\n"
    friend = "    friend_id: int | None = Field(default=None, foreign_key='user.id')\n"
    project.change(NAME, NAME + AGE + nick + friend + '    plan: str = "free"\n')
    new = project.models.read_text()
    server = project.serve()
    ann = on(server, project.ann)
    assert ann("PATCH", "/users/me", json={"age": 42}).status_code == 200
    server.stop()

    project.models.write_text(old)
    before = project.schema()
    server = project.serve()
    for name in ("age", "nick", "friend_id", "plan"):
        told = f"It is left alone; this removes it: {DATA} drop user.{name}"
        assert server.logged(f"user.{name} is not in models.py. {told}")
    cid = Person(server.client, "cid")
    assert project.schema() == before
    server.stop()

    project.models.write_text(new)
    server = project.serve()
    account = on(server, ann)("GET", "/users/me").json()
    assert (account["age"], account["plan"]) == (42, "free")
    assert on(server, cid)("GET", "/users/me").json()["plan"] == "free"


def test_tables_of_alembic_are_left_alone(project: Project) -> None:
    project.sql("CREATE TABLE alembic_version (version_num VARCHAR(32))")
    project.change("class UserBase(", IMPORTS)
    project.change(NAME, NAME + AGE)
    before = project.schema()
    server = project.serve()
    assert server.logged("The tables are Alembic's: nothing is compared or changed")
    assert project.schema() == before


def test_what_is_no_longer_unique_is_refused_with_a_way_out(project: Project) -> None:
    project.change("Field(max_length", "Field(unique=True, max_length")
    server = project.serve()
    assert added(server) == "uq_user_name"
    server.stop()
    project.change("unique=True, max_length", "max_length")
    told = "user.name: unique in the database alone. Put it back, or end it in SQL: "
    command = 'DROP INDEX "uq_user_name"'
    assert project.refusal() == f"{told}{command}\nNothing was changed."
    project.sql(command)
    server = project.serve()
    cid = Person(server.client, "cid")
    assert cid("PATCH", "/users/me", json={"name": "Ann"}).status_code == 200


def test_a_field_with_an_index_can_become_unique(project: Project) -> None:
    project.change("Field(max_length", "Field(index=True, max_length")
    server = project.serve()
    assert added(server) == "ix_user_name"
    server.stop()
    project.change("index=True, max_length", "unique=True, max_length")
    server = project.serve()
    assert added(server) == "uq_user_name"
    bob = on(server, project.bob)
    assert bob("PATCH", "/users/me", json={"name": "Ann"}).status_code == 409
    server.stop()
    server = project.serve()
    assert added(server) == ""


def test_a_column_keeps_the_length_that_is_removed(project: Project) -> None:
    limited = '    motto: str = Field(default="", max_length=5)\n'
    project.change(NAME, NAME + limited)
    project.serve().stop()
    project.change(limited, '    motto: str = ""\n')
    ann = on(project.serve(), project.ann)
    expected = 422 if POSTGRESQL else 200  # SQLite stores any length
    assert ann("PATCH", "/users/me", json={"motto": "Onwards"}).status_code == expected
    assert ann("PATCH", "/users/me", json={"motto": "Ahead"}).status_code == 200


HASHED = "    hashed_password: str\n"
TEAM_ID = f"{NAME}    team_id: int | None = Field(None, foreign_key='TARGET')\n"
TEAM_KEY = TEAM_ID.replace("TARGET", "team.id")
DAY = "Field(None, sa_column_kwargs={'server_default': func.nowhere()})"
RELATION = f"{HASHED}    team: 'CLASS' = Relationship(back_populates='users')\n"
UNIQUE = (
    "unique in models.py, but rows that exist are not. Take that out of models.py, or"
)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"Field(max": "Field(unique=True, max"}, f"uq_user_name: {UNIQUE}"),
        (
            {"Field(max": "Field(unique=True, index=True, max"},
            f"ix_user_name: {UNIQUE}",
        ),
        ({"bool = False": "bool = Field(False, index=True)"}, "already exists"),
        ({NAME: f"{NAME}    day: date | None = {DAY}\n"}, "cannot follow models.py: "),
        (
            {NAME: TEAM_ID.replace("TARGET", "Teams.id")},
            "find table 'Teams' .* Did you mean foreign_key=\"team.id\"",
        ),
        (
            {NAME: TEAM_ID.replace("TARGET", "users.id")},
            "find table 'users' .* Did you mean foreign_key=\"user.id\"",
        ),
        (
            {NAME: TEAM_ID.replace("TARGET", "team.ids")},
            "no column named 'ids'. Did you mean foreign_key=\"team.id\"",
        ),
        ({HASHED: RELATION.replace("CLASS", "Teams")}, "locate a name .'Teams'."),
        ({HASHED: RELATION.replace("CLASS", "Team")}, "User.team - there are no fore"),
        (
            {HASHED: RELATION.replace("CLASS", "Team"), NAME: TEAM_KEY},
            "has no property 'users'",
        ),
    ],
)
def test_a_mistake_in_the_models_is_named_in_one_line(
    project: Project, changes: dict[str, str], told: str
) -> None:
    project.sql("UPDATE \"user\" SET name = 'same'")
    project.sql("CREATE TABLE elsewhere (id INTEGER)")
    project.sql("CREATE INDEX ix_user_is_admin ON elsewhere (id)")
    project.change("class UserBase(", IMPORTS)
    for old, new in changes.items():
        project.change(old, new)
    (line,) = project.refusal().splitlines()
    assert re.search(told, line)
    for nonsense in ("same", "reset"):
        assert nonsense not in line


def test_indexes_become_what_the_models_say(project: Project) -> None:
    # One has already been made by hand, and the name of another is taken.
    project.sql('CREATE INDEX ix_user_is_admin ON "user" (is_admin)')
    project.sql('CREATE INDEX ix_user_hashed_password ON "user" (id)')
    project.change("class UserBase(", IMPORTS)
    project.change("bool = False", "bool = Field(default=False, index=True)")
    project.change(
        "hashed_password: str\n",
        "hashed_password: str = Field(index=True)\n",
    )
    project.change("Field(max_length", "Field(index=True, unique=True, max_length")
    team = "    team_id: int | None = Field(default=None, foreign_key='team.id')\n"
    project.change(EMAIL, EMAIL + team)
    server = project.serve()
    assert sorted(added(server).split(", ")) == [
        "ix_user_hashed_password",
        "ix_user_name",
        "team",
        "user.team_id",
    ]
    bob = on(server, project.bob)
    assert bob("PATCH", "/users/me", json={"name": "Ann"}).status_code == 409
    server.stop()

    project.change("index=True, unique=True, max_length", "index=True, max_length")
    server = project.serve()
    assert added(server) == "ix_user_name"
    bob = on(server, project.bob)
    assert bob("PATCH", "/users/me", json={"name": "Ann"}).status_code == 200
    schema = project.schema()
    server.stop()
    server = project.serve()
    assert (added(server), project.schema()) == ("", schema)
    server = project.start(project=project.folder, url=empty_database(project.folder))
    assert Person(server.client, "cid").account["name"] == "Cid"


def test_a_table_that_is_somebody_elses_is_left_alone(project: Project) -> None:
    project.sql("CREATE TABLE elsewhere (id INTEGER PRIMARY KEY)")
    project.sql('CREATE INDEX mine ON "user" (is_admin)')
    project.serve()
    assert "elsewhere" in str(project.schema())
    assert "mine" in str(project.schema())


def start(project: Project, code: str = "") -> subprocess.Popen[bytes]:
    """Start a program that makes the tables, after some code."""
    code += "\nimport models\nfrom database import create_database\ncreate_database()"
    return programs.start(
        "-c",
        code,
        folder=project.folder,
        settings={"DATABASE_URL": project.url, "PYTHONPATH": str(ROOT)},
        output=project.folder / "starts.log",
    )


@pytest.mark.sqlite
def test_alembic_is_imported_only_if_something_differs(tmp_path: Path) -> None:
    skip_if_extended()
    file = tmp_path / "app.db"
    code = "import sys, main; from database import create_database; create_database();"
    code += "print('alembic' in sys.modules)"
    settings = os.environ | {"DATABASE_URL": f"sqlite:///{file}"}

    def is_imported() -> bool:
        # A new Python: those of tests/programs.py have imported it in advance.
        command = [sys.executable, "-c", code]
        return subprocess.check_output(command, cwd=ROOT, env=settings) == b"True\n"

    assert not is_imported(), "all is made anew"
    assert not is_imported(), "all is as it was made"
    for statement in (
        "ALTER TABLE user ADD COLUMN other TEXT",
        "CREATE INDEX ix_user_other ON user (other)",
        "ALTER TABLE user DROP COLUMN other",
        "DROP INDEX ix_user_name_id",
    ):
        with contextlib.closing(sqlite3.connect(file)) as other:
            if "DROP COLUMN" in statement:
                other.execute("DROP INDEX ix_user_other")
            other.execute(statement)
        differs = "DROP COLUMN" not in statement
        assert is_imported() is differs, statement


def test_ten_workers_that_start_together_add_a_field_once(project: Project) -> None:
    project.change(NAME, NAME + "    plan: str = Field(default='free', index=True)\n")
    starts = [start(project) for _ in range(10)]
    log = project.folder / "starts.log"
    assert [start.wait(60) for start in starts] == [0] * 10, log.read_text()
    for line in log.read_text().splitlines():
        assert "Waiting for up to 30 s" in line
    assert project.sql('SELECT plan FROM "user"') == [("free",), ("free",)]


def test_a_start_that_is_killed_between_two_changes_has_made_neither(
    project: Project,
) -> None:
    project.change(NAME, NAME + AGE + "    plan: str = 'free'\n")
    code = """
import os
from alembic.operations import Operations
invoke = Operations.invoke
def kill(self, change):
    invoke(self, change)
    os.kill(os.getpid(), 9)
Operations.invoke = kill"""
    before = project.schema()
    assert start(project, code).wait(60) == -9
    assert project.schema() == before
    ann = on(project.serve(), project.ann)
    account = ann("GET", "/users/me").json()
    assert account == ann.account | {"age": None, "plan": "free"}


def test_a_start_says_that_it_waits_for_another_one(project: Project) -> None:
    project.change(NAME, NAME + AGE)
    code = """
import pathlib, time
from alembic.operations import Operations
invoke = Operations.invoke
def wait(self, change):
    pathlib.Path("begun").touch()
    while not pathlib.Path("go").exists():
        time.sleep(0.01)
    return invoke(self, change)
Operations.invoke = wait"""
    one = start(project, code)
    wait_until((project.folder / "begun").exists)
    other = start(project)
    log = project.folder / "starts.log"
    wait_until(lambda: "Waiting for up to 30 s" in log.read_text())
    assert (one.poll(), other.poll()) == (None, None)
    (project.folder / "go").touch()
    assert (one.wait(20), other.wait(20)) == (0, 0)
    assert project.sql('SELECT age FROM "user"') == [(None,), (None,)]


@pytest.mark.sqlite
def test_somebody_elses_lock_stops_the_start_and_nothing_else(
    project: Project,
) -> None:
    project.change(NAME, NAME + AGE)
    impatient = "import core.start; core.start.START_SECONDS = 0"
    with contextlib.closing(
        sqlite3.connect(project.url.removeprefix("sqlite:///"), isolation_level=None)
    ) as other:
        other.execute("BEGIN IMMEDIATE")
        assert start(project, impatient).wait(20) == 1
    log = (project.folder / "starts.log").read_text()
    assert "cannot be opened: database is locked, by another start or" in log
    ann = on(project.serve(), project.ann)
    assert ann("GET", "/users/me").json() == ann.account | {"age": None}


def test_what_the_readme_says_of_a_new_field_is_true(project: Project) -> None:
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
