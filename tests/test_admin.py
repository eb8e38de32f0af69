"""tools.admin: the first administrator, and a new password for whoever forgot."""

import getpass
import sys
from datetime import timedelta

import pytest
from sqlmodel import Session, col, select

from core.data.sessions import engine
from models import Token, now
from tests.conftest import PASSWORD, Person
from tools import admin
from tools.data.tables import PLACE

NEW = "quite another one"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["tools.admin", *arguments])
    admin.main()


def type_in(monkeypatch: pytest.MonkeyPatch, *passwords: str) -> None:
    typed = iter(passwords)
    monkeypatch.setattr(getpass, "getpass", lambda _prompt: next(typed))


def test_it_makes_an_administrator_and_shows_who_that_is(
    ann: Person,
    bob: Person,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(monkeypatch, "Ann@example.com")
    since = ann.account["created_at"].partition(".")[0]
    assert capsys.readouterr().out == (
        f"Database: {PLACE}\nAccount {ann.id}, Ann, since {since}Z\n"
        "ann@example.com is an administrator now.\n"
    )
    assert ann("GET", "/users").status_code == 200
    assert bob("GET", "/users").status_code == 403


def test_it_takes_an_address_as_the_log_in_does(
    ann: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    change = {"email": "ann@münchen.de", "current_password": PASSWORD}
    assert ann("PATCH", "/users/me", json=change).status_code == 200
    run(monkeypatch, " ANN@xn--mnchen-3ya.de ")
    assert ann("GET", "/users/me").json()["is_admin"] is True


def test_a_new_password_is_the_only_one_and_ends_every_token(
    ann: Person,
    bob: Person,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    type_in(monkeypatch, NEW, NEW)
    run(monkeypatch, ann.email, "--password")
    assert ann("GET", "/users/me").status_code == 401
    old = {"username": ann.email, "password": PASSWORD}
    assert ann.client.post("/api/login", data=old).status_code == 401
    ann.log_in(NEW)
    assert ann("GET", "/users/me").json() == ann.account, "she is not an administrator"
    assert bob("GET", "/users/me").status_code == 200
    shown = capsys.readouterr()
    assert "has a new password now" in shown.out
    assert NEW not in shown.out + shown.err


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (("", ""), "All fields are required."),
        (("x" * 73, "x" * 73), "72 bytes"),
        (("a\0b", "a\0b"), "characters that no password can have"),
        ((NEW, NEW + "x"), "The two passwords differ"),
    ],
)
def test_a_password_that_a_sign_up_would_refuse_changes_nothing(
    ann: Person, monkeypatch: pytest.MonkeyPatch, typed: tuple[str, str], told: str
) -> None:
    type_in(monkeypatch, *typed)
    with pytest.raises(SystemExit, match=told):
        run(monkeypatch, ann.email, "--password")
    assert ann("GET", "/users/me").json() == ann.account
    ann.log_in()


def test_ctrl_c_changes_nothing(ann: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_prompt: str) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(getpass, "getpass", interrupt)
    with pytest.raises(SystemExit, match="Nothing was changed"):
        run(monkeypatch, ann.email, "--password")
    ann.log_in()


def test_nobody_waits_while_somebody_types(
    ann: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rename(_prompt: str) -> str:
        assert ann("PATCH", "/users/me", json={"name": "New"}).status_code == 200
        return NEW

    monkeypatch.setattr(getpass, "getpass", rename)
    run(monkeypatch, ann.email, "--password")
    ann.log_in(NEW)
    assert ann("GET", "/users/me").json()["name"] == "New"


@pytest.mark.parametrize(
    ("email", "told"),
    [
        ("nobody@example.com", "Nobody has signed up as nobody@example.com here yet"),
        ("nobody", "'nobody': An email address looks like"),
    ],
)
def test_a_wrong_address_is_told_what_to_do(
    ann: Person, monkeypatch: pytest.MonkeyPatch, email: str, told: str
) -> None:
    with pytest.raises(SystemExit, match=told) as error:
        run(monkeypatch, email)
    assert error.value.code != 0
    if "@" in email:
        assert "Sign up first" in str(error.value)


def test_without_an_address_it_says_how_to_call_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch)
    assert "usage: python -m tools.admin" in capsys.readouterr().err


def test_a_token_for_a_script_is_all_that_is_printed(
    ann: Person, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, ann.email, "--token", "30")
    printed = capsys.readouterr()
    assert f"Database: {PLACE}\nAccount {ann.id}, Ann, since " in printed.err
    headers = {"Authorization": f"Bearer {printed.out.strip()}"}
    assert ann.client.get("/api/users/me", headers=headers).json() == ann.account
    with Session(engine) as session:
        tokens = session.exec(select(Token).order_by(col(Token.expires_at))).all()
    assert timedelta(days=29) < tokens[-1].expires_at - now() < timedelta(days=31)
    assert ann("GET", "/users/me").status_code == 200, "other log-ins go on"


@pytest.mark.parametrize("days", ["0", "-1", "3651", "many", "9" * 5000])
def test_a_token_lasts_for_a_number_of_days(
    ann: Person,
    days: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, ann.email, "--token", days)
    assert "argument --token: " in capsys.readouterr().err
