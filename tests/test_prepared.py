"""Prepared statements give what SQLAlchemy gives, for each kind of field."""

import json
import os
from pathlib import Path

import pytest

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
    assert prepared.prepared[statement] is not None
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
