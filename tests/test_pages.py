"""What the pages say about the project, and about each other, is true."""

import re
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from tests.conftest import ROOT
from tests.pages import skip_if_extended

PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
CONTRACT = (ROOT / "docs" / "contract.md").read_text()


def anchors(page: Path) -> set[str]:
    """Return what a link may have after its #: what GitHub makes of each heading."""
    found = set()
    for heading in re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE):
        words = re.sub(r"[^\w\s-]", "", heading.lower())
        found.add(words.replace(" ", "-"))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_link_and_picture_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if link.startswith(("http:", "https:")):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path
        if not path:
            target = page
        assert target.exists(), link
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), link


def test_the_contract_has_every_operation(client: TestClient) -> None:
    skip_if_extended()
    paths = client.get("/openapi.json").json()["paths"]
    for path, operations in paths.items():
        for method in operations:
            request = f"`{method.upper()} {path}".replace("{user_id}", "{id}")
            assert request in CONTRACT


def test_the_contract_quotes_refusals_in_the_words_of_the_api() -> None:
    code = "".join(file.read_text() for file in ROOT.glob("*/refusals.py"))
    quoted = re.findall(r'\{"detail": "(.+?)"', CONTRACT)
    assert len(quoted) >= 6
    for detail in quoted:
        assert f'"{detail}"' in code, detail
