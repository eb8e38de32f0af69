r"""What the log says about people: which account, from which address, and no more.

uvicorn's own lines leave out the query, which may hold a password. No client can forge
a line or colour the terminal (\x1b[31m does).
"""

import logging

from fastapi.requests import HTTPConnection

from core.start import log


def printable(text: str) -> str:
    """Write control characters and other invisible ones as their codes."""
    shown = ""
    for character in text:
        if character.isprintable():
            shown += character
        else:
            shown += character.encode("unicode_escape").decode()
    return shown


def note(request: HTTPConnection, event: str) -> None:
    """Log what happened, and the address of who asked for it."""
    # A Unix socket has no address, and a proxy may pass on what its client made up.
    host: str = getattr(request.client, "host", "a Unix socket")
    log.warning("%s", printable(f"{event}, from {host}"))


def hide_query(record: logging.LogRecord) -> bool:
    """Cut `?password=…` off the path in uvicorn's line about a request."""
    # '%s - "%s %s HTTP/%s" %d', or the like for a WebSocket, which is in the other log
    if ' - "' in str(record.msg) and isinstance(record.args, tuple):
        shown = list(record.args)
        for index, part in enumerate(shown):
            if isinstance(part, str):
                shown[index] = printable(part.partition("?")[0])
        record.args = tuple(shown)
    return True


def install() -> None:
    """Make both of uvicorn's loggers leave out queries."""
    logging.getLogger("uvicorn.access").addFilter(hide_query)
    log.addFilter(hide_query)
