"""What the README says is what happens."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.conftest import ROOT, Server

README = (ROOT / "README.md").read_text()
CHANGING = [
    (r'"access_token":"[^"]+"', '"access_token":"…"'),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "…Z"),
]


def steady(text: str) -> str:
    """Blot out what is another one each time: tokens and times."""
    for pattern, text_instead in CHANGING:
        text = re.sub(pattern, text_instead, text)
    return text.strip()


def test_every_curl_line_answers_what_the_readme_shows(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve()
    blocks = re.findall(r"```console\n(.*?)```", README, flags=re.DOTALL)
    steps = [step.partition("\n") for block in blocks for step in block.split("$ ", 1)[1].split("\n$ ")]
    assert len(steps) > 15
    script = "\n".join(f"{command}\nprintf '\\0'" for command, _, _ in steps)
    script = script.replace("localhost:8000", f"127.0.0.1:{server.port}").replace(".venv/bin/python", sys.executable)
    environment = os.environ | {"DATABASE_URL": f"sqlite:///{server.database}"}
    shell = ["bash", "-c", script]
    run = subprocess.run(shell, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=True)
    outputs = run.stdout.split("\0")
    for (command, _, shown), output in zip(steps, outputs, strict=False):
        assert steady(output) == steady(shown), command


def test_the_promise_the_run_command_and_the_first_reply_stand_in_the_first_forty_lines() -> None:
    top = "\n".join(README.splitlines()[:40])
    assert ".venv/bin/uvicorn main:app --reload" in top
    assert '{"name":"John Doe"' in top


def test_the_map_names_every_file() -> None:
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    for file in files:
        top = file if file.startswith("routers/") else file.split("/")[0]
        if not top.startswith(".git") and not top.endswith(("__init__.py", "README.md")):
            assert f"`{top}" in README, file


def test_the_product_stays_within_600_lines() -> None:
    files = [*ROOT.glob("*.py"), *ROOT.glob("routers/*.py")]
    assert sum(len(file.read_text().splitlines()) for file in files) <= 600
