"""The server: what its start and its stop do besides making the tables."""

import asyncio
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from core import settings
from core.data import reads, sessions
from core.start import StartRefused, log
from core.turns import stop_waiting

Handler = Callable[[int, FrameType | None], None]
START_FAILED = 3  # uvicorn's own exit code for it


@contextmanager
def starting() -> Iterator[None]:
    """Let Ctrl-C end a start that waits, and tell in one line why one is refused."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise StartRefused("Stopped before the start was complete.")

    try:
        with signals_handled_by(stop):
            yield
    except StartRefused:
        sys.tracebacklimit = 0  # the message says it all
        raise


@contextmanager
def running(app: FastAPI) -> Iterator[None]:
    """Let requests in; at Ctrl-C, end all waiting; at the end, close all connections.

    The end of the lifespan would be too late for what waits: uvicorn answers every
    request before it. Its own signal handlers are called from here.
    """
    loop = asyncio.get_running_loop()

    def stop(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(stop_waiting)
        uvicorns[number](number, frame)

    # Python scans new objects for garbage every 700 of them, a few times in each list.
    # Rarer scans make a list of 100 a sixth cheaper.
    gc.set_threshold(20_000)
    app.state.is_started = True
    log.info("To try the API, open /docs at the address that Uvicorn shows")
    with signals_handled_by(stop) as uvicorns:
        yield
    reads.loop_connection.close()
    sessions.close_all()


@contextmanager
def signals_handled_by(handler: Handler) -> Iterator[dict[int, Any]]:
    """Call a handler at Ctrl-C and SIGTERM; yield the earlier handlers."""
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():  # others get no signals
        for stop in (signal.SIGINT, signal.SIGTERM):
            old = signal.getsignal(stop)
            if callable(old):  # else the signal ends the process, or does nothing
                before[stop] = old
                signal.signal(stop, handler)
    try:
        yield before
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def serve(app: str, create_database: Callable[[], None]) -> None:
    """Serve an app, as its import string, for others: behind a proxy, with workers.

    uvicorn itself reads WEB_CONCURRENCY, the number of workers, and
    FORWARDED_ALLOW_IPS, the address of a proxy.
    """
    if os.environ.get("WEB_CONCURRENCY", "1") != "1":
        # What refuses the start is found out here, before a worker is started.
        logging.basicConfig(format="%(levelname)s:  %(message)s")  # as uvicorn will
        try:
            create_database()
            sessions.close_all()
        except StartRefused as refusal:
            print(refusal, file=sys.stderr)  # noqa: T201 # there is no log yet
            sys.exit(START_FAILED)
    uvicorn.run(
        app,
        host=os.environ.get("HOST") or "127.0.0.1",
        port=settings.PORT,
        root_path=os.environ.get("ROOT_PATH", ""),  # a prefix that a proxy strips
        # A proxy keeps a connection for 60 s. By default uvicorn closes it after 5 s,
        # perhaps just as the proxy sends a request on it, which would then be a 502.
        timeout_keep_alive=75,
        # Docker kills what has not stopped after 10 s.
        timeout_graceful_shutdown=8,
        # uvicorn ends a worker that is silent for 5 s; on a slow CPU imports take more.
        timeout_worker_healthcheck=60,
    )
