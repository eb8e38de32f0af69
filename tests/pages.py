"""What a page shows: its commands and their output, its diffs, applied to a copy."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from main import app
from models import User
from tests import programs
from tests.conftest import ROOT, Server

SHIPPED_FIELDS = ["name", "email", "id", "is_admin", "created_at", "hashed_password"]
SHIPPED_PATHS = ["/api/users", "/api/users/{user_id}", "/api/login", "/api/logout"]
SHIPPED_PATHS += ["/health", "/live"]
CHANGING = [
    (r'"access_token":"[^"]+"', '"access_token":"…"'),
    (r"Database: .+", "Database: …"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "…Z"),
]


def skip_if_extended() -> None:
    """Skip a test that needs the project as it was shipped, if yours has grown.

    The pages show what the shipped one answers, and some tests add fields and tables of
    their own to a copy, which might have the names of yours.
    """
    own = {*User.model_fields, *app.openapi()["paths"]}
    own -= {*SHIPPED_FIELDS, *SHIPPED_PATHS}
    if own:
        names = ", ".join(sorted(own))
        pytest.skip(f"about the project as it was shipped; yours has {names}, too")


def steady(text: str) -> str:
    """Blot out what is different each time: tokens and times."""
    for pattern, text_instead in CHANGING:
        text = re.sub(pattern, text_instead, text)
    return text.strip()


def blocks(page: str, kind: str) -> list[str]:
    """Return a page's fenced blocks of one kind."""
    return re.findall(rf"^```{kind}\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)


def check_commands(blocks: list[str], server: Server, folder: Path = ROOT) -> int:
    """Run each line that begins with `$ ` in one shell and compare its output.

    Returns the number of lines that were run.
    """
    steps = [
        step.partition("\n")
        for block in blocks
        for step in block.split("$ ", 1)[1].split("\n$ ")
    ]
    script = "\n".join(f"{command}\nprintf '\\0'" for command, _, _ in steps)
    script = script.replace("localhost:8000", f"127.0.0.1:{server.port}").replace(
        ".venv/bin/python", sys.executable
    )
    environment = os.environ | {"DATABASE_URL": server.database}
    shell = ["bash", "-c", script]
    run = subprocess.run(
        shell,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    for (command, _, shown), output in zip(steps, run.stdout.split("\0"), strict=False):
        assert steady(output) == steady(shown), command
    return len(steps)


def copy_of_project(folder: Path) -> Path:
    """Copy what the API is made of, for a test to change."""
    skip_if_extended()
    folder.mkdir()
    for file in [
        *ROOT.glob("*.py"),
        ROOT / "pyproject.toml",
        ROOT / "accounts",
        ROOT / "core",
        ROOT / "routers",
        ROOT / "tests",
        ROOT / "tools",
    ]:
        if file.is_dir():
            ignored = shutil.ignore_patterns("node_modules", "bench")
            shutil.copytree(file, folder / file.name, ignore=ignored)
        else:
            shutil.copy(file, folder / file.name)
    return folder


def apply(diff: str, project: Path) -> None:
    """Apply a diff whose hunks have no line numbers: each must fit in exactly one."""
    for part in re.split(r"^--- ", diff, flags=re.MULTILINE)[1:]:
        header, *hunks = re.split(r"^@@\n", part, flags=re.MULTILINE)
        file = project / header.partition("+++ b/")[2].strip()
        text = file.read_text() if file.exists() else ""
        for hunk in hunks:
            lines = hunk.splitlines()
            old = "".join(f"{line[1:]}\n" for line in lines if line[:1] != "+")
            new = "".join(f"{line[1:]}\n" for line in lines if line[:1] != "-")
            assert not old or text.count(old) == 1, (file.name, old)
            text = text.replace(old, new) if old else new
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)


def run_tests(project: Path, *names: str) -> str:
    """Run test modules of a copy; return how they ended: `3 passed`, or an error."""
    settings = os.environ | {"PYTHONPATH": str(project)}
    settings.pop("DATABASE_URL")
    command = ["-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider"]
    command += ["-W", "ignore:Module already imported"]  # a fork already has some
    command += ["-k", "not postgresql"]  # which the project itself is tested on
    command += [f"tests/{name}" for name in names]
    run = programs.run(*command, folder=project, settings=settings)
    if run.returncode != 0:
        return run.stdout + run.stderr
    return run.stdout.splitlines()[-1].partition(" in ")[0]
