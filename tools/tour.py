"""The same API, and the way of each request through it as a tree in the terminal: `uvicorn tools.tour:app --reload`.

Built on FastAPI's own OpenTelemetry spans and SQLAlchemy's cursor events. Secrets show as ••••.
The answer has the times, too: its header Server-Timing (w3.org/TR/server-timing).
"""

import inspect
import json
import re
import sys
import time
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import bcrypt
from fastapi.telemetry import get_telemetry_data
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from pydantic import BaseModel
from rich.console import Console
from rich.text import Text
from rich.tree import Tree
from sqlalchemy import event
from starlette.types import Message, Receive, Scope, Send

import main
from database import engine

ROOT = Path(__file__).parent.parent
SECRET_NAME = re.compile(r"password|token(?!_type)", re.IGNORECASE)
SECRET_VALUE = re.compile(r"\$2b\$|[0-9a-f]{64}$")  # a bcrypt hash, a SHA-256


class Journey:
    def __init__(self) -> None:
        self.sent, self.answered, self.status = b"", b"", 0
        self.took: dict[str, float] = {}  # milliseconds a step
        self.checks, self.statements = list[str](), list[str]()

    def add(self, step: str, seconds: float) -> str:
        self.took[step] = self.took.get(step, 0) + 1000 * seconds
        return f"{1000 * seconds:.2f} ms"


current: ContextVar[Journey] = ContextVar("journey")


def veil(value: Any, name: str = "") -> Any:
    """Put dots where a secret is."""
    if isinstance(value, dict):
        return {key: veil(inner, str(key)) for key, inner in value.items()}
    if isinstance(value, list):
        return [veil(inner, name) for inner in value]
    secret = isinstance(value, str) and (
        SECRET_NAME.search(name) or SECRET_VALUE.match(value)
    )
    return "••••" if secret else value


def readable(body: bytes) -> str:
    try:
        value = json.loads(body or b'""')
    except ValueError:  # a form, or what is neither
        value = {} if b'"' in body else dict(parse_qsl(body.decode(errors="replace")))
    return json.dumps(veil(value), ensure_ascii=False) if value else ""


class Steps(SpanProcessor):
    def on_end(self, span: ReadableSpan) -> None:
        journey, data = current.get(None), get_telemetry_data()
        if (
            journey
            and data
            and span.start_time
            and span.end_time
            and span.name.startswith("fastapi.")
        ):
            journey.add(
                span.name.removeprefix("fastapi."),
                (span.end_time - span.start_time) / 1e9,
            )
        if journey and data and span.name == "fastapi.dependencies":
            for name, value in (data.values or {}).items():
                if isinstance(value, BaseModel):
                    sent = veil(value.model_dump(exclude_unset=True))
                    journey.checks.append(f"{name} = {type(value).__name__} {sent}")
            journey.checks += [
                f"wrong: {error['loc']} {error['msg']}" for error in data.errors or ()
            ]


def timed(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        start, result = time.perf_counter(), function(*arguments)
        if journey := current.get(None):
            journey.checks.append(
                f"bcrypt.{function.__name__} {journey.add('hashing', time.perf_counter() - start)}"
            )
        return result

    return call


def after_statement(
    _: Any, __: Any, statement: str, ___: Any, context: Any, ____: bool
) -> None:
    if journey := current.get(None):
        values = " ".join(
            str(veil(row))
            for row in getattr(context, "compiled_parameters", None) or ()
        )
        took = journey.add("sql", time.perf_counter() - context.started)
        journey.statements.append(f"{' '.join(statement.split())} {values} {took}")


def draw(scope: Scope, journey: Journey) -> Tree:
    def place(function: Any, pattern: str) -> str:
        lines, first = inspect.getsourcelines(function)
        offset = next(
            index for index, line in enumerate(lines) if re.match(pattern, line)
        )
        return f"{Path(inspect.getfile(function)).relative_to(ROOT)}:{first + offset} {lines[offset].strip()}"

    tree = Tree(
        Text(f"{scope['method']} {scope['path']} → {journey.status}", style="bold")
    )
    tree.add(Text(f"1 the request {readable(journey.sent)}"))
    if endpoint := scope.get("endpoint"):
        tree.add(Text(f"2 the route {place(endpoint, '@')}"))
        tree.add(Text(f"3 the path operation {place(endpoint, r'(async )?def ')}"))
        for title, found in (
            ("4 what it does first", journey.checks),
            ("5 the database", journey.statements),
        ):
            branch = tree.add(title)
            for line in found:
                branch.add(Text(line))
        if journey.status < 300:
            tree.add(
                Text(
                    f"6 the response model {getattr(scope['route'].response_model, '__name__', 'none')}"
                )
            )
    reached = 2 if not endpoint else 5 if "endpoint" in journey.took else 4
    stopped = f"stopped at step {reached} " if journey.status >= 400 else ""
    times = ", ".join(f"{step} {took:.2f} ms" for step, took in journey.took.items())
    tree.add(
        Text(
            f"7 the answer {journey.status} {readable(journey.answered)} {stopped}({times})"
        )
    )
    return tree


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    journey, start = Journey(), time.perf_counter()
    current.set(journey)

    async def listen() -> Message:
        message = await receive()
        journey.sent += message.get("body", b"")
        return message

    async def speak(message: Message) -> None:
        if message["type"] == "http.response.start":
            journey.status = message["status"]
            journey.add("total", time.perf_counter() - start)
            times = ", ".join(
                f"{step};dur={took:.2f}" for step, took in journey.took.items()
            )
            message["headers"] = [
                *message["headers"],
                (b"server-timing", times.encode()),
            ]
        journey.answered += message.get("body", b"")
        await send(message)

    await main.app(scope, listen, speak)
    if scope["type"] == "http" and scope["path"].startswith("/api"):
        Console(width=None if sys.stdout.isatty() else 1000).print(draw(scope, journey))


trace.set_tracer_provider(provider := TracerProvider())
provider.add_span_processor(Steps())
bcrypt.hashpw, bcrypt.checkpw = timed(bcrypt.hashpw), timed(bcrypt.checkpw)
event.listen(
    engine,
    "before_cursor_execute",
    lambda *given: setattr(given[4], "started", time.perf_counter()),
)
event.listen(engine, "after_cursor_execute", after_statement)
