"""What is refused, and how: the contract's table, one mistake at a time."""

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.conftest import PASSWORD, Person, sign_up

pytestmark = pytest.mark.quick
GOOD = sign_up("cid")
FIELDS = ["name", "email", "password"]
BLANK = {"detail": "All fields are required."}
JSON = {"Content-Type": "application/json"}
SECRET = "hunter2-do-not-echo"


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("blank", ["", " ", "\t\r\n", "\u00a0\u2003"])
def test_a_blank_field_is_400(ann: Person, field: str, blank: str) -> None:
    answer = ann.client.post("/api/users", json=GOOD | {field: blank})
    assert (answer.status_code, answer.json()) == (400, BLANK)
    answer = ann(
        "PATCH", "/users/me", json={field: blank, "current_password": PASSWORD}
    )
    assert (answer.status_code, answer.json()) == (400, BLANK)
    assert ann("GET", "/users/me").json() == ann.account


ODD: list[Any] = [None, 1, True, [], {}, 1.5, "a\0b", "\ud800", "a\udfffb"]
WRONG: list[tuple[str, Any]] = [
    *((field, odd) for field in FIELDS for odd in ODD),
    ("name", "x" * 101),
    ("name", "a\nb"),
    ("name", "a\x7fb"),
    ("name", "a\x85b"),
    ("email", "no address"),
    ("email", "a@b"),
    ("email", "a@example.com, b@example.com"),
    ("email", "a" * 250 + "@example.com"),
    ("password", "x" * 73),
    ("password", "é" * 37),
    ("id", 1),
    ("unknown", 1),
    ("\ud800", 1),
]


@pytest.mark.parametrize(("field", "value"), WRONG)
def test_a_wrong_field_is_one_422_without_echo(
    ann: Person, field: str, value: Any
) -> None:
    for answer in (
        ann.client.post(
            "/api/users", content=json.dumps(GOOD | {field: value}), headers=JSON
        ),
        ann("PATCH", "/users/me", content=json.dumps({field: value}), headers=JSON),
    ):
        assert answer.status_code == 422, answer.text
        (mistake,) = answer.json()["detail"]
        assert set(mistake) == {"type", "loc", "msg"}
        assert mistake["loc"][0] == "body"
    assert ann("GET", "/users/me").json() == ann.account
    assert ann.client.post("/api/users", json=GOOD).status_code == 201, (
        "nothing was stored"
    )


@pytest.mark.parametrize("field", FIELDS)
def test_a_missing_field_is_422_that_names_it(client: TestClient, field: str) -> None:
    sent = {key: value for key, value in GOOD.items() if key != field}
    answer = client.post("/api/users", json=sent)
    assert answer.status_code == 422
    (mistake,) = answer.json()["detail"]
    expected = {"type": "missing", "loc": ["body", field], "msg": "Field required"}
    assert mistake == expected


@pytest.mark.parametrize("value", [True, False, None])
def test_nobody_signs_up_as_administrator(
    client: TestClient, value: bool | None
) -> None:
    assert client.post("/api/users", json=GOOD | {"is_admin": value}).status_code == 422


@pytest.mark.parametrize("value", [None, 1, "true", []])
def test_is_admin_is_true_or_false(root: Person, value: Any) -> None:
    assert root("PATCH", "/users/me", json={"is_admin": value}).status_code == 422


def test_is_admin_sent_by_a_member_is_403(ann: Person) -> None:
    for value in (True, False):
        assert ann("PATCH", "/users/me", json={"is_admin": value}).status_code == 403
    assert ann("GET", "/users/me").json()["is_admin"] is False


def test_the_longest_of_everything_is_accepted(client: TestClient) -> None:
    longest = sign_up("a" * 64, name="é" * 100, password="é" * 36)
    assert client.post("/api/users", json=longest).json()["name"] == longest["name"]
    login = {"username": longest["email"], "password": longest["password"]}
    assert client.post("/api/login", data=login).status_code == 200


def test_a_password_over_the_limit_is_told_the_limit(client: TestClient) -> None:
    answer = client.post("/api/users", json=GOOD | {"password": "x" * 73})
    assert "72 bytes" in answer.json()["detail"][0]["msg"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b'{"name": NaN, "email": Infinity, "password": "x"}',
        b'{"name": "a", "email": "a@example.com", "password": -Infinity}',
        b'{"name": "\xff\xfe", "email": "a@example.com", "password": "x"}',
        b'{"name": ' + b"[" * 20000 + b"]" * 20000 + b"}",
        b'{"name": ' + b"9" * 5000 + b"}",
        b'{"name": 1e999}',
        b"\x00",
    ],
)
def test_what_is_no_json_is_4xx_in_one_shape(ann: Person, body: bytes) -> None:
    for answer in (
        ann.client.post("/api/users", content=body, headers=JSON),
        ann("PATCH", "/users/me", content=body, headers=JSON),
    ):
        assert 400 <= answer.status_code < 500, answer.text
        assert list(answer.json()) == ["detail"]


@pytest.mark.parametrize(
    "kind",
    [None, "application/x-www-form-urlencoded", "text/plain", "application/jsonp"],
)
def test_json_sent_as_something_else_is_415_that_says_how(
    ann: Person, kind: str | None
) -> None:
    headers = {"Content-Type": kind} if kind else {}
    for answer in (
        ann.client.post("/api/users", content=json.dumps(GOOD), headers=headers),
        ann("PATCH", "/users/me", content=json.dumps({"name": "x"}), headers=headers),
    ):
        assert answer.status_code == 415
        assert "Content-Type: application/json" in answer.json()["detail"]
        assert "curl --json" in answer.json()["detail"]


def test_a_login_sent_as_json_is_415_and_says_how(ann: Person) -> None:
    answer = ann.client.post(
        "/api/login", json={"username": ann.email, "password": PASSWORD}
    )
    assert answer.status_code == 415
    assert "form" in answer.json()["detail"]


def test_a_login_without_a_field_is_422_that_names_it(ann: Person) -> None:
    answer = ann.client.post("/api/login", data={"username": ann.email})
    assert answer.json()["detail"] == [
        {"type": "missing", "loc": ["body", "password"], "msg": "Field required"}
    ]


@pytest.mark.parametrize(
    "path", ["/api/users", "/api/login", "/nowhere", "/health", "/api/users/me"]
)
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_64_kib_is_413_in_the_one_shape(
    client: TestClient, path: str, chunked: bool
) -> None:
    body = json.dumps(GOOD | {"name": "x" * 64 * 1024}).encode()
    answer = client.post(
        path, content=iter([body[:9], body[9:]]) if chunked else body, headers=JSON
    )
    if chunked and path != "/api/users":
        assert answer.status_code in {404, 405, 415}, "a body nobody reads is not one"
    else:
        assert answer.status_code == 413
        assert answer.json() == {"detail": "A body has at most 64 KiB."}
    assert isinstance(answer.json()["detail"], str)


def test_a_body_of_64_kib_is_read(client: TestClient) -> None:
    body = json.dumps(GOOD).encode()
    full = body.ljust(64 * 1024)
    assert client.post("/api/users", content=full, headers=JSON).status_code == 201


@pytest.mark.parametrize(
    "user_id",
    ["0", "-1", "007", "1.5", "abc", str(2**31), str(2**63), str(10**30), "9" * 5000],
)
@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
def test_an_id_out_of_range_is_not_a_500(
    ann: Person, root: Person, method: str, user_id: str
) -> None:
    for person in (ann, root):
        answer = person(
            method, f"/users/{user_id}", **({"json": {}} if method == "PATCH" else {})
        )
        assert answer.status_code in {404, 422}
        assert list(answer.json()) == ["detail"]


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/nowhere"), ("PUT", "/api/users"), ("POST", "/api/users/me")],
)
def test_unknown_paths_and_methods_have_the_one_shape(
    client: TestClient, method: str, path: str
) -> None:
    answer = client.request(method, path)
    assert answer.status_code in {404, 405}
    assert isinstance(answer.json()["detail"], str)


@pytest.mark.parametrize(
    "sent",
    [
        {"name": SECRET * 10, "email": SECRET, "password": SECRET * 5},
        {"name": [SECRET], "email": {SECRET: SECRET}, "password": [SECRET]},
        {"name": 1, "email": SECRET + "@", "password": SECRET, "is_admin": SECRET},
        [SECRET],
        SECRET,
    ],
)
def test_no_answer_repeats_what_was_sent(
    ann: Person, caplog: pytest.LogCaptureFixture, sent: Any
) -> None:
    for answer in (
        ann.client.post("/api/users", json=sent),
        ann("PATCH", "/users/me", json=sent),
    ):
        assert 400 <= answer.status_code < 500
        assert SECRET not in answer.text
    assert SECRET not in caplog.text


def test_a_bug_is_a_500_in_the_one_shape(
    ann: Person, client_of_bugs: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("accounts.permits.digest", None)
    for origin, may_read in (("http://localhost:5173", True), ("https://x.de", False)):
        headers = ann.headers | {"Origin": origin}
        answer = client_of_bugs.get("/api/users/me", headers=headers)
        assert answer.status_code == 500
        assert answer.json() == {"detail": "Internal Server Error"}
        assert answer.headers["Connection"] == "close"
        allowed = answer.headers.get("Access-Control-Allow-Origin")
        assert (allowed == origin) is may_read
