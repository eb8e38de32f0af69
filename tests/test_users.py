"""Accounts: sign up, read, change, delete, each read back by a second request."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2 as httpx
import pytest
from fastapi.testclient import TestClient
from sqlmodel import update

from core.data.sessions import engine
from main import app
from models import User
from tests.conftest import PASSWORD, Person, sign_up

pytestmark = pytest.mark.quick
ACCOUNT = {"id", "name", "email", "is_admin", "created_at"}
TAKEN = (409, {"detail": "Email already registered."})


def test_signing_up_answers_the_account_and_its_location(client: TestClient) -> None:
    sent = sign_up("john", name="John Doe")
    answer = client.post("/api/users", json=sent)
    account = answer.json()
    created_at = account.pop("created_at")
    assert answer.status_code == 201
    assert answer.headers["Location"] == f"/api/users/{account['id']}"
    expected = {"name": "John Doe", "email": "john@example.com", "is_admin": False}
    assert account.items() >= expected.items()
    assert created_at.endswith("Z")
    since = datetime.now(UTC) - datetime.fromisoformat(created_at)
    assert abs(since) < timedelta(seconds=10)


def test_an_account_reads_the_same_everywhere(ann: Person, root: Person) -> None:
    assert ann.account.keys() >= ACCOUNT
    assert ann("GET", "/users/me").json() == ann.account
    assert ann("GET", f"/users/{ann.id}").json() == ann.account
    assert root("GET", f"/users/{ann.id}").json() == ann.account
    assert root("GET", "/users").json()[0] == ann.account


def test_an_address_is_one_whatever_its_letter_case(ann: Person) -> None:
    sent = sign_up("ann", email="ANN@Example.COM")
    answer = ann.client.post("/api/users", json=sent)
    assert (answer.status_code, answer.json()) == TAKEN
    ann.email = "Ann@EXAMPLE.com"
    ann.log_in()


@pytest.mark.parametrize("path", ["/users/me", "/users/{id}"])
def test_a_change_is_what_is_read_afterwards(ann: Person, path: str) -> None:
    path = path.format(id=ann.id)
    changed = ann("PATCH", path, json={"name": "Anna"})
    assert changed.status_code == 200
    assert changed.json() == ann.account | {"name": "Anna"}
    assert ann("GET", path).json() == changed.json()


def test_a_patch_without_fields_changes_nothing(ann: Person) -> None:
    answer = ann("PATCH", "/users/me", json={})
    assert (answer.status_code, answer.json()) == (200, ann.account)


def test_a_new_email_needs_the_current_password_and_is_the_one_to_log_in_with(
    ann: Person,
) -> None:
    refused = ann("PATCH", "/users/me", json={"email": "new@example.com"})
    assert refused.status_code == 403
    assert refused.json() == {"detail": "Send current_password too."}
    change = {"email": "New@example.com", "current_password": PASSWORD}
    accepted = ann("PATCH", "/users/me", json=change)
    assert accepted.json() == ann.account | {"email": "new@example.com"}
    ann.email = "new@example.com"
    ann.log_in()


def test_the_email_you_already_have_is_not_a_new_one(ann: Person) -> None:
    change = {"email": ann.email, "name": "Anna"}
    changed = ann("PATCH", "/users/me", json=change)
    assert changed.json() == ann.account | {"name": "Anna"}


# Written as escapes, since what is wrong with them cannot be seen.
MISTAKEN = ["\u3164@example.com", "a\ufe0fb@example.com", "a\u200db@example.com"]
MISTAKEN += ["\u0430dmin@example.com", "admin@ex\u0430mple.com"]  # a Cyrillic a
MISTAKEN += ["\uff41nn@example.com", "\ufb01@example.com", "\u0130@example.com"]


@pytest.mark.parametrize("email", MISTAKEN)
def test_an_address_that_looks_like_another_one_is_refused(
    ann: Person, email: str
) -> None:
    change = {"email": email, "current_password": PASSWORD}
    for answer in (
        ann.client.post("/api/users", json=sign_up("x", email=email)),
        ann("PATCH", "/users/me", json=change),
    ):
        assert answer.status_code == 422
        (mistake,) = answer.json()["detail"]
        assert mistake["loc"] == ["body", "email"]
        assert "address" in mistake["msg"]
    with engine.begin() as connection:  # an account that is older than the rule
        connection.execute(update(User).values(email=email.lower()))
    if "\u200d" not in email:
        ann.email = email
        ann.log_in()
        assert ann("GET", "/users/me").json()["email"] == email.lower()


@pytest.mark.parametrize(
    "email",
    [
        "j\u00fcrgen+x@b\u00fccher.example",
        "\u043e\u043b\u0435\u0433.smith@example.com",  # parts in different alphabets
        "\u4f50\u3005\u6728tokyo@example.com",
        "\u30b9\u30fc\u30d1\u30fc@example.com",
        "o'neil_99-x@example.com",
    ],
)
def test_an_address_in_any_one_alphabet_signs_up_and_logs_in(
    client: TestClient, email: str
) -> None:
    answer = client.post("/api/users", json=sign_up("x", email=email))
    assert answer.json()["email"] == email
    form = {"username": email.upper(), "password": PASSWORD}
    assert client.post("/api/login", data=form).status_code == 200


def test_a_taken_email_is_refused_in_a_change_too(ann: Person, bob: Person) -> None:
    change = {"email": "BOB@example.com", "current_password": PASSWORD}
    answer = ann("PATCH", "/users/me", json=change)
    assert (answer.status_code, answer.json()) == TAKEN
    assert ann("GET", "/users/me").json() == ann.account


def test_a_new_password_ends_the_other_tokens_and_keeps_the_one_that_made_it(
    ann: Person,
) -> None:
    other = ann.headers
    ann.log_in()
    for wrong in ({"current_password": "wrong"}, {"current_password": "x" * 100}):
        refused = ann("PATCH", "/users/me", json={"password": "new one"} | wrong)
        assert refused.status_code == 403
        assert refused.json() == {"detail": "Current password is incorrect."}
    change = {"password": "new one", "current_password": PASSWORD}
    assert ann("PATCH", "/users/me", json=change).status_code == 200
    assert ann("GET", "/users/me").status_code == 200
    assert ann.client.get("/api/users/me", headers=other).status_code == 401
    old = {"username": ann.email, "password": PASSWORD}
    assert ann.client.post("/api/login", data=old).status_code == 401
    ann.log_in("new one")


def test_an_administrator_changes_anybody_without_a_current_password(
    ann: Person, root: Person
) -> None:
    change = {"email": "a@example.com", "is_admin": True}
    answer = root("PATCH", f"/users/{ann.id}", json=change | {"password": "reset"})
    assert answer.json() == ann.account | change
    assert ann("GET", "/users/me").status_code == 401, "a new password ends her tokens"
    assert root("GET", f"/users/{ann.id}").json() == answer.json()
    ann.email = "a@example.com"
    ann.log_in("reset")
    assert ann("GET", "/users").status_code == 200


@pytest.mark.parametrize("path", ["/users/me", "/users/{id}"])
def test_deleting_takes_the_account_and_its_tokens(
    ann: Person, root: Person, path: str
) -> None:
    answer = ann("DELETE", path.format(id=ann.id))
    assert (answer.status_code, answer.content) == (204, b"")
    assert ann("GET", "/users/me").status_code == 401
    assert [token["user_id"] for token in stored("token")] == [root.id]
    assert root("GET", f"/users/{ann.id}").json() == {"detail": "User not found."}
    login = {"username": ann.email, "password": PASSWORD}
    assert ann.client.post("/api/login", data=login).status_code == 401


def test_an_id_is_never_handed_out_again(root: Person) -> None:
    seen = {root.id}
    for _ in range(3):
        newest = Person(root.client, "newest")
        assert newest.id not in seen
        seen.add(newest.id)
        newest("DELETE", "/users/me")


def test_a_path_means_the_same_with_a_slash_at_its_end(ann: Person) -> None:
    for path in ("/users/me/", f"/users/{ann.id}/"):
        answer = ann("GET", path, follow_redirects=False)
        assert (answer.status_code, answer.json()) == (200, ann.account)
    path = "/api/users/"
    answer = ann.client.post(path, json=sign_up("cid"), follow_redirects=False)
    assert answer.status_code == 201


def stored(table: str) -> list[Any]:
    with engine.connect() as connection:
        rows = connection.exec_driver_sql(f'SELECT * FROM "{table}"').mappings()
        return [dict(row) for row in rows]


def test_the_database_holds_hashes_only(ann: Person) -> None:
    (user,), (token,) = stored("user"), stored("token")
    assert user.keys() >= ACCOUNT | {"hashed_password"}
    assert set(token) == {"hashed_token", "user_id", "expires_at"}
    assert user["hashed_password"].startswith("$2b$04$")
    assert PASSWORD not in str(user)
    assert ann.token not in str(token)
    assert len(ann.token) >= 43, "256 bits"


@pytest.mark.anyio
async def test_twenty_requests_at_once_in_the_event_loop_of_a_test(ann: Person) -> None:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        asked = [client.get("/api/users/me", headers=ann.headers) for _ in range(20)]
        answers = await asyncio.gather(*asked)
    assert [answer.json() for answer in answers] == [ann.account] * 20
