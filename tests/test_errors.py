"""Errors in a student's own router: a 409 that names the cause, or a logged 500."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from core.data.sessions import engine
from tests.conftest import ROOT, Person, Server, sign_up

Serve = Callable[..., Server]
SECRET = "hunter2-do-not-log"
STUDENTS_APP = f'''
import math
import urllib.request

from sqlalchemy import CheckConstraint, Column, ForeignKey, text
from sqlmodel import Field, SQLModel, bindparam, col, delete, select

from database import SessionDep
from main import app
from models import User


class Place(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    town: str = Field(unique=True)
    code: str = Field(unique=True)


class Visit(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    town: str = Field(foreign_key="place.town")


class Late(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    size: int = 0
    thing_id: int | None = Field(
        default=None,
        sa_column=Column(ForeignKey("thing.id", deferrable=True, initially="DEFERRED")),
    )


class Thing(SQLModel, table=True):
    __table_args__ = (CheckConstraint("number > 0", name="number_is_positive"),)
    id: int | None = Field(default=None, primary_key=True)
    code: str = Field(unique=True)
    number: int = 1
    parent_id: int | None = Field(default=None, foreign_key="thing.id")
    town: str | None = Field(
        default=None, foreign_key="place.town", ondelete="RESTRICT"
    )


@app.post("/places")
def create_place(place: Place, session: SessionDep) -> Place:
    session.add(place)
    session.commit()
    return place


@app.delete("/places")
def delete_places(session: SessionDep) -> None:
    session.exec(delete(Place).where(col(Place.town) != ""))
    session.commit()


@app.patch("/places/{{place_id}}")
def rename_place(place_id: int, town: str, session: SessionDep) -> None:
    session.get_one(Place, place_id).town = town
    session.commit()


@app.post("/late")
def create_late(late: Late, session: SessionDep) -> Late:
    session.add(late)
    session.commit()
    return late


@app.post("/bugs/overflow")
def overflow() -> float:
    return math.exp(1000)


@app.patch("/things/{{thing_id}}")
def change_thing(thing_id: int, parent_id: int, session: SessionDep) -> None:
    session.get_one(Thing, thing_id).parent_id = parent_id
    session.commit()


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


@app.get("/bugs/bindparam_left_out")
def bindparam_left_out(session: SessionDep) -> None:
    session.exec(select(User).where(User.name == bindparam("left_out"))).all()


@app.get("/bugs/file")
def file() -> None:
    open("nothing")


@app.get("/bugs/connection")
def connection() -> None:
    urllib.request.urlopen("http://127.0.0.1:1/")


@app.get("/bugs/division")
async def division() -> None:
    1 / 0
'''


@pytest.fixture
def server(new_database: Callable[[Path], str], tmp_path: Path, serve: Serve) -> Server:
    (tmp_path / "students.py").write_text(STUDENTS_APP)
    path = f"{tmp_path}:{ROOT}"
    settings = {"PYTHONPATH": path, "CORS_ORIGINS": "https://a.example.com"}
    return serve(app="students:app", url=new_database(tmp_path), **settings)


def test_a_collision_is_409_and_says_what_collided(server: Server) -> None:
    client = server.client

    def refusal(method: str, path: str, **body: object) -> str:
        answer = client.request(method, path, json=body or None)
        assert answer.status_code == 409, answer.text
        return str(answer.json()["detail"])

    parent = client.post("/things", json={"code": "a"}).json()["id"]
    child = {"code": "c", "parent_id": parent}
    child_id = client.post("/things", json=child).json()["id"]
    client.post("/places", json={"town": "Ulm", "code": "u"})
    client.post("/things", json={"code": "d", "town": "Ulm"})
    before = server.rows("SELECT id, code, parent_id, town FROM thing ORDER BY id")

    missing = "parent_id: there is no such row in thing."
    nowhere = "town: there is no such row in place."
    needed = in_the_way = "Rows in thing refer to this one."
    unknown = "A row is not there, or other rows refer to this one."
    if server.database.startswith("sqlite"):  # it says only that some reference failed
        missing = nowhere = f"{missing} Or {nowhere}"
        needed = "Rows in thing or late refer to this one."
        in_the_way = "Rows in thing or visit refer to this one."
    assert refusal("POST", "/things", code="a") == "This code is taken."
    assert refusal("POST", "/places", town="Ulm", code="x") == "This town is taken."
    assert refusal("POST", "/things", code="b", parent_id=999) == missing
    assert refusal("PATCH", f"/things/{child_id}?parent_id=999") == missing
    assert refusal("POST", "/things", code="b", town="nowhere") == nowhere
    assert refusal("DELETE", f"/things/{parent}") == needed
    assert refusal("DELETE", "/places") == in_the_way
    assert refusal("PATCH", "/places/1?town=Bonn") == in_the_way
    positive = "The database's rule number_is_positive refuses this."
    assert refusal("POST", "/things", code="b", number=-1) == positive
    assert refusal("POST", "/late", thing_id=999) == unknown
    after = server.rows("SELECT id, code, parent_id, town FROM thing ORDER BY id")
    assert after == before


def test_a_number_that_no_column_holds_is_422(server: Server) -> None:
    answer = server.client.post("/late", json={"size": 2**70})
    assert answer.status_code == 422
    (mistake,) = answer.json()["detail"]
    assert (mistake["type"], mistake["loc"]) == ("misfit", ["body", "size"])


def test_what_an_index_cannot_hold_is_422_on_postgresql(server: Server) -> None:
    letters = "".join(chr(0x4E00 + 37 * number % 20_000) for number in range(4_000))
    answer = server.client.post("/places", json={"town": letters, "code": "x"})
    if server.database.startswith("sqlite"):
        assert answer.status_code == 200
    else:
        assert answer.status_code == 422
        (mistake,) = answer.json()["detail"]
        assert mistake["msg"] == "A value that cannot be looked for or stored"
        assert server.rows("SELECT count(*) FROM place") == [(0,)]


BUGS = {
    "null": "hashed_password",
    "sql": "nowhere",
    "bindparam_left_out": "left_out",
    "file": "FileNotFoundError",
    "connection": "URLError: <urlopen error",
    "division": "ZeroDivisionError",
    "overflow": "OverflowError",
}


def test_a_mistake_is_500_with_its_traceback_and_no_row_in_the_log(
    server: Server,
) -> None:
    for bug in BUGS:
        method = "POST" if bug in {"null", "overflow"} else "GET"
        headers = {"Origin": "https://a.example.com"}
        answer = server.client.request(method, f"/bugs/{bug}", headers=headers)
        assert answer.status_code == 500
        # uvicorn closes it: a client must not send its next request on it.
        assert answer.headers["Connection"] == "close"
        allowed = answer.headers["Access-Control-Allow-Origin"]
        assert allowed == "https://a.example.com", "the page may read what happened"
        assert answer.json() == {"detail": "Internal Server Error"}
    server.stop()
    log = server.log.read_text()
    for bug, told in BUGS.items():
        traceback = log.partition(f"in {bug}\n")[2].partition("Traceback")[0]
        assert told in traceback, bug
    assert SECRET not in log


@pytest.mark.sqlite
@pytest.mark.parametrize(
    ("limit", "told"),
    [
        ("query_only = ON", "The database is read-only."),
        ("max_page_count = 1", "The database is full, or its disk is."),
    ],
)
def test_a_database_that_is_read_only_or_full_is_503_for_writers_alone(
    ann: Person, limit: str, told: str
) -> None:
    def set_limit(connection: Any, *_others: object) -> None:
        connection.execute(f"PRAGMA {limit}")  # never less than the pages it has

    numbers = itertools.count()

    def write() -> Any:
        body = sign_up(f"{'n' * 60}{next(numbers)}", name="\U0001f600" * 100)
        return ann.client.post("/api/users", json=body)

    event.listen(engine, "checkout", set_limit)
    try:
        answers = [write() for _ in range(100)]  # some fit into the last page
        assert answers[-1].status_code == 503
        assert answers[-1].json() == {"detail": told}
        assert answers[-1].headers["Retry-After"] == "1"
        assert ann("GET", "/users/me").json() == ann.account
    finally:
        event.remove(engine, "checkout", set_limit)
        engine.dispose()
    assert write().status_code == 201
