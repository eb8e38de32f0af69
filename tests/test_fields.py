"""Fields of every kind: what they take and refuse, and rules added later."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PASSWORD, ROOT, Person, Server, sign_up
from tests.pages import apply, blocks, skip_if_extended
from tests.test_schema import NAME

PAGE = (ROOT / "docs" / "fields.md").read_text()
JSON = {"Content-Type": "application/json"}


def rows_of_table() -> list[list[str]]:
    """Return the cells of the page's table: for, line, JSON, SQLite, PostgreSQL."""
    rows = []
    for line in PAGE.splitlines():
        if line.startswith("| ") and "`" in line:
            cells = re.split(r" \| ", line.strip("| "))
            rows.append([cell.strip("`").replace(r"\|", "|") for cell in cells])
    return rows


ROWS = rows_of_table()
FIELDS = [line for _, line, _, _, _ in ROWS]


def change_models(project: Path, changes: dict[str, str]) -> None:
    models = project / "models.py"
    text = models.read_text()
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new, 1)
    models.write_text(text)


def make_project(folder: Path, fields: list[str]) -> Path:
    """Copy the models, and write fields into UserBase as the page says.

    The rest is taken from the project itself.
    """
    skip_if_extended()
    folder.mkdir()
    shutil.copy(ROOT / "models.py", folder)
    imports, classes = blocks(PAGE, "python")[:2]
    changes = {
        "from datetime import UTC, datetime\n": imports,
        "class UserBase(": f"{classes}\n\nclass UserBase(",
        NAME: NAME + "".join(f"    {field}\n" for field in fields),
    }
    change_models(folder, changes)
    return folder


@pytest.fixture(scope="module")
def server(
    new_database: Callable[[Path], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Serve the project with a field of every kind, which an older account lacks."""
    folder = tmp_path_factory.mktemp("fields")
    url = new_database(folder)
    older = Server(folder, url, project=make_project(folder / "old", []))
    old = Person(older.client, "old")
    older.stop()
    project = make_project(folder / "project", FIELDS)
    first = Server(folder, url, project=project)
    old.client = first.client
    account = old("GET", "/users/me").json()
    assert old.account.items() <= account.items()
    assert [account["tags"], account["notes"], account["plan"]] == [[], {}, "free"]
    first.stop()
    server = Server(folder, url, project=project)
    yield server
    server.stop()
    _, added = server.log.read_text().split("added ")
    for field in FIELDS:
        assert f"user.{field.partition(':')[0]}" in added, "once, at the second start"


numbers = iter(range(1_000_000))


def create(server: Server, **fields: Any) -> Any:
    number = next(numbers)
    body = json.dumps(sign_up(f"n{number}", **fields))
    return server.client.post("/api/users", content=body, headers=JSON)


def name_in_json(field: str) -> str:
    alias = re.search(r'alias="(\w+)"', field)
    return alias[1] if alias else field.partition(":")[0]


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_what_the_page_says_of_a_field_is_true(server: Server, row: list[str]) -> None:
    _, field, shown, on_sqlite, on_postgresql = row
    name, value = name_in_json(field), json.loads(shown)
    if name == "handle":
        person = Person(server.client, "somebody")
    else:
        person = Person(server.client, f"person-{name.lower()}")
    patched = person("PATCH", "/users/me", json={name: value})
    assert (patched.status_code, patched.json().get(name)) == (200, value)
    assert person("GET", "/users/me").json() == patched.json()
    created = create(server, **{name: value})
    if "unique" in field:
        assert created.json() == {"detail": f"This {name} is taken."}
    else:
        assert (created.status_code, created.json()[name]) == (201, value)
    column = field.partition(":")[0]
    if server.database.startswith("sqlite"):
        types = server.rows("SELECT name, type FROM pragma_table_info('user')")
        assert dict(types)[column] == on_sqlite
    else:
        types = server.rows(
            "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute"
            " WHERE attrelid = '\"user\"'::regclass"
        )
        assert dict(types)[column] == on_postgresql


HALF = "\ud83d"
DEEP: Any = []
for _ in range(400):
    DEEP = [DEEP]
UNSTORABLE: list[Any] = [HALF, "\0", float("nan"), 1e400, DEEP]
REFUSED: dict[str, list[Any]] = {
    "age": [2**63, 10**20, -(2**63) - 1, 1e400, "1" * 400],
    "views": [2**63, -(2**63) - 1],
    "rate": [float("nan"), "nan", float("inf"), "-inf", 1e400],
    "price": ["1e400", "NaN", "Infinity", 1234567.5, "0.001"],
    "tags": [[HALF], ["a\0"], [[]], "a", None],
    "notes": [{HALF: 1}, *({"a": unstorable} for unstorable in UNSTORABLE)],
    "home": [{"street": "a\0", "city": "b"}],
    "break_for": ["P9999999D", "-P9999999D", 1e15, -1e18],
    "seen_at": ["0001-01-01T00:00:00+12:00", "9999-12-31T23:59:59-12:00"],
    "wakes_at": ["07:30:00+02:00"],
    "born": ["2000-13-01"],
    "plan": ["gold"],
    "size": ["L"],
    "motto": ["x" * 81],
    "nickName": [HALF],
    "raw": [HALF],
    "key": ["no key"],
    "host": ["1.2.3.4.5"],
    "work_email": ["no address"],
    "has_agreed": ["perhaps"],
}


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name, values in REFUSED.items() for value in values],
)
def test_what_a_column_cannot_hold_is_422_that_names_it(
    server: Server, name: str, value: Any
) -> None:
    person = Person(server.client, f"person{next(numbers)}")
    change = json.dumps({name: value})
    before = server.rows('SELECT count(*) FROM "user"')
    for answer in (
        create(server, **{name: value}),
        person("PATCH", "/users/me", content=change, headers=JSON),
    ):
        assert answer.status_code == 422, answer.text
        for mistake in answer.json()["detail"]:
            assert mistake["loc"][:2] == ["body", name]
    assert person("GET", "/users/me").json() == person.account
    assert server.rows('SELECT count(*) FROM "user"') == before


def test_whether_32_bits_are_the_limit_depends_on_the_database(server: Server) -> None:
    created = create(server, age=2**31)
    if server.database.startswith("sqlite"):
        assert created.json()["age"] == 2**31
    else:
        (mistake,) = created.json()["detail"]
        assert mistake["loc"] == ["body", "age"]
        assert mistake["msg"] == "A whole number from -2147483648 to 2147483647"


def test_docs_know_the_type_of_each_field(server: Server) -> None:
    schemas = server.client.get("/openapi.json").json()["components"]["schemas"]
    for model in ("UserCreate", "UserPublic"):
        fields = schemas[model]["properties"]
        assert fields["plan"]["$ref"] == "#/components/schemas/Plan"
        assert fields["home"]["anyOf"][0]["$ref"] == "#/components/schemas/Address"
        assert fields["tags"]["items"] == {"type": "string"}
        assert fields["work_email"]["anyOf"][0]["format"] == "email"


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("2026-01-31T12:00:00", "2026-01-31T12:00:00Z"),
        ("2026-01-31T12:00:00+02:00", "2026-01-31T10:00:00Z"),
    ],
)
def test_a_moment_is_shown_in_utc(server: Server, sent: str, shown: str) -> None:
    assert create(server, seen_at=sent).json()["seen_at"] == shown


def test_a_reference_to_a_row_that_is_not_there_is_409(server: Server) -> None:
    answer = create(server, team_id=99)
    assert answer.status_code == 409
    assert answer.json() == {"detail": "team_id: there is no such row in team."}


# ---- Fields of people who know SQLAlchemy or pydantic better than the page does. ----

RARE = {
    'pin: int = Field(default=0, sa_column_kwargs={"name": "pin_code"})': 7,
    "score: Decimal = Field(default=0, max_digits=5)": "12",
    "code: Decimal | None = Field(default=None, sa_type=String)": "12.50",
    "at: datetime | None = Field(default=None, sa_type=DateTime)": "2026-01-31T12:00",
    'raw: bytes = Field(default=b"", sa_type=LargeBinary)': "_w==",
    "ratio: Decimal | None = Field(default=None, sa_type=Numeric(5, 2))": "1.5",
    "small: int = Field(default=0, sa_type=SmallInteger)": 2**15 - 1,
    "way: Way = Field(default=Way.up, sa_type=WAYS)": "up",
    'letter: str = Field(default="a", sa_type=SQLEnum("a", "b", name="letter"))': "b",
    "amount: Decimal | None = None": "1.5",
    "short: str | None = Field(default=None, sa_type=String(5))": "12345",
}
RARE_MODELS = """
from typing import ClassVar

from pydantic import computed_field
from sqlalchemy import DateTime, LargeBinary, Numeric, SmallInteger
from sqlalchemy import Enum as SQLEnum


class Way(enum.Enum):
    up = "up"


WAYS = SQLEnum(Way, values_callable=lambda way: [member.value for member in way])


class UserBase(SQLModel):
    LONGEST: ClassVar[int] = 3

    @classmethod
    def cut(cls, text: str) -> str:
        return text[: cls.LONGEST]

    @computed_field(alias="shortName")
    @property
    def short_name(self) -> str:
        return self.cut(self.name)

"""


@pytest.fixture(scope="module")
def rare_server(
    new_database: Callable[[Path], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("rare")
    project = make_project(folder / "project", list(RARE))
    config = """{
        "populate_by_name": True,
        "ser_json_bytes": "base64",
        "val_json_bytes": "base64",
    }"""
    changes = {
        "class UserBase(SQLModel):\n": RARE_MODELS,
        '{"populate_by_name": True}': config,
    }
    change_models(project, changes)
    server = Server(folder, new_database(folder), project=project)
    yield server
    server.stop()


@pytest.mark.parametrize(("field", "value"), RARE.items())
def test_a_rare_field_is_read_as_it_was_written(
    rare_server: Server, field: str, value: Any
) -> None:
    name = field.partition(":")[0]
    created = create(rare_server, **{name: value})
    assert created.status_code == 201, created.text
    login = {"username": created.json()["email"], "password": PASSWORD}
    token = rare_server.client.post("/api/login", data=login).json()["access_token"]
    client, me = rare_server.client, "/api/users/me"
    headers = {"Authorization": f"Bearer {token}"}
    read = client.get(me, headers=headers).json()
    shown = read[name]
    assert shown == created.json()[name]
    if name in {"raw", "letter", "way", "short"}:
        assert shown.replace("_", "/") == value.replace("_", "/")
    patched = client.patch(me, headers=headers, json={name: value}).json()
    assert patched == client.get(me, headers=headers).json() == read
    assert read["shortName"] == read["name"][:3]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ratio", "1.555"),
        ("ratio", "1234"),
        ("score", "123456"),
        ("amount", "1e301"),
        ("short", "123456"),
    ],
)
def test_what_would_change_is_422(rare_server: Server, name: str, value: str) -> None:
    (mistake,) = create(rare_server, **{name: value}).json()["detail"]
    assert mistake["loc"] == ["body", name]


def test_what_a_small_column_cannot_hold_is_422_on_postgresql(
    rare_server: Server,
) -> None:
    answer = create(rare_server, small=2**15)
    is_sqlite = rare_server.database.startswith("sqlite")
    assert answer.status_code == (201 if is_sqlite else 422)


# ---- Rules added later, and rows that break them. ----

LOOSE = [
    'title: str = "x"',
    "age: int = -1",
    'size: Literal["S", "M"] = Field(default="M", sa_type=String)',
    "plan: Plan = Plan.free",
    "tags: list[Any] = Field(default=[1], sa_type=JSON)",
    "level: int | None = 7",
]
STRICT = [
    'title: str = Field(default="long", min_length=4, schema_extra=LETTERS)',
    "age: int = Field(default=0, ge=0)",
    'size: Literal["S"] = Field(default="S", sa_type=String)',
    "plan: Plan = Plan.paid",
    "tags: list[str] = Field(default=[], sa_type=JSON)",
    "level: Annotated[int, Field(ge=10)] | None = None",
]


def test_an_account_that_breaks_a_new_rule_keeps_working(
    new_database: Callable[[Path], str], tmp_path: Path
) -> None:
    url = new_database(tmp_path)
    server = Server(tmp_path, url, project=make_project(tmp_path / "old", LOOSE))
    ann, bob = Person(server.client, "ann"), Person(server.client, "bob")
    server.stop()
    new = make_project(tmp_path / "new", STRICT)
    letters = 'LETTERS = {"pattern": "^[a-z]+$"}\n\n\nclass UserBase('
    changes = {
        "class UserBase(": letters,
        '    free = "free"\n': "",
        "Field(max_length=MAX_NAME": "Field(min_length=5, max_length=MAX_NAME",
    }
    change_models(new, changes)
    server = Server(tmp_path, url, project=new)
    ann.client = bob.client = server.client
    assert ann("GET", "/users/me").json() == ann.account
    changed = ann("PATCH", "/users/me", json={"size": "S"})
    assert changed.json() == ann.account | {"size": "S"}
    for rule in (
        {"name": "Al"},
        {"title": "x"},
        {"title": "no letters"},
        {"age": -1},
        {"plan": "free"},
        {"level": 7},
    ):
        assert ann("PATCH", "/users/me", json=rule).status_code == 422
    server.execute('UPDATE "user" SET is_admin = true')
    listed = ann("GET", "/users").json()
    assert [user["tags"] for user in listed] == [[1], [1]]
    assert bob("DELETE", "/users/me").status_code == 204
    assert ann("POST", "/logout").status_code == 204
    assert ann("GET", "/users/me").status_code == 401
    ann.log_in()
    assert ann("GET", "/users").json()[0]["size"] == "S"
    server.stop()
    assert "Warning" not in server.log.read_text()


# ---- What the page says about rules over two fields, and fields for some only. ----

RULE_OVER_TWO = """
--- a/routers/user_router.py
+++ b/routers/user_router.py
@@
-from fastapi import APIRouter, Query, Request, Response
+from fastapi import APIRouter, HTTPException, Query, Request, Response
@@
-    session.add(new_user)
+    check_dates(new_user)
+    session.add(new_user)
@@
-    session.add(db_user)
+    check_dates(db_user)
+    session.add(db_user)
"""


def test_a_rule_over_two_fields_belongs_in_the_router(
    tmp_path: Path, serve: Callable[..., Server]
) -> None:
    project = make_project(tmp_path / "project", FIELDS)
    shutil.copytree(ROOT / "routers", project / "routers")
    apply(RULE_OVER_TWO, project)
    router = project / "routers" / "user_router.py"
    text = router.read_text()
    rule = blocks(PAGE, "python")[-1]
    router.write_text(text.replace("@router.post", f"{rule}\n\n@router.post", 1))
    server = serve(project=project)
    mistake = {"type": "born", "loc": ["body", "born"], "msg": "Born after seen_at"}
    seen = {"seen_at": "2000-01-01T00:00:00Z"}
    answer = create(server, born="2020-01-01", **seen)
    assert (answer.status_code, answer.json()) == (422, {"detail": [mistake]})
    ann = Person(server.client, "ann")
    assert ann("PATCH", "/users/me", json=seen).status_code == 200
    before = ann("GET", "/users/me").json()
    answer = ann("PATCH", "/users/me", json={"born": "2020-01-01"})
    assert (answer.status_code, answer.json()) == (422, {"detail": [mistake]})
    assert ann("GET", "/users/me").json() == before


IN_BASE = """
    @computed_field
    @property
    def initial(self) -> str:
        return self.first_letter()

    def first_letter(self) -> str:
        return self.name[0]

    @model_validator(mode="before")
    @classmethod
    def drop_nickname(cls, sent: object) -> object:
        if isinstance(sent, dict):
            sent.pop("nickname", None)
        return sent


class User(UserBase, table=True):
"""
IN_CREATE = """
    @field_validator("pence")
    @classmethod
    def in_pence(cls, pounds: int) -> int:
        return pounds * 100

    password: Password ="""
IN_PUBLIC = """
    @field_serializer("pence")
    def in_pounds(self, pence: int) -> str:
        return f"£{pence // 100}"

    id: int
"""
IMPORTS = """
from pydantic import (
    computed_field,
    field_serializer,
    field_validator,
    model_validator,
)
from pydantic import"""


def test_a_computed_field_and_a_serializer_are_in_every_answer(
    tmp_path: Path, serve: Callable[..., Server]
) -> None:
    project = make_project(tmp_path / "project", ["pence: int = 0"])
    changes = {
        "\nfrom pydantic import": IMPORTS,
        "\n\nclass User(UserBase, table=True):\n": IN_BASE,
        "    password: Password =": IN_CREATE,
        "    id: int\n": IN_PUBLIC,
    }
    change_models(project, changes)
    server = serve(project=project)
    created = create(server, pence=3).json()
    assert (created["pence"], created["initial"]) == ("£3", "N")
    ann = Person(server.client, "ann")
    change = {"pence": 5, "name": "Zoe", "nickname": "Z"}
    changed = ann("PATCH", "/users/me", json=change).json()
    assert (changed["pence"], changed["initial"]) == ("£5", "Z")
    assert ann("GET", "/users/me").json() == changed
    assert server.rows('SELECT pence FROM "user" ORDER BY id') == [(300,), (500,)]
    shown = server.client.get("/openapi.json").json()["components"]["schemas"]
    assert "initial" in shown["UserPublic"]["properties"]


PASSWORD_FIELD = "    password: Password ="
ID = "    id: int\n    is_admin: bool\n"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (PASSWORD_FIELD, f"    level: int = 0\n{PASSWORD_FIELD}", "UserCreate.level"),
        (ID, f"    level: int\n{ID}", "UserPublic.level"),
        (NAME, f"{NAME}    is_admin: bool = False\n", "UserCreate.is_admin"),
        (NAME, f'{NAME}    password: str = "x"\n', "password"),
    ],
)
def test_a_field_that_cannot_work_stops_the_start(
    tmp_path: Path, serve: Callable[..., Server], old: str, new: str, told: str
) -> None:
    project = make_project(tmp_path / "project", [])
    change_models(project, {old: new})
    with pytest.raises(AssertionError) as failure:
        serve(project=project)
    lines = str(failure.value).splitlines()
    (line,) = [line for line in lines if "models.py: " in line]
    assert line.startswith("ERROR:    core.start.StartRefused: models.py: ")
    assert told in line


def test_what_only_a_patch_takes_is_for_administrators(
    tmp_path: Path, serve: Callable[..., Server]
) -> None:
    project = make_project(tmp_path / "project", [])
    changes = {
        ID: f"    level: int\n{ID}",
        "    current_password: str\n": "    current_password: str\n    level: int\n",
        "    hashed_password: str\n": "    hashed_password: str\n    level: int = 1\n",
    }
    change_models(project, changes)
    server = serve(project=project)
    ann, root = Person(server.client, "ann"), Person(server.client, "root")
    server.promote(root)
    assert create(server, level=2).status_code == 422
    assert ann("PATCH", "/users/me", json={"level": 2}).status_code == 403
    assert ann("GET", "/users/me").json() == ann.account
    changed = root("PATCH", f"/users/{ann.id}", json={"level": 2})
    assert changed.json() == ann.account | {"level": 2}
    assert ann("GET", "/users/me").json() == changed.json()
