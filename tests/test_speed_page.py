"""What the pages say about speed is what the benchmark has measured."""

import re
from typing import Any

import pytest

from tests.conftest import ROOT
from tools.bench import report

BENCH = ROOT / "tools" / "bench"
REQUESTS = ["GET /api/users/me", "GET /api/users/{id}"]
REQUESTS += ["GET /api/users?limit=20", "GET /api/users?limit=100"]


@pytest.fixture
def measured() -> dict[str, Any]:
    return report.load_results()


@pytest.mark.parametrize("page", ["README.md", "docs/speed.md"])
def test_the_figures_of_a_page_are_those_of_the_last_run(
    measured: dict[str, Any], page: str
) -> None:
    text = (ROOT / page).read_text()
    assert text == report.fill(text, report.pages(measured)[page])


def test_the_speed_table_is_what_the_benchmark_has_measured(
    measured: dict[str, Any],
) -> None:
    page = (ROOT / "docs" / "speed.md").read_text()
    assert measured["machine"] in page
    for key in ["tutorial", "drf", "fastify"]:
        name = measured["names"][key]
        (row,) = [line for line in page.splitlines() if line.startswith(f"| {name} |")]
        cells = re.findall(r"([0-9,]+) \(([0-9.]+) ×\)", row)
        for request, (shown, ratio) in zip(REQUESTS, cells, strict=True):
            rate = measured["reads"][key][request]
            assert shown == f"{rate:,.0f}"
            ours = measured["reads"]["ours"][request]
            assert float(ratio) == pytest.approx(ours / rate, rel=0.05, abs=0.01)


def test_the_chart_shows_the_last_run(measured: dict[str, Any]) -> None:
    chart = (BENCH / "results.svg").read_text()
    assert measured["machine"] in chart
    for key in ["ours", "tutorial", "fastify"]:
        for request in REQUESTS:
            assert f">{measured['reads'][key][request]:,.0f}<" in chart


def test_a_contender_that_gave_no_answer_is_reported_all_the_same(
    measured: dict[str, Any],
) -> None:
    for found in measured["crowds"]["tutorial"].values():
        found["rate"] = 0.0
    for kind in ("sign-up", "log-in"):
        measured["floods"]["tutorial"][kind] |= {"rate": 0.0, "hashed": 0.0}
    assert "–, –" in report.pages(measured)["docs/speed.md"][1]
