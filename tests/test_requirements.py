"""What the code imports is named in requirements.txt, at one exact version."""

import ast
import re
import sys
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest

from tests.conftest import ROOT

PRODUCT = [*ROOT.glob("*.py"), *ROOT.glob("core/*.py"), *ROOT.glob("routers/*.py")]
TOOLS = [*ROOT.glob("tools/*.py"), *ROOT.glob("tools/data/*.py")]
TOOLS += ROOT.glob("tools/bench/*.py")


def plain(name: str) -> str:
    """Write a package's name in the one way that PyPI compares."""
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
    """Give the top names that files import, but those of Python and our own."""
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


def check(files: list[Path], *requirements: str) -> None:
    versions = pinned(*requirements)
    packages = packages_distributions()
    names = imported(files)
    assert len(names) >= 10
    for name in names:
        possible = {plain(package) for package in packages[name]}
        assert possible & set(versions), f"{name} is imported, but not pinned"


def test_what_the_product_imports_is_pinned() -> None:
    check(PRODUCT, "requirements.txt")


def test_what_the_tools_import_is_pinned() -> None:
    pytest.importorskip("rich", reason="needs: pip install -r tools/requirements.txt")
    check(TOOLS, "requirements.txt", "tools/requirements.txt")


def test_what_is_pinned_is_what_is_tested() -> None:
    for package, exact in pinned("requirements.txt").items():
        assert version(package) == exact, f"{package}: pip install -r requirements.txt"
