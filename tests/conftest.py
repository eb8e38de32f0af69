"""What the tests share: a fresh database for each, people in it, and a real server."""

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["BCRYPT_ROUNDS"] = "4"  # the cost is no matter of these tests, their time is
memory = "/dev/shm" if Path("/dev/shm").is_dir() else None  # a disk that need not turn; test_live.py has a real one
os.environ["DATABASE_URL"] = os.environ.get("TEST_DATABASE_URL") or f"sqlite:///{tempfile.mkdtemp(dir=memory)}/test.db"

import httpx2 as httpx
import pytest
from fastapi.testclient import TestClient
from sqlmodel import SQLModel, col, update

from database import create_database, engine, write
from main import app
from models import User

ROOT = Path(__file__).parent.parent
PASSWORD = "correct horse"


class Person:
    """Somebody with an account, signed in."""

    def __init__(self, client: Any, name: str) -> None:
        self.client = client
        self.email = f"{name}@example.com"
        answer = client.post("/api/users", json={"name": name.title(), "email": self.email, "password": PASSWORD})
        assert answer.status_code == 201, answer.text
        self.account: dict[str, Any] = answer.json()
        self.id: int = self.account["id"]
        self.log_in()

    def log_in(self, password: str = PASSWORD) -> None:
        answer = self.client.post("/api/login", data={"username": self.email, "password": password})
        assert answer.status_code == 200, answer.text
        self.token: str = answer.json()["access_token"]
        self.headers = {"Authorization": f"Bearer {self.token}"}

    def __call__(self, method: str, path: str, **options: Any) -> Any:
        return self.client.request(method, "/api" + path, headers=self.headers | options.pop("headers", {}), **options)


@pytest.fixture
def client() -> Iterator[TestClient]:
    create_database()
    with engine.begin() as connection:
        for table in reversed(SQLModel.metadata.sorted_tables):
            connection.execute(table.delete())
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client
    engine.dispose()


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
    asyncio.run(write(update(User).where(col(User.id) == user_id).values(is_admin=True)))


class Server:
    """A uvicorn of its own on a free port, as a user starts it."""

    def __init__(self, folder: Path, *options: str, **settings: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = httpx.Client(base_url=self.url, timeout=30)
        self.database = folder / "app.db"
        self.log = folder / "server.log"
        command = [sys.executable, "-m", "uvicorn", "main:app", "--app-dir", str(ROOT), "--port", str(self.port)]
        environment = os.environ | {"DATABASE_URL": f"sqlite:///{self.database}", "PYTHONPATH": str(ROOT)} | settings
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [*command, "--no-access-log", *options], cwd=folder, env=environment, stdout=log, stderr=log
            )
        deadline = time.monotonic() + 30
        while self.process.poll() is None and time.monotonic() < deadline:
            try:
                if self.client.get("/health").status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.05)
        raise AssertionError(self.log.read_text())

    def stop(self, how: Callable[[subprocess.Popen[bytes]], None] = subprocess.Popen.terminate) -> None:
        self.client.close()
        how(self.process)
        self.process.wait(20)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(*options: str, **settings: str) -> Server:
        servers.append(Server(tmp_path, *options, **settings))
        return servers[-1]

    yield start
    for server in servers:
        if server.process.poll() is None:
            server.stop()
