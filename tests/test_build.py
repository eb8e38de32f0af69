"""docs/build.md, followed from a fresh copy: each step does what the page shows."""

import itertools
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PASSWORD, ROOT, Person, Server
from tests.pages import (
    apply,
    blocks,
    check_commands,
    copy_of_project,
    run_tests,
)

PAGE = (ROOT / "docs" / "build.md").read_text()
_, *STEPS = re.split(r"^(?=## \d\. )", PAGE, flags=re.MULTILINE)
Serve = Callable[..., Server]


def log_in(server: Server, name: str, password: str) -> str:
    form = {"username": f"{name}@example.com", "password": password}
    return str(server.client.post("/api/login", data=form).json()["access_token"])


def write_step(step: str, project: Path) -> None:
    """Write the new files of a step, and apply its diffs."""
    new = r"^`([\w/.]+)`, new:\n\n```\w+\n(.*?)^```"
    for name, text in re.findall(new, step, flags=re.DOTALL | re.MULTILINE):
        file = project / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    for diff in blocks(step, "diff"):
        apply(diff, project)


def test_each_step_does_what_the_page_shows(
    tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(STEPS) == 8
    minutes = re.findall(r"^\*(\d+) minutes\.\* ", PAGE, flags=re.MULTILINE)
    assert sum(int(number) for number in minutes) == 60
    project = copy_of_project(tmp_path / "project")
    for step in STEPS:
        write_step(step, project)
        server = serve(project=project, folder=project)
        if commands := blocks(step, "sh"):
            check_commands(commands, server, project)
        # Each step's commands run in a new shell; people have one terminal.
        monkeypatch.setenv("ANN", log_in(server, "ann", "correct horse"))
        monkeypatch.setenv("BOB", log_in(server, "bob", "battery staple"))
        assert "Traceback" not in server.log.read_text()
        server.stop()
    assert run_tests(project, "test_lending.py") == "5 passed"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Provide a copy with all steps of the page."""
    copy = copy_of_project(tmp_path / "project")
    for step in STEPS:
        write_step(step, copy)
    return copy


def test_of_two_loans_at_once_one_is_accepted(
    project: Path, serve: Serve, new_database: Callable[[Path], str]
) -> None:
    server = serve(project=project, folder=project, url=new_database(project))
    ann, bob = Person(server.client, "ann"), Person(server.client, "bob")
    for number in range(6):
        item = ann("POST", "/items", json={"title": "Drill", "price": 1}).json()
        day = {"first_day": f"2026-12-{10 + number}", "last_day": "2026-12-31"}
        loan = {"item_id": item["id"], **day}
        paths = []
        for _ in range(4):
            made = bob("POST", "/loans", json=loan).json()
            paths.append(f"/loans/{made['id']}")

        def accept(path: str) -> Any:
            return ann("PATCH", path, json={"state": "accepted"}).status_code

        with ThreadPoolExecutor(4) as pool:
            assert sorted(pool.map(accept, paths)) == [200, 409, 409, 409]
    assert ann("DELETE", "/users/me", json={}).status_code == 204, "her things go, too"
    assert bob("GET", "/items").json() == bob("GET", "/loans").json() == []
    assert PASSWORD not in server.log.read_text()


def test_the_page_shows_the_things_and_tells_the_news(
    project: Path, serve: Serve, browser: Any
) -> None:
    server = serve(project=project, folder=project)
    ann, bob = Person(server.client, "ann"), Person(server.client, "bob")
    for title, price in ("Drill", "4.5"), ("Saw", "3"):
        item = {"title": title, "price": price, "tags": ["tool"]}
        made = ann("POST", "/items", json=item).json()
    browser.get(f"{server.url}/site/")
    find = browser.find_element

    def text(selector: str) -> str:
        return str(find("css selector", selector).text)

    support = pytest.importorskip("selenium.webdriver.support.ui")
    wait = support.WebDriverWait(browser, 20)
    wait.until(lambda _: "Drill" in text("ul"))
    assert text("ul") == "Saw: 3.00 a day (tool)\nDrill: 4.50 a day (tool)"
    find("css selector", "input").send_keys("dr")
    wait.until(lambda _: "Saw" not in text("ul"))
    days = itertools.count(10)

    def is_told(_: object) -> bool:
        """Accept a loan of another day, until the page listens."""
        day = f"2026-12-{next(days)}"
        loan = {"item_id": made["id"], "first_day": day, "last_day": day}
        path = f"/loans/{bob('POST', '/loans', json=loan).json()['id']}"
        ann("PATCH", path, json={"state": "accepted"})
        return text("[role=status]") == "Saw is accepted"

    wait.until(is_told)
