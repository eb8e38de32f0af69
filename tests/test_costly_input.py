"""Costly input is refused before anything looks into it, or handled cheaply.

The tests look at answers: each of these would be different, or an error, if the costly
way were taken.
"""

import unicodedata
from typing import Any
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient

from tests.conftest import PASSWORD, Person, sign_up

SAFE = 60_000  # characters, of the 64 KiB that a body may have
# Marks of two classes in turn: sorting them takes quadratic time.
MARKS = "\u0315\u0300"


def multipart(form: dict[str, str]) -> bytes:
    parts = b""
    for name, value in form.items():
        parts += b'--b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n' % (
            name.encode()
        )
        parts += value.encode() + b"\r\n"
    return parts + b"--b--\r\n"


def log_in_with_charset(ann: Person, charset: str) -> set[int]:
    """Log in with forms that name a charset; return the statuses."""
    password = "pässwörd-+AGE-\\u0041"
    change = {"password": password, "current_password": PASSWORD}
    assert ann("PATCH", "/users/me", json=change).status_code == 200
    content = multipart({"username": ann.email, "password": password})
    statuses = set()
    for kind in (
        f"multipart/form-data; boundary=b; charset={charset}",
        f"multipart/form-data; boundary=b; CHARSET={charset}",
        f"Multipart/Form-Data;Charset={charset};boundary=b",
    ):
        headers = {"Content-Type": kind}
        answer = ann.client.post("/api/login", content=content, headers=headers)
        statuses.add(answer.status_code)
    return statuses


@pytest.mark.parametrize("charset", ["utf-8", "UTF-8", "utf8", '"utf-8"', " utf-8"])
def test_a_form_may_say_that_it_is_utf_8(ann: Person, charset: str) -> None:
    assert log_in_with_charset(ann, charset) == {200}


@pytest.mark.parametrize(
    "charset", ["punycode", "idna", "utf-7", "utf-16", '"cp037"', "nonsense", "x" * 900]
)
def test_a_form_in_another_charset_is_415(ann: Person, charset: str) -> None:
    assert log_in_with_charset(ann, charset) == {415}


def test_a_browsers_form_data_logs_in(ann: Person) -> None:
    form = {"username": (None, ann.email), "password": (None, PASSWORD)}
    answer = ann.client.post("/api/login", files=form)
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "header",
    [
        ("Content-Type", "multipart/form-data; boundary=b" + ";" * SAFE),
        ("Content-Type", "application/json" + ";a=b" * 5000),
        ("Authorization", "Bearer " + "x" * SAFE),
        ("Cookie", "a=b; " * 5000),
    ],
)
def test_headers_over_16_kib_are_431_in_the_one_shape(
    client: TestClient, header: tuple[str, str]
) -> None:
    answers = [
        client.get("/api/users/me", headers=[header]),
        client.post("/api/login", content=b"", headers=[header]),
    ]
    for answer in answers:
        assert answer.status_code == 431
        assert answer.json() == {
            "detail": "The headers of a request have at most 16 KiB."
        }


def test_many_short_headers_are_as_large_as_a_long_one(ann: Person) -> None:
    headers = [(f"x-{number}", "a" * 10) for number in range(2000)]
    assert ann.client.get("/health", headers=headers).status_code == 431
    assert ann.client.get("/health", headers=headers[:500]).status_code == 200


def test_a_long_header_that_is_short_enough_is_read(ann: Person) -> None:
    headers = {"Cookie": "a" * 15_000}
    assert ann("GET", "/users/me", headers=headers).json() == ann.account


@pytest.mark.parametrize(
    ("path", "options"),
    [
        ("/users", {"json": {"name": "a" + MARKS * 15_000}}),
        ("/users", {"json": {"email": "a" + MARKS * 14_900 + "@b.de"}}),
        ("/login", {"data": {"username": "a" + MARKS * 4900 + "@b.de"}}),
        ("/users?q=" + MARKS * 5000, {}),
    ],
)
def test_a_text_is_normalized_only_once_its_length_is_known(
    root: Person, monkeypatch: pytest.MonkeyPatch, path: str, options: dict[str, Any]
) -> None:
    lengths = []

    def normalize(form: Any, text: str) -> str:
        lengths.append(len(text))
        return real(form, text)

    real = unicodedata.normalize
    monkeypatch.setattr(unicodedata, "normalize", normalize)
    method = "POST" if options else "GET"
    if "json" in options:
        options = {"json": sign_up("a", **options["json"])}
    if "data" in options:
        options = {"data": {"password": "x"} | options["data"]}
    answer = root(method, path, **options)
    assert answer.status_code in {401, 422}
    assert max(lengths, default=0) <= 320


# int() refuses more than 4,300 digits, and takes some that are none of ours.
ODD = ["0" * 4301, "9" * 4301, "-1", "+1", "1e400", "0x10", "1_000", "\u0661\u0662", ""]
NUMBERS = {
    "Content-Length": "{}",
    "Range": "bytes={}-{}",
    "If-Range": "Mon, 01 Jan {} 00:00:00 GMT",
    "If-Modified-Since": "Mon, {} Jan 2026 {}:00:00 +{}",
    "Host": "localhost:{}",
    "Origin": "http://localhost:{}",
    "Content-Type": "multipart/form-data; boundary={}",
    "Authorization": "Bearer {}",
}
QUERIES = [
    "limit={}",
    "after={}",
    "after={},{}&sort=name",
    "count={}",
    "sort={}",
    "q={}",
]


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: f"{odd[:8]}…{len(odd)}")
def test_no_odd_number_is_a_500(root: Person, odd: str) -> None:
    client = root.client  # it raises what would be a 500
    file = "/static-offline-docs/swagger-ui.css"
    body = b'{"name": "x"}'
    statuses = set()
    for name, text in NUMBERS.items():
        header = {name: text.replace("{}", odd).encode()}
        statuses.add(client.get(file, headers=header).status_code)
        for method, path in (("POST", "/api/users"), ("POST", "/api/login")):
            answer = client.request(method, path, headers=header, content=body)
            statuses.add(answer.status_code)
    for query in QUERIES:
        answer = root("GET", f"/users?{query.replace('{}', quote(odd))}")
        statuses.add(answer.status_code)
    if odd:
        statuses.add(root("GET", f"/users/{quote(odd)}").status_code)
    assert max(statuses) < 500
