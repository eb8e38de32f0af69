"""Each solution of docs/exercises.md, applied to a copy of the project, does what its curl shows."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT, Server
from tests.pages import apply, blocks, check_commands, copy_of_project

EXERCISES = (ROOT / "docs" / "exercises.md").read_text().split("\n## ")[1:]


def test_there_are_eight_to_ten_exercises() -> None:
    assert 8 <= len(EXERCISES) <= 10


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda text: text.partition("\n")[0])
def test_a_solution_does_what_the_exercise_shows(tmp_path: Path, serve: Callable[..., Server], exercise: str) -> None:
    project = copy_of_project(tmp_path / "project")
    (diff,), commands = blocks(exercise, "diff"), blocks(exercise, "sh")
    apply(diff, project)
    assert check_commands(commands, serve(project=project), project) > 0
    if tests := [line.removeprefix("+++ b/") for line in diff.splitlines() if line.startswith("+++ b/tests/")]:
        environment = {key: value for key, value in os.environ.items() if key != "DATABASE_URL"} | {
            "PYTHONPATH": str(project)
        }
        command = [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", *tests]
        run = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stdout
