"""The OpenAPI document is valid, and clients generated from it work."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PASSWORD, ROOT, Person, Server
from tests.pages import skip_if_extended

CLIENTS = ROOT / "tools" / "clients"
PROGRAMS = CLIENTS / "node_modules" / ".bin"
Serve = Callable[..., Server]
needs_node = pytest.mark.skipif(
    not PROGRAMS.exists(), reason="needs: npm install --prefix tools/clients"
)


def run(*command: str | Path, folder: Path) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def server(serve: Serve, tmp_path: Path) -> Server:
    server = serve()
    server.promote(Person(server.client, "root"))
    Person(server.client, "bob")
    document = server.client.get("/openapi.json").json()
    document["info"]["title"] = "Users API"  # the packages are named after it
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    return server


def test_the_document_is_valid(server: Server, tmp_path: Path) -> None:
    validator = pytest.importorskip(
        "openapi_spec_validator", reason="needs: pip install -r tests/requirements.txt"
    )
    document = json.loads((tmp_path / "openapi.json").read_text())
    validator.validate(document)
    operations: list[Any] = []
    for methods in document["paths"].values():
        operations.extend(methods.values())
    names = {operation["operationId"] for operation in operations}
    assert {"create_user", "list_users", "log_in", "health"} <= names
    for operation in operations:
        for status, response in operation["responses"].items():
            headers = response.get("headers", {})
            if status == "401":
                assert "WWW-Authenticate" in headers
            if status in {"429", "503"}:
                assert "Retry-After" in headers


@needs_node
def test_spectral_finds_no_error(server: Server, tmp_path: Path) -> None:
    (tmp_path / ".spectral.yaml").write_text('extends: ["spectral:oas"]\n')
    run(PROGRAMS / "spectral", "lint", "openapi.json", folder=tmp_path)


@needs_node
def test_a_typescript_client_compiles_and_works(server: Server, tmp_path: Path) -> None:
    skip_if_extended()  # client.ts signs up with three fields
    (tmp_path / "node_modules").symlink_to(CLIENTS / "node_modules")
    shutil.copy(CLIENTS / "package.json", tmp_path)
    shutil.copy(CLIENTS / "client.ts", tmp_path)
    # Fields with defaults may be left out; by default the generator requires them.
    schema = ["openapi.json", "-o", "schema.ts", "--default-non-nullable=false"]
    run(PROGRAMS / "openapi-typescript", *schema, folder=tmp_path)
    options = "--strict --target es2022 --module nodenext --types node"
    options += " --noUncheckedIndexedAccess"
    run(PROGRAMS / "tsc", *options.split(), "client.ts", folder=tmp_path)
    shown = run("node", "client.js", server.url, PASSWORD, folder=tmp_path)
    assert shown == "Bob Root Theresa\n"


def test_a_python_client_is_well_typed_and_works(
    server: Server, tmp_path: Path
) -> None:
    pytest.importorskip(
        "openapi_python_client", reason="needs: pip install -r tests/requirements.txt"
    )
    # By default it runs ruff over what it made, if there is one, which changes types.
    (tmp_path / "config.yml").write_text("post_hooks: []\n")
    skip_if_extended()  # client.py signs up with three fields
    client = [sys.executable, "-m", "openapi_python_client", "generate"]
    options = ["--path", "openapi.json", "--meta", "none", "--config", "config.yml"]
    run(*client, *options, folder=tmp_path)
    shutil.copy(CLIENTS / "client.py", tmp_path)
    mypy = [sys.executable, "-m", "mypy", "--strict", "client.py"]
    run(*mypy, folder=tmp_path)
    shown = run(sys.executable, "client.py", server.url, PASSWORD, folder=tmp_path)
    assert shown == "Bob Olympia Root\n"
