"""Queues with a time limit, for what only a few requests may do at once.

It promises `Queue` and `run_in_thread`; that nobody waits in them for ever, nor while
the server stops; and that a `Queue` drops requests whose client has gone and lets
addresses take turns, so that a crowd from one makes nobody else wait. Nothing else
needs you to read this.
"""

import asyncio
import ipaddress
import math
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import FrameType
from typing import Any, NamedTuple, TypeVar

from anyio import CancelScope, CapacityLimiter, Event, move_on_after, to_thread
from fastapi import Request
from starlette.types import Message

from core import errors
from core.outages import Outage, silence
from core.signals import handled_by

T = TypeVar("T")
AT_THE_END = 2  # seconds to wait for what a request still needs while the server stops

told_to_stop = threading.Event()
waits: set[CancelScope] = set()


class Waiter(NamedTuple):
    address: str
    key: str | None
    called: Event


class Queue:
    """A few have a turn at once; the others wait, each address in a line of its own."""

    def __init__(
        self,
        places: int,
        seconds: float,
        refusal: type[errors.Refusal],
        outage: Outage = silence,
        line_length: float = math.inf,
    ) -> None:
        self.free = places
        self.seconds = seconds  # the longest that anybody waits
        self.refusal = refusal  # for those who waited that long
        self.outage = outage  # while it is on, nobody gets a turn
        self.line_length = line_length
        self.lines: dict[str, list[Waiter]] = {}  # the first line has the next turn
        self.busy: set[str | None] = set()

    @asynccontextmanager
    async def turn(
        self, request: Request, key: str | None = None
    ) -> AsyncIterator[None]:
        """Wait for a turn; requests with the same key have theirs one at a time.

        Raises 429 if the line is too long, the queue's refusal after its seconds, and
        503 if somebody has just waited for the database in vain.
        """
        waiter = Waiter(client_network(request), key, Event())
        line = self.lines.get(waiter.address, [])
        if len(line) >= self.line_length:
            raise errors.TooManyWaiting
        line.append(waiter)
        self.lines[waiter.address] = line
        self.call_next()
        try:
            if not waiter.called.is_set():
                with until_over(request, self.seconds) as scope:
                    await waiter.called.wait()
                if scope.cancelled_caught:
                    raise self.refusal
            if self.outage.is_on():
                raise errors.DatabaseUnavailable
            yield
        finally:
            self.leave(waiter)

    def call_next(self) -> None:
        """Give a free place to the next waiter that may have it."""
        if self.free == 0:
            return
        waiter = self.find_next()
        if waiter is None:
            return
        self.free -= 1
        if waiter.key is not None:
            self.busy.add(waiter.key)
        line = self.lines.pop(waiter.address)
        line.remove(waiter)
        if line:
            self.lines[waiter.address] = line  # behind the other addresses
        waiter.called.set()

    def find_next(self) -> Waiter | None:
        for line in self.lines.values():
            for waiter in line:
                if waiter.key not in self.busy:
                    return waiter
        return None

    def leave(self, waiter: Waiter) -> None:
        """Give the place back, or give up waiting for one."""
        if waiter.called.is_set():
            self.free += 1
            self.busy.discard(waiter.key)
        else:
            line = self.lines[waiter.address]
            line.remove(waiter)
            if not line:
                del self.lines[waiter.address]
        self.call_next()


@contextmanager
def until_over(request: Request, seconds: float) -> Iterator[CancelScope]:
    """End the block after so many seconds, or when client or server goes away."""
    with until_stopped(seconds) as scope:
        watcher = asyncio.create_task(cancel_without_client(request, scope))
        try:
            yield scope
        finally:
            watcher.cancel()


async def cancel_without_client(request: Request, scope: CancelScope) -> None:
    message: Message = {"type": ""}
    while message["type"] != "http.disconnect":
        message = await request.receive()
    scope.cancel()


@contextmanager
def until_stopped(seconds: float) -> Iterator[CancelScope]:
    """End the block after so many seconds, or when the server is told to stop."""
    if told_to_stop.is_set():
        seconds = min(seconds, AT_THE_END)
    with move_on_after(seconds) as scope:
        waits.add(scope)
        try:
            yield scope
        finally:
            waits.discard(scope)


async def run_in_thread(
    limiter: CapacityLimiter, function: Callable[..., T], *arguments: Any
) -> T:
    """Wait at most 10 s for one of a few threads, and run a function in it."""
    with until_stopped(10):
        # A function that has begun runs to its end.
        return await to_thread.run_sync(function, *arguments, limiter=limiter)
    raise errors.DatabaseUnavailable


def stop_waiting() -> None:
    told_to_stop.set()
    for scope in waits:
        scope.cancel()


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """End all waiting as soon as Ctrl-C or SIGTERM tells the server to stop.

    The end of the lifespan would be too late: uvicorn answers every request before it.
    Its own signal handlers are called from here.
    """
    loop = asyncio.get_running_loop()

    def handle(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(stop_waiting)
        uvicorns[number](number, frame)

    with handled_by(handle) as uvicorns:
        yield


def client_network(request: Request) -> str:
    """Return a client's address; for IPv6 the /64, which one customer gets whole."""
    host: str = getattr(request.client, "host", "")  # there is none on a Unix socket
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((int(address), 64), strict=False))
