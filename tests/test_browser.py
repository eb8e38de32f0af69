"""/docs in a real Chromium, as a person uses it: look, log in, try out."""

import os
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import PASSWORD, Person, Server

pytest.importorskip("selenium", reason="needs: pip install -r tests/requirements.txt")

from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait


class Docs:
    """The page, and what a person does on it."""

    def __init__(self, browser: Any, url: str) -> None:
        self.browser = browser
        browser.get(url + "/docs")
        self.find(".opblock")

    def find(self, css: str) -> Any:
        found: Any = WebDriverWait(self.browser, 15).until(
            lambda b: b.find_element(By.CSS_SELECTOR, css)
        )
        return found

    def click(self, css: str) -> None:
        element = self.find(css)
        self.browser.execute_script(
            "arguments[0].scrollIntoView({block: 'center'}); arguments[0].click()",
            element,
        )

    def authorize(self, email: str) -> None:
        self.click("button.authorize")
        self.find("#oauth_username").send_keys(email)
        self.find("#oauth_password").send_keys(PASSWORD)
        self.click(".modal-ux button.authorize")
        WebDriverWait(self.browser, 15).until(
            lambda _: self.find(".modal-ux button.authorize").text == "Logout"
        )
        self.click(".modal-ux button.close-modal")

    def try_out(self, operation: str, value: str | None = None) -> str:
        """Send what the page suggests, or a value, and return the status."""
        block = f"[id^='{operation}']"
        self.click(f"{block} .opblock-summary-control")
        self.click(f"{block} .try-out__btn")
        if value:
            self.find(f"{block} .parameters input").send_keys(value)
            time.sleep(1)  # Swagger UI takes the value only once the typing has stopped
        self.click(f"{block} .execute")
        return str(
            self.find(f"{block} .live-responses-table tbody .response-col_status").text
        ).split()[0]

    def save(self, name: str) -> None:
        """Take a screenshot, if SCREENSHOTS names a folder for it."""
        if folder := os.environ.get("SCREENSHOTS"):
            self.browser.execute_script("window.scrollTo(0, 0)")
            self.browser.save_screenshot(f"{folder}/{name}")


@pytest.fixture
def docs(browser: Any, serve: Callable[..., Server]) -> Docs:
    server = serve()
    Person(server.client, "ann")
    return Docs(browser, server.url)


def test_sign_up_and_log_in_and_me_work_from_the_page(docs: Docs) -> None:
    assert docs.try_out("operations-users-create_user") == "201"
    docs.save("docs.png")
    docs.authorize("ann@example.com")
    docs.browser.refresh()  # the page remembers who is logged in
    assert docs.try_out("operations-users-read_user", "me") == "200"
    assert docs.try_out("operations-users-update_user", "me") == "200"
    messages = [entry["message"] for entry in docs.browser.get_log("browser")]
    assert not [text for text in messages if "Content Security Policy" in text]


def test_the_page_fits_a_phone(docs: Docs) -> None:
    telephone = {"width": 375, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    docs.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", telephone)
    assert docs.try_out("operations-users-create_user") == "201"
    docs.save("docs-375.png")
    buttons = docs.browser.find_elements(By.CSS_SELECTOR, "button.execute, .authorize")
    assert len(buttons) == 2
    for button in buttons:
        assert button.rect["x"] + button.rect["width"] <= 375


def test_the_page_asks_no_other_host(docs: Docs) -> None:
    host = docs.browser.current_url.split("/")[2]
    messages = [entry["message"] for entry in docs.browser.get_log("performance")]
    asked = [
        text.partition('"url":"')[2].partition('"')[0]
        for text in messages
        if "Network.requestWillBeSent" in text
    ]
    assert asked
    assert all(
        url.split("/")[2] == host for url in asked if url.startswith(("http", "ws"))
    ), asked


PATHS = ["/api/users", "/api/users"]
PATHS += ["/api/users/{user_id}", "/api/users/{user_id}", "/api/users/{user_id}"]
PATHS += ["/api/login", "/api/logout", "/health", "/live"]


def test_what_the_page_shows_first_is_in_a_sensible_order(docs: Docs) -> None:
    found = docs.browser.find_elements(By.CSS_SELECTOR, ".opblock-summary-path")
    shown = [element.text.replace("\u200b", "") for element in found]
    assert [path for path in shown if path in PATHS] == PATHS
