"""Tables of one's own have what accounts have, and no session harms anybody else."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from httpx2 import RemoteProtocolError

from tests import programs
from tests.conftest import (
    ROOT,
    Person,
    Server,
    new_client,
    sign_up,
    wait_until,
)

Serve = Callable[..., Server]
JSON = {"Content-Type": "application/json"}
HALF = "\ud83d"  # half of a surrogate pair


@pytest.fixture(scope="module")
def server(
    new_database: Callable[[Path], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("own")
    # Five connections, on PostgreSQL: what a session keeps would soon be missed.
    url, app = new_database(folder), "tests.own_tables:app"
    server = Server(folder, url, app=app, DATABASE_POOL_SIZE="5")
    yield server
    server.stop()


def send(server: Server, method: str, path: str, **fields: Any) -> Any:
    body = json.dumps(fields)  # which writes what httpx refuses to: NaN, halves
    return server.client.request(method, f"/api{path}", content=body, headers=JSON)


def sign_up_at(server: Server, name: str) -> int:
    return int(server.client.post("/api/users", json=sign_up(name)).status_code)


# ---- Values ----


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("text", HALF),
        ("text", "a\0b"),
        ("code", "x" * 11),
        ("more", {"a": [HALF]}),
        ("more", {HALF: 1}),
        ("more", {"a": {"b": "\0"}}),
        ("more", {"a": float("nan")}),
        ("more", {"a": float("inf")}),
        ("count", 2**63),
        ("count", -(2**63) - 1),
        ("price", "0.001"),
        ("price", "1234567.8"),
        ("price", "NaN"),
        ("price", "1e400"),
        ("at", "0001-01-01T00:00:00+02:00"),
        ("at", "9999-12-31T23:59:59-02:00"),
        ("lasts", "P999999999D"),
        ("lasts", "-P999999999D"),
    ],
)
def test_a_value_that_its_column_cannot_hold_is_422_that_names_the_field(
    server: Server, field: str, value: Any
) -> None:
    thing = send(server, "POST", "/things", text="before").json()
    before = server.client.get("/api/things").json()
    path = f"/things/{thing['id']}"
    for method, place in (("POST", "/things"), ("PATCH", path)):
        answer = send(server, method, place, **{field: value})
        assert answer.status_code == 422, answer.text
        (mistake,) = answer.json()["detail"]
        assert mistake["loc"][:2] == ["body", field]
        assert mistake.keys() == {"type", "loc", "msg"}
    assert server.client.get("/api/things").json() == before


def test_two_values_that_do_not_fit_are_two_mistakes(server: Server) -> None:
    answer = send(server, "POST", "/things", text=HALF, count=2**63)
    found = {tuple(mistake["loc"]) for mistake in answer.json()["detail"]}
    assert found == {("body", "text"), ("body", "count")}


@pytest.mark.parametrize(
    ("field", "value", "shown"),
    [
        ("price", "1e2", "100.00"),
        ("price", "1E+3", "1000.00"),
        ("price", 5, "5.00"),
        ("at", "2026-01-31T12:00:00", "2026-01-31T12:00:00Z"),
        ("at", "2026-01-31T12:00:00+02:00", "2026-01-31T10:00:00Z"),
        ("lasts", "PT36H", "P1DT12H"),
        ("more", {"é": [1, 2.5, None]}, {"é": [1, 2.5, None]}),
    ],
)
def test_what_a_post_answers_is_what_a_get_answers(
    server: Server, field: str, value: Any, shown: Any
) -> None:
    created = send(server, "POST", "/things", **{field: value})
    assert (created.status_code, created.json()[field]) == (201, shown)
    path = f"/things/{created.json()['id']}"
    assert server.client.get(f"/api{path}").json() == created.json()
    changed = send(server, "PATCH", path, **{field: value})
    assert (changed.status_code, changed.json()) == (200, created.json())


@pytest.mark.parametrize(
    ("path", "location"),
    [
        ("/things/99999999999999999999", ["path", "thing_id"]),
        ("/things?offset=-1", ["query", "offset"]),
        ("/things?q=%00", ["query", "q"]),
        ("/things?since=2026-01-31T12:00:00", ["query", "since"]),
    ],
)
def test_what_cannot_be_looked_for_is_no_500(
    server: Server, path: str, location: list[str]
) -> None:
    answer = server.client.get(f"/api{path}")
    assert answer.status_code in {200, 404, 422}, answer.text
    if answer.status_code == 422:
        (mistake,) = answer.json()["detail"]
        assert mistake["loc"] in (location, ["body"])


def test_a_path_id_of_twenty_digits_is_told_as_the_path(server: Server) -> None:
    answer = server.client.delete("/api/things/99999999999999999999")
    assert answer.status_code in {404, 422}
    if answer.status_code == 422:
        assert answer.json()["detail"][0]["loc"] == ["path", "thing_id"]


def test_a_naive_moment_that_the_code_makes_is_500_in_sqlmodels_own_words(
    server: Server,
) -> None:
    answer = server.client.post("/api/clocks")
    assert (answer.status_code, answer.headers["Connection"]) == (500, "close")
    wait_until(lambda: server.logged("must have timezone information"))


def test_a_row_inside_an_answer_is_shown_as_its_model_says(server: Server) -> None:
    ann = Person(server.client, "ann.owns")
    thing = send(server, "POST", "/things", owner_id=ann.id).json()
    path = f"/api/things/{thing['id']}/owner"
    owners = {"owner": ann.account, "owners": [ann.account]}
    shown = thing | owners | {"by_name": {"ann": [ann.account]}}
    assert server.client.get(path).json() == shown, "and no hash"


# ---- Collisions ----


def test_a_unique_value_that_is_taken_is_409(server: Server) -> None:
    assert send(server, "POST", "/things", code="one").status_code == 201
    answer = send(server, "POST", "/things", code="one")
    assert (answer.status_code, answer.json()["detail"]) == (409, "This code is taken.")


def test_a_reference_to_a_row_that_is_not_there_is_409(server: Server) -> None:
    answer = send(server, "POST", "/things", owner_id=12345)
    detail = "owner_id: there is no such row in user."
    assert (answer.status_code, answer.json()["detail"]) == (409, detail)


@pytest.mark.parametrize("child", ["part", "label"])
def test_a_deletion_of_what_others_need_is_409(server: Server, child: str) -> None:
    thing = send(server, "POST", "/things", text="needed").json()
    path = f"/api/things/{thing['id']}"
    assert server.client.post(f"{path}/{child}").status_code == 201
    answer = server.client.delete(path)
    assert answer.status_code == 409
    assert child in answer.json()["detail"]
    assert server.client.get(path).json() == thing


@pytest.mark.parametrize("child", ["page", "mark"])
def test_what_may_go_with_it_goes_with_it(server: Server, child: str) -> None:
    thing = send(server, "POST", "/things", text="leaves").json()
    path = f"/api/things/{thing['id']}"
    assert server.client.post(f"{path}/{child}").status_code == 201
    assert server.client.get(f"/api/children/{child}").json() == 1
    assert server.client.delete(path).status_code == 204
    assert server.client.get(f"/api/children/{child}").json() == 0
    assert server.client.get(path).status_code == 404


# ---- Sessions ----


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/api/later"), ("GET", "/api/stream")]
)
def test_a_session_that_is_used_after_its_request_fails_there_and_stops_nobody(
    server: Server, method: str, path: str
) -> None:
    for _ in range(30):  # more than there are connections
        with new_client(server.url) as client, suppress(RemoteProtocolError):
            assert client.request(method, path).status_code in {200, 202}
    wait_until(lambda: server.logged("This Session has been permanently closed"))
    assert sign_up_at(server, f"after{path.rpartition('/')[2]}") == 201
    assert server.client.get("/api/things").status_code == 200


def test_the_raw_body_arrives_behind_a_session(server: Server) -> None:
    def measure(size: int) -> Any:
        body = b"x" * size
        with new_client(server.url) as client:
            return client.post("/api/raw", content=body).json()

    with ThreadPoolExecutor(20) as threads:
        assert list(threads.map(measure, range(1, 41))) == list(range(1, 41))


def test_a_websocket_may_have_a_session(server: Server) -> None:
    code = f"""
import asyncio, websockets
async def talk():
    async with websockets.connect("ws://127.0.0.1:{server.port}/api/rooms") as room:
        for text in ("room one", "room two"):
            await room.send(text)
            print(await room.recv())
        await room.send("bye")
asyncio.run(talk())
"""
    run = programs.run("-c", code, folder=ROOT, settings={})
    assert (run.stdout.splitlines(), run.stderr) == (["room one", "room two"], "")
    texts = [thing["text"] for thing in server.client.get("/api/things").json()]
    assert texts[-2:] == ["room one", "room two"]
    assert sign_up_at(server, "beside-a-websocket") == 201


def test_sessions_open_no_more_connections_than_the_setting_says(
    server: Server,
) -> None:
    if server.database.startswith("sqlite"):
        pytest.skip("a file has no such limit")
    with ThreadPoolExecutor(30) as threads:

        def use(number: int) -> int:
            with new_client(server.url) as client:
                path = "/api/things" if number % 2 else "/api/children/part"
                return int(client.get(path).status_code)

        assert set(threads.map(use, range(120))) == {200}
    ((number,),) = server.rows(
        "SELECT count(*) - 1 FROM pg_stat_activity WHERE datname = current_database()"
    )
    assert 0 < number <= 5


# ---- What a start refuses ----

OWN = """
from typing import Annotated
from fastapi import Depends
from database import SessionDep
from main import app
from models import User


async def find_user(session: SessionDep) -> User | None:
    return session.get(User, 1)


def first_user(session: SessionDep) -> User | None:
    return session.get(User, 1)


@app.get("/api/own"{options})
{kind} own({parameters}) -> {answer}:
    return None
"""


@pytest.mark.parametrize(
    ("kind", "parameters", "answer", "told"),
    [
        ("async def", "session: SessionDep", "None", "own is `async def`"),
        (
            "def",
            "user: Annotated[User | None, Depends(find_user)]",
            "None",
            "find_user is `async def`",
        ),
        ("def", "session: SessionDep", "User | None", "would answer hashed_password"),
        ("def", "session: SessionDep", "dict[str, list[User]]", "hashed_password"),
    ],
)
def test_a_route_that_would_harm_others_refuses_the_start(
    tmp_path: Path,
    serve: Serve,
    kind: str,
    parameters: str,
    answer: str,
    told: str,
) -> None:
    code = OWN.format(kind=kind, parameters=parameters, answer=answer, options="")
    (tmp_path / "own.py").write_text(code)
    with pytest.raises(AssertionError) as failure:
        serve(app="own:app", project=tmp_path)
    lines = [line for line in str(failure.value).splitlines() if "/api/own" in line]
    assert len(lines) == 1
    assert "GET /api/own" in lines[0]
    assert told in lines[0]
    assert "Traceback" not in str(failure.value)


def test_a_route_that_harms_nobody_starts(tmp_path: Path, serve: Serve) -> None:
    code = OWN.format(
        kind="async def",
        parameters="user: Annotated[User | None, Depends(first_user)]",
        answer="User | None",
        options=", response_model=None",
    )
    (tmp_path / "own.py").write_text(code)
    server = serve(app="own:app", project=tmp_path)
    assert server.client.get("/api/own").json() is None


# ---- Texts, names and apps of one's own ----


def test_what_is_said_about_log_ins_is_said_at_the_log_in_alone(server: Server) -> None:
    no_form = server.client.post("/api/form", json={"username": "x"})
    assert no_form.status_code == 415
    no_name = server.client.post("/api/form", data={"other": "x"})
    assert no_name.json()["detail"][0]["msg"] == "Field required"
    at_log_in = server.client.post("/api/login", data={"password": "x"})
    assert at_log_in.json()["detail"][0]["msg"] == "Send your email as username"
    too_large = server.client.post("/api/small")
    assert too_large.json() == {"detail": "A picture has at most 1 KiB."}
    for answer in (no_form, no_name, too_large):
        assert "log" not in answer.text.lower()


def test_a_mounted_app_that_sends_no_headers_works(server: Server) -> None:
    answer = server.client.get("/bare/")
    assert (answer.status_code, answer.text) == (200, "bare")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_a_path_of_ones_own_means_the_same_with_and_without_its_slash(
    server: Server,
) -> None:
    for path in ("/api/slashed", "/api/slashed/", "/api/things", "/api/things/"):
        answer = server.client.get(path)
        assert answer.status_code == 200, path
    assert server.client.get("/api/slashed").json() == "here"


def test_two_functions_of_one_name_have_two_operation_ids(server: Server) -> None:
    paths = server.client.get("/openapi.json").json()["paths"]
    ids = [
        operation["operationId"]
        for path in paths.values()
        for operation in path.values()
    ]
    assert len(set(ids)) == len(ids)
    assert paths["/api/users/{user_id}"]["get"]["operationId"] == "read_user"
    assert paths["/api/own"]["get"]["operationId"] == "things_read_user"
    assert "again" in paths["/api/own/again"]["get"]["operationId"]
    assert not server.logged("Duplicate Operation ID")


def test_a_member_sees_their_own_name(server: Server) -> None:
    assert Person(server.client, "own")("GET", "/own").json() == "Own"
