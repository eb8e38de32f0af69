"""Each solution of docs/exercises.md, applied to a copy, does what its curl shows."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT, Server
from tests.pages import apply, blocks, check_commands, copy_of_project


def wait_for(condition: Callable[..., bool], *arguments: str) -> None:
    deadline = time.monotonic() + 20
    while not condition(*arguments):
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.1)


EXERCISES = (ROOT / "docs" / "exercises.md").read_text().split("\n## ")[1:]


def test_there_are_eight_to_ten_exercises() -> None:
    assert 8 <= len(EXERCISES) <= 10


@pytest.mark.parametrize(
    "exercise", EXERCISES, ids=lambda text: text.partition("\n")[0]
)
def test_a_solution_does_what_the_exercise_shows(
    tmp_path: Path, serve: Callable[..., Server], exercise: str
) -> None:
    project = copy_of_project(tmp_path / "project")
    (diff,), commands = blocks(exercise, "diff"), blocks(exercise, "sh")
    apply(diff, project)
    assert check_commands(commands, serve(project=project), project) > 0
    if tests := [
        line.removeprefix("+++ b/")
        for line in diff.splitlines()
        if line.startswith("+++ b/tests/")
    ]:
        environment = {
            key: value for key, value in os.environ.items() if key != "DATABASE_URL"
        } | {"PYTHONPATH": str(project)}
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-n0",
            "-p",
            "no:cacheprovider",
            *tests,
        ]
        run = subprocess.run(
            command,
            cwd=project,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stdout


def test_the_page_for_a_class_goes_as_it_says(
    tmp_path: Path, serve: Callable[..., Server]
) -> None:
    project = copy_of_project(tmp_path / "project")
    server = serve("--reload", "--reload-dir", str(project), project=project)
    page = (ROOT / "docs" / "class.md").read_text()
    token = "$ " + re.findall(r"^\$ (TOKEN=.*\n)", page, flags=re.MULTILINE)[0]
    for kind, block in re.findall(
        r"^```(\w+)\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE
    ):
        if kind == "diff":
            server.log.write_text("")
            apply(block, project)
            wait_for(server.logged, "Started server process")
        elif kind == "text":
            wait_for(server.logged, block.strip())
        else:
            wait_for(server.answers)
            check_commands(
                [block if "TOKEN" not in block else token + block], server, project
            )
