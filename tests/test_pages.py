"""What the pages and pictures say about the project, and about each other, is true."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from fastapi.testclient import TestClient

from tests.conftest import ROOT, Server
from tests.pages import blocks, check_commands, skip_if_extended
from tools.bench import report


def read(*names: str) -> str:
    return "\n".join((ROOT / name).read_text() for name in names)


PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
README = read("README.md")
SECURITY = read("SECURITY.md")
CONTRACT = read("docs/contract.md")


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


# ---- README.md and docs/curl.md ----


@pytest.mark.parametrize(("page", "lines"), [("README.md", 2), ("docs/curl.md", 16)])
def test_every_curl_line_answers_what_the_page_shows(
    serve: Callable[..., Server], page: str, lines: int
) -> None:
    skip_if_extended()
    assert check_commands(blocks(read(page), "console"), serve()) >= lines


def test_promise_run_command_and_first_reply_are_in_the_first_forty_lines() -> None:
    top = "\n".join(README.splitlines()[:40])
    assert ".venv/bin/uvicorn main:app --reload" in top
    assert '{"name":"John Doe"' in top


def test_the_readme_leads_to_every_page_and_names_every_room() -> None:
    skip_if_extended()
    named = ["`main.py`", "`models.py`", "`database.py`", "`requirements.txt`"]
    named += ["accounts/", "core/", "docs/", "routers/", "tests/", "tools/"]
    for page in PAGES:
        if page.name != "README.md":
            named.append(f"({page.relative_to(ROOT)})")
    for router in ROOT.glob("routers/*.py"):
        if router.name != "__init__.py":
            named.append(f"`{router.name}`")
    for name in named:
        assert name in README, name


# ---- docs/contract.md ----


def test_the_contract_has_every_operation(client: TestClient) -> None:
    skip_if_extended()
    paths = client.get("/openapi.json").json()["paths"]
    for path, operations in paths.items():
        for method in operations:
            request = f"`{method.upper()} {path}".replace("{user_id}", "{id}")
            assert request in CONTRACT


def test_the_contract_quotes_refusals_in_the_words_of_the_api() -> None:
    code = read("accounts/refusals.py", "core/refusals.py")
    quoted = re.findall(r'\{"detail": "(.+?)"', CONTRACT)
    assert len(quoted) >= 6
    for detail in quoted:
        assert f'"{detail}"' in code, detail


# ---- SECURITY.md: a test for each promise, and each chapter of ASVS 5.0.0 ----


def test_each_promise_names_tests_that_exist() -> None:
    code = "\n".join(file.read_text() for file in ROOT.glob("tests/test_*.py"))
    tests = set(re.findall(r"^def (test_\w+)", code, flags=re.MULTILINE))
    promises = SECURITY.split("\n## ")[2]
    rows = re.findall(r"^\| .+\.\)? \| (.+) \|$", promises, flags=re.MULTILINE)
    assert len(rows) == promises.count("\n|") - 2, "each row has a promise and tests"
    for row in rows:
        named = set(re.findall(r"`(test_\w+)`", row))
        assert named
        assert named <= tests, named - tests


def test_each_chapter_of_asvs_has_its_verdict() -> None:
    rows = re.findall(r"^\| V(\d+) [\w -]+ \| .+ \|$", SECURITY, flags=re.MULTILINE)
    assert rows == [str(number) for number in range(1, 18)]


def test_whoever_sets_up_a_proxy_is_warned() -> None:
    assert "never `--forwarded-allow-ips '*'`" in read("docs/scaling.md")


# ---- Speed: what the benchmark has measured ----


@pytest.fixture
def measured() -> dict[str, Any]:
    return report.load_results()


@pytest.mark.parametrize("page", ["README.md", "docs/speed.md"])
def test_the_figures_of_a_page_are_those_of_the_last_run(
    measured: dict[str, Any], page: str
) -> None:
    assert read(page) == report.fill(read(page), report.pages(measured)[page])


def test_the_speed_table_and_the_chart_show_what_the_benchmark_has_measured(
    measured: dict[str, Any],
) -> None:
    table, chart = read("docs/speed.md"), read("tools/bench/results.svg")
    for page in (table, chart):
        assert measured["machine"] in page
    ours = measured["reads"]["ours"]
    for key in ["tutorial", "drf", "fastify"]:
        name = measured["names"][key]
        (row,) = [line for line in table.splitlines() if line.startswith(f"| {name} |")]
        cells = re.findall(r"([0-9,]+) \(([0-9.]+) ×\)", row)
        for request, (shown, ratio) in zip(ours, cells, strict=True):
            rate = measured["reads"][key][request]
            assert shown == f"{rate:,.0f}"
            times = ours[request] / rate
            assert float(ratio) == pytest.approx(times, rel=0.05, abs=0.01)
    for key in ["ours", "tutorial", "fastify"]:
        for request in ours:
            assert f">{measured['reads'][key][request]:,.0f}<" in chart


def test_a_contender_that_gave_no_answer_is_reported_all_the_same(
    measured: dict[str, Any],
) -> None:
    for found in measured["crowds"]["tutorial"].values():
        found["rate"] = 0.0
    for kind in ("sign-up", "log-in"):
        measured["floods"]["tutorial"][kind] |= {"rate": 0.0, "hashed": 0.0}
    assert "–, –" in report.pages(measured)["docs/speed.md"][1]


# ---- docs/seven-steps.svg ----

SVG = "{http://www.w3.org/2000/svg}"
PICTURE = read("docs/seven-steps.svg")
TREE = ElementTree.fromstring(PICTURE)
STEPS = [
    ["".join(text.itertext()) for text in group.iter(f"{SVG}text")]
    for group in TREE.iter(f"{SVG}g")
]


def test_each_step_has_the_name_that_the_tour_gives_it() -> None:
    tour = blocks(read("docs/walk.md"), "text")[0]
    assert [step[0] for step in STEPS] == list("1234567")
    for number, name, *_ in STEPS:
        assert re.search(rf"^[├└]── {number} {name}", tour, flags=re.MULTILINE)


def test_each_name_in_the_picture_is_in_the_code() -> None:
    names = [text.text or "" for text in TREE.iter(f"{SVG}tspan")]
    code = read("routers/user_router.py", "routers/dependencies.py", "models.py")
    expected = ["POST /api/users", '@router.post("")', "create_user", "UserCreate"]
    expected += ["get_hashed_password", "session.add(new_user)", "session.commit()"]
    assert names == [*expected, "UserPublic"]
    for name in names[1:]:
        found = name.removesuffix(")") if name.startswith("@") else name
        assert re.search(rf"{re.escape(found)}(?!\w)", code), name
    assert 'APIRouter(prefix="/api/users"' in code
    assert '@router.post("", status_code=201' in code


def test_each_refusal_in_the_picture_is_one_that_the_api_gives(
    client: TestClient,
) -> None:
    paths: dict[str, Any] = client.get("/openapi.json").json()["paths"]
    sign_up = set(paths["/api/users"]["post"]["responses"])
    others = set(paths["/api/users/{user_id}"]["get"]["responses"])
    shown = {step[0]: re.findall(r"\b[45]\d\d\b", " ".join(step)) for step in STEPS}
    assert shown.pop("2") == ["404", "405"]
    assert client.post("/api/nowhere").status_code == 404
    assert client.put("/api/users").status_code == 405
    body, hashing, asking = shown["4"][:3], shown["4"][3:4], shown["4"][4:]
    assert {*body, *hashing, *shown["5"]} == sign_up - {"201", "413", "503"}
    assert asking == ["401", "403"]
    assert set(asking) <= others - sign_up
    assert [shown[step] for step in "1367"] == [[], [], [], []]


def test_the_picture_stands_alone_and_can_be_read_aloud() -> None:
    loads = "<(script|image|foreignObject|use|link)|@import|url[(]"
    assert not re.search(loads, PICTURE)
    assert re.findall('https?://[^"]+', PICTURE) == ["http://www.w3.org/2000/svg"]
    spoken = {part.attrib.get("id"): part.text for part in TREE if part.text}
    for label in TREE.attrib["aria-labelledby"].split():
        assert spoken[label]
    steps = ["create_user", "UserCreate", "get_hashed_password", "UserPublic", "409"]
    for name in steps:
        assert name in spoken["desc"]
    assert "prefers-color-scheme: dark" in PICTURE
