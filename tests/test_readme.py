"""What the README says is what happens."""

import json
import subprocess
from collections.abc import Callable

from tests.conftest import ROOT, Server
from tests.pages import blocks, check_commands

README = (ROOT / "README.md").read_text()


def test_every_curl_line_answers_what_the_readme_shows(
    serve: Callable[..., Server],
) -> None:
    assert check_commands(blocks(README, "console"), serve()) > 15


def test_promise_run_command_and_first_reply_are_in_the_first_forty_lines() -> None:
    top = "\n".join(README.splitlines()[:40])
    assert ".venv/bin/uvicorn main:app --reload" in top
    assert '{"name":"John Doe"' in top


def test_the_map_names_every_file() -> None:
    files = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()
    for file in files:
        top = file if file.startswith("routers/") else file.split("/")[0]
        if not top.startswith(".git") and not top.endswith(
            ("__init__.py", "README.md")
        ):
            assert f"`{top}" in README, file


def test_the_speed_table_is_what_the_benchmark_has_measured() -> None:
    measured = json.loads((ROOT / "tools" / "bench" / "results.json").read_text())
    assert measured["machine"] in README
    for request in measured["reads"]["ours"]:
        rate = {key: rates[request] for key, rates in measured["reads"].items()}
        pairs = [
            ("ours", "tutorial"),
            ("ours2", "pocketbase"),
            ("ours2", "superuser"),
            ("ours", "limit"),
        ]
        pattern, pocketbase, superuser, limit = (
            rate[one] / rate[other] for one, other in pairs
        )
        row = f"| `{request}` | {pattern:.1f} × | {pocketbase:.2f} × "
        row += f"| {superuser:.2f} × | {limit:.2f} "
        assert row + f"| {rate['ours-pg'] / rate['tutorial-pg']:.1f} × |" in README
