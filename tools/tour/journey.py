"""What one request meets on its way: noted here, shown by tree.py and by steps.py.

Built on FastAPI's own OpenTelemetry spans and SQLAlchemy's events. A place is a line of
code that ran, read from Python's own stack.
"""

import sys
import sysconfig
import time
from collections.abc import Callable
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NamedTuple

import bcrypt
from anyio import to_thread
from fastapi._compat import ModelField
from fastapi.telemetry import TelemetryData, get_telemetry_data
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from pydantic import BaseModel
from sqlalchemy import Connection, ExceptionContext, event
from starlette.types import Scope

from core.data.sessions import engine
from core.settings import SQLITE
from tools.tour import veil

ROOT = Path(__file__).parent.parent.parent
HERE = str(Path(__file__).parent)
INSTALLED = tuple(sysconfig.get_paths().values())
MAX_KEPT = 256 * 1024  # bytes of a body
MAX_STATEMENTS = 200
MAX_ROWS = 20  # of one statement with many, and of the mistakes in a body


class Place(NamedTuple):
    """A line of code, and the line where its function begins."""

    file: str
    line: int
    first: int

    @property
    def is_core(self) -> bool:
        return self.file.startswith((f"{ROOT}/core/", f"{ROOT}/accounts/"))


class Statement(NamedTuple):
    sql: str
    rows: tuple[dict[str, Any], ...] = ()
    seconds: float | None = None
    refused: str = ""  # the database's own words
    places: tuple[Place, ...] = ()
    in_endpoint: bool = False


class Journey:
    """What one request has met on its way so far."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.number = 0
        self.version = 0
        self.began = time.time()
        self.start = self.last = time.perf_counter()
        self.sent, self.answered, self.status = b"", b"", 0
        self.sent_size = self.answered_size = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.took: dict[str, float] = {}  # milliseconds per step
        self.receiving = self.sending = 0.0  # milliseconds before the rest, and after
        self.sql_first = 0.0  # milliseconds in the database before the path operation
        self.checks: list[tuple[Any, ...]] = []  # a text, and the values after it
        self.statements: list[Statement] = []
        self.hashed: list[tuple[str, float, tuple[Place, ...]]] = []
        self.wrong: list[dict[str, Any]] = []
        self.raised: list[tuple[BaseException, Place]] = []  # by validators
        self.stopped_by: tuple[Place, ...] = ()
        self.stopped_in = ""
        self.in_endpoint = False
        self.payload = ""  # what the page is told, once it has been asked for

    def add(self, step: str, seconds: float) -> str:
        self.took[step] = self.took.get(step, 0) + 1000 * seconds
        if step == "sql" and not self.in_endpoint:
            self.sql_first += 1000 * seconds
        return f"{1000 * seconds:.2f} ms"

    def keep(
        self, sql: str, seconds: float | None = None, context: Any = None, no: str = ""
    ) -> None:
        """Note a statement and its values, or the database's words when it said no."""
        is_setting = sql.startswith(("PRAGMA", "SET LOCAL"))  # time-outs
        if is_setting or len(self.statements) >= MAX_STATEMENTS:
            return
        line = " ".join(sql.split())
        parameters = getattr(context, "compiled_parameters", None) or ()
        rows = tuple(dict(row) for row in parameters[:MAX_ROWS])
        here = places_here()
        statement = Statement(line, rows, seconds, no, here, self.in_endpoint)
        self.statements.append(statement)

    def learn(self, scope: Scope) -> None:
        """Copy the route from a scope that knows it: HEAD has a scope of its own."""
        for key in ("endpoint", "route", "path_params"):
            if key in scope:
                self.scope.setdefault(key, scope[key])

    def check(self, data: TelemetryData) -> None:
        """Note what validation and the dependencies have made, or found wrong."""
        for name, value in (data.values or {}).items():
            if isinstance(value, BaseModel):
                made = value.model_dump(exclude_unset=True)
                self.checks.append((f"{name} = {type(value).__name__}", made))
        for wrong in (data.errors or ())[:MAX_ROWS]:
            check = ("wrong:", ".".join(map(str, wrong["loc"])), wrong["msg"])
            if check not in self.checks:  # two functions may take the same body
                self.wrong.append(wrong)
                self.checks.append(check)

    @property
    def has_written(self) -> bool:
        verbs = {one.sql.partition(" ")[0].upper() for one in self.statements}
        return "COMMIT" in verbs and bool(verbs & {"INSERT", "UPDATE", "DELETE"})

    @property
    def secrets(self) -> set[str]:
        """Find what this request has sent that nobody may see."""
        found = [*veil.read(self.sent)[1], *veil.read(self.scope["query_string"])[1]]
        for name, value in self.scope.get("path_params", {}).items():
            if veil.is_secret(name):
                found.append(str(value))
        for name, value in self.scope["headers"]:
            text = value.decode("latin-1")
            found += veil.secrets_in_header(name.decode("latin-1"), text)
        # And what validation has made of it: 4711 of 04711.
        for statement in self.statements:
            for row in statement.rows:
                values = [row[name] for name in row if veil.is_secret(name)]
                found += [str(one) for one in values if len(str(one)) >= veil.SHORT]
        return set(found) - {""}

    @property
    def path(self) -> str:
        """Return the path and the query without secrets."""
        hidden = veil.Veil(self.secrets)
        path, route = self.scope["path"], self.scope.get("route")
        values = self.scope.get("path_params", {})
        if values and hidden.value(values) != values:
            path = getattr(route, "path", veil.DOTS)  # its pattern: /cards/{pin}
        elif values or not route:
            path = hidden.text(path)
        if not self.scope["query_string"]:
            return str(path)
        query = hidden.body(self.scope["query_string"], is_sent=True)
        if isinstance(query, dict):
            return f"{path}?" + "&".join(f"{name}={query[name]}" for name in query)
        return f"{path}?{veil.DOTS}"

    @property
    def reached(self) -> int:
        """Return the step at which a refused request stopped."""
        if not self.scope.get("endpoint"):
            return 2
        if self.stopped_in == "serialization":
            return 6
        return 5 if "endpoint" in self.took else 4


current: ContextVar[Journey] = ContextVar("journey")
# The places that called the function which runs in another thread.
caller: ContextVar[tuple[Place, ...]] = ContextVar("caller", default=())


def short(file: str) -> str:
    """Return a file's path in the project, or the whole path of a file elsewhere."""
    path = Path(file)
    if path.is_relative_to(ROOT):
        return str(path.relative_to(ROOT))
    return file


@lru_cache(4096)
def is_ours(file: str) -> bool:
    """Tell whether a file is the project's or a student's, and not installed."""
    if file.startswith((HERE, "<")) or "site-packages" in file:
        return False
    return not file.startswith(INSTALLED) or file.startswith(f"{ROOT}/")


def place_of(frame: FrameType, line: int) -> Place:
    return Place(frame.f_code.co_filename, line, frame.f_code.co_firstlineno)


def places_here() -> tuple[Place, ...]:
    """Return our own lines that are running now, the innermost first."""
    found = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if is_ours(frame.f_code.co_filename):
            found.append(place_of(frame, frame.f_lineno))
        frame = frame.f_back
    return (*found, *caller.get())


def places_of(traceback: TracebackType | None) -> tuple[Place, ...]:
    """Return our own lines that an exception came through, the innermost first."""
    found = []
    while traceback is not None:
        if is_ours(traceback.tb_frame.f_code.co_filename):
            found.append(place_of(traceback.tb_frame, traceback.tb_lineno))
        traceback = traceback.tb_next
    return tuple(reversed(found))


class Steps(SpanProcessor):
    """Notes what FastAPI's spans tell: times, and what validation has made."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        del parent_context
        if span.name == "fastapi.endpoint" and (journey := current.get(None)):
            journey.in_endpoint = True

    def on_end(self, span: ReadableSpan) -> None:
        journey, data = current.get(None), get_telemetry_data()
        if not journey or not data or not span.name.startswith("fastapi."):
            return
        step = span.name.removeprefix("fastapi.")
        if span.start_time and span.end_time:
            journey.add(step, (span.end_time - span.start_time) / 1e9)
        journey.last = time.perf_counter()
        if data.request:
            journey.learn(data.request.scope)
        error = sys.exc_info()[1]
        if error is not None and not journey.stopped_in:
            journey.stopped_in = step
            journey.stopped_by = places_of(error.__traceback__)
        if step == "dependencies":
            journey.check(data)


def timed(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        start = time.perf_counter()
        result = function(*arguments)
        if journey := current.get(None):
            seconds = time.perf_counter() - start
            took = journey.add("hashing", seconds)
            name = f"bcrypt.{function.__name__}"
            journey.checks.append((f"{name} {took}",))
            journey.hashed.append((name, seconds, places_here()))
        return result

    return call


def remembering(run_sync: Callable[..., Any]) -> Callable[..., Any]:
    """Let what runs in a thread know the places that called it."""

    async def call(*arguments: Any, **options: Any) -> Any:
        if current.get(None) is None:
            return await run_sync(*arguments, **options)
        token = caller.set(places_here())
        try:
            return await run_sync(*arguments, **options)
        finally:
            caller.reset(token)

    return call


def watched(validate: Callable[..., Any]) -> Callable[..., Any]:
    """Note the lines at which validators raise: pydantic forgets them."""

    def call(*arguments: Any, **options: Any) -> Any:
        journey = current.get(None)
        if journey is None or options.get("loc", ())[:1] == ("response",):
            return validate(*arguments, **options)

        def enter(frame: FrameType, _event: str, _argument: Any) -> Any:
            if not is_ours(frame.f_code.co_filename):
                return None
            frame.f_trace_lines = False
            return leave

        def leave(frame: FrameType, event: str, argument: Any) -> Any:
            if event == "exception":
                error = argument[1]
                journey.raised.append((error, place_of(frame, frame.f_lineno)))
            return leave

        before = sys.gettrace()
        sys.settrace(enter)
        try:
            return validate(*arguments, **options)
        finally:
            sys.settrace(before)

    return call


def before_statement(*given: Any) -> None:
    context = given[4]
    context.started = time.perf_counter()


def after_statement(*given: Any) -> None:
    _, _, statement, _, context, _ = given
    if journey := current.get(None):
        seconds = time.perf_counter() - context.started
        journey.add("sql", seconds)
        journey.keep(statement, seconds, context)


def refused_statement(error: ExceptionContext) -> None:
    if (journey := current.get(None)) and error.statement:
        context = error.execution_context
        if context is not None and hasattr(context, "started"):
            journey.add("sql", time.perf_counter() - context.started)
        reason = str(error.original_exception).partition("\n")[0]
        journey.keep(error.statement, None, context, reason)


def note(word: str) -> Callable[[Connection], None]:
    def add(_: Connection) -> None:
        if journey := current.get(None):
            journey.keep(word)

    return add


def timed_commit(commit: Callable[..., None]) -> Callable[..., None]:
    def call(*arguments: Any) -> None:
        start = time.perf_counter()
        commit(*arguments)
        if journey := current.get(None):
            journey.add("sql", time.perf_counter() - start)

    return call


def install() -> None:
    bcrypt.hashpw, bcrypt.checkpw = timed(bcrypt.hashpw), timed(bcrypt.checkpw)
    patches: list[tuple[Any, str, Callable[..., Any]]] = [
        (to_thread, "run_sync", remembering),
        (ModelField, "validate", watched),
        (engine.dialect, "do_commit", timed_commit),
    ]
    for owner, name, wrap in patches:
        setattr(owner, name, wrap(getattr(owner, name)))
    event.listen(engine, "before_cursor_execute", before_statement)
    event.listen(engine, "after_cursor_execute", after_statement)
    event.listen(engine, "handle_error", refused_statement)
    event.listen(engine, "commit", note("COMMIT"))
    event.listen(engine, "rollback", note("ROLLBACK"))
    if not SQLITE:  # SQLite's BEGIN is a statement like any other
        event.listen(engine, "begin", note("BEGIN"))
