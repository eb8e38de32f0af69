"""Prepared statements give what SQLAlchemy gives, for each kind of field."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, union
from sqlalchemy.exc import StatementError
from sqlmodel import bindparam, col, select

from core.data.sessions import engine
from database import read
from models import Token, User
from tests import programs
from tests.conftest import ROOT, Person
from tests.test_data import Serve
from tests.test_fields import FIELDS, ROWS, make_project, name_in_json

COMPARE = """
import asyncio

from sqlmodel import Session, bindparam, select

import main
from core.data import prepared
from database import create_database, engine, read
from models import User

create_database()
columns = list(User.__table__.columns)
compared = []


def by_sqlalchemy(statement, **values):
    with engine.connect() as connection:
        result = connection.execute(statement, values)
        return [dict(row) for row in result.mappings()]


async def compare(statement, **values):
    expected = by_sqlalchemy(statement, **values)
    for number in range(4):
        found = await read(statement, **values)
        assert repr(found) == repr(expected), number  # of the same types, too
    assert prepared.known[statement] is not None
    compared.extend(expected)


async def compare_all():
    await compare(select(*columns).order_by(User.id))
    rows = by_sqlalchemy(select(*columns))
    for column in columns:
        value = bindparam("value", type_=column.type)
        statement = select(User.id, column.label("x")).where(column == value)
        for row in rows:
            await compare(statement, value=row[column.name])
        standing = select(User.id).where(column == rows[-1][column.name])
        await compare(standing)  # the value is in the statement
    one = select(User.id.label("id")).limit(bindparam("limit")).order_by(User.id)
    for limit in (1, 2, -1):
        await compare(one, limit=limit)


asyncio.run(compare_all())
print(len(columns), len(compared))
"""


@pytest.mark.sqlite
def test_every_kind_of_field_is_read_and_bound_as_sqlalchemy_does_it(
    tmp_path: Path, serve: Serve
) -> None:
    url = f"sqlite:///{tmp_path}/app.db"
    older = serve(url=url, project=make_project(tmp_path / "old", []))
    Person(older.client, "old")
    older.stop()
    project = make_project(tmp_path / "project", FIELDS)
    server = serve(url=url, project=project)
    ann = Person(server.client, "ann")
    Person(server.client, "empty")
    for _, field, shown, *_ in ROWS:
        change = {name_in_json(field): json.loads(shown)}
        assert ann("PATCH", "/users/me", json=change).status_code == 200
    server.stop()
    paths = f"{project}{os.pathsep}{ROOT}"
    settings = os.environ | {"DATABASE_URL": url, "PYTHONPATH": paths}
    run = programs.run("-c", COMPARE, folder=project, settings=settings)
    assert run.returncode == 0, run.stderr
    columns, compared = run.stdout.split()
    assert int(columns) == 6 + len(FIELDS)
    assert int(compared) > 3 * int(columns)


@pytest.mark.sqlite
def test_whoever_listens_to_sqlalchemy_sees_each_query(
    ann: Person,
) -> None:
    def me() -> None:
        assert ann("GET", "/users/me").json() == ann.account

    seen: list[str] = []

    def listen(_connection: object, _cursor: object, sql: str, *_: object) -> None:
        seen.append(sql)

    for _ in range(4):
        me()
    event.listen(engine, "before_cursor_execute", listen)
    try:
        me()
        me()
    finally:
        event.remove(engine, "before_cursor_execute", listen)
    assert len([sql for sql in seen if "FROM user JOIN token" in sql]) == 2
    me()
    assert len(seen) == 2, "it is prepared again"


@pytest.mark.sqlite
def test_a_log_of_sqlalchemy_has_each_query(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "logged.py").write_text(
        "import logging\n"
        "logging.basicConfig()\n"
        "logging.getLogger('sqlalchemy.engine').setLevel(logging.INFO)\n"
        "from main import app\n"
    )
    server = serve(app="logged:app", PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    ann = Person(server.client, "ann")
    for _ in range(5):
        assert ann("GET", "/users/me").json() == ann.account
    assert server.log.read_text().count("FROM user JOIN token") == 5


IDS: Any = bindparam("ids", expanding=True)
USERS_BY_ID = select(col(User.id)).where(col(User.id).in_(IDS))
USERS_SINCE = select(col(User.id)).where(col(User.created_at) > bindparam("since"))
TWO_NAMES: Any = select(col(User.id).label("x"), col(User.name).label("x"))
UNION: Any = union(select(col(User.id)), select(col(Token.user_id)))


@pytest.mark.sqlite
@pytest.mark.anyio
async def test_what_cannot_be_prepared_is_left_to_sqlalchemy(
    ann: Person, bob: Person
) -> None:
    ids = [{"id": ann.id}, {"id": bob.id}]
    for _ in range(3):
        assert await read(USERS_BY_ID, ids=[ann.id]) == ids[:1]
        assert await read(USERS_BY_ID, ids=[ann.id, bob.id]) == ids
        assert await read(USERS_BY_ID, ids=[]) == []
        assert await read(TWO_NAMES) == [{"x": "Ann"}, {"x": "Bob"}]
        assert await read(UNION) == ids
        for number in (ann.id, bob.id):
            fresh = select(col(User.id)).where(col(User.id) == number)
            assert await read(fresh) == [{"id": number}]


@pytest.mark.sqlite
@pytest.mark.anyio
async def test_a_wrong_value_is_refused_in_sqlalchemy_s_words(ann: Person) -> None:
    long_ago = datetime(2000, 1, 1, tzinfo=UTC)
    for _ in range(3):
        assert await read(USERS_SINCE, since=long_ago) == [{"id": ann.id}]
    for wrong in ("yesterday", datetime(2000, 1, 1)):  # noqa: DTZ001 # it has no zone
        with pytest.raises(StatementError):
            await read(USERS_SINCE, since=wrong)
    with pytest.raises(StatementError, match="A value is required"):
        await read(USERS_SINCE)
    assert await read(USERS_SINCE, since=long_ago) == [{"id": ann.id}]
