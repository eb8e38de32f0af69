"""The pages /tour and /tour/accounts, in a real Chromium and as raw events."""

import base64
import itertools
import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from fastapi.testclient import TestClient

from tests.conftest import (
    PASSWORD,
    ROOT,
    Server,
    empty_database,
    new_client,
    open_browser,
    sign_up,
    wait_until,
)
from tests.pages import copy_of_project

NEEDS = "needs: pip install -r tools/requirements.txt"
pytest.importorskip("pygments", reason=NEEDS)
pytest.importorskip("opentelemetry.sdk", reason=NEEDS)

from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

PAGE = (ROOT / "tools" / "tour" / "page.html").read_text()
SECRET = "hunter2-do-not-show"
TELEPHONE = {"width": 375, "height": 800, "deviceScaleFactor": 1, "mobile": True}
# What students may write: their own secrets, and every kind of path operation.
CARDS = """
import sys
from functools import partial

from fastapi import BackgroundTasks, HTTPException
from fastapi.responses import RedirectResponse, StreamingResponse
from sqlmodel import Field, SQLModel, select

from database import SessionDep
from main import app as api
from tools.tour import app


class Card(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    title: str
    secret: str
    pin: int
    api_key: str


@api.post("/api/cards")
def create_card(card: Card, session: SessionDep) -> Card:
    session.add(card)
    session.commit()
    return card


@api.get("/api/cards/{pin}")
def find_card(pin: int, session: SessionDep) -> Card:
    card = session.exec(select(Card).where(Card.pin == pin)).first()
    if card is None:
        raise HTTPException(404, f"No card has the pin {pin}")
    return card


@api.get("/notes/{note_id}")
def read_note(note_id: int) -> int:
    return note_id


@api.get("/api/stream")
async def stream() -> StreamingResponse:
    return StreamingResponse(iter(["one ", "two ", "three"]))


@api.post("/api/later")
async def later(tasks: BackgroundTasks) -> None:
    tasks.add_task(print, "done later")


@api.get("/api/much")
def read_much(session: SessionDep) -> None:
    for number in range(40):
        session.connection().exec_driver_sql(f"SELECT '{number:01900}'")


class Caller:
    async def __call__(self) -> str:
        return "from an instance"


api.get("/api/instance")(Caller())
api.get("/api/partial")(partial(lambda word="x": word))
exec("def made() -> str: return 'made'")
api.add_api_route("/api/made", made)


MINTED = "min" + "ted"  # in two, since the pages show lines of this file


@api.get("/api/moved")
def moved() -> RedirectResponse:
    return RedirectResponse("/api/x?a=1&resetToken=" + MINTED)


@api.get("/api/leak")
def leak() -> None:
    raise HTTPException(502, f"No answer from ftp://ann:{MINTED}@host/x")


@api.get("/api/mistake")
def mistake(token: str = "") -> None:
    raise ZeroDivisionError(token)


sys.path.append("FOLDER")
import elsewhere

api.include_router(elsewhere.router)
"""
# A router outside the project's folder.
ELSEWHERE = """
from fastapi import APIRouter, HTTPException

router = APIRouter(prefix="/api/elsewhere")


@router.get("")
async def read_elsewhere() -> None:
    raise HTTPException(418, "elsewhere")
"""


class Tour:
    """The tour with a page open, and what others do meanwhile."""

    def __init__(self, server: Server, browser: Any, project: Path) -> None:
        self.server, self.browser, self.project = server, browser, project
        self.url = server.url.replace("127.0.0.1", "localhost")
        self.names = (f"client-{number}." for number in itertools.count())

    def send(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """Send a request, and return what the pages are told about it."""
        name = next(self.names)
        headers = {"User-Agent": name} | options.pop("headers", {})
        with new_client(self.server.url) as client:
            client.request(method, path, headers=headers, **options)
        for event in events(self.server.url + "/tour/events"):
            if event["steps"][0]["says"].startswith(name):
                return event
        raise AssertionError

    def sign_up(self, email: str, **fields: Any) -> dict[str, Any]:
        body = sign_up("ann", email=email, **fields)
        return self.send("POST", "/api/users", json=body)

    def token(self, email: str) -> str:
        form = {"username": email, "password": PASSWORD}
        answer = self.server.client.post("/api/login", data=form)
        return str(answer.json()["access_token"])

    def open(self, path: str = "/tour") -> None:
        self.browser.get(self.url + path)
        self.until("state", "live")

    def script(self, code: str) -> Any:
        return self.browser.execute_script(f"return {code}")

    def text(self, element: str) -> str:
        return str(self.script(f"document.getElementById('{element}').innerText"))

    def until(self, element: str, text: str) -> None:
        wait_until(lambda: text in self.text(element), f"the page does not show {text}")

    def press(self, *keys: str) -> None:
        self.browser.find_element(By.TAG_NAME, "body").send_keys(*keys)

    def step(self) -> str:
        return str(
            self.script(
                "document.querySelector('[aria-current=step] .number').innerText"
            )
        )

    def hide(self, *, is_hidden: bool) -> None:
        """Hide or show the page, as another tab in front of it would."""
        hidden = json.dumps({"value": is_hidden, "configurable": True})
        self.browser.execute_script(
            f"Object.defineProperty(document, 'hidden', {hidden});"
            "document.dispatchEvent(new Event('visibilitychange'))"
        )

    def resize(self, width: int, height: int) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1}
        self.browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride", {**size, "mobile": False}
        )

    def save(self, name: str) -> None:
        """Take a screenshot of the whole page, if SCREENSHOTS names a folder."""
        if folder := os.environ.get("SCREENSHOTS"):
            self.resize(1280, 400)
            height = self.script("document.documentElement.scrollHeight")
            self.resize(1280, height)
            self.script("scrollTo(0, 0)")
            self.browser.save_screenshot(f"{folder}/{name}")
            self.resize(1280, 800)


def events(url: str, last: str = "", kind: str = "request") -> Iterator[dict[str, Any]]:
    """Read the events as they come."""
    headers = {"Last-Event-ID": last}
    with httpx.stream("GET", url, headers=headers, timeout=60) as answer:
        assert answer.status_code == 200
        event: dict[str, str] = {}
        for line in answer.iter_lines():
            name, _, value = line.partition(": ")
            event[name] = value
            if not line:
                if event.get("event") == kind:
                    data = json.loads(event["data"])
                    yield {**data, "id": event.get("id"), "raw": event["data"]}
                event = {}


@pytest.fixture(scope="module")
def tour(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tour]:
    folder = tmp_path_factory.mktemp("tour")
    project = copy_of_project(folder / "project")
    (project / "cards.py").write_text(CARDS.replace("FOLDER", str(folder)))
    (folder / "elsewhere.py").write_text(ELSEWHERE)
    browser = open_browser(folder)
    settings = {}
    if os.environ.get("SCREENSHOTS"):
        settings["BCRYPT_ROUNDS"] = "12"  # a hash takes as long as in real use
    server = Server(
        folder,
        empty_database(folder),
        "--reload",
        "--reload-dir",
        str(project),
        app="cards:app",
        project=project,
        **settings,
    )
    tour = Tour(server, browser, project)
    tour.resize(1280, 800)
    # What is new fades in: in a screenshot it would be nearly white.
    calm = [{"name": "prefers-reduced-motion", "value": "reduce"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": calm})
    yield tour
    browser.quit()
    server.stop()


def marked(event: dict[str, Any], step: int, mark: str) -> list[tuple[str, int, str]]:
    """Return the file, number and text of the lines with a mark at a step."""
    return [
        (code["file"], number, "".join(text for _, text in pieces).strip())
        for code in event["steps"][step - 1]["code"]
        for number, how, pieces in code["lines"]
        if how == mark
    ]


def test_a_curl_from_outside_appears_and_the_arrows_walk(tour: Tour) -> None:
    tour.open()
    body = '{"name": "John Doe", "email": "john@example.com", "password": "secret"}'
    curl = ["curl", "-s", "--json", body, f"{tour.server.url}/api/users"]
    subprocess.run(curl, check=True, stdout=subprocess.DEVNULL)
    tour.until("title", "201 Created")
    assert "POST" in tour.text("list")
    tour.save("tour-sign-up.png")
    walked = []
    for _ in range(8):
        walked.append(tour.step())
        tour.press(Keys.ARROW_DOWN)
    assert walked == list("12345677")
    tour.press(Keys.ARROW_UP)
    assert tour.step() == "6"
    subprocess.run(curl, check=True, stdout=subprocess.DEVNULL)
    tour.until("title", "409 Conflict")
    assert tour.step() == "5", "where it stopped"
    assert "Email already registered." in tour.text("steps")
    grey = tour.script("[...document.querySelectorAll('.not')].map(x => x.innerText)")
    assert len(grey) == 1
    assert "The response model" in grey[0]
    tour.save("tour-409.png")
    tour.press(Keys.ARROW_LEFT)
    tour.until("title", "201 Created")
    tour.send("GET", "/api/nowhere")
    tour.until("list", "/api/nowhere")
    assert "201 Created" in tour.text("title"), "an older one was chosen, and stays"
    tour.press(Keys.END)
    tour.until("title", "404 Not Found")
    assert tour.step() == "2"


def test_large_type_and_the_keys_are_a_key_away(tour: Tour) -> None:
    tour.send("GET", "/api/nowhere")
    tour.open()
    tour.until("title", "404")
    size = "parseFloat(getComputedStyle(document.documentElement).fontSize)"
    before = tour.script(size)
    tour.press("l")
    assert tour.script(size) > 1.2 * before
    tour.press("l")
    assert tour.script(size) == before
    tour.press("?")
    assert tour.script("document.getElementById('help').open")
    tour.press(Keys.ESCAPE)
    tour.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", TELEPHONE)
    assert tour.script("document.documentElement.scrollWidth") == 375
    tour.resize(1280, 800)


def test_the_marked_line_is_the_line_that_ran(tour: Tour) -> None:
    signed_up = tour.sign_up("ran@example.com")
    taken = tour.sign_up("ran@example.com")
    wrong = tour.sign_up("ran at home")
    nobody = tour.send("GET", "/api/users/me")
    tour.server.execute(
        "UPDATE \"user\" SET is_admin = true WHERE email = 'ran@example.com'"
    )
    headers = {"Authorization": f"Bearer {tour.token('ran@example.com')}"}
    listed = tour.send("GET", "/api/users?limit=2", headers=headers)
    router, dependencies = "routers/user_router.py", "routers/dependencies.py"
    expected = [
        (signed_up, 2, "ran", router, '@router.post("", status_code=201'),
        (signed_up, 3, "ran", router, "def create_user("),
        (signed_up, 4, "ran", dependencies, "return await hash_password("),
        (signed_up, 5, "ran", router, "session.commit()"),
        (signed_up, 6, "ran", "models.py", "class UserPublic(UserBase):"),
        (taken, 5, "stopped", router, "session.commit()"),
        (wrong, 4, "ran", "models.py", "email: Email = Field("),
        (wrong, 4, "stopped", "core/texts.py", "raise ValueError("),
        (nobody, 4, "ran", dependencies, "return await find_asker(token)"),
        (nobody, 4, "stopped", "accounts/permits.py", "raise refusals.NotSignedIn"),
        (listed, 2, "ran", router, "@router.get("),
        (listed, 5, "ran", router, "return await USERS.page(page, request, response)"),
    ]
    for event, step, mark, file, text in expected:
        lines = marked(event, step, mark)
        for where, number, shown in lines:
            source = (tour.project / where).read_text().splitlines()
            assert source[number - 1].strip() == shown
        found = [line for line in lines if line[0] == file and line[2].startswith(text)]
        assert len(found) == 1, (text, lines)
    # The email's rule is the one that raised, not the name's.
    ((_, number, _),) = marked(wrong, 4, "stopped")
    above = (tour.project / "core" / "texts.py").read_text().splitlines()[:number]
    rules = [line for line in above if line.startswith("def ")]
    assert rules[-1].startswith("def find_address(")
    stops = [event["stop"] for event in (signed_up, taken, wrong, nobody)]
    assert stops == [0, 5, 4, 4]
    sql = [one["text"].split()[0] for one in signed_up["steps"][4]["sql"]]
    assert sql == ["BEGIN", "INSERT", "COMMIT"]
    assert [one["text"] for one in taken["steps"][4]["sql"]][-1] == "ROLLBACK"
    assert taken["steps"][4]["sql"][1]["refused"]


def test_every_kind_of_path_operation_is_shown(tour: Tour) -> None:
    card = {"title": "Visa", "secret": SECRET, "pin": 4711, "api_key": SECRET}
    for method, path, status, options in (
        ("POST", "/api/cards", 200, {"json": card}),
        ("GET", "/api/stream", 200, {}),
        ("POST", "/api/later", 200, {}),
        ("GET", "/api/instance", 200, {}),
        ("GET", "/api/partial", 200, {}),
        ("GET", "/api/made", 200, {}),
        ("HEAD", "/api/stream", 200, {}),
        ("PUT", "/api/users", 405, {}),
        ("POST", "/api/users/", 415, {"content": "{}"}),
        ("GET", "/api/mistake", 500, {}),
    ):
        event = tour.send(method, path, **options)
        assert (event["status"], len(event["steps"])) == (status, 7), path
    assert marked(event, 5, "stopped")[0][2] == "raise ZeroDivisionError(token)"
    event = tour.send("GET", "/api/elsewhere")
    ((file, number, text),) = marked(event, 5, "stopped")
    assert text == 'raise HTTPException(418, "elsewhere")'
    assert Path(file).read_text().splitlines()[number - 1].strip() == text
    assert not tour.server.logged("The tour cannot show this request")


def test_a_route_is_shown_wherever_it_is_but_what_browsers_ask_for_is_not(
    tour: Tour,
) -> None:
    for path in ("/docs", "/openapi.json", "/favicon.ico", "/tour"):
        tour.server.client.get(path)
    docs = tour.server.client.get("/docs").text
    (script,) = re.findall('src="([^"]+)"', docs)
    assert tour.server.client.get(script).status_code == 200
    tour.send("GET", "/notes/7")
    paths = []
    for event in events(tour.server.url + "/tour/events"):
        paths.append(event["path"])
        if event["path"] == "/notes/7":
            break
    hidden = {"/docs", "/openapi.json", "/favicon.ico", "/tour", script}
    assert not hidden & set(paths)


def test_no_secret_is_in_what_the_pages_are_sent(tour: Tour) -> None:
    form = "application/x-www-form-urlencoded"
    multipart = "multipart/form-data; boundary=b"
    part = f'--b\r\nContent-Disposition: form-data; name="pin"\r\n\r\n{SECRET}\r\n--b--'
    bodies = [
        ("/api/users", "application/json", f'{{"password": ["{SECRET}"]}}'),
        ("/api/users", "application/json", f'{{"a": [{{"Api_Key": "{SECRET}"}}]}}'),
        ("/api/users", "application/json", f'{{"userPin": "{SECRET}", "b": 1,}}'),
        (
            "/api/users",
            "application/json",
            f'{{"name": "{SECRET}", "pin": "{SECRET}"}}',
        ),
        (f"/api/users?token={SECRET}&a=1", "application/json", "{}"),
        (f"/api/users?to%6ben={SECRET}", "application/json", "{}"),
        ("/api/login", form, f"username={SECRET}&password={SECRET}"),
        ("/api/login", multipart, part),
        ("/api/cards", "application/json", f'{{"pin": 1, "secret": "{SECRET}"}}'),
        (f"/api/mistake?token={SECRET}", form, ""),
    ]
    headers = {"Authorization": f"Bearer {SECRET}", "Cookie": f"a={SECRET}; b=1"}
    headers |= {"X-Api-Key": SECRET}
    for path, kind, body in bodies:
        sent = {"Content-Type": kind, **headers}
        with new_client(tour.server.url) as client:  # a 500 closes the connection
            client.post(path, content=body, headers=sent)
    card = {"title": SECRET, "secret": SECRET, "pin": 471100815, "api_key": SECRET}
    kept = tour.send("POST", "/api/cards", json=card)
    assert kept["status"] == 200
    missed = tour.send("GET", "/api/cards/0987654321")
    assert missed["status"] == 404
    assert missed["steps"][4]["why"] == "••••", "No card has the pin 987654321"
    assert missed["path"] == "/api/cards/{pin}"
    tour.send("GET", f"/api/mistake?token={SECRET}")
    moved = tour.send("GET", "/api/moved")
    assert "Location: ••••" in moved["steps"][6]["show"]
    tour.send("GET", "/api/leak")
    halves = {"User-Agent": "halved/of-a-token"}
    tour.server.client.get("/api/made?token=halved/of-a-token", headers=halves)
    tour.sign_up("veil@example.com")
    token = tour.token("veil@example.com")
    last = tour.send(
        "GET", "/api/users/me", headers={"Authorization": f"Bearer {token}"}
    )
    told = []
    for event in events(tour.server.url + "/tour/events"):
        told.append(event["raw"])
        if event["number"] == last["number"]:
            break
    tables = next(events(tour.server.url + "/tour/accounts/events", kind="tables"))
    digests = [row[0] for row in tour.server.rows("SELECT hashed_token FROM token")]
    hashes = [row[0] for row in tour.server.rows('SELECT hashed_password FROM "user"')]
    raw = "".join(told)
    assert len(told) > 10
    for secret in ["987654321", "minted", "halved", token, PASSWORD, *digests, *hashes]:
        assert secret not in raw + tables["raw"]
    leaks = [
        raw[max(0, one.start() - 90) : one.end() + 30]
        for one in re.finditer(SECRET, raw)
    ]
    assert not leaks
    assert "471100815" not in raw + tables["raw"]
    assert not re.search(r"\$2b\$|[0-9a-f]{64}", raw + tables["raw"])
    log = tour.server.log.read_text()  # a mistake's traceback is not the tour's
    trees = "".join(re.findall("^(?:[├└│]|[A-Z]+ /).*", log, flags=re.MULTILINE))
    assert "987654321" not in trees
    assert SECRET not in trees
    (cards,) = [table for table in tables["tables"] if table["name"] == "card"]
    assert cards["rows"][0]["cells"][2:] == ["••••", "••••", "••••"]


def test_headers_and_paths_are_the_same_whatever_the_secret(tour: Tour) -> None:
    """Dots there would tell that the secret is in them."""
    for pin in ("1", "api", "json", "cards", "BASIC"):
        user = base64.b64encode(f"ann:{pin}".encode()).decode()
        headers = {"Content-Type": "application/json", "Authorization": f"Basic {user}"}
        event = tour.send("GET", f"/api/cards/{pin}?pin={pin}", headers=headers)
        assert event["path"] == "/api/cards/{pin}?pin=••••"
        assert event["steps"][0]["show"].splitlines() == [
            "GET /api/cards/{pin}?pin=••••",
            "Content-Type: application/json",
            "Authorization: Basic ••••",
        ]
    bare = tour.send("GET", "/api/made", headers={"Authorization": SECRET})
    assert "Authorization: ••••" in bare["steps"][0]["show"].splitlines()


def test_the_tables_are_live_and_what_somebody_sends_is_text(tour: Tour) -> None:
    tour.open("/tour/accounts")
    tour.until("all", "wrongpassword")
    name = "<img src=x onerror=document.title='hacked'>"
    tour.sign_up("live@example.com", name=name)
    tour.until("changed", "POST /api/users added 1 row to user.")
    new = "document.querySelector('tr.new').innerText"
    assert name in tour.script(new)
    assert tour.script("document.title") != "hacked"
    assert tour.script("document.querySelectorAll('td img').length") == 0
    tour.server.execute(
        "UPDATE \"user\" SET name = 'Eve' WHERE email = 'live@example.com'"
    )
    tour.until("changed", "Another program changed 1 row in user.")
    changed = "[...document.querySelectorAll('td.changed')].map(td => td.innerText)"
    assert tour.script(changed) == ["Eve"]
    tour.server.execute("DELETE FROM \"user\" WHERE email = 'live@example.com'")
    tour.until("changed", "removed 1 row from user.")
    rows = ", ".join(["('a', 'b', '2000-01-01')"] * 150)
    tour.server.execute(
        f"INSERT INTO wrongpassword (account, address, expires_at) VALUES {rows}"
    )
    tour.until("changed", "Another program added 150 rows to wrongpassword.")
    tour.until("all", "rows, the last 100 of them")
    tour.open("/tour")
    tour.send("GET", "/api/<b>nowhere")
    tour.until("list", "/api/<b>nowhere")


def test_a_page_that_comes_back_gets_what_it_has_missed(tour: Tour) -> None:
    url = tour.server.url + "/tour/events"
    first = tour.send("GET", "/api/first")
    second = tour.send("GET", "/api/second")
    missed = next(events(url, last=first["id"]))
    assert (missed["path"], missed["number"]) == ("/api/second", second["number"])
    everything = next(events(url, last="another-start-1"))
    assert everything["number"] < first["number"]


def test_hidden_pages_leave_their_connections_to_others(tour: Tour) -> None:
    browser = tour.browser
    first = browser.current_window_handle
    tour.open("/tour/accounts")
    tour.until("all", "wrongpassword")
    for path in ["/tour", "/tour/accounts"] * 3:  # and a browser has six connections
        browser.switch_to.new_window("tab")
        tour.open(path)
    tour.sign_up("hidden@example.com")
    for tab in browser.window_handles:
        if tab != first:
            browser.switch_to.window(tab)
            browser.close()
    browser.switch_to.window(first)
    tour.until("changed", "POST /api/users added 1 row to user.")
    new = "document.querySelector('tr.new').innerText"
    assert "hidden@example.com" in tour.script(new)


def test_a_page_that_is_shown_again_gets_only_what_it_has_missed(tour: Tour) -> None:
    tour.open()
    tour.send("GET", "/api/before-it-is-hidden")
    tour.until("title", "/api/before-it-is-hidden")
    tour.hide(is_hidden=True)
    tour.send("GET", "/api/while-it-is-hidden")
    assert "/api/while-it-is-hidden" not in tour.text("list")
    tour.hide(is_hidden=False)
    tour.until("title", "/api/while-it-is-hidden")


def test_a_thousand_requests_leave_fifty_on_the_page(tour: Tour) -> None:
    tour.open()
    for _ in range(1000):
        tour.server.client.get("/api/nowhere")
    last = tour.send("GET", "/api/the-last")
    tour.until("list", "/api/the-last")
    assert tour.script("document.querySelectorAll('[role=option]').length") == 50
    tour.until("title", "/api/the-last")
    numbers = []
    for event in events(tour.server.url + "/tour/events"):
        numbers.append(event["number"])
        if event["number"] == last["number"]:
            break
    assert numbers == list(range(last["number"] - 49, last["number"] + 1))


def test_the_page_asks_no_other_host_and_runs_only_its_own_script(tour: Tour) -> None:
    answer = tour.server.client.get("/tour")
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["Cache-Control"] == "no-store"
    assert not re.search(r"https?://|//cdn|@import|url\(", PAGE)
    assert "innerHTML" not in PAGE
    assert len(PAGE.splitlines()) <= 300
    assert max(len(line) for line in PAGE.splitlines()) <= 170


HOST = "Host: localhost:8000"
# A client of a proxy may write these below a body in chunks, as if the proxy had.
TRAILER = "Transfer-Encoding: chunked\r\n\r\n0\r\nX-Forwarded-For: 127.0.0.2"
LINK = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
FRAME = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}


@pytest.mark.parametrize("path", ["/tour", "/tour/events", "/tour/accounts/events"])
def test_it_is_for_this_machine_only(tour: Tour, path: str) -> None:
    refused = "asked for from elsewhere, and refused."
    before = tour.server.log.read_text().count(refused)
    for headers in (
        {"Host": "evil.example.com"},
        {"Host": "localhost.evil.example.com:8000"},
        {"Host": "localhost@evil.example.com"},
        {"Origin": "http://evil.example.com"},
        {"Origin": "http://localhost:5173"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"},
        {"Sec-Fetch-Site": "same-site", **LINK},
        {"Sec-Fetch-Site": "cross-site", **FRAME, "Sec-Fetch-User": "?1"},
        # As proxies and tunnels on this machine set them, known or not.
        {"X-Forwarded-For": "203.0.113.5"},
        {"X-Forwarded-For": "127.0.0.1"},
        {"X-Forwarded-Proto": "https"},
        {"Forwarded": "for=127.0.0.1"},
        {"Via": "1.1 proxy"},
        {"X-Real-IP": "127.0.0.1"},
        {"CF-Connecting-IP": "127.0.0.1"},
        {"True-Client-IP": "127.0.0.1"},
        {"Traceparent": "00-1-2-01"},
        {"Of-A-New-Tunnel": "1"},
        {"Connection": "close"},  # nginx with proxy_http_version 1.1
    ):
        # A stream of events that should have been refused would never end.
        with tour.server.client.stream("GET", path, headers=headers) as answer:
            assert answer.status_code == 403, headers
            answer.read()
        assert "only for the machine that it runs on" in answer.text
        assert "no proxy, tunnel or forwarded port" in answer.text
        assert "Access-Control-Allow-Origin" not in answer.headers
    said = tour.server.log.read_text().count(refused)
    assert said - before <= 1, "once, not each time"
    elsewhere = {"Host": "evil.example.com", "X-Forwarded-For": "203.0.113.5"}
    answer = tour.server.client.get("/health", headers=elsewhere)
    assert answer.status_code == 200, "the API goes on"


def raw_status(server: Server, *lines: str) -> str:
    """Send a request as it is written, and return the first line of the answer."""
    request = "\r\n".join([*lines, "", ""]).encode()
    with socket.create_connection(("127.0.0.1", server.port), 30) as connection:
        connection.sendall(request)
        return connection.recv(1_000).partition(b"\r\n")[0].decode()


def test_what_a_proxy_sends_is_refused_and_a_person_is_not(tour: Tour) -> None:
    for lines in (
        [
            "GET /tour HTTP/1.0",
            HOST,
            "Connection: close",
        ],  # nginx unless told otherwise
        ["GET /tour HTTP/1.0", HOST, "Connection: keep-alive"],
        ["GET /tour HTTP/1.1", HOST, HOST],
        ["GET /tour HTTP/1.1", "Host: local", "Host: host:8000"],
        ["GET /tour HTTP/1.1", HOST, "Host: evil.example.com"],
        ["GET /tour HTTP/1.1", HOST, "X-Forwarded-For: 203.0.113.5", TRAILER],
        ["GET /tour HTTP/1.1", HOST, TRAILER],
        ["GET /tour HTTP/1.1", HOST, TRAILER.replace("127.0.0.2", "localhost")],
    ):
        assert "403" in raw_status(tour.server, *lines), lines
    assert "200" in raw_status(tour.server, "GET /tour HTTP/1.1", HOST)
    for site in ("none", "same-origin", "cross-site"):  # typed, its own, and a link
        headers = {"Sec-Fetch-Site": site, **LINK, "Sec-Fetch-User": "?1"}
        assert tour.server.client.get("/tour", headers=headers).status_code == 200


# As uvicorn calls an app on a Unix socket, which no browser can open.
ON_A_SOCKET = """
from tools.tour import app as tour


async def app(scope, receive, send):
    await tour(dict(scope, client=None), receive, send)
"""


def test_a_unix_socket_is_for_a_proxy(
    tmp_path: Path, serve: Callable[..., Server]
) -> None:
    project = copy_of_project(tmp_path / "project")
    (project / "on_a_socket.py").write_text(ON_A_SOCKET)
    server = serve(app="on_a_socket:app", project=project)
    assert server.client.get("/health").status_code == 200
    assert server.client.get("/tour").status_code == 403


def test_a_start_on_another_address_says_so(tmp_path: Path) -> None:
    server = Server(
        tmp_path, empty_database(tmp_path), app="tools.tour:app", host="0.0.0.0"
    )
    assert server.logged("The API listens on 0.0.0.0, but /tour answers only to this")
    local = server.url.replace("0.0.0.0", "127.0.0.1")
    assert httpx.get(local + "/tour", timeout=60).status_code == 200
    with httpx.stream("GET", local + "/tour/events", timeout=60) as pages:
        next(pages.iter_lines())
        server.stop()
    assert server.logged("Finished server process")
    assert not server.logged("Traceback")


def test_ctrl_c_ends_it_whether_the_pages_are_read_or_not(
    tmp_path: Path, serve: Callable[..., Server]
) -> None:
    project = copy_of_project(tmp_path / "project")
    (project / "cards.py").write_text(CARDS.replace("FOLDER", str(tmp_path)))
    (tmp_path / "elsewhere.py").write_text(ELSEWHERE)
    server = serve(app="cards:app", project=project)
    for _ in range(50):  # 4 MB to send: more than the system buffers for a client
        assert server.client.get("/api/much").status_code == 200
    request = f"GET /tour/events HTTP/1.1\r\nHost: localhost:{server.port}\r\n\r\n"
    with (
        socket.create_connection(("127.0.0.1", server.port)) as not_read,
        httpx.stream("GET", server.url + "/tour/events", timeout=60) as is_read,
    ):
        not_read.sendall(request.encode())
        lines = is_read.iter_lines()
        shown = itertools.islice((line for line in lines if "much" in line), 50)
        assert len(list(shown)) == 50
        server.stop(lambda process: process.send_signal(signal.SIGINT))
    assert server.logged("Finished server process")
    assert not server.logged("Traceback")


def test_main_has_no_tour(client: TestClient) -> None:
    for path in ("/tour", "/tour/events", "/tour/accounts"):
        assert client.get(path).status_code == 404


def test_a_saved_file_starts_it_again_and_the_page_comes_back(tour: Tour) -> None:
    tour.open()
    tour.send("GET", "/api/before")
    tour.until("list", "/api/before")
    models = tour.project / "models.py"
    email = "    email: Email = Field(unique=True, schema_extra=EMAIL_IN_DOCS)\n"
    text = models.read_text()
    assert text.count(email) == 1
    models.write_text(text.replace(email, f"{email}    age: int | None = None\n"))
    tour.until("state", "the server restarted")
    tour.send("GET", "/api/after")
    tour.until("title", "/api/after")
    shown = tour.text("list")
    assert shown.index("/api/after") < shown.index("the server restarted")
    assert shown.index("the server restarted") < shown.index("/api/before")
    tour.open("/tour/accounts")
    tour.until("all", "age")
    columns = "[...document.querySelectorAll('table:first-of-type th')]"
    tour.sign_up("age@example.com", age=42)
    tour.until("changed", "POST /api/users added 1 row to user.")
    assert tour.script(f"{columns}.slice(0, 3).map(th => th.innerText)") == [
        "name",
        "email",
        "age",
    ]


@pytest.mark.sqlite
def test_the_tables_stay_on_the_page_while_their_file_is_moved_away(
    tour: Tour,
) -> None:
    tour.open("/tour/accounts")
    tour.sign_up("stays@example.com")
    tour.until("all", "stays@example.com")
    file = Path(tour.server.database.removeprefix("sqlite:///"))
    elsewhere = file.rename(file.with_name("elsewhere.db"))
    # Nobody but the page asks for the tables.
    wait_until(lambda: tour.server.logged("was replaced or removed"))
    elsewhere.rename(file)
    assert "stays@example.com" in tour.text("all")
    complete = "Application startup complete"
    starts = tour.server.log.read_text().count(complete)
    (tour.project / "models.py").touch()  # the next start, with --reload
    wait_until(lambda: tour.server.log.read_text().count(complete) > starts)
    tour.sign_up("back@example.com")
    tour.until("all", "back@example.com")
    assert "stays@example.com" in tour.text("all")
