"""The same API, each request shown as a tree: `uvicorn tools.tour:app --reload`.

Built on FastAPI's own OpenTelemetry spans and SQLAlchemy's events. Secrets are dots.
The answer has the times, too: its header Server-Timing (w3.org/TR/server-timing).
"""

import inspect
import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import bcrypt
from fastapi.telemetry import get_telemetry_data
from pydantic import BaseModel
from rich.console import Console
from rich.text import Text
from rich.tree import Tree
from sqlalchemy import Connection, ExceptionContext, event
from starlette.types import Message, Receive, Scope, Send

import main
from core.engine import engine
from core.journal import printable
from core.settings import SQLITE

try:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
except ImportError:
    needed = "The tour needs: pip install -r tools/requirements.txt"
    raise SystemExit(needed) from None

ROOT = Path(__file__).parent.parent
SECRET_NAME = re.compile(r"pass|pwd|secret|key|hash|token(?!_type)", re.IGNORECASE)
SECRET_VALUE = re.compile(r"\$2[abxy]\$[^\s'\"]*|\b[0-9a-f]{64}\b")  # bcrypt, SHA-256
DOTS = "••••"


class Journey:
    """What one request has met on its way so far."""

    def __init__(self) -> None:
        self.sent, self.answered, self.status = b"", b"", 0
        self.took: dict[str, float] = {}  # milliseconds a step
        self.checks: list[str] = []
        self.statements: list[str] = []

    def add(self, step: str, seconds: float) -> str:
        self.took[step] = self.took.get(step, 0) + 1000 * seconds
        return f"{1000 * seconds:.2f} ms"

    def hide(self, message: str) -> str:
        """Put dots where a message repeats a secret that was sent."""
        _, secrets = read(self.sent)
        for secret in secrets:
            message = message.replace(secret, DOTS)
        return message


current: ContextVar[Journey] = ContextVar("journey")


def parse(body: bytes) -> Any:
    """Read JSON or a form; of what is neither tell only the size."""
    try:
        return json.loads(body)
    except ValueError:
        form = dict(parse_qsl(body.decode(errors="replace")))
    if form and all(re.fullmatch(r"\w+", name) for name in form):
        return form
    # JSON with a comma too many, multipart: nobody knows where the secret is.
    return f"{len(body)} bytes that are neither JSON nor an urlencoded form"


def secrets_in(value: Any, name: str = "") -> Iterator[str]:
    """Find what is called a secret, at any depth."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from secrets_in(inner, f"{name} {key}")
    elif isinstance(value, list):
        for inner in value:
            yield from secrets_in(inner, name)
    elif SECRET_NAME.search(name) and value:
        yield str(value)


def veil(value: Any, name: str = "") -> Any:
    """Put dots where a secret is, whatever it is made of."""
    if SECRET_NAME.search(name):
        return DOTS
    if isinstance(value, dict):
        return {key: veil(inner, str(key)) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [veil(inner) for inner in value]
    return value


def read(body: bytes) -> tuple[str, list[str]]:
    """Give what of a body may be shown, and the secrets that are in it."""
    if not body:
        return "", []
    try:
        value = parse(body)
        return json.dumps(veil(value), ensure_ascii=False), list(secrets_in(value))
    except RecursionError:
        return "nested too deeply to be shown", []


def line(text: str) -> Text:
    """Make a line that shows no hash, and that cannot command the terminal."""
    return Text(printable(SECRET_VALUE.sub(DOTS, text)))


class Steps(SpanProcessor):
    """Notes what FastAPI's spans tell: times, and what validation has made."""

    def on_end(self, span: ReadableSpan) -> None:
        journey, data = current.get(None), get_telemetry_data()
        if not journey or not data or not span.name.startswith("fastapi."):
            return
        if span.start_time and span.end_time:
            seconds = (span.end_time - span.start_time) / 1e9
            journey.add(span.name.removeprefix("fastapi."), seconds)
        if span.name == "fastapi.dependencies":
            for name, value in (data.values or {}).items():
                if isinstance(value, BaseModel):
                    made = veil(value.model_dump(exclude_unset=True))
                    journey.checks.append(f"{name} = {type(value).__name__} {made}")
            for error in data.errors or ():
                wrong = f"wrong: {error['loc']} {error['msg']}"
                journey.checks.append(journey.hide(wrong))


def timed(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        start = time.perf_counter()
        result = function(*arguments)
        if journey := current.get(None):
            took = journey.add("hashing", time.perf_counter() - start)
            journey.checks.append(f"bcrypt.{function.__name__} {took}")
        return result

    return call


def before_statement(*given: Any) -> None:
    context = given[4]
    context.started = time.perf_counter()


def statement_line(statement: str, parameters: Any) -> str:
    values = " ".join(str(veil(row)) for row in parameters or ())
    return f"{' '.join(statement.split())} {values}".strip()


def after_statement(*given: Any) -> None:
    _, _, statement, _, context, _ = given
    if journey := current.get(None):
        took = journey.add("sql", time.perf_counter() - context.started)
        parameters = getattr(context, "compiled_parameters", None)
        journey.statements.append(f"{statement_line(statement, parameters)} {took}")


def refused_statement(error: ExceptionContext) -> None:
    if (journey := current.get(None)) and error.statement:
        context = error.execution_context
        parameters = getattr(context, "compiled_parameters", None)
        reason = str(error.original_exception).partition("\n")[0]
        refused = statement_line(error.statement, parameters)
        journey.statements.append(f"{refused} refused: {journey.hide(reason)}")


def note(word: str) -> Callable[[Connection], None]:
    def add(_: Connection) -> None:
        if journey := current.get(None):
            journey.statements.append(word)

    return add


def place(function: Any, pattern: str) -> str:
    """Give file, number and text of a function's line that begins with a pattern."""
    lines, first = inspect.getsourcelines(function)
    for number, text in enumerate(lines, first):
        if re.match(pattern, text):
            file = Path(inspect.getfile(function)).relative_to(ROOT)
            return f"{file}:{number} {text.strip()}"
    raise LookupError(pattern)


def draw(scope: Scope, journey: Journey) -> Tree:
    title = line(f"{scope['method']} {scope['path']} → {journey.status}")
    title.stylize("bold")
    sent, _ = read(journey.sent)
    answered, _ = read(journey.answered)
    tree = Tree(title)
    tree.add(line(f"1 the request {sent}"))
    if endpoint := scope.get("endpoint"):
        tree.add(line(f"2 the route {place(endpoint, '@')}"))
        tree.add(line(f"3 the path operation {place(endpoint, '(async )?def ')}"))
        body = scope["route"].body_field
        if body:
            name = body.field_info.annotation.__name__
            if name.startswith("Body_"):
                name = "a form"
            journey.checks.insert(0, f"the body is checked as {name}")
        steps = (
            ("4 what it does first", journey.checks),
            ("5 the database", journey.statements),
        )
        for step, found in steps:
            branch = tree.add(step)
            for text in found:
                branch.add(line(text))
        if journey.status < 300:
            model = scope["route"].response_model
            tree.add(line(f"6 the response model {getattr(model, '__name__', model)}"))
    reached = 2 if not endpoint else 5 if "endpoint" in journey.took else 4
    stopped = f"stopped at step {reached} " if journey.status >= 400 else ""
    times = ", ".join(f"{step} {took:.2f} ms" for step, took in journey.took.items())
    answer = f"{journey.status} {journey.hide(answered)} {stopped}({times})"
    tree.add(line(f"7 the answer {answer}"))
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
            times = [f"{step};dur={took:.2f}" for step, took in journey.took.items()]
            header = (b"server-timing", ", ".join(times).encode())
            message["headers"] = [*message["headers"], header]
        journey.answered += message.get("body", b"")
        await send(message)

    try:
        await main.app(scope, listen, speak)
    finally:  # after a 500, too, whose traceback uvicorn prints next
        api = scope.get("root_path", "") + "/api"  # behind a prefix, if there is one
        if scope["type"] == "http" and scope["path"].startswith(api):
            console = Console(width=None if sys.stdout.isatty() else 1000)
            console.print(draw(scope, journey))


trace.set_tracer_provider(provider := TracerProvider())
provider.add_span_processor(Steps())
bcrypt.hashpw, bcrypt.checkpw = timed(bcrypt.hashpw), timed(bcrypt.checkpw)
event.listen(engine, "before_cursor_execute", before_statement)
event.listen(engine, "after_cursor_execute", after_statement)
event.listen(engine, "handle_error", refused_statement)
event.listen(engine, "commit", note("COMMIT"))
event.listen(engine, "rollback", note("ROLLBACK"))
if not SQLITE:  # whose BEGIN is a statement like others
    event.listen(engine, "begin", note("BEGIN"))
