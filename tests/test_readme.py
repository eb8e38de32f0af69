"""What the README says is what happens."""

from collections.abc import Callable

from tests.conftest import ROOT, Server
from tests.pages import blocks, check_commands, skip_if_extended

README = (ROOT / "README.md").read_text()


def test_every_curl_line_answers_what_the_readme_shows(
    serve: Callable[..., Server],
) -> None:
    skip_if_extended()
    assert check_commands(blocks(README, "console"), serve()) == 2


def test_every_line_of_the_page_about_curl_answers_what_it_shows(
    serve: Callable[..., Server],
) -> None:
    skip_if_extended()
    page = (ROOT / "docs" / "curl.md").read_text()
    assert check_commands(blocks(page, "console"), serve()) > 15


def test_promise_run_command_and_first_reply_are_in_the_first_forty_lines() -> None:
    top = "\n".join(README.splitlines()[:40])
    assert ".venv/bin/uvicorn main:app --reload" in top
    assert '{"name":"John Doe"' in top


def test_it_leads_to_every_page_and_names_every_room() -> None:
    skip_if_extended()
    for page in [*ROOT.glob("docs/*.md"), *ROOT.glob("*.md")]:
        if page.name != "README.md":
            assert f"({page.relative_to(ROOT)})" in README, page.name
    for file in ["main.py", "models.py", "database.py", "requirements.txt"]:
        assert f"`{file}`" in README
    for router in ROOT.glob("routers/*.py"):
        assert router.name == "__init__.py" or f"`{router.name}`" in README
    for folder in ["accounts", "core", "docs", "routers", "tests", "tools"]:
        assert f"{folder}/" in README
