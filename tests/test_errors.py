"""Errors in a student's own router: a 409 that names the cause, or a logged 500."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlmodel import create_engine

from core.engine import engine
from tests.conftest import ROOT, Person, Server

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


class Club(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)


class Member(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    club_id: int = Field(foreign_key="club.id", ondelete="CASCADE")


class Prize(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    member_id: int = Field(foreign_key="member.id")


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


@app.delete("/places/all")
def delete_all_places(session: SessionDep) -> None:
    session.exec(delete(Place))
    session.commit()


@app.patch("/places/{{place_id}}")
def rename_place(place_id: int, town: str, session: SessionDep) -> None:
    session.get_one(Place, place_id).town = town
    session.commit()


@app.post("/things/two")
def create_two(session: SessionDep) -> None:
    session.add_all([Thing(code="one"), Thing(code="two", parent_id=999)])
    session.commit()


@app.post("/late")
def create_late(late: Late, session: SessionDep) -> Late:
    session.add(late)
    session.commit()
    return late


@app.post("/bugs/overflow")
def overflow() -> float:
    return math.exp(1000)


@app.post("/clubs")
def create_club(session: SessionDep) -> None:
    session.add(Club(id=1))
    session.flush()
    session.add(Member(id=1, club_id=1))
    session.flush()
    session.add(Prize(id=1, member_id=1))
    session.commit()


@app.delete("/clubs")
def delete_club(session: SessionDep) -> None:
    session.delete(session.get_one(Club, 1))
    session.commit()


@app.patch("/things/{{thing_id}}")
def change_thing(thing_id: int, parent_id: int, session: SessionDep) -> None:
    session.get_one(Thing, thing_id).parent_id = parent_id
    session.commit()


@app.post("/things/by-hand")
def create_by_hand(session: SessionDep) -> None:
    session.connection().execute(text("INSERT INTO outside (thing_id) VALUES (999)"))
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
    assert refusal("POST", "/things", code="a") == "This code is taken."
    assert refusal("POST", "/places", town="Ulm", code="x") == "This town is taken."
    assert refusal("POST", "/things", code="b", parent_id=999) == missing
    assert refusal("PATCH", f"/things/{child_id}?parent_id=999") == missing
    nowhere = refusal("POST", "/things", code="b", town="nowhere")
    assert nowhere == "town: there is no such row in place."
    assert refusal("DELETE", f"/things/{parent}") == "Rows in thing refer to this one."
    assert refusal("DELETE", "/places") == "Rows in thing refer to this one."
    assert refusal("DELETE", "/places/all") == "Rows in thing refer to this one."
    positive = "The database's rule number_is_positive refuses this."
    assert refusal("POST", "/things", code="b", number=-1) == positive
    assert refusal("POST", "/things/two") == missing
    server.execute("CREATE TABLE outside (thing_id INTEGER REFERENCES thing (id))")
    unknown = "A row is not there, or other rows refer to this one."
    assert refusal("POST", "/things/by-hand") == unknown
    assert refusal("POST", "/late", thing_id=999) == unknown
    client.post("/clubs")
    for method, path, table in (
        ("PATCH", "/places/1?town=Bonn", "thing"),
        ("DELETE", "/clubs", "prize"),
    ):
        told = refusal(method, path)
        if server.database.startswith("sqlite"):
            assert told == unknown
        else:
            assert told == f"Rows in {table} refer to this one."
    after = server.rows("SELECT id, code, parent_id, town FROM thing ORDER BY id")
    assert after == before


def test_a_number_that_no_column_holds_is_422(server: Server) -> None:
    answer = server.client.post("/late", json={"size": 2**70})
    assert answer.status_code == 422
    (mistake,) = answer.json()["detail"]
    assert mistake["msg"] == "A value does not fit its column"


def test_what_an_index_cannot_hold_is_422_on_postgresql(server: Server) -> None:
    letters = "".join(chr(0x4E00 + 37 * number % 20_000) for number in range(4_000))
    answer = server.client.post("/places", json={"town": letters, "code": "x"})
    if server.database.startswith("sqlite"):
        assert answer.status_code == 200
    else:
        assert answer.status_code == 422
        (mistake,) = answer.json()["detail"]
        assert mistake["msg"] == "A value does not fit its column"
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
        # Connection: uvicorn closes it after a mistake; Origin: a page elsewhere.
        headers = {"Connection": "close", "Origin": "https://a.example.com"}
        answer = server.client.request(method, f"/bugs/{bug}", headers=headers)
        assert answer.status_code == 500
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
@pytest.mark.parametrize("limit", ["query_only = ON", "max_page_count = 1"])
def test_a_database_that_is_read_only_or_full_is_503_for_writers_alone(
    ann: Person, limit: str
) -> None:
    def set_limit(connection: Any, *_others: object) -> None:
        connection.execute(f"PRAGMA {limit}")  # never less than the pages it has

    sent = {"name": "\U0001f600" * 100, "password": "x"}
    numbers = itertools.count()

    def sign_up() -> Any:
        body = sent | {"email": f"{'n' * 60}{next(numbers)}@example.com"}
        return ann.client.post("/api/users", json=body)

    event.listen(engine, "checkout", set_limit)
    try:
        answers = [sign_up() for _ in range(100)]  # some fit into the last page
        assert answers[-1].status_code == 503
        assert answers[-1].json()["detail"].startswith("The database does not answer.")
        assert answers[-1].headers["Retry-After"] == "1"
        assert ann("GET", "/users/me").json() == ann.account
    finally:
        event.remove(engine, "checkout", set_limit)
        engine.dispose()
    assert sign_up().status_code == 201


def test_a_server_that_is_read_only_is_503_for_writers_alone(
    postgresql: str, serve: Serve
) -> None:
    from tools.postgresql import new_database

    url = new_database(postgresql)
    server = serve(url=url)
    ann = Person(server.client, "ann")
    name = url.rpartition("/")[2]
    read_only = f"ALTER DATABASE {name} SET default_transaction_read_only"
    hosts = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname ="
    others = f"{hosts} '{name}' AND pid <> pg_backend_pid()"
    server.execute(f"{read_only} = on")
    server.rows(others)
    change = {"json": {"name": "Changed"}}
    for _ in range(3):
        assert ann("PATCH", "/users/me", **change).status_code == 503
    assert ann("GET", "/users/me").json() == ann.account
    writable = create_engine(f"{url}?options=-cdefault_transaction_read_only%3Doff")
    with writable.begin() as connection:
        connection.exec_driver_sql(f"{read_only} = off")
        connection.exec_driver_sql(others)
    writable.dispose()
    answers = [ann("PATCH", "/users/me", **change).status_code for _ in range(3)]
    assert answers[-1] == 200
