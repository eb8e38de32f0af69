"""What allowed a change is still true when it is written.

Here the server waits before it hashes, until what the request relied on has changed.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import bcrypt
import httpx2 as httpx
import pytest
from sqlmodel import create_engine

from tests.conftest import GATED, PASSWORD, Gate, Person, Server, at_once, new_client

Serve = Callable[..., Server]


def together(*calls: Callable[[], Any]) -> None:
    """Make calls at once, each in a thread."""
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@contextmanager
def in_the_background(person: Person, **request: Any) -> Iterator[list[httpx.Response]]:
    """Send a request on a connection of its own; its answer is there at the end."""
    answers: list[httpx.Response] = []

    def send() -> None:
        method, path = request.pop("method"), "/api" + request.pop("path")
        with new_client(str(person.client.base_url)) as client:
            answer = client.request(method, path, headers=person.headers, **request)
        answers.append(answer)

    thread = threading.Thread(target=send)
    thread.start()
    yield answers
    thread.join()


@contextmanager
def while_hashing(
    gate: Gate, person: Person, function: str = "hashpw", **request: Any
) -> Iterator[list[httpx.Response]]:
    """Send a request and hold it before its hash; its answer is there at the end."""
    gate.close(function)
    with in_the_background(person, **request) as answers:
        try:
            gate.wait_for(function)
            yield answers
        finally:
            gate.open()


def test_of_two_changes_of_a_password_at_once_only_one_is_made(
    serve: Serve, gate: Gate
) -> None:
    server = serve(app=GATED)
    ann = Person(server.client, "ann")
    new = ["new password", "another one"]
    changes = [{"password": one, "current_password": PASSWORD} for one in new]
    request: dict[str, Any] = {"method": "PATCH", "path": "/users/me"}
    gate.close("hashpw")  # the current one is checked, the new one waits
    with (
        in_the_background(ann, **request, json=changes[0]) as first,
        in_the_background(ann, **request, json=changes[1]) as second,
    ):
        gate.wait_for("hashpw", min(2, os.cpu_count() or 1))
        gate.open()
    statuses = [first[0].status_code, second[0].status_code]
    assert sorted(statuses) == [200, 403]
    ann.log_in(new[statuses.index(200)])


@pytest.mark.parametrize("extra", [{}, {"is_admin": True}])
@pytest.mark.parametrize("end", ["demoted", "deleted", "logged out"])
def test_what_an_administrator_had_under_way_changes_nothing_once_she_is_none(
    serve: Serve, gate: Gate, end: str, extra: dict[str, bool]
) -> None:
    server = serve(app=GATED)
    root, eve, bob = (Person(server.client, name) for name in ("root", "eve", "bob"))
    server.promote(root)
    server.promote(eve)
    change = {"password": "by eve"} | extra
    request: dict[str, Any] = {
        "method": "PATCH",
        "path": f"/users/{bob.id}",
        "json": change,
    }
    with while_hashing(gate, eve, **request) as answers:
        if end == "demoted":
            ended = root("PATCH", f"/users/{eve.id}", json={"is_admin": False})
        elif end == "deleted":
            ended = root("DELETE", f"/users/{eve.id}")
        else:
            ended = eve("POST", "/logout")
        assert ended.status_code in {200, 204}
    assert answers[0].status_code == (403 if end == "demoted" else 401)
    assert bob("GET", "/users/me").json() == bob.account
    bob.log_in()


def test_an_administrator_who_is_demoted_does_not_make_herself_one_again(
    serve: Serve, gate: Gate
) -> None:
    server = serve(app=GATED)
    root, eve = (Person(server.client, name) for name in ("root", "eve"))
    server.promote(root)
    server.promote(eve)
    change = {"is_admin": True, "password": "new", "current_password": PASSWORD}
    request: dict[str, Any] = {"method": "PATCH", "path": "/users/me", "json": change}
    with while_hashing(gate, eve, **request) as answers:
        demoted = root("PATCH", f"/users/{eve.id}", json={"is_admin": False})
        assert demoted.status_code == 200
    assert answers[0].status_code == 403
    assert eve("GET", "/users/me").json() == eve.account
    eve.log_in()


def test_of_two_log_outs_at_once_the_second_is_told_that_the_token_has_ended(
    serve: Serve, gate: Gate
) -> None:
    server = serve(app=GATED)
    ann = Person(server.client, "ann")
    engine = create_engine(server.database)
    with engine.connect() as connection:
        connection.exec_driver_sql("DELETE FROM token")
        gate.forget()
        with in_the_background(ann, method="POST", path="/logout") as answers:
            gate.wait_for("session")  # it has found the token, and waits for the lock
            connection.commit()
    engine.dispose()
    assert answers[0].status_code == 401
    assert "has ended" in answers[0].json()["detail"]


def test_an_account_that_is_deleted_while_its_new_password_is_hashed_is_404(
    serve: Serve, gate: Gate
) -> None:
    server = serve(app=GATED)
    root, bob = (Person(server.client, name) for name in ("root", "bob"))
    server.promote(root)
    path = f"/users/{bob.id}"
    request: dict[str, Any] = {
        "method": "PATCH",
        "path": path,
        "json": {"password": "new"},
    }
    with while_hashing(gate, root, **request) as answers:
        assert bob("DELETE", "/users/me").status_code == 204
    assert answers[0].status_code == 404
    assert answers[0].json() == {"detail": "User not found."}


def test_a_password_change_beats_a_login_that_was_checked_before_it(
    serve: Serve, gate: Gate
) -> None:
    server = serve(app=GATED)
    ann = Person(server.client, "ann")
    form = {"username": ann.email, "password": PASSWORD}
    request: dict[str, Any] = {"method": "POST", "path": "/login", "data": form}
    with while_hashing(gate, ann, "checkpw", **request) as answers:
        server.execute("UPDATE \"user\" SET hashed_password = 'another'")
    assert answers[0].status_code == 401
    assert answers[0].json()["detail"] == "Incorrect email or password."
    assert len(server.rows("SELECT * FROM token")) == 1, "no second one was made"


def cheap_hash() -> str:
    return bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()


def test_log_ins_at_once_succeed_when_the_hash_is_renewed(
    serve: Serve, gate: Gate
) -> None:
    server = serve(app=GATED, BCRYPT_ROUNDS="5")
    ann = Person(server.client, "ann")
    server.execute(f"UPDATE \"user\" SET hashed_password = '{cheap_hash()}'")
    statuses: list[int] = []

    def send(number: int) -> None:
        # From several addresses: those from one would be tried one after the other.
        with new_client(server.url, f"127.0.0.{number}") as client:
            form = {"username": ann.email, "password": PASSWORD}
            answer = client.post("/api/login", data=form)
            statuses.append(answer.status_code)

    gate.close("checkpw")  # all of them are checked against the old one
    together(
        *(partial(send, number) for number in range(2, 8)),
        lambda: gate.wait_for("POST /api/login", 6),
        gate.open,
    )
    assert statuses == [200] * 6
    ((stored,),) = server.rows('SELECT hashed_password FROM "user"')
    assert stored.startswith("$2b$05$")


def test_a_hash_that_is_renewed_meanwhile_does_not_stop_a_change(
    serve: Serve, gate: Gate
) -> None:
    server = serve(app=GATED)
    ann = Person(server.client, "ann")
    change = {"password": "new", "current_password": PASSWORD}
    request: dict[str, Any] = {"method": "PATCH", "path": "/users/me", "json": change}
    # The current one has been checked by the time the new one is hashed.
    with while_hashing(gate, ann, **request) as answers:
        server.execute(f"UPDATE \"user\" SET hashed_password = '{cheap_hash()}'")
    assert answers[0].status_code == 200
    ann.log_in("new")


def test_an_address_that_was_changed_meanwhile_needs_the_password_to_be_changed_back(
    serve: Serve, gate: Gate
) -> None:
    server = serve(app=GATED)
    ann = Person(server.client, "ann")
    change = {"email": ann.email}  # it is the same, so no password is asked for
    engine = create_engine(server.database)
    with engine.connect() as connection:
        connection.exec_driver_sql("UPDATE \"user\" SET email = 'ann@example.org'")
        gate.forget()
        with in_the_background(
            ann, method="PATCH", path="/users/me", json=change
        ) as answers:
            gate.wait_for("session")  # it has found the same address, and waits
            connection.commit()
    engine.dispose()
    assert answers[0].status_code == 403
    assert answers[0].json() == {"detail": "Send current_password too."}
    assert server.rows('SELECT email FROM "user"') == [("ann@example.org",)]


def test_a_server_that_was_killed_while_it_hashed_counts_no_failure(
    serve: Serve, gate: Gate
) -> None:
    server = serve(app=GATED)
    ann = Person(server.client, "ann")

    def send() -> None:
        form = {"username": ann.email, "password": "wrong"}
        with new_client(server.url) as client, suppress(httpx.TransportError):
            client.post("/api/login", data=form)

    def kill() -> None:
        gate.wait_for("POST /api/login", 20)
        gate.wait_for("checkpw")
        server.process.kill()

    gate.close()
    together(*[send] * 20, kill)
    server.stop()
    gate.open()
    ann.client = serve().client
    ann.log_in()
    assert server.rows("SELECT * FROM wrongpassword") == []


def test_fifty_right_log_ins_of_one_account_at_once_all_succeed(serve: Serve) -> None:
    server = serve()
    ann = Person(server.client, "ann")
    form = {"username": ann.email, "password": PASSWORD}
    request = server.client.build_request("POST", "/api/login", data=form)
    answers = at_once([request] * 50)
    assert [status for status, _ in answers] == [200] * 50


def test_right_current_passwords_at_once_are_not_counted_as_wrong(
    serve: Serve,
) -> None:
    server = serve()
    ann = Person(server.client, "ann")
    changes = []
    for number in range(14):
        body = {"email": f"ann{number}@example.com", "current_password": PASSWORD}
        changes.append(
            server.client.build_request(
                "PATCH", "/api/users/me", json=body, headers=ann.headers
            )
        )
    assert [status for status, _ in at_once(changes)] == [200] * 14
    assert server.rows("SELECT * FROM wrongpassword") == []


def test_two_administrators_change_each_other_without_waiting_for_ever(
    serve: Serve,
) -> None:
    server = serve()
    root, eve = (Person(server.client, name) for name in ("root", "eve"))
    server.promote(root)
    server.promote(eve)
    statuses: list[int] = []

    def change(asker: Person, other: Person) -> None:
        with new_client(server.url) as client:
            client.headers.update(asker.headers)
            for number in range(30):
                body = {"name": f"Name {number}"}
                answer = client.patch(f"/api/users/{other.id}", json=body)
                statuses.append(answer.status_code)

    together(
        *[partial(change, root, eve), partial(change, eve, root)] * 3,
    )
    assert statuses == [200] * 180
