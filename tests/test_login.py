"""Tokens: how you get them, how they die, and how guessing is slowed down."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from unittest.mock import patch

import bcrypt
import pytest
from fastapi.testclient import TestClient
from sqlmodel import Session, func, select, update

from accounts.throttle import WrongPassword
from core.data.sessions import engine
from models import Token, User
from tests.conftest import PASSWORD, Person

pytestmark = pytest.mark.quick
WRONG = (
    401,
    # OAuth2's own word for it (RFC 6749, section 5.2).
    {"detail": "Incorrect email or password.", "error": "invalid_grant"},
)


def test_a_log_in_gives_a_bearer_token_for_seven_days(ann: Person) -> None:
    form = {"username": ann.email, "password": PASSWORD}
    answer = ann.client.post("/api/login", data=form)
    token = answer.json()["access_token"]
    assert answer.json() == {
        "access_token": token,
        "token_type": "bearer",
        "expires_in": 7 * 24 * 3600,
    }
    assert answer.headers["Cache-Control"] == "no-store"
    headers = {"Authorization": f"Bearer {token}"}
    assert ann.client.get("/api/users/me", headers=headers).json() == ann.account


@pytest.mark.parametrize(
    ("username", "password"),
    [
        ("ann@example.com", "wrong"),
        ("nobody@example.com", PASSWORD),
        ("no address", PASSWORD),
        ("ann@example.com", PASSWORD + " " * 72),
        ("ann@example.com", "\0"),
        ("\0", "\0"),
        ("ann@example.com", "é" * 100),
    ],
)
def test_whatever_is_wrong_gets_one_answer(
    ann: Person, username: str, password: str
) -> None:
    form = {"username": username, "password": password}
    answer = ann.client.post("/api/login", data=form)
    assert (answer.status_code, answer.json()) == WRONG
    assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "username", ["ann@example.com", "nobody@example.com", "no address"]
)
def test_a_wrong_login_hashes_once_whoever_it_is(ann: Person, username: str) -> None:
    with patch.object(bcrypt, "checkpw", wraps=bcrypt.checkpw) as checkpw:
        ann.client.post("/api/login", data={"username": username, "password": "wrong"})
    hashes = [call.args[1] for call in checkpw.call_args_list]
    assert len(hashes) == 1
    assert hashes[0].startswith(b"$2b$04$"), "as costly as a real one"


@pytest.mark.parametrize(
    "stored", ["$2b$04$", "$2b$06$", "$2b$07$", "x", "$2b$07$x", None]
)
def test_a_wrong_login_takes_as_long_whatever_hash_is_stored(
    ann: Person, monkeypatch: pytest.MonkeyPatch, stored: str | None
) -> None:
    """One more round doubles the work; the work of all comparisons is added up."""
    monkeypatch.setattr("accounts.passwords.BCRYPT_ROUNDS", 7)
    email = ann.email
    if stored is None:
        email = "nobody@example.com"
    elif stored.endswith("$"):
        rounds = int(stored.split("$")[2])
        store_hash(bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(rounds)).decode())
    else:
        store_hash(stored)
    work: list[int] = []
    checkpw = bcrypt.checkpw

    def compare(password: bytes, hashed_password: bytes) -> bool:
        is_right = checkpw(password, hashed_password)
        work.append(2 ** int(hashed_password.split(b"$")[2]))
        return is_right

    monkeypatch.setattr(bcrypt, "checkpw", compare)
    for password in ("wrong", PASSWORD + " " * 72):
        work.clear()
        form = {"username": email, "password": password}
        answer = ann.client.post("/api/login", data=form)
        assert (answer.status_code, answer.json()) == WRONG
        assert sum(work) == 2**7


def store_hash(hashed_password: str) -> None:
    with engine.begin() as connection:
        connection.execute(update(User).values(hashed_password=hashed_password))


def test_what_bcrypt_would_cut_off_counts(ann: Person) -> None:
    longest = "x" * 72
    ann("PATCH", "/users/me", json={"password": longest, "current_password": PASSWORD})
    form = {"username": ann.email, "password": longest + "y"}
    answer = ann.client.post("/api/login", data=form)
    assert (answer.status_code, answer.json()) == WRONG
    ann.log_in(longest)


def test_logging_out_ends_this_token_alone(ann: Person) -> None:
    other = ann.headers
    ann.log_in()
    answer = ann("POST", "/logout")
    assert (answer.status_code, answer.content) == (204, b"")
    assert ann("GET", "/users/me").status_code == 401
    assert ann("POST", "/logout").status_code == 401
    assert ann.client.get("/api/users/me", headers=other).status_code == 200


def test_of_one_account_fifty_tokens_live_and_the_newest_is_one_of_them(
    ann: Person, bob: Person
) -> None:
    soon = datetime.now(UTC) + timedelta(days=1)
    late = datetime.now(UTC) + timedelta(days=100)
    with Session(engine) as session:
        session.add(Token(hashed_token="soon", user_id=ann.id, expires_at=soon))
        for number in range(49):  # for scripts, as tools.admin --token makes them
            token = Token(hashed_token=f"{number}", user_id=ann.id, expires_at=late)
            session.add(token)
        session.commit()
    first = ann.headers
    ann.log_in()
    assert ann("GET", "/users/me").status_code == 200
    assert ann.client.get("/api/users/me", headers=first).status_code == 401
    with Session(engine) as session:
        assert session.get(Token, "soon") is None
        statement = select(func.count()).where(Token.user_id == ann.id)
        assert session.exec(statement).one() == 50
    assert bob("GET", "/users/me").status_code == 200


def test_an_expired_token_is_dead_and_swept_at_the_next_login(ann: Person) -> None:
    a_second_ago = datetime.now(UTC) - timedelta(seconds=1)
    with engine.begin() as connection:
        connection.execute(update(Token).values(expires_at=a_second_ago))
    assert ann("GET", "/users/me").status_code == 401
    ann.log_in()
    with engine.connect() as connection:
        found = connection.exec_driver_sql("SELECT hashed_token FROM token")
        kept = found.scalars().all()
    assert kept == [sha256(ann.token.encode()).hexdigest()]


@pytest.mark.parametrize(
    "authorization", ["Bearer", "Bearer x", "Basic YTpi", "bearer é", "x" * 5000]
)
def test_a_wrong_token_is_401_and_says_how_to_get_one(
    client: TestClient, authorization: str
) -> None:
    answer = client.get(
        "/api/users/me", headers=[(b"Authorization", authorization.encode())]
    )
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert "POST" in answer.json()["detail"]
    assert "/api/login" in answer.json()["detail"]


def test_the_eleventh_failure_in_a_minute_is_429_without_hashing_and_all_wait(
    ann: Person,
) -> None:
    form = {"username": ann.email, "password": "wrong"}
    for _ in range(10):
        assert ann.client.post("/api/login", data=form).status_code == 401
    with patch.object(bcrypt, "checkpw") as checkpw:
        for password in ("wrong", PASSWORD):
            answer = ann.client.post("/api/login", data=form | {"password": password})
            assert answer.status_code == 429
            assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert not checkpw.called
    assert Person(ann.client, "bob").token, "another email is not slowed down"
    with engine.begin() as connection:  # a minute later
        connection.execute(update(WrongPassword).values(expires_at=datetime.now(UTC)))
    ann.log_in()
    with engine.connect() as connection:
        assert not connection.exec_driver_sql("SELECT * FROM wrongpassword").all(), (
            "old attempts are swept"
        )


def test_right_passwords_use_up_nothing(ann: Person) -> None:
    for _ in range(12):
        ann.log_in()


def test_fifty_at_once_get_ten_tries(ann: Person) -> None:
    form = {"username": ann.email, "password": "wrong"}

    def log_in(_: int) -> int:
        status: int = ann.client.post("/api/login", data=form).status_code
        return status

    with ThreadPoolExecutor(50) as pool:
        statuses = list(pool.map(log_in, range(50)))
    assert sorted(statuses) == [401] * 10 + [429] * 40
