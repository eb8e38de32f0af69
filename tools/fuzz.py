"""Attack the API with what its OpenAPI document allows: `python -m tools.fuzz`.

Schemathesis runs all its checks, once as a member and once as an administrator, against
a server of its own.
"""

import os
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

STAY_ADMINISTRATOR = """CREATE TRIGGER stay AFTER UPDATE OF is_admin ON user
WHEN new.id = 1 AND NOT new.is_admin
BEGIN UPDATE user SET is_admin = 1 WHERE id = 1; END"""
ACCOUNT = '{"name": "Fuzz", "email": "fuzz@example.com", "password": "secret"}'


@contextmanager
def server(folder: str) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    os.environ |= {"DATABASE_URL": f"sqlite:///{folder}/app.db", "BCRYPT_ROUNDS": "4"}
    process = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "main:app", "--port", port, "--no-access-log"]
    )
    url = f"http://127.0.0.1:{port}"
    for _ in range(300):
        try:
            urllib.request.urlopen(url + "/health").close()
            break
        except OSError:
            time.sleep(0.1)
    else:
        process.kill()
        raise SystemExit("The API has not started within thirty seconds.")
    try:
        yield url
    finally:
        process.terminate()
        process.wait()


def post(url: str, body: str, kind: str) -> bytes:
    request = urllib.request.Request(url, body.encode(), {"Content-Type": kind})
    with urllib.request.urlopen(request) as answer:
        content: bytes = answer.read()
    return content


def fuzz(url: str, token: str, *options: str) -> int:
    program = Path(sys.executable).with_name("schemathesis")
    if not program.exists():
        raise SystemExit("The fuzz run needs: pip install -r tests/requirements.txt")
    command = [
        str(program),
        "--config-file",
        str(Path(__file__).with_name("fuzz.toml")),
        "run",
        url + "/openapi.json",
    ]
    fixed = ["--header", f"Authorization: Bearer {token}", "--seed", "1"]
    return subprocess.run([*command, *fixed, *options], check=False).returncode


def main() -> int:
    examples = sys.argv[1] if len(sys.argv) > 1 else "50"
    failed = 0
    for role in ("member", "administrator"):
        print(f"--- as a {role}", flush=True)
        with tempfile.TemporaryDirectory() as folder, server(folder) as url:
            post(url + "/api/users", ACCOUNT, "application/json")
            if role == "administrator":
                subprocess.run(
                    [sys.executable, "-m", "tools.admin", "fuzz@example.com"],
                    check=True,
                )
                with closing(sqlite3.connect(f"{folder}/app.db")) as database:
                    database.execute(STAY_ADMINISTRATOR)
            form = "username=fuzz@example.com&password=secret"
            token = (
                post(url + "/api/login", form, "application/x-www-form-urlencoded")
                .split(b'"')[3]
                .decode()
            )
            # What ends the account or its token comes last.
            failed |= fuzz(
                url,
                token,
                "--max-examples",
                examples,
                "--exclude-method",
                "DELETE",
                "--exclude-path",
                "/api/logout",
            )
            failed |= fuzz(
                url, token, "--max-examples", examples, "--include-method", "DELETE"
            )
            failed |= fuzz(
                url, token, "--max-examples", examples, "--include-path", "/api/logout"
            )
    return failed


if __name__ == "__main__":
    sys.exit(main())
