"""Lists, rows and uploads of somebody's own: what accounts have, other tables have."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests import programs
from tests.conftest import ROOT, Person, Server, wait_until

TABLES = ["books", "scrolls", "tablets"]
MINE = f"/books/{quote('of mine ✓')}"
FIELDS = ["id", "title", "price", "at", "kind", "pages", "is_lent", "due", "lasts"]
SORTS = [f"{sign}{field}" for field in FIELDS for sign in ("", "-")]
# Ties in every column, empty values, commas, and what a URL must escape.
BOOKS = [
    {
        "title": title,
        "price": price,
        "at": at,
        "kind": kind,
        "pages": number % 3,
        "is_lent": number % 2 == 0,
        "due": due,
        "lasts": due and "P1DT2H",
    }
    for number, (title, price, at, kind, due) in enumerate(
        [
            ("Emma", "4.50", "2026-01-31T12:00:00Z", "a novel", "2026-12-24"),
            ("Emma", "4.5", "2026-01-31T12:00:00.000001Z", "a poem", None),
            ("a, b", "10.00", "2026-01-31T14:00:00+02:00", "a novel", None),
            ("a,1", "10", "1999-12-31T23:59:59-05:00", "a novel", "2026-12-24"),
            ("50% &=#?", "0.01", "2026-01-31T12:00:00Z", "a poem", "2025-01-01"),
            ("", "-3", "2026-01-31T12:00:00Z", "a poem", None),
            ("Ünal ✓", "999999.99", "2026-02-01T00:00:00", "a novel", "2026-12-24"),
        ]
    )
]


@pytest.fixture(scope="module")
def server(
    new_database: Callable[[Path], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("lists")
    server = Server(folder, new_database(folder), app="tests.own_lists:app")
    yield server
    server.stop()


@pytest.fixture(scope="module")
def ann(server: Server) -> Person:
    """Somebody with seven rows in each table, three times over."""
    ann = Person(server.client, "ann")
    for table in TABLES:
        for book in BOOKS * 3:
            assert ann("POST", f"/{table}", json=book).status_code == 201
    return ann


@pytest.fixture(scope="module")
def bob(server: Server, ann: Person) -> Person:
    return Person(server.client, "bob")


def follow(person: Person, path: str, **query: Any) -> list[list[Any]]:
    """Walk from page to page; return each page's rows."""
    answer = person("GET", path, params=query or None)
    assert answer.status_code == 200, answer.text
    shown = [answer.json()]
    while "next" in answer.links:
        url = answer.links["next"]["url"]
        assert url.startswith("/api/")
        answer = person.client.get(url, headers=person.headers)
        assert answer.status_code == 200, answer.text
        shown.append(answer.json())
    return shown


def flat(pages: list[list[Any]]) -> list[Any]:
    return [row for page in pages for row in page]


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("sort", SORTS)
def test_a_walk_shows_each_row_once_and_in_order(
    ann: Person, table: str, sort: str
) -> None:
    whole = flat(follow(ann, f"/{table}", sort=sort, limit=100))
    # Other tests add some that are not hers.
    assert len({row["id"] for row in whole}) == len(whole) >= len(BOOKS) * 3
    assert flat(follow(ann, f"/{table}", sort=sort, limit=4)) == whole
    assert flat(follow(ann, f"/{table}", sort=sort, limit=4, q="m")) == [
        row for row in whole if "m" in row["title"].lower()
    ]
    field = sort.removeprefix("-")
    values = [row[field] for row in whole if row[field] is not None]
    empty = [row[field] for row in whole if row[field] is None]
    assert [row[field] for row in whole] == values + empty, "empty values come last"
    if field == "price":
        values = [float(value) for value in values]
    if field == "at":
        values = [datetime.fromisoformat(value) for value in values]
    assert values == sorted(values, reverse=sort.startswith("-"))


@pytest.mark.parametrize("sort", ["title", "-due", "due", "kind", "price", "-id"])
def test_a_walk_goes_on_while_rows_come_and_go(server: Server, sort: str) -> None:
    eve = Person(server.client, f"eve{sort}".replace("-", "."))
    for book in BOOKS * 2:
        eve("POST", "/books", json=book)
    whole = flat(follow(eve, MINE, sort=sort, limit=100))
    answer = eve("GET", MINE, params={"sort": sort, "limit": 5})
    shown = answer.json()
    assert shown == whole[:5]
    # Two come, and four go, the one at which the page ended among them.
    for book in BOOKS[4:6]:
        eve("POST", "/books", json=book)
    for row in [whole[0], whole[4], whole[5], whole[9]]:
        assert eve("DELETE", f"/books/{row['id']}").status_code == 204
    url = answer.links["next"]["url"].partition("/api")[2]
    rest = flat(follow(eve, url))
    stayed = [row for row in whole[5:] if row not in (whole[5], whole[9])]
    assert [row for row in rest if row in whole] == stayed
    assert len({row["id"] for row in shown + rest}) == len(shown + rest)
    for row in rest + shown:
        eve("DELETE", f"/books/{row['id']}")


@pytest.mark.parametrize(
    ("query", "field", "shown"),
    [
        ({"title": "Emma"}, "title", "Emma"),
        ({"title": "50% &=#?"}, "title", "50% &=#?"),
        ({"price": "4.5"}, "price", "4.50"),
        ({"price": "45e-1"}, "price", "4.50"),
        ({"at": "2026-01-31T13:00:00+01:00"}, "at", "2026-01-31T12:00:00Z"),
        ({"at": "2026-01-31T12:00:00"}, "at", "2026-01-31T12:00:00Z"),
        ({"kind": "a poem"}, "kind", "a poem"),
        ({"pages": "2"}, "pages", 2),
        ({"is_lent": "true"}, "is_lent", True),
        ({"due": "2026-12-24"}, "due", "2026-12-24"),
        ({"due": "2026-12-24", "kind": "a novel"}, "due", "2026-12-24"),
    ],
)
def test_a_column_that_the_page_names_filters_the_list(
    ann: Person, query: dict[str, str], field: str, shown: Any
) -> None:
    for table in TABLES:
        everything = ann("GET", f"/{table}?limit=100").json()
        expected = [row for row in everything if row[field] == shown]
        if "kind" in query:
            expected = [row for row in expected if row["kind"] == query["kind"]]
        assert 0 < len(expected) < len(everything)
        assert flat(follow(ann, f"/{table}", limit=2, **query)) == expected
        answer = ann("GET", f"/{table}", params={"count": "true", **query})
        assert answer.headers["X-Total-Count"] == str(len(expected))


def test_a_condition_of_the_path_operation_narrows_the_list(ann: Person) -> None:
    everything = ann("GET", "/books?limit=100").json()
    expected = [row for row in everything if row["pages"] >= 1]
    assert flat(follow(ann, "/books", at_least=1, limit=3)) == expected
    answer = ann("GET", "/books?at_least=1&count=true&q=emma")
    assert answer.headers["X-Total-Count"] == str(len(answer.json()))
    assert all(row["title"] == "Emma" and row["pages"] for row in answer.json())


def test_a_list_of_ones_own_has_only_them(ann: Person, bob: Person) -> None:
    for table in TABLES:
        path = MINE.replace("books", table)
        assert bob("GET", path).json() == []
        theirs = bob("POST", f"/{table}", json=BOOKS[0]).json()
        for sort in SORTS:
            assert follow(bob, path, sort=sort, limit=1) == [[theirs]]
            mine = flat(follow(ann, path, sort=sort, limit=5))
            assert len(mine) == len(BOOKS) * 3
            assert theirs not in mine
        assert bob("GET", f"{path}?count=true").headers["X-Total-Count"] == "1"


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ({"colour": "red"}, "colour"),
        ({"owner_id": "1"}, "owner_id"),
        ({"sort": "owner_id"}, "sort"),
        ({"title": "a\0"}, "title"),
        ({"price": "NaN"}, "price"),
        ({"price": "1e400"}, "price"),
        ({"price": "0.001"}, "price"),
        ({"at": "0001-01-01T00:00:00+02:00"}, "at"),
        ({"at": "now"}, "at"),
        ({"pages": str(2**63)}, "pages"),
        ({"kind": "novel"}, "kind"),
        ({"sort": "kind", "after": "a\0,1"}, "after"),
        ({"sort": "title", "after": "1"}, "after"),
        ({"sort": "due", "after": "x"}, "after"),
        ({"sort": "due", "after": "x,1"}, "after"),
        ({"sort": "lasts", "after": "P999999999D,1"}, "after"),
        ({"sort": "pages", "after": f"{2**63},1"}, "after"),
        ({"sort": "price", "after": "inf,1"}, "after"),
        ({"after": "null"}, "after"),
        ({"after": str(2**63)}, "after"),
    ],
)
def test_what_no_row_can_have_is_one_422(
    ann: Person, query: dict[str, str], name: str
) -> None:
    answer = ann("GET", "/books", params=query)
    assert answer.status_code == 422, answer.text
    (mistake,) = answer.json()["detail"]
    assert mistake["loc"] == ["query", name]


def test_a_member_that_an_enum_no_longer_has_does_not_end_a_walk(
    ann: Person, server: Server
) -> None:
    server.execute("UPDATE scroll SET kind = 'essay' WHERE kind = 'novel'")
    path = MINE.replace("books", "scrolls")
    kinds = [row["kind"] for row in flat(follow(ann, path, sort="kind", limit=2))]
    server.execute("UPDATE scroll SET kind = 'novel' WHERE kind = 'essay'")
    assert kinds == ["essay"] * 12 + ["a poem"] * 9


@pytest.mark.sqlite  # on PostgreSQL no query is in the way
def test_what_an_index_has_in_order_is_read_at_once_and_the_rest_beside(
    tmp_path: Path,
) -> None:
    """In a process of its own, since it adds tables."""
    script = """
from sqlmodel import SQLModel, create_engine
from tests.own_lists import LISTINGS
engine = create_engine("sqlite://")
SQLModel.metadata.create_all(engine)
for table, sort, *filters in QUERIES:
    listing, names = LISTINGS[table], tuple(filters)
    ends = tuple(f"end_{name}" for name in listing.sort_fields(sort))
    query = str(listing.get_select(sort, names, ends).compile(engine))
    with engine.connect() as connection:
        values = (0,) * query.count("?")
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}", values)
        steps = [row[-1] for row in plan]
    is_found = len(steps) == 1 and steps[0].startswith("SEARCH")
    print(table, sort, names, listing.is_quick(sort, names), is_found)
"""
    queries = [
        ("books", "id"),
        ("books", "-title"),
        ("books", "-pages"),
        ("books", "price", "owner_id"),
        ("books", "-id", "pages"),
        ("scrolls", "id"),
        ("tablets", "-id"),
        ("books", "id", "owner_id"),
        ("books", "at"),
        ("books", "due"),
        ("books", "price"),
        ("scrolls", "id", "owner_id"),
        ("scrolls", "pages"),
    ]
    settings = os.environ | {"PYTHONPATH": str(ROOT)}
    code = f"QUERIES = {queries}\n{script}"
    done = programs.run("-c", code, folder=tmp_path, settings=settings)
    lines = done.stdout.splitlines()
    assert len(lines) == len(queries), done.stderr
    for number, line in enumerate(lines):
        assert line.endswith("True True" if number < 7 else "False False"), line


def test_a_sort_that_is_no_column_is_a_500_that_names_it(server: Server) -> None:
    assert server.client.get("/api/uploads/wrong").status_code == 500
    wait_until(lambda: server.logged("Book has no column prize to sort by"))


# ---- Rows ----


def test_a_row_of_somebody_else_is_a_404_but_for_administrators(
    ann: Person, bob: Person, server: Server
) -> None:
    book = ann("POST", "/books", json=BOOKS[0]).json()
    path = f"/books/{book['id']}"
    not_found = (404, {"detail": "Book not found."})
    for wrong in (path, "/books/1000000"):
        answer = bob("DELETE", wrong)
        assert (answer.status_code, answer.json()) == not_found
    assert ann("GET", path).json() == book
    assert ann("DELETE", path).status_code == 204
    answer = ann("GET", path)
    assert (answer.status_code, answer.json()) == not_found
    theirs = bob("POST", "/books", json=BOOKS[0]).json()
    root = Person(server.client, "root")
    assert root("DELETE", f"/books/{theirs['id']}").status_code == 404
    server.promote(root)
    assert root("DELETE", f"/books/{theirs['id']}").status_code == 204
    assert ann("DELETE", "/books/99999999999999999999").status_code == 422


def test_a_row_is_locked_while_it_changes(ann: Person) -> None:
    book = ann("POST", "/books", json=BOOKS[0]).json()
    path = f"/books/{book['id']}"
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: ann("POST", f"{path}/pages"), range(24)))
    assert {answer.status_code for answer in answers} == {200}
    assert ann("GET", path).json()["pages"] == book["pages"] + 24
    assert ann("DELETE", path).status_code == 204


# ---- How much may be sent ----


@pytest.mark.parametrize(
    ("path", "limit", "text"),
    [("/uploads/note", 2 * 1024, "2 KiB"), ("/uploads/photo", 2**20, "1,024 KiB")],
)
@pytest.mark.parametrize("chunked", [False, True])
def test_a_path_operation_may_take_less_or_more(
    server: Server, path: str, limit: int, text: str, chunked: bool
) -> None:
    def send(size: int) -> Any:
        form = (
            b'--x\r\nContent-Disposition: form-data; name="photo"; filename="a"\r\n\r\n'
        )
        end = b"\r\n--x--\r\n"
        body = form + b"." * (size - len(form) - len(end)) + end
        content = iter([body[:99], body[99:]]) if chunked else body
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        return server.client.post(f"/api{path}", content=content, headers=headers)

    assert send(limit).status_code == 200, send(limit).text
    too_much = send(limit + 1)
    assert too_much.status_code == 413
    assert too_much.json() == {"detail": f"A body has at most {text}."}
    assert too_much.headers["Cache-Control"] == "no-store"
