"""The API with a gate before each hash and each search, for a test to close.

It is also less patient than the API, so that tests need not wait.

`serve(app="tests.gated:app")` starts it; the fixture `gate` opens, closes and watches.
They talk through files in the folder that it was started in; the log is there, too.
"""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import bcrypt
from fastapi import Request
from sqlmodel import Session
from starlette.types import Receive, Scope, Send

from core import engine, reads


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


# How long to wait for a lock on SQLite's file, instead of four seconds.
engine.LockTimeout.seconds = 1
bcrypt.hashpw = behind_gate("hashpw", bcrypt.hashpw)
bcrypt.checkpw = behind_gate("checkpw", bcrypt.checkpw)
run = behind_gate("search", reads.EndableQuery.run)
reads.EndableQuery.run = run  # type: ignore[method-assign] # on purpose

open_session = engine.open_session


@asynccontextmanager
async def note_session(request: Request) -> AsyncIterator[Session]:
    """Note that a request has come as far as its session."""
    note("session")
    async with open_session(request) as session:
        yield session


engine.open_session = note_session

from main import app as api


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        note(f"{scope['method']} {scope['path']}")
    await api(scope, receive, send)
