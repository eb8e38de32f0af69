r"""What the log says about people: which account, from which address, and no more.

It promises `note`, a line that holds no email, name or password; that uvicorn's own
lines leave out the query, which may hold a password; and that no client can forge a
line or colour the terminal (\x1b[31m does). Nothing else needs you to read this.
"""

import logging

from fastapi import Request

log = logging.getLogger("uvicorn.error")  # the one that uvicorn prints


def printable(text: str) -> str:
    """Write control characters and other invisible ones as their codes."""
    if text.isprintable():
        return text
    shown = []
    for character in text:
        if character.isprintable():
            shown.append(character)
        else:
            shown.append(character.encode("unicode_escape").decode())
    return "".join(shown)


def note(request: Request, event: str) -> None:
    """Log what happened, and the address of who asked for it."""
    # A Unix socket has no address, and a proxy may pass on what its client made up.
    host: str = getattr(request.client, "host", "a Unix socket")
    log.warning("%s", printable(f"{event}, from {host}"))


def hide_query(record: logging.LogRecord) -> bool:
    """Cut `?password=…` off the path in uvicorn's line about a request."""
    # '%s - "%s %s HTTP/%s" %d', or the like for a WebSocket, which is in the other log
    if ' - "' in str(record.msg):
        record.args = tuple(without_query(value) for value in record.args or ())
    return True


def without_query(value: object) -> object:
    if isinstance(value, str):
        path = value.partition("?")[0]
        return printable(path)
    return value


def install() -> None:
    """Make both of uvicorn's loggers leave out queries."""
    logging.getLogger("uvicorn.access").addFilter(hide_query)
    log.addFilter(hide_query)
