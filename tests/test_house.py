"""The house: what imports what, and what an import does not do."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.programs import lend_folders

# Each line imports only from lines below it, or from its own.
LAYERS = [
    ["main"],
    ["routers"],
    ["database"],
    ["accounts"],
    ["models"],
    ["core.server"],
    ["core.web"],
    ["core.data"],
    ["core.turns", "core.texts"],
    ["core.settings", "core.refusals"],
    ["core.start"],
]


def layer_of(module: str) -> int | None:
    for number, names in enumerate(LAYERS):
        for name in names:
            if module == name or module.startswith(f"{name}."):
                return number
    return None


def product_files() -> list[Path]:
    files = [ROOT / f"{name}.py" for name in ("main", "models", "database")]
    for folder in ("routers", "accounts", "core"):
        files += sorted((ROOT / folder).rglob("*.py"))
    return files


def imports_of(file: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "no relative imports here"
            module = str(node.module)
            found += [f"{module}.{alias.name}" for alias in node.names]
    return found


@pytest.mark.parametrize(
    "file", product_files(), ids=lambda file: str(file.relative_to(ROOT))
)
def test_each_module_imports_only_from_below(file: Path) -> None:
    name = ".".join(file.relative_to(ROOT).with_suffix("").parts)
    own = layer_of(name.removesuffix(".__init__"))
    if own is None:
        assert file.name == "__init__.py"
        assert file.read_text() == ""
        return
    for module in imports_of(file):
        layer = layer_of(module)
        assert layer is None or layer >= own, f"{name} imports {module}"
        assert not module.startswith(("tests", "tools")), f"{name} imports {module}"


def python(code: str, folder: Path, **settings: str) -> str:
    lend_folders(folder)
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | settings
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")
    return run.stdout.strip()


@pytest.mark.parametrize(
    ("url", "loaded"),
    [("sqlite:///app.db", "sqlite"), ("postgresql://nowhere/x", "postgresql")],
)
def test_only_the_module_of_the_database_in_use_is_loaded(
    tmp_path: Path, url: str, loaded: str
) -> None:
    if loaded == "postgresql":
        reason = "needs: pip install -r tests/requirements.txt"
        pytest.importorskip("psycopg", reason=reason)
    code = (
        "import main, sys;"
        " print([name for name in ('sqlite', 'postgresql')"
        " if f'core.data.{name}' in sys.modules])"
    )
    assert python(code, tmp_path, DATABASE_URL=url) == str([loaded])


@pytest.mark.parametrize(
    "settings",
    [
        {"DATABASE_URL": "sqlite:///app.db"},
        {"DATABASE_URL": "mysql://host/name", "BCRYPT_ROUNDS": "many", "PORT": "-1"},
        {"DATABASE_URL": "sqlite:////no/such/folder/app.db", "CORS_ORIGINS": "a b"},
    ],
)
def test_an_import_opens_nothing_and_ends_no_process(
    tmp_path: Path, settings: dict[str, str]
) -> None:
    code = "import main; print('it goes on')"
    assert python(code, tmp_path, **settings) == "it goes on"
    assert [file for file in tmp_path.iterdir() if not file.is_symlink()] == []


def test_an_import_leaves_the_models_open_to_relationships(tmp_path: Path) -> None:
    code = (
        "import main, tools.data.reset\n"
        "from sqlalchemy import inspect\n"
        "from sqlmodel import SQLModel\n"
        "mappers = [mapper for mapper in SQLModel._sa_registry.mappers]\n"
        "print(any(mapper.configured for mapper in mappers))"
    )
    assert python(code, tmp_path, DATABASE_URL="sqlite:///app.db") == "False"
