"""What tests start and wait for: servers, crowds of requests, a gate, a browser.

tests/conftest.py makes fixtures of them, and says which ones to begin with.
"""

import asyncio
import itertools
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2 as httpx
import pytest
from sqlmodel import create_engine

from tests import programs

if TYPE_CHECKING:
    from tests.conftest import Person

ROOT = Path(__file__).parent.parent
POSTGRESQL = os.environ.get("TEST_DATABASE_URL")


def set_environment() -> None:
    """Set what the API reads when it is imported, here and in each server."""
    # The project is compiled once, here, not by each program that a test starts. Those
    # write no .pyc: a file that changes twice in a second would be taken for the old
    # one.
    sys.dont_write_bytecode = False
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    os.environ["BCRYPT_ROUNDS"] = "4"  # these tests need speed, not strong hashes
    memory = Path("/dev/shm")  # a disk in memory; test_live.py uses a real one
    folder = tempfile.mkdtemp(dir=memory if memory.is_dir() else None)
    os.environ["DATABASE_URL"] = empty_database(folder)


def empty_database(folder: Path | str) -> str:
    """Return the URL of a new database: on TEST_DATABASE_URL's server, else a file."""
    if not POSTGRESQL:
        return f"sqlite:///{folder}/app.db"
    from tools.postgresql import new_database

    return new_database(POSTGRESQL)


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
    """A uvicorn on a free port, started as a user would, for the project or a copy."""

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
        self.port = free_port()
        self.url = f"http://{host}:{self.port}"
        self.client = new_client(self.url)
        self.database = url
        self.log = folder / "server.log"
        command = ["-m", "uvicorn", app, "--app-dir", str(project), "--no-access-log"]
        command += ["--host", host, "--port", str(self.port), *options]
        environment = (
            os.environ
            | {"DATABASE_URL": url, "PYTHONPATH": f"{project}{os.pathsep}{ROOT}"}
            | settings
        )
        self.process = programs.start(
            *command,
            folder=folder,
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

    def promote(self, person: "Person") -> None:
        """Make somebody an administrator."""
        self.execute(f'UPDATE "user" SET is_admin = true WHERE id = {person.id}')

    def stop(
        self,
        how: Callable[[subprocess.Popen[bytes]], None] = subprocess.Popen.terminate,
    ) -> None:
        self.client.close()
        how(self.process)
        self.process.wait(20)


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


class Crowd:
    """Requests sent at once, each on its own connection, while the test goes on.

    They come from the address, if one is given: for the API, that is another client.
    """

    def __init__(
        self, server: Server, requests: list[dict[str, Any]], address: str | None = None
    ) -> None:
        self.url, self.requests, self.address = server.url, requests, address
        self.answers: list[httpx.Response] = []
        self.thread = threading.Thread(target=self.run)

    def run(self) -> None:
        asyncio.run(self.send_all())

    async def send_all(self) -> None:
        number = len(self.requests)
        limits = httpx.Limits(max_connections=number, max_keepalive_connections=0)
        transport = httpx.AsyncHTTPTransport(
            local_address=self.address, limits=limits, verify=False
        )
        async with httpx.AsyncClient(
            base_url=self.url, timeout=60, transport=transport
        ) as client:

            async def send(request: dict[str, Any]) -> None:
                self.answers.append(await client.request(**request))

            await asyncio.gather(*(send(one) for one in self.requests))

    def __enter__(self) -> "Crowd":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.thread.join()

    def statuses(self) -> Counter[int]:
        return Counter(answer.status_code for answer in self.answers)

    def are_unavailable(self) -> None:
        assert self.statuses() == {503: len(self.requests)}
        for answer in self.answers:
            assert int(answer.headers["Retry-After"]) >= 1


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
