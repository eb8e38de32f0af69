"""The same API, each request shown in seven steps: `uvicorn tools.tour:app --reload`.

Requests are on the page /tour, tables on /tour/accounts, and trees in this terminal.
Secrets are dots. Answers have the times, too: Server-Timing (w3.org/TR/server-timing).
"""

import re
import time

from starlette.types import Message, Receive, Scope, Send

import main

try:
    import pygments  # noqa: F401 # the page's colours
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
except ImportError:
    needed = "The tour needs: pip install -r tools/requirements.txt"
    raise SystemExit(needed) from None

from tools.tour import journey as notes
from tools.tour import pages, tree
from tools.tour.journey import MAX_KEPT, Journey, Steps, current

__all__ = ["app"]
# What browsers ask for on their own, to show /docs.
NOT_SHOWN = re.compile(
    r"/(docs|redoc|static-offline-docs|openapi\.json|favicon\.ico)(/|$)"
)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    # Without the prefix, if there is one.
    path = scope.get("path", "").removeprefix(scope.get("root_path", ""))
    if scope["type"] == "lifespan":
        pages.say_where()
    if scope["type"] != "http":
        await main.app(scope, receive, send)
    elif path == "/tour" or path.startswith("/tour/"):
        await pages.serve(scope, receive, send)
    else:
        await guide(scope, receive, send, is_shown=not NOT_SHOWN.match(path))


async def guide(scope: Scope, receive: Receive, send: Send, *, is_shown: bool) -> None:
    """Let the API answer, and note what happens on the way."""
    journey = Journey(scope)
    token = current.set(journey)
    told = (-1, 0)

    async def listen() -> Message:
        start = time.perf_counter()
        message = await receive()
        if message["type"] == "http.request":
            journey.receiving += 1000 * (time.perf_counter() - start)
            body = message.get("body", b"")
            journey.sent_size += len(body)
            journey.sent += body[: MAX_KEPT - len(journey.sent)]
        return message

    async def speak(message: Message) -> None:
        nonlocal told
        if message["type"] == "http.response.start":
            journey.status = message["status"]
            now = time.perf_counter()
            journey.add("total", now - journey.start)
            times = [f"{step};dur={took:.2f}" for step, took in journey.took.items()]
            if journey.took.keys() & {"dependencies", "endpoint"}:
                journey.sending = 1000 * (now - journey.last)
            header = (b"server-timing", ", ".join(times).encode())
            journey.headers = list(message["headers"])
            message["headers"] = [*message["headers"], header]
        body = message.get("body", b"")
        journey.answered_size += len(body)
        journey.answered += body[: MAX_KEPT - len(journey.answered)]
        is_answered = message["type"] == "http.response.body"
        if is_answered and is_shown and not journey.number:
            told = (journey.answered_size, len(journey.statements))
            pages.publish(journey)  # before the client can look for it on the page
        await send(message)

    try:
        await main.app(scope, listen, speak)
    finally:  # even after a 500, whose traceback uvicorn prints next
        current.reset(token)
        if is_shown:
            if told != (journey.answered_size, len(journey.statements)):
                pages.publish(journey)
            tree.show(journey)


trace.set_tracer_provider(provider := TracerProvider())
provider.add_span_processor(Steps())
notes.install()
