"""What the code imports is named in requirements.txt, at one exact version."""

import ast
import os
import re
import sys
import tomllib
from importlib.metadata import packages_distributions, version
from importlib.util import find_spec
from pathlib import Path

import pytest

from main import app
from tests import programs
from tests.conftest import ROOT

FILES = ["requirements.txt", "tools/requirements.txt", "tests/requirements.txt"]
FILES += ["tools/bench/requirements.txt"]
PRODUCT = [*ROOT.glob("*.py")]
for folder in ("accounts", "core", "routers"):
    PRODUCT += ROOT.glob(f"{folder}/**/*.py")
TOOLS = [*ROOT.glob("tools/*.py"), *ROOT.glob("tools/data/*.py")]
TOOLS += [*ROOT.glob("tools/bench/*.py"), *ROOT.glob("tools/tour/*.py")]


def plain(name: str) -> str:
    """Write a package's name as PyPI compares it."""
    return re.sub("[-_.]+", "-", name).lower()


def pinned(*files: str) -> dict[str, str]:
    versions = {}
    for file in files:
        for line in (ROOT / file).read_text().splitlines():
            found = re.fullmatch(r"([\w-]+)(\[\w+\])?==([\w.]+)( +# .+)?", line)
            assert found, f"{file}: {line}: one exact version"
            versions[plain(found[1])] = found[3]
    return versions


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
