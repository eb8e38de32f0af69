"""Behind a proxy, behind a prefix, in another app, and `python main.py`."""

import os
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from fastapi import Depends, FastAPI
from fastapi.security import OAuth2AuthorizationCodeBearer
from fastapi.testclient import TestClient

import main
from core.web import openapi
from tests import programs
from tests.conftest import (
    PASSWORD,
    ROOT,
    Person,
    Server,
    empty_database,
    free_port,
    is_free,
    make_admin,
    sign_up,
    wait_until,
)
from tests.pages import blocks

PAGE = (ROOT / "docs" / "scaling.md").read_text()
JOHN = sign_up("john")
Serve = Callable[..., Server]


# ---- A prefix, from the server or from an app around this one. ----


WAYS = [
    # How requests arrive, what --root-path or the mount says, and the prefix it means.
    ("cut off", "/v1", "/v1"),
    ("cut off", "/api", "/api"),
    ("cut off", "/docs", "/docs"),
    ("cut off", "", ""),
    ("mounted", "/v1", "/v1"),
    ("mounted below /above", "/api", "/above/api"),
]


class Prefixed:
    """A client of an API behind a prefix."""

    def __init__(self, client: TestClient, sent: str, prefix: str) -> None:
        self.client = client
        self.sent = sent  # what each path in a request begins with
        self.prefix = prefix  # what each path in an answer begins with

    def __call__(self, method: str, path: str, **options: Any) -> Any:
        return self.client.request(
            method, self.sent + path, follow_redirects=False, **options
        )


@contextmanager
def behind_a_proxy(root_path: str) -> Iterator[TestClient]:
    """Provide a client whose requests arrive as uvicorn hands them over."""

    async def as_uvicorn(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            path = root_path + scope["path"]
            scope = {**scope, "root_path": root_path, "path": path}
        await main.app(scope, receive, send)

    with TestClient(as_uvicorn) as client:
        yield client


@pytest.fixture(params=WAYS, ids=lambda way: f"{way[1]} {way[0]}")
def api(request: pytest.FixtureRequest, client: Any) -> Iterator[Prefixed]:
    way, root_path, prefix = request.param
    if way == "cut off":
        with behind_a_proxy(root_path) as through:
            yield Prefixed(through, "", prefix)
    else:
        outer = FastAPI(lifespan=main.lifespan)
        outer.mount("/other", main.app)
        outer.mount(root_path, main.app)
        above = prefix.removesuffix(root_path)
        with TestClient(outer, root_path=above) as through:
            yield Prefixed(through, prefix, prefix)


def test_every_address_keeps_the_prefix(api: Prefixed) -> None:
    john = api("POST", "/api/users/", json=JOHN)
    assert john.headers["Location"] == f"{api.prefix}/api/users/{john.json()['id']}"
    make_admin(john.json()["id"])
    api("POST", "/api/users", json=JOHN | {"email": "jane@example.com"})
    form = {"username": JOHN["email"], "password": PASSWORD}
    token = api("POST", "/api/login", data=form).json()["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    page = api("GET", "/api/users?limit=1", headers=headers)
    next_page = page.links["next"]["url"]
    assert next_page.startswith(f"{api.prefix}/api/users?")
    refused = api("GET", "/api/users")
    assert f" to {api.prefix}/api/login, then" in refused.json()["detail"]
    no_name = api("POST", "/api/login", data={"password": "x"})
    assert "Send your email as username" in no_name.text
    home = api("GET", "/")
    assert (home.status_code, home.headers["Location"]) == (307, f"{api.prefix}/docs")


def test_docs_find_their_files_the_routes_and_the_log_in(api: Prefixed) -> None:
    page = api("GET", "/docs/")
    assert page.status_code == 200
    found = re.findall(r"""(?:src=|href=|url: )["']([^"']+)""", page.text)
    assert f"{api.prefix}/openapi.json" in found
    assert len(found) == 4
    for path in found:
        assert api("GET", path.removeprefix(api.prefix)).status_code == 200, path
        assert path.startswith(api.prefix)
    document = api("GET", "/openapi.json").json()
    (scheme,) = document["components"]["securitySchemes"].values()
    login = scheme["flows"]["password"]["tokenUrl"]
    if api.prefix:
        assert document["servers"] == [{"url": api.prefix}]
        assert login == f"{api.prefix}/api/login"
    else:
        assert "servers" not in document
        assert login == "api/login"


def test_answers_are_the_same_behind_a_prefix(api: Prefixed) -> None:
    missing = api("GET", "/api/nothing")
    assert (missing.status_code, missing.json()) == (404, {"detail": "Not Found"})
    wrong = api("PUT", "/api/users/")
    assert (wrong.status_code, wrong.headers["Allow"]) == (405, "GET, POST, HEAD")
    head = api("HEAD", "/api/users/me/")
    assert (head.status_code, head.content) == (401, b"")
    for answer in (missing, wrong, head):
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert api("GET", "/docs").headers["X-Frame-Options"] == "DENY"
    asked = {
        "Origin": "http://localhost:5173",
        "Access-Control-Request-Method": "POST",
    }
    preflight = api("OPTIONS", "/api/users", headers=asked)
    assert preflight.status_code == 200
    assert preflight.headers["Access-Control-Allow-Origin"] == asked["Origin"]


def test_a_log_in_elsewhere_keeps_its_address() -> None:
    elsewhere = "https://example.com/authorize"
    scheme = OAuth2AuthorizationCodeBearer(elsewhere, "/token", refreshUrl="refresh")
    other = FastAPI(
        routes=openapi.OPTIONS["routes"], servers=[{"url": "https://a.example"}]
    )

    @other.get("/", dependencies=[Depends(scheme)])
    def anything() -> None: ...

    document = TestClient(other, root_path="/v1").get("/openapi.json").json()
    assert document["servers"] == [{"url": "/v1"}, {"url": "https://a.example"}]
    (found,) = document["components"]["securitySchemes"].values()
    flow = found["flows"]["authorizationCode"]
    assert flow["authorizationUrl"] == elsewhere
    assert (flow["tokenUrl"], flow["refreshUrl"]) == ("/v1/token", "/v1/refresh")


def test_a_mounted_api_that_was_not_started_says_what_to_write(tmp_path: Path) -> None:
    code = (
        "import main\n"
        "from fastapi import FastAPI\n"
        "from fastapi.testclient import TestClient\n"
        "outer = FastAPI()\n"
        "outer.mount('/v1', main.app)\n"
        "TestClient(outer).get('/v1/health')\n"
    )
    settings = os.environ | {"DATABASE_URL": empty_database(tmp_path)}
    run = programs.run("-c", code, folder=ROOT, settings=settings)
    assert run.returncode != 0
    assert "app = FastAPI(lifespan=main.lifespan)" in run.stderr


def test_what_the_page_says_of_mounting_it_works(serve: Serve, tmp_path: Path) -> None:
    mount, own_lifespan = blocks(PAGE, "python")
    imports = (
        "from collections.abc import AsyncIterator\n"
        "from contextlib import asynccontextmanager\n"
    )
    mount = mount.replace(
        "FastAPI(lifespan=main.lifespan)", "FastAPI(lifespan=lifespan)"
    )
    head, line, tail = mount.partition("app = ")
    health = "\n@app.get('/health')\ndef health() -> str:\n    return 'outer'\n"
    code = imports + head + own_lifespan + "\n\n" + line + tail + health
    (tmp_path / "outer.py").write_text(code)
    path = f"{tmp_path}{os.pathsep}{ROOT}"
    server = serve(app="outer:app", PYTHONPATH=path)
    john = server.client.post("/v1/api/users", json=JOHN)
    assert john.headers["Location"] == "/v1/api/users/1"
    server.stop()
    assert not list(tmp_path.glob("app.db-*")), "it was closed"


# ---- A real nginx, with the configuration that the page shows. ----


NGINX = """{user}daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {sites}
}}
"""


def make_certificate(folder: Path) -> None:
    command = "openssl req -x509 -nodes -days 1 -subj /CN=localhost -newkey ec"
    command += " -pkeyopt ec_paramgen_curve:prime256v1 -keyout key.pem -out cert.pem"
    command += " -addext subjectAltName=DNS:localhost,IP:127.0.0.1"
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)


class Nginx:
    """An nginx that any user can start, in front of the API."""

    def __init__(self, folder: Path, server: Server) -> None:
        make_certificate(folder)
        self.folder = folder
        self.clients: list[httpx.Client] = []
        self.cuts = free_port()
        (shown,) = blocks(PAGE, "nginx")
        assert "proxy_pass http://users/;" in shown
        site = shown.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}")
        site = site.replace("/etc/ssl/example.com.pem", f"{folder}/cert.pem")
        site = site.replace("/etc/ssl/example.com.key", f"{folder}/key.pem")
        site = site.replace("443", str(self.cuts))
        user = ""
        if os.geteuid() == 0:
            user = "user root;\n"
        text = NGINX.format(user=user, folder=folder, sites=site)
        (folder / "nginx.conf").write_text(text)
        command = ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")]
        self.process = subprocess.Popen(
            [*command, "-e", str(folder / "error.log")], stderr=subprocess.DEVNULL
        )
        wait_until(lambda: not is_free(self.cuts), "nginx has not started")

    def client(self, port: int, address: str = "127.0.0.1") -> httpx.Client:
        """Return a client at an address, for example 127.0.0.2."""
        context = ssl.create_default_context(cafile=self.folder / "cert.pem")
        transport = httpx.HTTPTransport(verify=context, local_address=address)
        url = f"https://localhost:{port}/v1"
        client = httpx.Client(base_url=url, transport=transport, timeout=30)
        self.clients.append(client)
        return client

    def stop(self) -> None:
        for client in self.clients:
            client.close()
        self.process.terminate()
        self.process.wait(20)


@pytest.fixture
def start_nginx(tmp_path: Path) -> Iterator[Callable[[Server], Nginx]]:
    for program in ("nginx", "openssl"):
        if shutil.which(program) is None:
            pytest.skip(f"needs: apt-get install {program}")
    started: list[Nginx] = []

    def start(server: Server) -> Nginx:
        folder = tmp_path / "nginx"
        folder.mkdir()
        started.append(Nginx(folder, server))
        return started[-1]

    yield start
    for nginx in started:
        nginx.stop()


def wrong_log_ins(client: httpx.Client, number: int, **headers: str) -> set[int]:
    form = {"username": JOHN["email"], "password": "wrong"}
    answers = [
        client.post("/api/login", data=form, headers=headers) for _ in range(number)
    ]
    return {answer.status_code for answer in answers}


def test_addresses_behind_nginx_are_the_public_ones(
    serve: Serve, start_nginx: Callable[[Server], Nginx]
) -> None:
    server = serve("--root-path", "/v1")
    nginx = start_nginx(server)
    john = Person(nginx.client(nginx.cuts), "john")
    Person(john.client, "ann")
    server.promote(john)
    made_up = {"X-Forwarded-Host": "evil.example", "X-Forwarded-Prefix": "/evil"}
    made_up |= {"X-Forwarded-Proto": "http", "Forwarded": "host=evil.example"}
    for port in [nginx.cuts]:
        john.client = nginx.client(port)
        public = f"https://localhost:{port}"
        page = john("GET", "/users?limit=1", headers=made_up)
        next_page = page.links["next"]["url"]
        assert next_page.startswith("/v1/api/users?")
        followed = john.client.get(public + next_page, headers=john.headers)
        assert [account["name"] for account in followed.json()] == ["Ann"]
        home = john.client.get("/", headers=made_up)
        assert home.headers["Location"] == "/v1/docs"
        docs = john.client.get("/", headers=made_up, follow_redirects=True)
        assert str(docs.url) == f"{public}/v1/docs"
        for path in re.findall(r"""(?:src=|href=|url: )["']([^"']+)""", docs.text):
            assert john.client.get(public + path).status_code == 200, path
        new = JOHN | {"email": f"{port}@example.com"}
        signed_up = john.client.post("/api/users", json=new, headers=made_up)
        location = public + signed_up.headers["Location"]
        read = john.client.get(location, headers=john.headers)
        assert read.json()["email"] == new["email"]


def test_the_throttle_counts_clients_by_the_address_that_nginx_tells(
    serve: Serve, start_nginx: Callable[[Server], Nginx]
) -> None:
    nginx = start_nginx(serve("--root-path", "/v1"))
    john = Person(nginx.client(nginx.cuts, "127.0.0.2"), "john")
    for number in range(10):  # an address that the client makes up counts for nothing
        assert wrong_log_ins(john.client, 1, **{"X-Forwarded-For": f"1.2.3.{number}"})
    assert wrong_log_ins(john.client, 1, **{"X-Forwarded-For": "1.2.3.4"}) == {429}
    john.client = nginx.client(nginx.cuts, "127.0.0.3")
    john.log_in()


def test_a_proxy_that_is_not_trusted_counts_as_one_client(
    serve: Serve, start_nginx: Callable[[Server], Nginx]
) -> None:
    nginx = start_nginx(serve("--root-path", "/v1", FORWARDED_ALLOW_IPS="10.0.0.1"))
    john = Person(nginx.client(nginx.cuts, "127.0.0.2"), "john")
    assert wrong_log_ins(john.client, 10) == {401}
    other = nginx.client(nginx.cuts, "127.0.0.3")
    assert wrong_log_ins(other, 1) == {429}


def test_docs_log_in_and_try_out_behind_nginx(
    browser: Any, serve: Serve, start_nginx: Callable[[Server], Nginx]
) -> None:
    from tests.test_browser import Docs

    server = serve("--root-path", "/v1")
    nginx = start_nginx(server)
    Person(nginx.client(nginx.cuts), "ann")
    browser.execute_cdp_cmd("Security.setIgnoreCertificateErrors", {"ignore": True})
    docs = Docs(browser, f"https://localhost:{nginx.cuts}/v1")
    docs.authorize("ann@example.com")
    assert docs.try_out("operations-users-read_user", "me") == "200"


# ---- Trailers: what a client sends after a body in chunks. ----


def log_in_in_chunks(connection: socket.socket, path: str, *lines: str) -> bytes:
    """Send a wrong password in a chunk, then lines as trailers; return the answer."""
    form = f"username={JOHN['email']}&password=wrong"
    head = [
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/x-www-form-urlencoded",
        "Transfer-Encoding: chunked",
    ]
    for line in lines:
        if line.startswith("proxy "):
            head.append(line.removeprefix("proxy "))
    trailers = [line for line in lines if not line.startswith("proxy ")]
    text = "\r\n".join([*head, "", f"{len(form):x}", form, "0", *trailers, "", ""])
    connection.sendall(text.encode())
    answer = b""
    while not answer.endswith(b"}"):
        received = connection.recv(4096)
        assert received, answer
        answer += received
    return answer


@pytest.mark.parametrize(
    ("trailer", "status"),
    [
        ("X-Forwarded-For: 2.2.2.2", b"400"),
        ("x-forwarded-for: localhost", b"400"),
        ("X-FORWARDED-PROTO: https", b"400"),
        ("X-Checksum: 17", b"401"),
    ],
)
def test_a_trailer_cannot_stand_in_for_what_a_proxy_says(
    serve: Serve, trailer: str, status: bytes
) -> None:
    server = serve()
    proxy = "proxy X-Forwarded-For: 1.1.1.1", "proxy X-Forwarded-Proto: http"
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        answer = log_in_in_chunks(connection, "/api/login", *proxy, trailer)
        assert answer.split()[1] == status
        assert answer.rpartition(b"\n")[2].startswith(b'{"detail":"')
        # The next request on the connection is another one.
        answer = log_in_in_chunks(connection, "/api/login", *proxy)
        assert answer.split()[1] == b"401"
    assert "from 1.1.1.1" in server.log.read_text()
    assert "from 2.2.2.2" not in server.log.read_text()


@pytest.fixture
def start_haproxy(tmp_path: Path) -> Iterator[Callable[[Server], int]]:
    """Provide a function that starts a real HAProxy, and returns its port."""
    for program in ("haproxy", "openssl"):
        if shutil.which(program) is None:
            pytest.skip(f"needs: apt-get install {program}")
    started: list[subprocess.Popen[bytes]] = []

    def start(server: Server) -> int:
        make_certificate(tmp_path)
        pair = tmp_path / "pair.pem"
        parts = [(tmp_path / name).read_text() for name in ("cert.pem", "key.pem")]
        pair.write_text("".join(parts))
        port = free_port()
        (shown,) = blocks(PAGE, "haproxy")
        shown = shown.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}")
        shown = shown.replace(":443", f":{port}")
        shown = shown.replace("/etc/ssl/example.com.pem", str(pair))
        (tmp_path / "haproxy.cfg").write_text(shown)
        started.append(subprocess.Popen(["haproxy", "-f", tmp_path / "haproxy.cfg"]))
        wait_until(lambda: not is_free(port), "HAProxy has not started")
        return port

    yield start
    for process in started:
        process.terminate()
        process.wait(20)


def test_no_client_behind_haproxy_makes_up_its_address(
    serve: Serve, start_haproxy: Callable[[Server], int], tmp_path: Path
) -> None:
    server = serve("--root-path", "/v1")
    Person(server.client, "john")
    port = start_haproxy(server)
    context = ssl.create_default_context(cafile=tmp_path / "cert.pem")
    statuses: Counter[bytes] = Counter()
    for number in range(30):
        with (
            socket.create_connection(("127.0.0.1", port), timeout=20) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as connection,
        ):
            trailer = f"X-Forwarded-For: 2.2.2.{number}"
            answer = log_in_in_chunks(connection, "/v1/api/login", trailer)
            statuses[answer.split()[1]] += 1
    assert statuses.keys() <= {b"400", b"401", b"429"}
    assert statuses[b"401"] <= 10
    assert "from 2.2.2." not in server.log.read_text()


# ---- python main.py ----


class MainPy:
    """`python main.py`, with settings."""

    def __init__(self, folder: Path, log: str, **settings: str) -> None:
        self.port = free_port()
        self.log = folder / log
        given = {"DATABASE_URL": empty_database(folder), "PORT": str(self.port)}
        self.process = programs.start(
            str(ROOT / "main.py"),
            folder=folder,
            settings=os.environ | given | settings,
            output=self.log,
        )

    def has_started(self) -> bool:
        """Tell whether both workers have started."""
        assert self.process.poll() is None, self.log.read_text()
        return self.log.read_text().count("Application startup complete") == 2

    def end(self) -> int:
        self.process.terminate()
        return self.process.wait(20)


@pytest.fixture
def run_main(tmp_path: Path) -> Iterator[Callable[..., MainPy]]:
    started: list[MainPy] = []

    def run(log: str = "main.log", **settings: str) -> MainPy:
        started.append(MainPy(tmp_path, log, **settings))
        return started[-1]

    yield run
    for run_of_main in started:
        if run_of_main.process.poll() is None:
            run_of_main.end()


def answer_on(connection: socket.socket) -> bytes:
    """Send a request on a connection that stays open; return the answer's start."""
    connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return connection.recv(4096)


def test_python_main_py_has_what_a_server_needs(
    run_main: Callable[..., MainPy],
) -> None:
    server = run_main(ROOT_PATH="/v1", HOST="localhost", WEB_CONCURRENCY="2")
    wait_until(server.has_started, "not two workers")
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    assert b"location: /v1/docs" in answer_on(connection)
    idle_since = time.monotonic()
    log = server.log.read_text()
    for line in (
        f"running on http://localhost:{server.port}",
        "WARNING:  made a new database at ",
        "Database: ",
        "accounts: 0",
        "open /docs",
    ):
        assert line in log
    # Meanwhile, start another one on the same port.
    second = run_main(PORT=str(server.port), log="second.log")
    assert second.process.wait(20) != 0
    assert "address already in use" in second.log.read_text()
    assert "Traceback" not in second.log.read_text()
    # By default uvicorn closes a connection after 5 s.
    time.sleep(max(0, idle_since + 5.5 - time.monotonic()))
    assert b"location: /v1/docs" in answer_on(connection)
    connection.close()
    assert server.end() == 0
    assert not list(server.log.parent.glob("app.db-*")), "it was closed"


@pytest.mark.parametrize("port", ["http", "65536"])
def test_a_wrong_port_stops_the_start(
    run_main: Callable[..., MainPy], port: str
) -> None:
    run = run_main(PORT=port)
    assert run.process.wait(20) == 3
    assert "PORT must be a whole number" in run.log.read_text()
    assert "Traceback" not in run.log.read_text()
