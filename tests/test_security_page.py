"""SECURITY.md names a test for each promise, and each chapter of ASVS 5.0.0 once."""

import re

from tests.conftest import ROOT

PAGE = (ROOT / "SECURITY.md").read_text()
README = (ROOT / "README.md").read_text()


def test_each_promise_names_tests_that_exist() -> None:
    code = "\n".join(file.read_text() for file in ROOT.glob("tests/test_*.py"))
    tests = set(re.findall(r"^def (test_\w+)", code, flags=re.MULTILINE))
    promises = PAGE.split("\n## ")[2]
    rows = re.findall(r"^\| .+\.\)? \| (.+) \|$", promises, flags=re.MULTILINE)
    assert len(rows) == promises.count("\n|") - 2, "each row has a promise and tests"
    for row in rows:
        named = re.findall(r"`(test_\w+)`", row)
        assert named
        assert set(named) <= tests, set(named) - tests


def test_each_chapter_of_asvs_has_its_verdict() -> None:
    chapters = re.findall(r"^\| V(\d+) [\w -]+ \| (.+) \|$", PAGE, flags=re.MULTILINE)
    assert [int(number) for number, _ in chapters] == list(range(1, 18))


def test_the_readme_leads_here_and_whoever_sets_up_a_proxy_is_warned() -> None:
    assert "(SECURITY.md)" in README
    scaling = (ROOT / "docs" / "scaling.md").read_text()
    assert "never `--forwarded-allow-ips '*'`" in scaling
