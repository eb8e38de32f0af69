"""What goes wrong in a student's own router: a 409 that names it, or a 500 with why."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT, Server

Serve = Callable[..., Server]
SECRET = "hunter2-do-not-log"
STUDENTS_APP = f'''
from sqlalchemy import text
from sqlmodel import Field, SQLModel, bindparam, select

from database import SessionDep
from main import app
from models import User


class Thing(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    code: str = Field(unique=True)
    parent_id: int | None = Field(default=None, foreign_key="thing.id")


@app.post("/things")
def create_thing(thing: Thing, session: SessionDep) -> Thing:
    session.add(thing)
    session.commit()
    return thing


@app.delete("/things/{{thing_id}}")
def delete_thing(thing_id: int, session: SessionDep) -> None:
    session.delete(session.get_one(Thing, thing_id))
    session.commit()


@app.post("/bugs/null")
def null(session: SessionDep) -> None:
    session.add(User(name="{SECRET}", email="bug@example.com"))
    session.commit()


@app.get("/bugs/sql")
def sql(session: SessionDep) -> None:
    session.connection().execute(text("SELECT missing FROM nowhere"))


@app.get("/bugs/bindparam")
def left_out(session: SessionDep) -> None:
    session.exec(select(User).where(User.name == bindparam("left_out"))).all()


@app.get("/bugs/file")
def file() -> None:
    open("nothing")


@app.get("/bugs/division")
async def division() -> None:
    1 / 0
'''


@pytest.fixture
def server(tmp_path: Path, serve: Serve) -> Server:
    (tmp_path / "students.py").write_text(STUDENTS_APP)
    return serve(app="students:app", PYTHONPATH=f"{tmp_path}:{ROOT}")


def test_a_row_that_collides_is_409_and_is_told(server: Server) -> None:
    thing = server.client.post("/things", json={"code": "a"}).json()
    taken = server.client.post("/things", json={"code": "a"})
    assert (taken.status_code, taken.json()) == (409, {"detail": "This code is taken."})
    nowhere = server.client.post("/things", json={"code": "b", "parent_id": 999})
    assert nowhere.status_code == 409
    child = server.client.post("/things", json={"code": "c", "parent_id": thing["id"]})
    assert child.status_code == 200
    needed = server.client.delete(f"/things/{thing['id']}")
    assert needed.status_code == 409
    for answer in (nowhere, needed):
        assert isinstance(answer.json()["detail"], str)
    codes = [row[0] for row in server.rows("SELECT code FROM thing ORDER BY code")]
    assert codes == ["a", "c"]


@pytest.mark.parametrize(
    ("bug", "told"),
    [
        ("null", "hashed_password"),
        ("sql", "nowhere"),
        ("bindparam", "left_out"),
        ("file", "FileNotFoundError"),
        ("division", "ZeroDivisionError"),
    ],
)
def test_a_mistake_is_500_with_its_traceback_and_no_row_in_the_log(
    server: Server, bug: str, told: str
) -> None:
    method = "POST" if bug == "null" else "GET"
    answer = server.client.request(method, f"/bugs/{bug}")
    assert answer.status_code == 500
    assert answer.json() == {"detail": "Internal Server Error"}
    server.stop()
    log = server.log.read_text()
    assert "Traceback" in log
    assert "students.py" in log, "the line that was wrong is there"
    assert told in log
    assert SECRET not in log
