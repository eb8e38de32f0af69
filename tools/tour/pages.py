"""The pages /tour and /tour/accounts, and the events that they listen to.

It promises that only this machine gets them, unless something forwards a request and
leaves no trace; that an open page holds up neither a request nor the server's
shutdown; and that memory is bounded.
"""

import asyncio
import base64
import hashlib
import ipaddress
import json
import logging
import os
import re
import sys
import time
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path

from anyio import sleep, to_thread
from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, PlainTextResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from sqlalchemy.exc import SQLAlchemyError
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from core.refusals import DatabaseUnavailable
from core.turns import is_stopping
from tools.tour.journey import Journey
from tools.tour.steps import tell, tell_little
from tools.tour.tables import Watcher

log = logging.getLogger("uvicorn.error")
KEPT = 50  # requests
MAX_LEFT = 20  # pages that are hidden, or were closed
TICK = 0.05  # seconds between looks
PATIENCE = 0.5  # seconds for a client to read the last of it
REFUSAL = (
    "The tour is only for the machine that it runs on: open it there, at"
    " http://localhost and its port, with no proxy, tunnel or forwarded port between,"
    " and show it on a projector or share your screen. The API itself is for everybody."
)
NOTICE = (
    "The API listens on %s, but /tour answers only to this machine, at"
    " http://localhost and its port."
)
# What browsers and curl send by themselves.
OF_BROWSERS = re.compile(
    r"host|connection|user-agent|accept(-language|-encoding)?|cache-control|pragma"
    r"|upgrade-insecure-requests|sec-.*|origin|referer|cookie|authorization|dnt"
    r"|last-event-id|if-none-match|if-modified-since|priority|save-data"
)
A_LINK = {
    "sec-fetch-mode": "navigate",
    "sec-fetch-dest": "document",
    "sec-fetch-user": "?1",
}
HTML = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")


def hashes(tag: str) -> str:
    """Return what a Content-Security-Policy calls the page's own script or style."""
    found = re.findall(rf"<{tag}>(.*?)</{tag}>", HTML, flags=re.DOTALL)
    digests = [hashlib.sha256(text.encode()).digest() for text in found]
    return " ".join(f"'sha256-{base64.b64encode(one).decode()}'" for one in digests)


SAFE = {
    "Content-Security-Policy": "default-src 'none'; connect-src 'self';"
    f" script-src {hashes('script')}; style-src {hashes('style')}; img-src data:;"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
    " require-trusted-types-for 'script'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

# Names this start of the server, so that a page notices another one.
START = f"{os.getpid():x}{time.time_ns():x}"
journeys: deque[Journey] = deque(maxlen=KEPT)
counted = {"requests": 0, "changes": 0, "tables": 0, "refused": 0}
left: dict[str, Watcher] = {}  # by the last event that the page got


def publish(journey: Journey) -> None:
    """Let the pages know about a request, or that there is more to say about it."""
    counted["changes"] += 1
    journey.version = counted["changes"]
    journey.payload = ""
    if not journey.number:
        counted["requests"] += 1
        journey.number = counted["requests"]
        journeys.append(journey)


def payload(journey: Journey) -> str:
    """Write what the pages are told, once for all of them."""
    if not journey.payload:
        try:
            told = tell(journey)
        except Exception:  # one odd request must not end the page
            log.exception("The tour cannot show this request:")
            told = tell_little(journey)
        journey.payload = json.dumps(told)
    return journey.payload


def last_event(request: Request) -> str:
    """Return the id of the last event that a page got; empty for a new page."""
    in_url = request.query_params.get("last", "")
    return request.headers.get("last-event-id", in_url)  # which is the newer one


def last_seen(request: Request) -> int:
    """Return the number of the last change that a returning page knows."""
    start, _, version = last_event(request).partition("-")
    if start == START and version.isdigit():
        return int(version)
    return 0


pages = FastAPI(
    openapi_url=None, telemetry={"tracing": False, "metrics": False, "logs": False}
)


@pages.get("/tour")
@pages.get("/tour/accounts")
async def page() -> HTMLResponse:
    return HTMLResponse(HTML)


@pages.get("/tour/events", response_class=EventSourceResponse)
async def events(request: Request) -> AsyncIterator[ServerSentEvent]:
    """Send requests as they come: the last 50, and at most 50 a second."""
    seen = last_seen(request)
    pause = TICK
    yield ServerSentEvent(event="start", raw_data=START, retry=500)
    while not is_stopping():
        fresh = [one for one in journeys if one.version > seen]
        fresh.sort(key=lambda journey: journey.version)
        for journey in fresh:
            seen = journey.version
            event_id = f"{START}-{seen}"
            yield ServerSentEvent(
                event="request", raw_data=payload(journey), id=event_id
            )
        # A crowd would cost the API its time, so at most 50 a second are sent.
        await wait(pause)
        pause = TICK + len(fresh) / 50


@pages.get("/tour/accounts/events", response_class=EventSourceResponse)
async def account_events(request: Request) -> AsyncIterator[ServerSentEvent]:
    """Send the tables whenever somebody has written to them, whoever it was."""
    # A page that was hidden goes on from what it shows, and marks what is new.
    watcher = left.pop(last_event(request), None)
    if watcher is None:
        watcher = Watcher(seen=counted["changes"])
    try:
        yield ServerSentEvent(event="start", raw_data=START, retry=500)
        while not is_stopping():
            began = time.perf_counter()
            tables = None
            try:
                tables = await to_thread.run_sync(watcher.changed)
            except (SQLAlchemyError, DatabaseUnavailable) as error:
                # A writer's lock, a restart, a file that was moved away: look again.
                log.debug("the tour cannot read the tables now: %s", error)
                watcher.close()
            if tables is not None:
                watcher.event_id = ""
                # A row is there a moment before its request is answered.
                await wait(2 * TICK)
                who = who_wrote(watcher.seen)
                watcher.seen = counted["changes"]
                counted["tables"] += 1
                watcher.event_id = f"{START}-{counted['tables']}"
                says = [one for table in tables for one in table.pop("says")]
                data = {"tables": tables, "who": who, "says": says}
                yield ServerSentEvent(event="tables", data=data, id=watcher.event_id)
            took = time.perf_counter() - began
            await wait(0.15 + 5 * took)
    finally:
        watcher.close()
        if watcher.event_id:
            left[watcher.event_id] = watcher
        for event_id in list(left)[:-MAX_LEFT]:
            del left[event_id]


def who_wrote(seen: int) -> str:
    """Name the requests that have written since, or say that it was none of them."""
    fresh = [one for one in journeys if one.version > seen and one.has_written]
    if not fresh:
        return "Another program"
    if len(fresh) > 1:
        return f"{len(fresh)} requests"
    path = fresh[0].path.partition("?")[0]
    return f"{fresh[0].scope['method']} {path}"


async def wait(seconds: float) -> None:
    """Wait, but no longer than the server runs."""
    for _ in range(max(1, round(seconds / TICK))):
        if is_stopping():
            return
        await sleep(TICK)


def is_local(host: str) -> bool:
    """Tell whether an address is this machine's own, which nobody else comes from."""
    try:
        address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def objection(scope: Scope) -> str:
    """Say what shows that a request is not from a browser on this machine, if it does.

    What forwards a request mostly adds a header, and nobody knows the names of all: so
    only those that browsers send are let through.
    """
    headers = Headers(scope=scope)
    client = scope.get("client")  # none on a Unix socket, which is for a proxy
    odd = [name for name in headers if not OF_BROWSERS.fullmatch(name)]
    closes = headers.get("connection", "keep-alive").lower() != "keep-alive"
    hosts = headers.getlist("host")
    # Somebody else's host name that leads here is DNS rebinding.
    host = re.fullmatch(r"(\[[0-9a-f:.]+\]|[^:@/]+)(:\d+)?", "".join(hosts).lower())
    origin = headers.get("origin")
    is_here = headers.get("sec-fetch-site", "none") in {"none", "same-origin"}
    # A person may follow a link of another page, which cannot look at what comes.
    follows = all(headers.get(name) == value for name, value in A_LINK.items())
    is_elsewhere = len(hosts) != 1 or not host or not is_local(host[1])
    is_others = origin and origin.partition("://")[2] != "".join(hosts)
    found = (
        (not client or not is_local(client[0]), "It comes from another machine."),
        (odd, f"It was forwarded: browsers do not send {''.join(odd[:1])}."),
        (closes, "It was forwarded: browsers keep the connection open."),
        (scope["http_version"] == "1.0", "It was forwarded: it is HTTP/1.0."),
        (is_elsewhere, "It asks for another host."),
        (is_others or not (is_here or follows), "Another page asks for it."),
    )
    return next((why for is_so, why in found if is_so), "")


async def serve(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer what begins with /tour."""
    if why := objection(scope):
        counted["refused"] += 1
        if counted["refused"] == 1:
            log.warning("/tour was asked for from elsewhere, and refused. %s", REFUSAL)
        response: Response = PlainTextResponse(f"{REFUSAL} {why}", 403)
        response.headers.update(SAFE)
        await response(scope, receive, send)
        return

    async def send_safely(message: Message) -> None:
        if message["type"] == "http.response.start":
            for name, value in SAFE.items():
                message["headers"].append((name.lower().encode(), value.encode()))
        await send(message)

    goodbye = asyncio.create_task(hang_up(send))
    try:
        await pages(scope, receive, send_safely)
    finally:
        if not is_stopping():
            goodbye.cancel()


async def hang_up(send: Send) -> None:
    """Cut the connection of a client that no longer reads while the server stops.

    uvicorn itself would wait until everything that it has sent is read.
    """
    transport = getattr(getattr(send, "__self__", None), "transport", None)
    if transport is None:  # a server other than uvicorn
        return
    while not is_stopping():
        await wait(1)
    await sleep(PATIENCE)
    transport.abort()


def chosen_host() -> str:
    """Return the --host that uvicorn was started with.

    Other programs, such as `fastapi run`, do not say: the first refusal is logged.
    """
    for index, argument in enumerate(sys.argv):
        if argument == "--host":
            return "".join(sys.argv[index + 1 : index + 2])
        if argument.startswith("--host="):
            return argument.partition("=")[2]
    return os.environ.get("UVICORN_HOST", "127.0.0.1")


def say_where() -> None:
    """Log that the tour is only for this machine, if the API is for others as well."""
    host = chosen_host()
    if not is_local(host):
        log.warning(NOTICE, host)
