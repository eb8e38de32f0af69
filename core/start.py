"""A start: what refuses it, and how it waits for what is not there yet."""

import logging
import time
from collections.abc import Callable

log = logging.getLogger("uvicorn.error")  # the one that uvicorn prints
START_SECONDS = 30  # the longest that a start waits for something


class StartRefused(Exception):
    """Why the server cannot start. The message says what to do about it."""


def keep_trying(attempt: Callable[[], str], subject: str) -> None:
    """Call `attempt` until it returns "", or else the reason why it failed.

    Says once what it waits for. Raises StartRefused after half a minute.
    """
    deadline = time.monotonic() + START_SECONDS
    is_told = False
    while reason := attempt():
        if time.monotonic() > deadline:
            raise StartRefused(f"{subject}: {reason}")
        if not is_told:
            seconds = START_SECONDS
            log.warning("%s: %s. Waiting for up to %s s", subject, reason, seconds)
            is_told = True
        time.sleep(0.5)
