"""The page in docs/frontend.md, in a real Chromium: beside the API, and elsewhere."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import (
    PASSWORD,
    ROOT,
    Person,
    Server,
    free_port,
    is_free,
    wait_until,
)
from tests.pages import blocks, copy_of_project, skip_if_extended

pytest.importorskip("selenium", reason="needs: pip install -r tests/requirements.txt")

from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

PAGE = (ROOT / "docs" / "frontend.md").read_text()
VITE = ROOT / "tools" / "clients" / "node_modules" / ".bin" / "vite"
Serve = Callable[..., Server]


def write_site(folder: Path, api: str = "/api") -> Path:
    skip_if_extended()  # the page signs up with three fields
    site = folder / "site"
    site.mkdir()
    (html,) = blocks(PAGE, "html")
    assert '"/api"' in html
    (site / "index.html").write_text(html.replace('"/api"', f'"{api}"'))
    return site


@contextmanager
def running(*command: str, folder: Path, port: int) -> Iterator[None]:
    """Run a server until the test is over."""
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: not is_free(port), "it has not started")
        yield
    finally:
        process.terminate()
        process.wait(20)


class Page:
    """The page, and what a person does on it."""

    def __init__(self, browser: Any, url: str) -> None:
        self.browser = browser
        browser.get(url)

    def fill(self, **fields: str) -> None:
        for name, value in fields.items():
            element = self.browser.find_element(By.NAME, name)
            element.clear()
            element.send_keys(value)

    def press(self, button: str) -> None:
        self.browser.find_element(By.NAME, button).click()

    def shows(self, css: str, text: str) -> None:
        def is_there(browser: Any) -> bool:
            elements = browser.find_elements(By.CSS_SELECTOR, css)
            return "|".join(element.text for element in elements) == text

        WebDriverWait(self.browser, 15).until(is_there, f"{css} is not {text!r}")


def use(page: Page, root: Person) -> None:
    """Do all that the page offers, and run into every refusal."""
    page.fill(name="Ann", email="ann", password="secret")
    page.press("signUp")
    page.shows("#email", "An email address looks like name@example.com")
    page.fill(email="ann@example.com", password=" ")
    page.press("signUp")
    page.shows("#message", "All fields are required.")
    page.fill(password="secret")
    page.press("signUp")
    page.shows("#message", "Ann is signed in.")
    page.shows("#email", "")
    page.press("signUp")
    page.shows("#message", "Email already registered.")
    page.press("list")
    page.shows("#message", "Only an administrator may do this.")
    page.fill(password="wrong")
    page.press("logIn")
    page.shows("#message", "Incorrect email or password.")
    page.fill(email=root.email, password=PASSWORD)
    page.press("logIn")
    page.shows("#message", "Root is signed in.")
    page.press("list")
    page.shows("li", "Root|Bob|Ann")
    page.shows("#message", "")


def people(server: Server) -> Person:
    root = Person(server.client, "root")
    Person(server.client, "bob")
    server.promote(root)
    return root


def test_a_script_that_has_not_loaded_puts_no_password_into_an_address(
    browser: Any, serve: Serve, tmp_path: Path
) -> None:
    index = write_site(tmp_path) / "index.html"
    index.write_text(index.read_text().partition("<script")[0])
    code = "from main import app\n\napp.frontend('/site', directory='site')\n"
    (tmp_path / "students.py").write_text(code)
    path = f"{tmp_path}{os.pathsep}{ROOT}"
    server = serve(app="students:app", PYTHONPATH=path)
    page = Page(browser, f"{server.url}/site/")
    page.fill(name="Ann", email="ann@example.com", password="secret")
    page.press("signUp")
    wait_until(lambda: "Method Not Allowed" in browser.page_source)
    assert "secret" not in browser.current_url


@pytest.mark.parametrize("way", ["frontend", "mount"])
def test_the_page_works_beside_the_api(
    browser: Any, serve: Serve, tmp_path: Path, way: str
) -> None:
    write_site(tmp_path)
    line = blocks(PAGE, "python")[0]
    if way == "mount":
        line = 'app.mount("/site", StaticFiles(directory="site", html=True))'
        assert line in PAGE
        line = f"from fastapi.staticfiles import StaticFiles\n{line}"
    (tmp_path / "students.py").write_text(f"from main import app\n\n{line}\n")
    path = f"{tmp_path}{os.pathsep}{ROOT}"
    server = serve(app="students:app", PYTHONPATH=path)
    root = people(server)
    use(Page(browser, f"{server.url}/site/"), root)
    assert server.client.get("/site/nothing").status_code == 404
    assert server.client.get("/api/users").status_code == 401, "the API is still there"
    if folder := os.environ.get("SCREENSHOTS"):
        browser.set_window_size(520, 560)
        browser.save_screenshot(f"{folder}/frontend.png")


def test_the_page_can_take_the_place_of_the_redirect_to_docs(
    serve: Serve, tmp_path: Path
) -> None:
    write_site(tmp_path)
    project = copy_of_project(tmp_path / "project")
    main = (project / "main.py").read_text()
    before, way_to_docs, after = main.partition('@app.get("/", include_in')
    after = after.partition("\n\n\n")[2]
    assert way_to_docs
    line = blocks(PAGE, "python")[1]
    (project / "main.py").write_text(f"{before}{line}\n\n{after}")
    server = serve("--root-path", "/v1", project=project)
    for path in ("/", "/index.html"):
        assert server.client.get(path).text == blocks(PAGE, "html")[0]
    assert server.client.get("/docs").status_code == 200
    missing = server.client.get("/api/nothing")
    assert (missing.status_code, missing.json()) == (404, {"detail": "Not Found"})


def test_the_page_works_from_another_port_of_this_machine(
    browser: Any, serve: Serve, tmp_path: Path
) -> None:
    server = serve()
    root = people(server)
    site = write_site(tmp_path, f"{server.url}/api")
    port = free_port()
    command = [sys.executable, "-m", "http.server", str(port)]
    with running(*command, "--directory", str(site), folder=tmp_path, port=port):
        use(Page(browser, f"http://localhost:{port}/"), root)


@pytest.mark.skipif(
    not VITE.exists(), reason="needs: npm install --prefix tools/clients"
)
def test_the_page_works_behind_vite(browser: Any, serve: Serve, tmp_path: Path) -> None:
    server = serve()
    root = people(server)
    write_site(tmp_path)
    config = blocks(PAGE, "js")[1]
    assert "http://localhost:8000" in config
    config = config.replace("http://localhost:8000", server.url)
    (tmp_path / "vite.config.js").write_text(config)
    port = free_port()
    command = [str(VITE), "--port", str(port), "--strictPort", "--host", "127.0.0.1"]
    with running(*command, folder=tmp_path, port=port):
        use(Page(browser, f"http://127.0.0.1:{port}/"), root)


def test_the_ten_lines_of_the_readme_are_those_of_the_page() -> None:
    lines = blocks(PAGE, "js")[0]
    assert len(lines.splitlines()) <= 10
    assert lines in (ROOT / "README.md").read_text()
