"""The list: pages, order, search and count."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from sqlalchemy import event
from sqlmodel import Session, col

from core.data.sessions import engine
from models import User
from tests.conftest import Person, Server, sign_up

pytestmark = pytest.mark.quick
SORTS = ["id", "-id", "name", "-name", "email", "-email", "created_at", "-created_at"]
NAMES = [
    "Ünal",
    "ünal",
    "Zed",
    "zed",
    "50% off",
    "a_b",
    "a,b",
    "ann",
    "ann",
    "ann",
    "Ωmega",
    "ÉCOLE",
    "\U0001f600",
]


@pytest.fixture
def accounts(root: Person) -> list[dict[str, Any]]:
    with Session(engine) as session:
        for number, name in enumerate(NAMES):
            fields = sign_up(f"{number:02}", name=name)
            session.add(User(**fields, hashed_password="x"))
        session.commit()
    found: list[dict[str, Any]] = root("GET", "/users?limit=100").json()
    assert len(found) == len(NAMES) + 1
    return found


def follow(person: Person, path: str) -> list[dict[str, Any]]:
    """Walk from page to page and return all the accounts that were shown."""
    answer = person("GET", path)
    shown: list[dict[str, Any]] = answer.json()
    while "next" in answer.links:
        answer = person.client.get(answer.links["next"]["url"], headers=person.headers)
        assert answer.status_code == 200, answer.text
        shown += answer.json()
    return shown


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("limit", [1, 3, 100])
def test_the_pages_show_each_account_once_in_order(
    root: Person, accounts: list[dict[str, Any]], sort: str, limit: int
) -> None:
    field = sort.removeprefix("-")
    expected = sorted(
        accounts, key=lambda a: (a[field], a["id"]), reverse=sort.startswith("-")
    )
    assert follow(root, f"/users?limit={limit}&sort={sort}") == expected


def test_twenty_are_shown_by_id_unless_told_otherwise(root: Person) -> None:
    for number in range(21):
        root.client.post("/api/users", json=sign_up(number))
    answer = root("GET", "/users")
    shown = [account["id"] for account in answer.json()]
    assert shown == list(range(root.id, root.id + 20))
    assert "next" in answer.links
    assert "next" not in root("GET", "/users?limit=22").links, "all are on this page"


@pytest.mark.parametrize("sort", SORTS)
def test_a_walk_goes_on_when_the_account_it_stopped_at_is_gone(
    root: Person, accounts: list[dict[str, Any]], sort: str
) -> None:
    whole = follow(root, f"/users?limit=100&sort={sort}")
    page = root("GET", f"/users?limit=4&sort={sort}")
    last = page.json()[-1]
    if last["id"] == root.id:
        return
    assert root("DELETE", f"/users/{last['id']}").status_code == 204
    rest = follow(root, page.links["next"]["url"].partition("/api")[2])
    assert page.json() + rest == whole


def test_the_link_names_the_last_account_as_the_answer_shows_it(
    root: Person, accounts: list[dict[str, Any]]
) -> None:
    page = root("GET", "/users?sort=created_at&limit=3")
    last = page.json()[-1]
    path, _, query = page.links["next"]["url"].partition("?")
    (after,) = parse_qs(query)["after"]
    assert path == "/api/users", "so it holds behind any proxy"
    assert after == f"{last['created_at']},{last['id']}"


def test_the_end_of_a_page_can_be_written_by_hand(
    root: Person, accounts: list[dict[str, Any]]
) -> None:
    for sort in SORTS:
        whole = follow(root, f"/users?limit=100&sort={sort}")
        field, fifth = sort.removeprefix("-"), whole[4]
        after = str(fifth["id"]) if field == "id" else f"{fifth[field]},{fifth['id']}"
        rest = {"limit": 100, "sort": sort, "after": after}
        assert root("GET", "/users", params=rest).json() == whole[5:]
    in_utc = accounts[4]["created_at"].replace("Z", "+00:00")
    rest = {"sort": "created_at", "after": f"{in_utc},1"}
    assert root("GET", "/users", params=rest).status_code == 200


@pytest.mark.parametrize(
    ("q", "names"),
    [
        ("ÜNAL", {"Ünal", "ünal"}),
        ("zE", {"Zed", "zed"}),
        ("école", {"ÉCOLE"}),
        ("ωMEGA", {"Ωmega"}),
        ("%", {"50% off"}),
        ("_", {"a_b"}),
        ("0% o", {"50% off"}),
        ("/", set()),
        ("\\", set()),
        ("'", set()),
        ("07@EXAMPLE", {"ann"}),
        ("\U0001f600", {"\U0001f600"}),
        ("no such", set()),
    ],
)
def test_a_search_finds_parts_of_name_and_email_literally(
    root: Person, accounts: list[dict[str, Any]], q: str, names: set[str]
) -> None:
    answer = root("GET", "/users", params={"q": q, "count": "true"})
    assert {account["name"] for account in answer.json()} == names
    assert answer.headers["X-Total-Count"] == str(len(answer.json()))


def test_the_count_is_of_all_that_match_and_the_link_keeps_the_search(
    root: Person, accounts: list[dict[str, Any]]
) -> None:
    answer = root(
        "GET",
        "/users",
        params={"q": "ANN", "limit": 2, "sort": "-name", "count": "true"},
    )
    assert answer.headers["X-Total-Count"] == "3"
    second = root.client.get(answer.links["next"]["url"], headers=root.headers)
    assert second.headers["X-Total-Count"] == "3"
    assert [account["name"] for account in answer.json() + second.json()] == ["ann"] * 3
    assert root("GET", "/users?count=true").headers["X-Total-Count"] == str(
        len(NAMES) + 1
    )
    assert "X-Total-Count" not in root("GET", "/users").headers


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=-1",
        "limit=101",
        "limit=many",
        "limit=" + "9" * 5000,
        "sort=hashed_password",
        "sort=--id",
        "sort=",
        "count=maybe",
        "offset=1",
        "q=%00",
        "q=" + "x" * 321,
        "after=x",
        "after=" + "9" * 30,
        "after=1,1",
        "after=%00,1&sort=name",
        "after=1&sort=name",
        "after=never,1&sort=created_at",
        "after=1&sort=created_at",
        "after=2026-01-01T00:00:00Z,x&sort=created_at",
        "after=0001-01-01T00:00:00%2B14:00,1&sort=created_at",
    ],
)
def test_a_parameter_that_makes_no_sense_is_one_422(root: Person, query: str) -> None:
    answer = root("GET", f"/users?{query}")
    assert answer.status_code == 422, answer.text
    (mistake,) = answer.json()["detail"]
    assert mistake["loc"] == ["query", query.partition("=")[0]]


@pytest.mark.parametrize("q", ["%ED%A0%80", "%FF", "%C3", "%F0%9F%98%80"])
def test_bytes_that_are_not_text_find_nothing(root: Person, q: str) -> None:
    assert root("GET", f"/users?q={q}").json() == []


def test_an_empty_after_is_the_first_page(root: Person) -> None:
    assert root("GET", "/users?after=").json() == root("GET", "/users").json()


@pytest.mark.sqlite
@pytest.mark.parametrize("sort", SORTS)
def test_a_page_is_found_in_an_index_and_needs_no_sorting(
    root: Person, accounts: list[dict[str, Any]], sort: str
) -> None:
    """The last statement that a request for the next page runs is the page's own."""
    ran: list[tuple[str, Any]] = []

    def note(_: Any, __: Any, statement: str, values: Any, *___: Any) -> None:
        ran.append((statement, values))

    page = root("GET", f"/users?sort={sort}&limit=3")
    event.listen(engine, "before_cursor_execute", note)
    second = root.client.get(page.links["next"]["url"], headers=root.headers)
    event.remove(engine, "before_cursor_execute", note)
    assert second.status_code == 200
    statement, values = ran[-1]
    with engine.connect() as connection:
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
        (step,) = [row[-1] for row in plan]
    assert step.startswith("SEARCH user USING")


def test_a_long_search_asks_postgresql_for_each_letter_once() -> None:
    pytest.importorskip(
        "psycopg", reason="needs: pip install -r tests/requirements.txt"
    )
    from core.data.postgresql import in_lower_case

    lower = in_lower_case(col(User.name), "\u00e4" * 320)
    values = lower.compile().params.values()
    assert sorted(value for value in values if isinstance(value, str)) == [
        "",
        "\u00c4",
        "\u00e4",
    ]
    assert "CASE WHEN (length(" in str(lower), "a shorter text is not looked at"


def test_a_search_knows_every_letter_whatever_the_locale(
    new_database: Callable[[Path], str], tmp_path: Path, serve: Callable[..., Server]
) -> None:
    server = serve(url=new_database(tmp_path))
    person = Person(server.client, "root")
    sent = sign_up("a", name="ÜNALÖß")
    server.client.post("/api/users", json=sent)
    server.execute('UPDATE "user" SET is_admin = true')
    for q in ("ünal", "ÜNAL", "U\u0308NAL", "alö", "Ü", "Öß"):
        (found,) = person("GET", f"/users?q={q}").json()
        assert found["name"] == "ÜNALÖß"
