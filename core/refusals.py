"""The refusals that any route may give, each with its status and its text.

A router raises them, and lists them for /docs with `documented` (core/web/openapi.py).
A refusal of your own is a class like these.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from starlette.exceptions import HTTPException


class Refusal(HTTPException):
    """A refusal: {"detail": text}, and what its header says."""

    status: ClassVar[int]
    text: ClassVar[Any]
    header: ClassVar[tuple[str, str] | None] = None  # its name, and what it is for
    more: ClassVar[Mapping[str, str]] = {}  # what stands beside `detail`

    def __init__(
        self, detail: Any = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(self.status, detail or self.text, headers)


class Blank(ValueError):
    """Raised by the rule of a field that was left empty. Answered as BlankField."""


class BlankField(Refusal):
    status = 400
    text = "All fields are required."


class Forged(Refusal):
    status = 400
    text = "X-Forwarded-For and X-Forwarded-Proto are for a proxy to send, once."


class Unauthorized(Refusal):
    status = 401
    header = ("WWW-Authenticate", "How to log in: `Bearer`.")

    def __init__(self) -> None:
        super().__init__(headers={"WWW-Authenticate": "Bearer"})


class NotFound(Refusal):
    status = 404
    text = "Not found."


class Conflict(Refusal):
    status = 409
    text = "This is taken, or other rows need it."


class BodyTooLarge(Refusal):
    status = 413
    text = "A body has at most 64 KiB."

    def __init__(self, limit: int) -> None:
        super().__init__(f"A body has at most {limit // 1024:,} KiB.")


class NotJSON(Refusal):
    status = 415
    text = (
        "Send JSON and the header 'Content-Type: application/json'"
        " (curl --json does both)."
    )


class NotAForm(Refusal):
    status = 415
    text = "Send a form, in UTF-8: curl -d name=value does, and -F with a file."


class Mistake(Refusal):
    """A list of mistakes, in the shape of those that FastAPI finds."""

    status = 422
    text = ({"type": "missing", "loc": ["body", "email"], "msg": "Field required"},)


class HeadersTooLarge(Refusal):
    status = 431
    text = "The headers of a request have at most 16 KiB."


class ClientGone(Refusal):
    status = 499  # nginx's number for it; nobody reads this
    text = "The client has gone."


class ComeAgain(Refusal):
    """A refusal of what may be sent again after some seconds."""

    header = ("Retry-After", "Seconds to wait.")
    seconds: ClassVar[int] = 5

    def __init__(self, detail: str | None = None, seconds: int | None = None) -> None:
        super().__init__(detail, {"Retry-After": str(seconds or self.seconds)})


class TooManyWaiting(ComeAgain):
    status = 429
    text = "Too many requests from your address are waiting. Try again in a moment."


class SearchTooLong(ComeAgain):
    status = 503
    text = "A search or a count may wait for 10 s and take 10 s. Try again later."


class DatabaseUnavailable(ComeAgain):
    status = 503
    text = "The database does not answer. Try again in a moment."
    seconds = 1
