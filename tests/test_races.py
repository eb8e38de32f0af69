"""What allowed a change is still true when it is written.

The server hashes slowly here, so that there is time to change what a change relied on.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import bcrypt
import httpx2 as httpx
import pytest
from sqlmodel import create_engine

from tests.conftest import PASSWORD, Person, Server

Serve = Callable[..., Server]
SLOW = {"BCRYPT_ROUNDS": "12"}  # about a quarter of a second a hash


@contextmanager
def in_the_background(person: Person, **request: Any) -> Iterator[list[httpx.Response]]:
    """Send a request on a connection of its own; its answer is there at the end."""
    answers: list[httpx.Response] = []

    def send() -> None:
        url = f"{person.client.base_url}/api{request.pop('path')}"
        method = request.pop("method")
        answers.append(
            httpx.request(method, url, headers=person.headers, timeout=60, **request)
        )

    thread = threading.Thread(target=send)
    thread.start()
    time.sleep(0.1)  # it is being hashed by now
    yield answers
    thread.join()


def change_database(server: Server, statement: str) -> None:
    engine = create_engine(server.database)
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()


def make_admin(server: Server, person: Person) -> None:
    change_database(server, f'UPDATE "user" SET is_admin = true WHERE id = {person.id}')


def test_of_two_changes_of_one_password_at_once_one_is_made(serve: Serve) -> None:
    server = serve(**SLOW)
    ann = Person(server.client, "ann")
    new = [f"new password {number}" for number in range(4)]
    statuses: dict[str, int] = {}

    def change(password: str) -> None:
        body = {"password": password, "current_password": PASSWORD}
        url = server.url + "/api/users/me"
        answer = httpx.patch(url, json=body, headers=ann.headers, timeout=60)
        statuses[password] = answer.status_code

    threads = [threading.Thread(target=change, args=[password]) for password in new]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(statuses.values()) == {200: 1, 403: 3}
    (accepted,) = [password for password in new if statuses[password] == 200]
    ann.log_in(accepted)


@pytest.mark.parametrize("extra", [{}, {"is_admin": True}])
@pytest.mark.parametrize("end", ["demoted", "deleted", "logged out"])
def test_what_an_administrator_had_under_way_changes_nothing_once_she_is_none(
    serve: Serve, end: str, extra: dict[str, bool]
) -> None:
    server = serve(**SLOW)
    root, eve, bob = (Person(server.client, name) for name in ("root", "eve", "bob"))
    make_admin(server, root)
    make_admin(server, eve)
    change = {"password": "by eve"} | extra
    path = f"/users/{bob.id}"
    with in_the_background(eve, method="PATCH", path=path, json=change) as answers:
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
    serve: Serve,
) -> None:
    server = serve(**SLOW)
    root, eve = (Person(server.client, name) for name in ("root", "eve"))
    make_admin(server, root)
    make_admin(server, eve)
    change = {"is_admin": True, "password": "new", "current_password": PASSWORD}
    with in_the_background(
        eve, method="PATCH", path="/users/me", json=change
    ) as answers:
        demoted = root("PATCH", f"/users/{eve.id}", json={"is_admin": False})
        assert demoted.status_code == 200
    assert answers[0].status_code == 403
    assert eve("GET", "/users/me").json() == eve.account
    eve.log_in()


def test_of_two_log_outs_at_once_the_second_is_told_that_the_token_has_ended(
    serve: Serve,
) -> None:
    server = serve()
    ann = Person(server.client, "ann")
    engine = create_engine(server.database)
    with engine.connect() as connection:
        connection.exec_driver_sql("DELETE FROM token")
        with in_the_background(ann, method="POST", path="/logout") as answers:
            time.sleep(1)  # it has found the token, and waits for the lock
            connection.commit()
    engine.dispose()
    assert answers[0].status_code == 401
    assert "has ended" in answers[0].json()["detail"]


def test_an_account_that_is_deleted_while_its_new_password_is_hashed_is_404(
    serve: Serve,
) -> None:
    server = serve(**SLOW)
    root, bob = (Person(server.client, name) for name in ("root", "bob"))
    make_admin(server, root)
    change = {"password": "new"}
    path = f"/users/{bob.id}"
    with in_the_background(root, method="PATCH", path=path, json=change) as answers:
        assert bob("DELETE", "/users/me").status_code == 204
    assert answers[0].status_code == 404
    assert answers[0].json() == {"detail": "User not found."}


def test_a_password_change_beats_a_login_that_was_checked_before_it(
    serve: Serve,
) -> None:
    server = serve(**SLOW)
    ann = Person(server.client, "ann")
    form = {"username": ann.email, "password": PASSWORD}
    with in_the_background(ann, method="POST", path="/login", data=form) as answers:
        change_database(server, "UPDATE \"user\" SET hashed_password = 'another'")
    assert answers[0].status_code == 401
    assert answers[0].json() == {"detail": "Incorrect email or password."}
    assert len(server.rows("SELECT * FROM token")) == 1, "no second one was made"


def cheap_hash() -> str:
    return bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()


def test_log_ins_at_once_succeed_when_the_hash_is_made_anew(serve: Serve) -> None:
    server = serve(**SLOW)
    ann = Person(server.client, "ann")
    change_database(server, f"UPDATE \"user\" SET hashed_password = '{cheap_hash()}'")
    statuses: list[int] = []

    def send(number: int) -> None:
        # From several addresses, since those of one come one after the other.
        transport = httpx.HTTPTransport(local_address=f"127.0.0.{number}")
        with httpx.Client(base_url=server.url, transport=transport) as client:
            form = {"username": ann.email, "password": PASSWORD}
            answer = client.post("/api/login", data=form, timeout=60)
            statuses.append(answer.status_code)

    threads = [threading.Thread(target=send, args=[number]) for number in range(2, 8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 6
    ((stored,),) = server.rows('SELECT hashed_password FROM "user"')
    assert stored.startswith("$2b$12$")


def test_a_hash_made_anew_meanwhile_does_not_refuse_a_change(serve: Serve) -> None:
    server = serve(**SLOW)
    ann = Person(server.client, "ann")
    change = {"password": "new", "current_password": PASSWORD}
    with in_the_background(
        ann, method="PATCH", path="/users/me", json=change
    ) as answers:
        time.sleep(0.3)  # the current one is checked, the new one is being hashed
        change_database(
            server, f"UPDATE \"user\" SET hashed_password = '{cheap_hash()}'"
        )
    assert answers[0].status_code == 200
    ann.log_in("new")


def test_an_address_that_was_changed_meanwhile_needs_the_password_to_be_changed_back(
    serve: Serve,
) -> None:
    server = serve()
    ann = Person(server.client, "ann")
    change = {"email": ann.email}  # it is the same, so no password is asked for
    engine = create_engine(server.database)
    with engine.connect() as connection:
        connection.exec_driver_sql("UPDATE \"user\" SET email = 'ann@example.org'")
        with in_the_background(
            ann, method="PATCH", path="/users/me", json=change
        ) as answers:
            time.sleep(1)  # it has found the same address, and waits for the lock
            connection.commit()
    engine.dispose()
    assert answers[0].status_code == 403
    assert answers[0].json() == {"detail": "Current password is incorrect."}
    assert server.rows('SELECT email FROM "user"') == [("ann@example.org",)]


def test_a_server_that_was_killed_while_it_hashed_counts_no_failure(
    serve: Serve,
) -> None:
    server = serve(**SLOW)
    ann = Person(server.client, "ann")

    def send() -> None:
        form = {"username": ann.email, "password": "wrong"}
        with suppress(httpx.TransportError):
            httpx.post(server.url + "/api/login", data=form, timeout=60)

    threads = [threading.Thread(target=send) for _ in range(20)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    server.process.kill()
    for thread in threads:
        thread.join()
    server.stop()
    again = serve(**SLOW)
    ann.client = again.client
    ann.log_in()
    found = again.rows("SELECT count(*) FROM wrongpassword")
    assert found[0][0] <= 2, "what was being tried is not counted"


def test_fifty_right_log_ins_of_one_account_at_once_all_succeed(serve: Serve) -> None:
    server = serve()
    ann = Person(server.client, "ann")
    statuses: list[int] = []

    def send() -> None:
        form = {"username": ann.email, "password": PASSWORD}
        answer = httpx.post(server.url + "/api/login", data=form, timeout=60)
        statuses.append(answer.status_code)

    threads = [threading.Thread(target=send) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 50


def test_right_current_passwords_at_once_are_not_counted_as_wrong(
    serve: Serve,
) -> None:
    server = serve()
    ann = Person(server.client, "ann")
    statuses: list[int] = []

    def change(number: int) -> None:
        body = {"email": f"ann{number}@example.com", "current_password": PASSWORD}
        url = server.url + "/api/users/me"
        answer = httpx.patch(url, json=body, headers=ann.headers, timeout=60)
        statuses.append(answer.status_code)

    threads = [threading.Thread(target=change, args=[number]) for number in range(14)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 14
    assert server.rows("SELECT * FROM wrongpassword") == []


def test_two_administrators_change_each_other_without_waiting_for_ever(
    serve: Serve,
) -> None:
    server = serve()
    root, eve = (Person(server.client, name) for name in ("root", "eve"))
    make_admin(server, root)
    make_admin(server, eve)
    statuses: list[int] = []

    def change(asker: Person, other: Person) -> None:
        with httpx.Client(base_url=server.url, headers=asker.headers) as client:
            for number in range(30):
                body = {"name": f"Name {number}"}
                answer = client.patch(f"/api/users/{other.id}", json=body, timeout=30)
                statuses.append(answer.status_code)

    threads = [
        threading.Thread(target=change, args=pair)
        for pair in [(root, eve), (eve, root)] * 3
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 180
