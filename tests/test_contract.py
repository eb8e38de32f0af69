"""Promises that no other module tests: headers, names, hashes, prefixes, rules."""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import bcrypt
import pytest
from fastapi.testclient import TestClient
from sqlmodel import Session, col, update

from accounts.throttle import WINDOW, WrongPassword
from core.data.sessions import engine
from main import app
from models import Token, User, now
from tests.conftest import PASSWORD, ROOT, Person, Server, sign_up

Serve = Callable[..., Server]
GOOD = sign_up("cid")


@pytest.mark.parametrize("path", ["/api/users/me", "/health", "/docs", "/nowhere"])
def test_head_answers_like_get_without_the_body(ann: Person, path: str) -> None:
    got = ann.client.get(path, headers=ann.headers)
    head = ann.client.head(path, headers=ann.headers)
    assert (head.status_code, head.content) == (got.status_code, b"")
    assert head.headers == got.headers


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/api/users", {"GET", "HEAD", "POST"}),
        ("/api/users/me", {"GET", "HEAD", "PATCH", "DELETE"}),
        ("/api/login", {"POST"}),
        ("/health", {"GET", "HEAD"}),
        ("/live", {"GET", "HEAD"}),
    ],
)
def test_a_405_names_every_method_of_the_path(
    client: TestClient, path: str, allowed: set[str]
) -> None:
    answer = client.put(path)
    assert (answer.status_code, answer.json()) == (
        405,
        {"detail": "Method Not Allowed"},
    )
    assert set(answer.headers["Allow"].split(", ")) == allowed


def test_answers_have_the_headers_that_keep_them_safe(ann: Person) -> None:
    for path in ("/api/users/me", "/api/nowhere", "/health", "/docs", "/openapi.json"):
        answer = ann.client.get(path, headers=ann.headers)
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert ("no-store" in answer.headers.get("Cache-Control", "")) is (
            path.startswith("/api")
        )
    for path in ("/docs", "/docs/"):
        headers = ann.client.get(path).headers
        assert headers["X-Frame-Options"] == "DENY"
        assert "default-src 'self'" in headers["Content-Security-Policy"]


@pytest.mark.parametrize("path", ["/", "/static-offline-docs"])
def test_a_redirect_stays_on_its_host(client: TestClient, path: str) -> None:
    headers = {"Host": "evil.example"}
    answer = client.get(path, headers=headers, follow_redirects=False)
    assert answer.status_code == 307
    assert re.fullmatch(r"/[\w-]+/?", answer.headers["Location"])


def test_refusals_and_preflights_have_the_headers_too(
    ann: Person, client_of_bugs: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = ann.client
    preflight = {
        "Origin": "http://localhost:3000",
        "Access-Control-Request-Method": "POST",
    }
    answers = [
        client.post("/api/users", content=b"x" * 70_000),
        client.post("/api/users", content=b"{}"),
        client.post("/api/login", data={"username": "x", "password": "x"}),
        client.options("/api/users", headers=preflight),
        client.options("/api/users", headers=preflight | {"Origin": "http://evil"}),
        client.put("/api/users"),
        client.head("/api/users/me"),
        ann("GET", "/users"),
    ]
    monkeypatch.setattr("accounts.permits.digest", None)
    answers.append(client_of_bugs.get("/api/users/me", headers=ann.headers))
    statuses = [answer.status_code for answer in answers]
    assert statuses == [413, 415, 401, 200, 400, 405, 401, 403, 500]
    for answer in answers:
        assert answer.headers.get_list("X-Content-Type-Options") == ["nosniff"]
        assert answer.headers.get_list("Cache-Control") == ["no-store"]


@pytest.mark.parametrize(
    "origin", ["http://localhost:5173", "http://127.0.0.1:3000", "http://localhost"]
)
def test_a_page_on_this_machine_may_call(client: TestClient, origin: str) -> None:
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    preflight = client.options("/api/users", headers=asked)
    assert preflight.status_code == 200
    assert preflight.headers["Access-Control-Allow-Origin"] == origin
    elsewhere = client.get("/health", headers={"Origin": "http://localhost.evil.com"})
    assert "Access-Control-Allow-Origin" not in elsewhere.headers


PRIVATE = "Access-Control-{}-Private-Network"


@pytest.mark.parametrize(
    ("origin", "method", "detail"),
    [
        ("http://localhost:5173", "POST", ""),
        ("http://evil.example", "POST", "Pages from this origin may not call"),
        ("http://localhost:5173", "STEAL", "There is no such method."),
    ],
)
def test_a_page_may_call_into_a_private_network_if_its_origin_may(
    client: TestClient, origin: str, method: str, detail: str
) -> None:
    asked = {"Origin": origin, "Access-Control-Request-Method": method}
    asked[PRIVATE.format("Request")] = "true"
    answer = client.options("/api/users", headers=asked)
    if detail:
        assert (answer.status_code, list(answer.json())) == (400, ["detail"])
        assert answer.json()["detail"].startswith(detail)
        assert PRIVATE.format("Allow") not in answer.headers
    else:
        assert (answer.status_code, answer.headers[PRIVATE.format("Allow")]) == (
            200,
            "true",
        )


INVISIBLE = ["\u200b", "\u00ad\u00ad", "\u3164", "\u2800\u115f", "\ufe0f", "\ufeff "]
INVISIBLE += ["\u2065", "\ufff3", "\U000e0100", "\U000e0041\U000e01ef"]


@pytest.mark.parametrize("blank", INVISIBLE)
@pytest.mark.parametrize("field", ["name", "email", "password"])
def test_what_nobody_sees_is_blank(client: TestClient, field: str, blank: str) -> None:
    answer = client.post("/api/users", json=GOOD | {field: blank})
    assert answer.status_code == 400
    assert answer.json() == {"detail": "All fields are required."}


@pytest.mark.parametrize(
    "name", ["a\u202eb", "a\u2066b", "a\u2028b", "a\u2029b", "\u200ea"]
)
def test_a_name_stays_on_its_line_and_in_its_direction(ann: Person, name: str) -> None:
    assert ann.client.post("/api/users", json=GOOD | {"name": name}).status_code == 422
    assert ann("PATCH", "/users/me", json={"name": name}).status_code == 422


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("  Ann \t", "Ann"),
        ("U\u0308nal", "Ünal"),
        (
            "\U0001f468\u200d\U0001f469\u200d\U0001f467",
            "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        ),
        (
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        ),
    ],
)
def test_a_name_is_kept_trimmed_and_composed(ann: Person, sent: str, kept: str) -> None:
    assert ann("PATCH", "/users/me", json={"name": sent}).json()["name"] == kept
    assert ann("GET", "/users/me").json()["name"] == kept


def test_a_name_that_grows_when_it_is_composed_is_422(ann: Person) -> None:
    answer = ann("PATCH", "/users/me", json={"name": "\u0958" * 100})
    assert answer.status_code == 422
    assert "100" in answer.json()["detail"][0]["msg"]


def test_broken_json_is_told_what_is_broken(client: TestClient) -> None:
    headers = {"Content-Type": "application/json"}
    answer = client.post("/api/users", content=b'{"name": "a",}', headers=headers)
    (mistake,) = answer.json()["detail"]
    assert mistake["type"] == "json_invalid"
    assert mistake["loc"][0] == "body"
    assert ":" in mistake["msg"]


def test_twenty_mistakes_are_enough(client: TestClient) -> None:
    answer = client.post("/api/users", json={f"unknown{n}": n for n in range(50)})
    assert (answer.status_code, len(answer.json()["detail"])) == (422, 20)


def test_the_name_of_an_unknown_field_is_cut(client: TestClient) -> None:
    (mistake,) = client.post("/api/users", json=GOOD | {"x" * 500: 1}).json()["detail"]
    assert mistake["loc"] == ["body", "x" * 100]
    assert mistake["msg"] == "There is no such field or parameter: /docs lists them"


def test_a_body_or_form_that_lacks_something_is_told_what_to_send(
    client: TestClient,
) -> None:
    (mistake,) = client.post("/api/users", json=[]).json()["detail"]
    assert mistake["msg"] == 'Send a JSON object, like {"name": "John"}'
    (mistake,) = client.post("/api/login", data={"password": "x"}).json()["detail"]
    assert mistake["msg"] == "Send your email as username"


@pytest.mark.parametrize("query", ["page=2", "offset=20", "per_page=5"])
def test_a_numbered_page_is_refused_in_favour_of_link(root: Person, query: str) -> None:
    answer = root("GET", f"/users?{query}")
    (mistake,) = answer.json()["detail"]
    assert (answer.status_code, mistake["type"]) == (422, "extra_forbidden")
    assert "Link" in mistake["msg"]


def test_a_wrong_id_is_told_what_to_type(ann: Person) -> None:
    (mistake,) = ann("GET", "/users/myself").json()["detail"]
    assert mistake["msg"] == "An id, or me"


def test_no_token_and_a_dead_one_are_told_apart(ann: Person) -> None:
    none = ann.client.get("/api/users/me")
    dead = ann.client.get("/api/users/me", headers={"Authorization": "Bearer dead"})
    for answer in (none, dead):
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert "/api/login" in answer.json()["detail"]
    assert none.json() != dead.json()


@pytest.mark.parametrize("password", [PASSWORD, "wrong"])
def test_expired_tokens_of_people_who_never_come_back_are_removed(
    ann: Person, bob: Person, password: str
) -> None:
    statement = update(Token).where(col(Token.user_id) == ann.id)
    with engine.begin() as connection:
        connection.execute(statement.values(expires_at=now()))
    bob.client.post("/api/login", data={"username": bob.email, "password": password})
    with engine.connect() as connection:
        owners = connection.exec_driver_sql("SELECT user_id FROM token").scalars().all()
    assert set(owners) == {bob.id}


def store_hash(user_id: int, hashed_password: str) -> None:
    with Session(engine) as session:
        session.get_one(User, user_id).hashed_password = hashed_password
        session.commit()


def stored_hash(user_id: int) -> str:
    with Session(engine) as session:
        return session.get_one(User, user_id).hashed_password


def test_an_old_hash_is_renewed_at_the_next_right_log_in(
    ann: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("accounts.passwords.BCRYPT_ROUNDS", 5)
    wrong = {"username": ann.email, "password": "wrong"}
    assert ann.client.post("/api/login", data=wrong).status_code == 401
    assert stored_hash(ann.id).startswith("$2b$04$")
    ann.log_in()
    assert stored_hash(ann.id).startswith("$2b$05$")
    ann.log_in()
    assert ann("GET", "/users/me").json() == ann.account


@pytest.mark.parametrize("imported", ["", "x", "$argon2id$v=19$m=65536$abc", "$2b$xx$"])
def test_a_hash_that_bcrypt_does_not_know_is_401(ann: Person, imported: str) -> None:
    store_hash(ann.id, imported)
    form = {"username": ann.email, "password": PASSWORD}
    answer = ann.client.post("/api/login", data=form)
    assert answer.status_code == 401
    assert answer.json()["detail"] == "Incorrect email or password."


def test_the_eleventh_wrong_current_password_is_429_for_the_account(
    ann: Person,
) -> None:
    change = {"password": "new", "current_password": "wrong"}
    for _ in range(10):
        assert ann("PATCH", "/users/me", json=change).status_code == 403
    right = change | {"current_password": PASSWORD}
    for body in (change, right):
        answer = ann("PATCH", "/users/me", json=body)
        assert answer.status_code == 429
        assert 1 <= int(answer.headers["Retry-After"]) <= 60
    ann.log_in()  # which is counted separately
    assert ann("PATCH", "/users/me", json={"name": "New"}).status_code == 200


def try_wrong_passwords(address: str, number: int, email: str = "") -> list[int]:
    with TestClient(app, client=(address, 5000)) as client:
        statuses = []
        for count in range(number):
            form = {"username": email or f"{address}{count}@example.com"}
            answer = client.post("/api/login", data=form | {"password": "wrong"})
            statuses.append(answer.status_code)
        return statuses


def test_the_hundred_and_first_wrong_password_of_one_address_is_429(
    client: TestClient,
) -> None:
    assert try_wrong_passwords("10.0.0.1", 103) == [401] * 100 + [429] * 3
    assert try_wrong_passwords("10.0.0.2", 1) == [401], "another address may try"


def test_an_ipv6_network_is_one_address(client: TestClient) -> None:
    email = "ann@example.com"
    assert try_wrong_passwords("2001:db8::1", 10, email) == [401] * 10
    assert try_wrong_passwords("2001:db8::ffff", 1, email) == [429]
    assert try_wrong_passwords("2001:db8:0:1::1", 1, email) == [401]
    for address in ("::ffff:10.0.0.1", "::ffff:10.0.0.2"):
        assert try_wrong_passwords(address, 10, email) == [401] * 10


@pytest.mark.parametrize("wrong_by", [timedelta(hours=1), timedelta(days=20_000)])
def test_a_clock_that_was_wrong_does_not_throttle_for_longer(
    ann: Person, wrong_by: timedelta
) -> None:
    wrong = {"username": ann.email, "password": "wrong"}
    for _ in range(10):
        ann.client.post("/api/login", data=wrong)
    with engine.begin() as connection:
        expires_at = now() + WINDOW + wrong_by
        connection.execute(update(WrongPassword).values(expires_at=expires_at))
    ann.log_in()


def test_a_site_can_be_mounted_beside_it(tmp_path: Any, serve: Serve) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("hello")
    (tmp_path / "site" / "sub").mkdir()
    (tmp_path / "site" / "sub" / "index.html").write_text("below")
    (tmp_path / "withsite.py").write_text(
        "from fastapi.staticfiles import StaticFiles\n"
        "from main import app\n"
        f"app.mount('/site', StaticFiles(directory='{tmp_path}/site', html=True))\n"
    )
    server = serve(app="withsite:app", PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert server.client.get("/site/").text == "hello"
    assert server.client.get("/site/sub/").text == "below"
    followed = server.client.get("/site/sub", follow_redirects=True)
    assert followed.text == "below"
    assert server.client.get("/health/").json() == {"status": "ok"}


def test_a_slash_at_the_end_means_nothing_for_routes_of_ones_own(
    tmp_path: Any, serve: Serve
) -> None:
    (tmp_path / "own.py").write_text(
        "from main import app\n"
        "@app.post('/things/')\n"
        "@app.get('/things/')\n"
        "@app.get('/people')\n"
        "def find(q: str = '') -> str:\n"
        "    return q\n"
    )
    client = serve(app="own:app", PYTHONPATH=f"{tmp_path}:{ROOT}").client
    for path in ("/things", "/things/", "/people", "/people/"):
        answer = client.get(f"{path}?q=kept")
        assert (answer.status_code, answer.json()) == (200, "kept")
    assert client.post("/things").status_code == 200
    assert client.post("/people/").status_code == 405


def test_health_looks_at_the_table_of_accounts_and_live_at_nothing(
    serve: Serve,
) -> None:
    server = serve()
    server.execute('ALTER TABLE "user" RENAME TO elsewhere')
    health, live = server.client.get("/health"), server.client.get("/live")
    assert (health.status_code, health.headers["Retry-After"]) == (503, "1")
    assert (live.status_code, live.json()) == (200, {"status": "ok"})


def test_bcrypt_hashes_made_elsewhere_are_accepted(ann: Person) -> None:
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4, b"2a")).decode()
    store_hash(ann.id, hashed)
    ann.log_in()
