"""The tour: seven steps in the terminal, without secrets, and the walk along them."""

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import (
    PASSWORD,
    ROOT,
    Person,
    Server,
    new_client,
    sign_up,
    wait_until,
)
from tests.pages import blocks, check_commands, copy_of_project, skip_if_extended

pytest.importorskip("rich", reason="needs: pip install -r tools/requirements.txt")
pytest.importorskip(
    "opentelemetry.sdk", reason="needs: pip install -r tools/requirements.txt"
)

Serve = Callable[..., Server]
WALK = (ROOT / "docs" / "walk.md").read_text()


def trees(server: Server, number: int) -> list[str]:
    """Return what the tour printed, a text per request, once there are that many."""

    def found() -> list[str]:
        start = r"^(?=(?:GET|POST|PATCH|DELETE|••••$))"
        printed = re.split(start, server.log.read_text(), flags=re.MULTILINE)[1:]
        # The first ones came from `serve`, which waited for the start.
        return [tree for tree in printed if "/health → " not in tree]

    wait_until(lambda: len(found()) >= number and "7 the answer" in found()[-1])
    return found()


def test_each_step_of_a_sign_up_is_shown_with_its_place(serve: Serve) -> None:
    server = serve("--root-path", "/v1", app="tools.tour:app")
    answer = server.client.post(
        "/api/users",
        json=sign_up("ann"),
    )
    assert answer.status_code == 201
    (tree,) = trees(server, 1)
    assert [
        line[4] for line in tree.splitlines() if re.match(r"[├└]── \d", line)
    ] == list("1234567")
    for shown in (
        '"email": "ann@example.com"',
        "UserCreate",
        "bcrypt.hashpw",
        "INSERT INTO",
        "UserPublic",
        "201",
    ):
        assert shown in tree
    for place in re.findall(r"(\S+\.py):(\d+) (.+)", tree):
        file, line, text = place
        assert (ROOT / file).read_text().splitlines()[
            int(line) - 1
        ].strip() == text.strip()
    steps = dict(
        step.split(";dur=") for step in answer.headers["Server-Timing"].split(", ")
    )
    assert {
        "dependencies",
        "endpoint",
        "serialization",
        "hashing",
        "sql",
        "total",
    } <= set(steps)
    assert (
        float(steps["total"]) >= float(steps["endpoint"]) >= float(steps["hashing"]) > 0
    )


def test_no_secret_is_shown(serve: Serve) -> None:
    server = serve(app="tools.tour:app")
    ann = Person(server.client, "ann")
    ann("GET", "/users/me")
    ann(
        "PATCH",
        "/users/me",
        json={"password": "another one", "current_password": PASSWORD},
    )
    server.client.post(
        "/api/users",
        json={"name": PASSWORD, "email": PASSWORD, "password": PASSWORD * 9},
    )
    ann("POST", "/logout")
    text = "".join(trees(server, 6))
    digests = [row[0] for row in server.rows("SELECT hashed_token FROM token")]
    hashes = [row[0] for row in server.rows('SELECT hashed_password FROM "user"')]
    for secret in [ann.token, "another one", *digests, *hashes]:
        assert secret not in text
    assert not re.search(r"\$2b\$|[0-9a-f]{64}", text)
    assert "••••" in text


# A student's router whose own messages repeat what was sent.
CARDS = """
import re
from typing import Annotated

from fastapi import Form, HTTPException, Request
from pydantic import BaseModel, field_validator
from sqlalchemy import text

from database import SessionDep
from main import app as api
from tools.tour import app


class Card(BaseModel):
    pwd: str

    @field_validator("pwd")
    @classmethod
    def is_long(cls, pwd: str) -> str:
        raise ValueError(f"{pwd} is too short")


@api.post("/api/cards")
def create_card(card: Card) -> None: ...


@api.post("/api/echo")
async def echo(request: Request) -> None:
    body = await request.body()
    raise HTTPException(400, f"Not a card: {body.decode()}")


@api.post("/api/words")
async def repeat_words(request: Request) -> None:
    words = re.split('[]["{}():=;,|~<>/ ]+', (await request.body()).decode())
    raise HTTPException(400, f"Not a card: {' '.join(reversed(words))}")


@api.post("/api/forms")
def read_form(pwd: Annotated[str, Form()]) -> None:
    raise HTTPException(400, f"Not a card: {pwd}")


@api.post("/api/paths")
def find_path(card: dict[str, str], session: SessionDep) -> None:
    statement = text("SELECT json_extract('{}', :pwd)")
    session.connection().execute(statement, {"pwd": card["pwd"]})
"""
SECRET = "hunter2-do-not-show"
TOKEN = "0123-of-a-header"  # another one, which does not give the first one away
JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=b"
PART = "--b\r\nContent-Disposition: form-data; name={}\r\n\r\nSECRET\r\n--b--\r\n"


@pytest.fixture
def tour_of_cards(tmp_path: Path, serve: Serve) -> Server:
    project = copy_of_project(tmp_path / "project")
    (project / "cards.py").write_text(CARDS)
    return serve(app="cards:app", project=project)


def test_no_secret_is_shown_wherever_it_is(tour_of_cards: Server) -> None:
    requests: list[tuple[str, str, str | bytes]] = [
        ("users", JSON, '{"password": ["SECRET"]}'),
        ("users", JSON, '{"password": {"x": "SECRET"}}'),
        ("users", JSON, '{"a": [{"Api_Key": [["SECRET"]]}]}'),
        ("users", JSON, '{"password": "SECRET",}'),
        ("users", JSON, "{'password': 'SECRET=='}"),
        ("users", JSON, "{password=SECRET, a=b}"),
        ("users", JSON, '{"token": "SECRET", "a": ' + "[" * 600 + "]" * 600 + "}"),
        ("users", JSON, '{"token": "SECRET", "a": ' + "[" * 9999),
        ("login", FORM, "username=a&password=SECRET"),
        ("login", FORM, "PassWord=SECRET&pwd=SECRET"),
        ("login", MULTIPART, PART.format('"password"')),
        ("login", MULTIPART, PART.format("password")),
        ("users?password=SECRET&token=SECRET", JSON, "{}"),
        ("cards", JSON, '{"pwd": "SECRET"}'),
        ("echo", JSON, '{"password": "SECRET",}'),
        ("echo", JSON, "{'PIN': ['SECRET', 'SECRET']}"),
        ("echo", FORM, "password=SECRET&password=SECRET2"),
        ("echo", FORM, "user[password]=SECRET"),
        ("echo", MULTIPART, PART.format('"password"')),
        ("echo", MULTIPART, PART.format("'pin'")),
        ("echo", "application/xml", "<password>SECRET</password>"),
        ("echo", JSON, json.dumps({"a": TOKEN})),
        # A field in a field, whatever stands between them, or hides its name.
        ("login", FORM, "username=a;password=SECRET"),
        ("login", FORM, "username=a%3Bpassword%3DSECRET"),
        ("login", FORM, "username=a%253Bp%2561ssword%253DSECRET"),
        ("login", FORM, "username=a\npassword=SECRET"),
        ("login", FORM, "username=a\tpassword\tSECRET"),
        ("login", FORM, "p%61ssword=SECRET"),
        ("echo", FORM, "username=a;password=SECRET"),
        ("echo", FORM, "username=a%3Bp%61ssword%3DSECRET"),
        ("echo", FORM, "p%2561ssword=SECRET"),
        ("echo", FORM, "username=a|password|SECRET"),
        ("echo", FORM, "username=a;password~SECRET"),
        ("echo", FORM, f"contrase\xf1a={SECRET}".encode("latin-1")),
        ("echo", FORM, f"password={SECRET}\xfc".encode()),
        ("forms", FORM, f"pwd={SECRET}\xfc".encode()),
        ("forms", FORM, f"pwd={SECRET}\xfc".encode("latin-1")),
        ("echo", FORM, f"password={SECRET}".encode("utf-16-le")),
        ("echo", JSON, json.dumps({"password": SECRET}).encode("utf-16-le")),
        ("echo", JSON, '{"password": "SECRET", "password": ""}'),
        ("echo", JSON, '{"password": "\\u0068unter2-do-not-show"}'),
        ("echo", FORM, "p%61ssword=%68unter2-do-not-show"),
        ("echo", "application/xml", "<p&#97;ssword>SECRET</p&#97;ssword>"),
        ("echo", JSON, json.dumps({"a": '{"password": "SECRET"}'})),
        ("echo", JSON, json.dumps({"a": '{"p\\u0061ssword": "SECRET"}'})),
        ("echo", JSON, json.dumps(json.dumps({"a": {"pin": ["SECRET"]}}))),
        ("echo", JSON, '{"a;password=SECRET": 1}'),
        ("echo", JSON, '[{"op": "replace", "path": "/password", "value": "SECRET"}]'),
        ("echo", JSON, '{"kennwort": "SECRET", "a": "SECRET"}'),
        ("echo", MULTIPART, PART.format('"p%61ssword"')),
        ("echo", MULTIPART, PART.format('"a"; x="\\"password"')),
        ("echo?a=1;token=SECRET", JSON, "{}"),
        ("echo?a=1%26token%3DSECRET", JSON, "{}"),
        ("echo?a=1%2526t%256Fken%253DSECRET", JSON, "{}"),
        ("echo?password:SECRET", JSON, "{}"),
        ("echo;token=SECRET", JSON, "{}"),
        # More secrets than can be looked for, and what must not take quadratic time.
        ("echo", JSON, json.dumps({"pin": [f"SECRET{n}" for n in range(2_500)]})),
        ("echo", JSON, json.dumps({"a": "-eyJ" * 16_000})),
        ("echo", JSON, json.dumps({"a" * 30_000: [1] * 10_000})),
        ("paths", JSON, '{"pwd": "SECRET"}'),
    ]
    # What repeats the words alone does not say which of them is the secret.
    echoed = [request for request in requests if request[0] == "echo"]
    words = [("words", kind, body) for _, kind, body in echoed]
    requests = [*words, *requests]
    user = base64.b64encode(f"ann:{TOKEN}".encode()).decode()
    for path, kind, body in requests:
        content = body
        if isinstance(body, str):
            content = body.replace("SECRET", SECRET)
        with new_client(tour_of_cards.url) as client:
            client.post(
                "/api/" + path.replace("SECRET", SECRET),
                content=content,
                headers={"Content-Type": kind, "Authorization": f"Basic {user}"},
            )
    shown = trees(tour_of_cards, len(requests))
    # Below the last one is the traceback of a mistake, which is not the tour's.
    shown[-1] = shown[-1].partition("7 the answer")[0]
    wrong = "wrong: body.pwd ••••"
    assert [wrong in tree for tree in shown].count(True) == 1
    assert "refused: " in shown[-1]
    # A NUL between two letters, as in UTF-16, hides them from nobody.
    assert TOKEN not in "".join(shown)
    leaks = [tree for tree in shown if SECRET[2:] in re.sub(r"\\x00|\\u0000", "", tree)]
    assert leaks == [], "\n".join(leaks)


def test_a_secret_is_known_by_its_name_in_many_languages(tour_of_cards: Server) -> None:
    secret = (
        "password userPassword dbpass pw PWD psw passphrase pin userPIN pin_2 key"
        " apiKey accessToken jwt hashed_password kennwort Passwörter mot_de_passe mdp"
        " motDePasse contraseña clave senha hasło wachtwoord пароль Пароль 密码 口令"
        " パスワード 비밀번호"
    )
    usual = (
        "spw_size power upward monkey keyboard token_type spinning compass passenger"
        " hashtag name email author salty enclave secretary исключение"
    )
    names = [*secret.split(), *usual.split()]
    for name in names:
        tour_of_cards.client.post("/api/users", json={name: "this"})
    hidden = []
    for name, tree in zip(names, trees(tour_of_cards, len(names)), strict=True):
        assert f'1 the request {{"{name}": "' in tree
        if f'1 the request {{"{name}": "••••"}}' in tree:
            hidden.append(name)
    assert hidden == secret.split()


@pytest.mark.parametrize("pwd", ["a", "7", "is", "abc", "json", "cards", "Value"])
def test_no_gap_in_a_text_tells_what_fills_it(tour_of_cards: Server, pwd: str) -> None:
    title = "a card 7 is json"
    for path in ("/api/cards", "/api/paths", "/api/nowhere/a", f"/api/echo?pwd={pwd}"):
        tour_of_cards.client.post(path, json={"pwd": pwd, "title": title})
    card, statement, nowhere, echo = trees(tour_of_cards, 4)
    assert card.startswith("POST /api/cards → 422")
    assert "refused: " in statement
    assert nowhere.startswith("POST /api/nowhere/a → 404")
    assert echo.startswith("POST /api/echo?pwd=•••• → 400")
    if len(pwd) < 4:  # it is dots where its name stands, and no text is touched
        assert f"wrong: body.pwd Value error, {pwd} is too short" in card
    else:
        assert "wrong: •••• ••••" in card or "wrong: body.pwd ••••" in card
        assert pwd not in statement.partition("refused: ")[2].partition("\n")[0]
        assert '7 the answer 400 {"detail": "••••"}' in echo
    expected = title if len(pwd) < 4 or pwd not in title else "••••"
    assert f'1 the request {{"pwd": "••••", "title": "{expected}"}}' in card
    for tree in (card, statement, nowhere, echo):
        assert not re.search(r"[\w/;]••••|••••[\w/;]", tree)


def test_no_control_character_of_somebody_else_is_printed(serve: Serve) -> None:
    server = serve(app="tools.tour:app")
    name = "\x1b[31m\x9b31m\u202e\ud800"
    body = json.dumps(sign_up("a", name=name))
    headers = {"Content-Type": "application/json"}
    server.client.post("/api/users", content=body, headers=headers)
    server.client.post("/api/users%1B%5B31m", content=body, headers=headers)
    form = {"username": name.removesuffix("\ud800"), "password": "x"}
    server.client.post("/api/login", data=form)
    printed = "".join(trees(server, 3))
    assert r"\x1b[31m\x9b31m\u202e" in printed.replace(r"\u001b", r"\x1b")
    assert "POST /api/users\\x1b[31m → 404" in printed
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", printed)


@pytest.mark.parametrize(
    ("path", "body", "step"),
    [
        ("/api/users", sign_up("x", name=""), 4),
        ("/api/users", {"name": "x"}, 4),
        ("/api/users", sign_up("ann"), 5),
        ("/api/logout", {}, 4),
        ("/api/nowhere", {}, 2),
    ],
)
def test_a_refused_request_shows_where_it_stopped(
    serve: Serve, path: str, body: dict[str, str], step: int
) -> None:
    server = serve(app="tools.tour:app")
    Person(server.client, "ann")
    answer = server.client.post(path, json=body)
    assert answer.status_code >= 400
    assert answer.headers["Server-Timing"]
    tree = trees(server, 3)[-1]
    assert f"stopped at step {step}" in tree
    wrong = re.findall("wrong: .+", tree)
    assert len(wrong) == len(set(wrong)), "once, whoever has looked at the body"


def test_what_the_database_refused_and_what_it_kept_is_shown(serve: Serve) -> None:
    server = serve(app="tools.tour:app")
    body = sign_up("ann")
    for status in (201, 409):
        assert server.client.post("/api/users", json=body).status_code == status
    kept, refused = trees(server, 2)
    assert kept.index("BEGIN") < kept.index("INSERT INTO") < kept.index("COMMIT")
    assert refused.index("BEGIN") < refused.index("INSERT INTO")
    assert refused.index("refused: ") < refused.index("ROLLBACK")
    assert "COMMIT" not in refused


def steady(tree: str) -> str:
    """Blot out numbers, and what differs between SQLite and PostgreSQL."""
    tree = re.sub(r"INSERT INTO.*", "INSERT INTO …", tree)
    tree = re.sub(r"BEGIN.*", "BEGIN", tree)
    return re.sub(r"\d+\.\d+|\d{4}-\d\d-\d\dT[\d:.]+Z", "…", tree).strip()


def test_the_walk_shows_what_the_tour_prints(serve: Serve) -> None:
    skip_if_extended()
    server = serve(app="tools.tour:app", BCRYPT_ROUNDS="12")
    assert check_commands(blocks(WALK, "sh"), server) == 1
    (shown,) = blocks(WALK, "text")
    assert steady(trees(server, 1)[0]) == steady(shown)


def test_each_reference_of_the_walk_points_at_what_it_says() -> None:
    skip_if_extended()
    references = re.findall(
        r"\[`([\w/.]+):(\d+)`\]\(\.\./([\w/.]+)#L(\d+)\) `([^`]+)`", WALK
    )
    assert len(references) >= 15
    assert WALK.count("](../") == len(references)
    for file, number, target, anchor, text in references:
        assert (file, number) == (target, anchor)
        assert (
            (ROOT / file)
            .read_text()
            .splitlines()[int(number) - 1]
            .strip()
            .startswith(text)
        ), f"{file}:{number}"


def test_each_section_of_the_walk_is_a_step_and_ends_with_something_to_change() -> None:
    sections = WALK.split("\n## ")[1:]
    assert [section[0] for section in sections] == list("1234567")
    for section in sections:
        texts = [text for text in section.split("\n\n") if not text.startswith("![")]
        assert texts[-2].startswith(f"**On the wall:** /tour, step {section[0]}")
        assert texts[-1].startswith("**Change this and see:**")


def test_the_tour_is_the_same_api(serve: Serve) -> None:
    server = serve(app="tools.tour:app")
    assert server.client.get("/docs").status_code == 200
