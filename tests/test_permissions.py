"""Who may do what: each method and path, for each kind of caller."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from database import get_session
from main import app
from models import UserPublic
from routers.dependencies import get_current_user
from tests.conftest import Person, make_admin, sign_up

pytestmark = pytest.mark.quick
# Method, path: the status for nobody, for a member about somebody else, for a member
# about their own account, for an administrator.
MATRIX = {
    ("POST", "/users"): (201, 201, 201, 201),
    ("POST", "/login"): (200, 200, 200, 200),
    ("POST", "/logout"): (401, 204, 204, 204),
    ("GET", "/users"): (401, 403, 403, 200),
    ("GET", "/users/me"): (401, 200, 200, 200),
    ("PATCH", "/users/me"): (401, 200, 200, 200),
    ("DELETE", "/users/me"): (401, 204, 204, 204),
    ("GET", "/users/{ann}"): (401, 403, 200, 200),
    ("PATCH", "/users/{ann}"): (401, 403, 200, 200),
    ("DELETE", "/users/{ann}"): (401, 403, 204, 204),
    ("GET", "/users/999"): (401, 403, 403, 404),
    ("PATCH", "/users/999"): (401, 403, 403, 404),
    ("DELETE", "/users/999"): (401, 403, 403, 404),
}
BODIES: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "/users"): {"json": sign_up("cid")},
    ("POST", "/login"): {
        "data": {"username": "ann@example.com", "password": "correct horse"}
    },
}


@pytest.mark.parametrize("caller", ["nobody", "other", "member", "administrator"])
@pytest.mark.parametrize(("method", "path"), MATRIX)
def test_who_may_do_what(
    client: TestClient,
    ann: Person,
    bob: Person,
    root: Person,
    method: str,
    path: str,
    caller: str,
) -> None:
    number = ["nobody", "other", "member", "administrator"].index(caller)
    headers = [{}, bob.headers, ann.headers, root.headers][number]
    body = BODIES.get(
        (method, path), {"json": {"name": "New"}} if method == "PATCH" else {}
    )
    answer = client.request(
        method, "/api" + path.format(ann=ann.id), headers=headers, **body
    )
    assert answer.status_code == MATRIX[method, path][number]
    if answer.status_code == 401:
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert "/api/login" in answer.json()["detail"]
    if answer.status_code == 404:
        assert answer.json() == {"detail": "User not found."}
    if answer.status_code >= 400:
        untouched = root("GET", f"/users/{ann.id}")
        assert untouched.json() == ann.account


@pytest.mark.parametrize("path", ["/health", "/live", "/docs", "/openapi.json"])
def test_anyone_may_ask_for_health_and_docs(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 200


def test_the_root_leads_to_the_docs(client: TestClient) -> None:
    answer = client.get("/", follow_redirects=False)
    assert (answer.status_code, answer.headers["Location"]) == (307, "/docs")


def test_an_administrator_makes_others_and_can_take_it_back(
    ann: Person, root: Person
) -> None:
    for value, status in ((True, 200), (False, 403)):
        changed = root("PATCH", f"/users/{ann.id}", json={"is_admin": value})
        assert changed.json()["is_admin"] is value
        assert ann("GET", "/users").status_code == status


# ---- app.dependency_overrides, as in FastAPI's manual about tests ----


@pytest.fixture
def override() -> Iterator[Callable[[Any, Any], None]]:
    yield app.dependency_overrides.__setitem__
    app.dependency_overrides.clear()


def test_a_test_may_say_who_is_asking(
    client: TestClient, ann: Person, bob: Person, override: Callable[[Any, Any], None]
) -> None:
    asker = UserPublic(**bob.account)
    override(get_current_user, lambda: asker)

    def status(method: str, path: str, **options: Any) -> int:
        return int(client.request(method, f"/api/users{path}", **options).status_code)

    name = {"json": {"name": "Rob"}}
    for path in ("/me", f"/{bob.id}"):
        assert client.get(f"/api/users{path}").json() == asker.model_dump(mode="json")
        assert status("PATCH", path, **name) == 200
    for method in ("GET", "PATCH", "DELETE"):
        options = name if method == "PATCH" else {}
        assert status(method, f"/{ann.id}", **options) == 403
    assert status("GET", "") == 403
    make_admin(bob.id)
    asker.is_admin = True
    assert status("GET", "") == 200
    assert client.get(f"/api/users/{ann.id}").json() == ann.account
    assert status("PATCH", f"/{ann.id}", **name) == 200
    assert status("DELETE", f"/{ann.id}") == 204
    assert status("GET", f"/{ann.id}") == 404


def test_a_test_that_overrides_the_session_is_told_what_to_do(
    client: TestClient, override: Callable[[Any, Any], None]
) -> None:
    override(get_session, lambda: None)
    with pytest.raises(RuntimeError, match="set DATABASE_URL"):
        client.get("/health")
