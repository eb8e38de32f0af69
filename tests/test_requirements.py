"""What the code imports is named in requirements.txt, at one exact version.

What lies below is in constraints.txt, at one exact version, too.
"""

import ast
import os
import re
import sys
import tomllib
from importlib.metadata import (
    PackageNotFoundError,
    packages_distributions,
    requires,
    version,
)
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from core.settings import PSYCOPG
from main import app
from tests import programs
from tests.conftest import ROOT

FILES = ["requirements.txt", "tools/requirements.txt", "tests/requirements.txt"]
FILES += ["tools/bench/requirements.txt"]
BELOW = "constraints.txt"
PRODUCT = [*ROOT.glob("*.py")]
for folder in ("accounts", "core", "routers"):
    PRODUCT += ROOT.glob(f"{folder}/**/*.py")
TOOLS = [*ROOT.glob("tools/*.py"), *ROOT.glob("tools/data/*.py")]
TOOLS += [*ROOT.glob("tools/bench/*.py"), *ROOT.glob("tools/tour/*.py")]


def plain(name: str) -> str:
    """Write a package's name as PyPI compares it."""
    return re.sub("[-_.]+", "-", name).lower()


def pinned(*files: str) -> dict[str, str]:
    versions: dict[str, str] = {}
    for file in files:
        for line in lines_of(file):
            # A package that only some machines need has a condition: " ; …".
            found = re.fullmatch(r"([\w-]+)(\[\w+\])?==([\w.]+)( ; .+)?", line)
            assert found, f"{file}: {line}: one exact version"
            known = versions.setdefault(plain(found[1]), found[3])
            assert known == found[3], f"{file}: {line}: elsewhere it is {known}"
    return versions


def lines_of(file: str) -> list[str]:
    """Return the lines that name a package, without their comments."""
    lines = []
    for line in (ROOT / file).read_text().splitlines():
        text = line.partition("#")[0].strip()
        if text and not text.startswith("-c "):
            lines.append(text)
    return lines


def installed_for(*files: str) -> dict[str, str]:
    """Return what pip installs on this machine for these files, and all below it."""
    versions = {}
    waiting = [Requirement(line) for file in files for line in lines_of(file)]
    seen = set()
    while waiting:
        package = waiting.pop()
        if str(package) in seen:
            continue
        seen.add(str(package))
        versions[plain(package.name)] = version(package.name)
        for text in requires(package.name) or []:
            below = Requirement(text)
            # "" is what is needed in any case; "standard" what uvicorn[standard] adds.
            for extra in ("", *package.extras):
                if below.marker is None or below.marker.evaluate({"extra": extra}):
                    waiting.append(below)
    return versions


def is_installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def imported(files: list[Path]) -> set[str]:
    """Return the top-level modules that files import, without Python's and ours."""
    names: list[str] = []
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names.append(node.module or "")
    tops = {name.split(".")[0] for name in names} - sys.stdlib_module_names
    return {
        top
        for top in tops
        if not (ROOT / top).is_dir() and not (ROOT / f"{top}.py").exists()
    }


def check(files: list[Path], *requirements: str, optional: str = "") -> None:
    versions = pinned(*requirements)
    packages = packages_distributions()
    names = imported(files) - {optional}
    assert len(names) >= 10
    for name in names:
        possible = {plain(package) for package in packages[name]}
        assert possible & set(versions), f"{name} is imported, but not pinned"


def test_what_the_product_imports_is_pinned() -> None:
    check(PRODUCT, "requirements.txt", optional="psycopg")  # only for PostgreSQL


def test_what_the_tools_import_is_pinned() -> None:
    for package, file in (
        ("faker", "tools/requirements.txt"),
        ("psycopg", "tests/requirements.txt"),
        ("pygal", "tools/bench/requirements.txt"),
    ):
        if find_spec(package) is None:
            pytest.skip(f"needs: pip install -r {file}")
    check(TOOLS, *FILES)


def test_the_version_is_the_same_wherever_it_stands() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert app.version == project["version"], "in main.py and in pyproject.toml"


def test_each_commit_is_checked_by_the_ruff_that_ci_has() -> None:
    version = pinned("tests/requirements.txt")["ruff"]
    assert f"rev: v{version} " in (ROOT / ".pre-commit-config.yaml").read_text()


def test_what_is_pinned_is_what_is_tested() -> None:
    assert pinned(*FILES)
    for package, exact in pinned("requirements.txt").items():
        assert version(package) == exact, f"{package}: pip install -r requirements.txt"


@pytest.mark.parametrize("file", FILES)
def test_what_lies_below_is_pinned_and_is_what_is_tested(file: str) -> None:
    for package in pinned(file):
        if not is_installed(package):
            pytest.skip(f"needs: pip install -r {file}")
    direct = pinned("requirements.txt", file)
    below = pinned(BELOW)
    installed = installed_for("requirements.txt", file)
    assert len(installed) > len(direct)
    for package, exact in installed.items():
        if package not in direct:
            refresh = f"{package} is not in {BELOW}: see CONTRIBUTING.md"
            assert package in below, refresh
            assert below[package] == exact, f"{package}: pip install -r {file}"


@pytest.mark.parametrize("file", FILES)
def test_each_file_makes_pip_read_what_lies_below(file: str) -> None:
    (line,) = re.findall(r"^-c (\S+)", (ROOT / file).read_text(), re.MULTILINE)
    assert (ROOT / file).parent.joinpath(line).resolve() == (ROOT / BELOW).resolve()


def test_no_version_stands_in_both() -> None:
    assert not set(pinned(*FILES)) & set(pinned(BELOW))


def test_postgresql_s_driver_is_the_same_wherever_it_is_asked_for() -> None:
    assert PSYCOPG in lines_of("tests/requirements.txt")
    asked = re.findall(r'"(psycopg\S+)"', (ROOT / "docs" / "scaling.md").read_text())
    assert asked == [PSYCOPG] * 2


def test_an_action_of_github_is_the_commit_that_was_read() -> None:
    """A tag can be moved to another commit; a commit stays what it is."""
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    actions = re.findall(r"uses: (.+)", workflow)
    assert len(actions) == 2
    for action in actions:
        assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), action


@pytest.mark.parametrize(
    ("package", "command", "file"),
    [
        (
            "opentelemetry.sdk",
            "uvicorn tools.tour:app --port 0",
            "tools/requirements.txt",
        ),
        ("faker", "tools.data fake 5", "tools/requirements.txt"),
        ("psycopg", "tools.postgresql true", "tests/requirements.txt"),
        ("pygal", "tools.bench", "tools/bench/requirements.txt"),
    ],
)
def test_a_missing_package_is_reported_with_the_line_to_run(
    tmp_path: Path, package: str, command: str, file: str
) -> None:
    # A module that is None in sys.modules cannot be imported.
    code = "import runpy, sys; sys.modules[sys.argv[1]] = None; del sys.argv[0:2]\n"
    code += "runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
    settings = {"PYTHONPATH": str(ROOT), "DATABASE_URL": f"sqlite:///{tmp_path}/app.db"}
    hidden = ["-c", code, package, *command.split()]
    run = programs.run(*hidden, folder=tmp_path, settings=os.environ | settings)
    assert run.returncode == 1
    (line,) = [line for line in run.stderr.splitlines() if "needs: " in line]
    assert line.endswith(f"needs: pip install -r {file}")
    assert "Traceback" not in run.stderr
