"""Lines: how many requests may do something at once, and how long the others wait.

In a `Line` nobody waits for ever, nor while the server stops. Where it is told from
which addresses requests come, these take turns, so that a crowd from one of them makes
nobody else wait long.
"""

import asyncio
import contextlib
import ipaddress
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakKeyDictionary, WeakSet

from anyio import CapacityLimiter
from fastapi.requests import HTTPConnection

from core.refusals import ComeAgain, TooManyWaiting

Loop = asyncio.AbstractEventLoop
AT_THE_END = 2  # seconds to wait for what a request still needs while the server stops
# For what runs in a thread during a turn: the line has said how many may.
NO_LIMIT = CapacityLimiter(math.inf)

lines: list["Line"] = []
stopping: WeakSet[Loop] = WeakSet()  # the event loops of servers that stop


class Waiter:
    """A request in a line. Its event belongs to its event loop, as all do."""

    def __init__(self, address: str, key: str) -> None:
        self.address = address
        self.key = key
        self.called = asyncio.Event()
        self.has_turn = False  # it may also be called to be refused


class Places:
    """Who has a turn and who waits, in one event loop."""

    def __init__(self, number: int) -> None:
        self.free = number
        self.busy: set[str] = set()  # the keys of those who have a turn
        self.waiting: list[Waiter] = []  # those who came first come first

    def next_waiter(self) -> Waiter | None:
        """Return the first waiter whose key is free."""
        for waiter in self.waiting:
            if waiter.key not in self.busy:
                return waiter
        return None

    def call_next(self) -> None:
        """Give a free place to the next waiter that may have it."""
        waiter = self.next_waiter()
        if self.free == 0 or waiter is None:
            return
        self.free -= 1
        if waiter.key:
            self.busy.add(waiter.key)
        self.waiting.remove(waiter)
        # Whoever waits at the same address is now behind those at others.
        self.waiting.sort(key=lambda other: other.address == waiter.address)
        waiter.has_turn = True
        waiter.called.set()

    def leave(self, waiter: Waiter) -> None:
        """Give the place back, or give up waiting for one."""
        if waiter.has_turn:
            self.free += 1
            self.busy.discard(waiter.key)
        else:
            self.waiting.remove(waiter)
        self.call_next()


class Line:
    """A few have a turn at once; the others wait."""

    def __init__(
        self,
        number: int,
        seconds: float,
        refusal: type[ComeAgain],
        longest: float = math.inf,
    ) -> None:
        self.number = number
        self.seconds = seconds  # the longest that anybody waits
        self.refusal = refusal  # for those who have waited that long
        self.longest = longest  # how many of one address may wait
        self.by_loop: WeakKeyDictionary[Loop, Places] = WeakKeyDictionary()
        lines.append(self)

    @property
    def places(self) -> Places:
        """Those of the event loop that runs here: a server in a thread has its own."""
        loop = asyncio.get_running_loop()
        if loop not in self.by_loop:
            self.by_loop[loop] = Places(self.number)
        return self.by_loop[loop]

    @asynccontextmanager
    async def turn(self, address: str = "", key: str = "") -> AsyncIterator[None]:
        """Wait for a turn; those with the same key have theirs one at a time.

        Raises 429 if too many of the address wait, and the refusal of the line.
        """
        places = self.places
        there = [waiter for waiter in places.waiting if waiter.address == address]
        if len(there) >= self.longest:
            raise TooManyWaiting
        waiter = Waiter(address, key)
        places.waiting.append(waiter)
        places.call_next()
        try:
            if not waiter.has_turn:
                seconds = AT_THE_END if is_stopping() else self.seconds
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await waiter.called.wait()
            if not waiter.has_turn:
                raise self.refusal
            yield
        finally:
            places.leave(waiter)

    def refuse_all(self) -> None:
        """Refuse everybody who waits now."""
        for waiter in self.places.waiting:
            waiter.called.set()


def is_stopping() -> bool:
    """Tell whether the server of this event loop has been told to stop."""
    return asyncio.get_running_loop() in stopping


def stop_waiting() -> None:
    """End all waiting in this event loop: its server has been told to stop."""
    stopping.add(asyncio.get_running_loop())
    for line in lines:
        line.refuse_all()


def client_network(request: HTTPConnection) -> str:
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
