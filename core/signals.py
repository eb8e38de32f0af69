"""What to do at Ctrl-C and SIGTERM while something waits.

It promises `handled_by`. Nothing else needs you to read this.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

Handler = Callable[[int, FrameType | None], None]


@contextmanager
def handled_by(handler: Handler) -> Iterator[dict[int, Any]]:
    """Call a handler at these signals during the block; yield the earlier handlers."""
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
