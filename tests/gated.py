"""The API with a gate before each hash and each search, for a test to close.

It is also less patient than the API, so that tests need not wait.

`serve(app="tests.gated:app")` starts it; the fixture `gate` opens, closes and watches.
They talk through files in the folder that it was started in; the log is there, too.
"""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import bcrypt
from fastapi.requests import HTTPConnection
from sqlmodel import Session
from starlette.types import Receive, Scope, Send

from core import settings
from core.data import reads, sessions


def note(event: str) -> None:
    with Path("gate.log").open("a") as log:
        log.write(f"{event}\n")


def behind_gate(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def wait(*arguments: Any) -> Any:
        note(name)
        while Path(f"{name} waits").exists():
            time.sleep(0.01)
        return function(*arguments)

    return wait


if settings.SQLITE:
    sqlite: Any = import_module("core.data.sqlite")
    sqlite.LOCK_TIMEOUT = 1  # s, for a lock on the file, instead of four
bcrypt.hashpw = behind_gate("hashpw", bcrypt.hashpw)
bcrypt.checkpw = behind_gate("checkpw", bcrypt.checkpw)
reads.scan_in_thread = behind_gate("search", reads.scan_in_thread)

open_session = sessions.open_session


@asynccontextmanager
async def note_session(connection: HTTPConnection) -> AsyncIterator[Session]:
    """Note that a request has come as far as its session."""
    note("session")
    async with open_session(connection) as session:
        yield session


sessions.open_session = note_session

from main import app as api


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        note(f"{scope['method']} {scope['path']}")
    await api(scope, receive, send)
