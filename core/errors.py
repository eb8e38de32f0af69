"""Every refusal, written once: the code raises it, /docs lists it.

It promises an exception for each refusal, `documented` for the routers, and one shape
for all of them, `{"detail": …}`. Nothing else needs you to read this.
"""

import logging
import re
import sqlite3
from typing import Any, ClassVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy import exc
from sqlmodel import SQLModel
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.routing import Match, Mount

HOW_TO_LOG_IN = (
    "POST your email as username and your password as a form to /api/login,"
    " then send 'Authorization: Bearer' and the access_token."
)


class Refusal(HTTPException):
    """A refusal, with its status and its text."""

    status: ClassVar[int]
    text: ClassVar[Any]

    def __init__(self, headers: dict[str, str] | None = None) -> None:
        super().__init__(self.status, self.text, headers)


class BlankField(Refusal):
    status = 400
    text = "All fields are required."


class Unauthorized(Refusal):
    status = 401

    def __init__(self) -> None:
        super().__init__({"WWW-Authenticate": "Bearer"})


class NotSignedIn(Unauthorized):
    text = f"Log in first: {HOW_TO_LOG_IN}"


class DeadToken(Unauthorized):
    text = f"This token is unknown or has ended. Log in again: {HOW_TO_LOG_IN}"


class WrongLogin(Unauthorized):
    text = "Incorrect email or password."


class AdministratorsOnly(Refusal):
    status = 403
    text = "Only an administrator may do this."


class CurrentPasswordMissing(Refusal):
    status = 403
    text = "Send current_password too."


class WrongCurrentPassword(Refusal):
    status = 403
    text = "Current password is incorrect."


class UserNotFound(Refusal):
    status = 404
    text = "User not found."


class EmailTaken(Refusal):
    status = 409
    text = "Email already registered."


class BodyTooLarge(Refusal):
    status = 413
    text = "A body has at most 64 KiB."


class NotJSON(Refusal):
    status = 415
    text = (
        "Send JSON and the header 'Content-Type: application/json'"
        " (curl --json does both)."
    )


class NotAForm(Refusal):
    status = 415
    text = (
        "This is not a form: POST your email as username and your password as a form"
        " to /api/login (curl -d does)."
    )


class Mistake(Refusal):
    status = 422
    text = ({"type": "missing", "loc": ["body", "email"], "msg": "Field required"},)


class TooManyWrongPasswords(Refusal):
    status = 429
    text = "Too many wrong passwords. Wait a minute."

    def __init__(self, seconds: int) -> None:
        super().__init__({"Retry-After": str(seconds)})


class DatabaseUnavailable(Refusal):
    status = 503
    text = "The database does not answer. Try again in a moment."

    def __init__(self) -> None:
        super().__init__({"Retry-After": "1"})


class Detail(SQLModel):
    detail: str | list[dict[str, Any]]


def documented(*refusals: type[Refusal]) -> dict[int | str, dict[str, Any]]:
    """List refusals for `responses=`, each with its text as an example."""
    examples: dict[int, dict[str, Any]] = {}
    every_one: list[type[Refusal]] = [*refusals, DatabaseUnavailable]
    for refusal in every_one:
        of_status = examples.setdefault(refusal.status, {})
        of_status[str(refusal.text)] = {"value": {"detail": refusal.text}}
    responses: dict[int | str, dict[str, Any]] = {}
    for status, of_status in examples.items():
        content = {"application/json": {"examples": of_status}}
        responses[status] = {"model": Detail, "content": content}
    return responses


# ---- What goes wrong without being raised here: bad input, the database, mistakes ----


def answer(status: int, detail: Any) -> JSONResponse:
    return JSONResponse({"detail": detail}, status)


async def explain_validation(request: Request, error: Exception) -> JSONResponse:
    """Answer 422, or the 400 and 415 of the contract.

    What was sent may be a password, so it is not repeated.
    """
    assert isinstance(error, RequestValidationError)
    if isinstance(error.body, bytes):
        return answer(NotJSON.status, NotJSON.text)
    content_type = request.headers.get("content-type", "form").lower()
    if isinstance(error.body, FormData) and "form" not in content_type:
        return answer(NotAForm.status, NotAForm.text)
    mistakes = []
    for mistake in error.errors():
        if mistake["type"] == "blank":
            return answer(BlankField.status, BlankField.text)
        message = mistake["msg"]
        if mistake["type"] == "json_invalid":
            message = f"{message}: {mistake['ctx']['error']}"
        mistakes.append(
            {"type": mistake["type"], "loc": mistake["loc"], "msg": message}
        )
    return answer(422, mistakes[:20])


async def explain_length(_request: Request, _error: Exception) -> JSONResponse:
    return answer(413, BodyTooLarge.text)


async def explain_method(request: Request, error: Exception) -> JSONResponse:
    """Answer 405 with every method of the path, where a route knows only its own."""
    assert isinstance(error, HTTPException)
    allowed = []
    for method in ("GET", "POST", "PATCH", "PUT", "DELETE"):
        scope = {**request.scope, "method": method}
        for route in request.app.routes:
            if isinstance(route, Mount) or method in allowed:
                continue
            if route.matches(scope)[0] is Match.FULL:
                allowed.append(method)
    if "GET" in allowed:
        allowed.append("HEAD")
    response = answer(405, error.detail)
    response.headers["Allow"] = ", ".join(allowed)
    return response


async def explain_database(_request: Request, error: Exception) -> JSONResponse:
    """Answer 503 for what passes by itself and 409 for rows that collide.

    Anything else is a mistake in the code and becomes a 500 with its traceback.
    """
    assert isinstance(error, exc.SQLAlchemyError)
    if passes_by_itself(error):
        reason = str(getattr(error, "orig", error)).partition("\n")[0]
        logging.getLogger("uvicorn.error").error("database: %s", reason)
        unavailable = DatabaseUnavailable()
        return JSONResponse(
            {"detail": unavailable.detail}, unavailable.status, unavailable.headers
        )
    if isinstance(error, exc.IntegrityError):
        refusal = conflict(error)
        if isinstance(refusal, HTTPException):
            return answer(refusal.status_code, refusal.detail)
    raise error


# sqlite.org/rescode.html: busy, locked, out of memory, read-only, input or output,
# full, cannot be opened, locking protocol, not a database.
SQLITE_PASSING = {5, 6, 7, 8, 10, 13, 14, 15, 26}
# postgresql.org/docs/current/errcodes-appendix.html: connections, resources, shutdowns,
# the system; a statement that was ended, deadlocks, locks, a read-only transaction.
POSTGRESQL_PASSING = ("08", "53", "57", "58", "40001", "40P01", "55P03", "25006")


def passes_by_itself(error: exc.SQLAlchemyError) -> bool:
    """Tell whether the same request may succeed in a moment."""
    if not isinstance(error, exc.DBAPIError):
        return isinstance(error, exc.TimeoutError)  # no connection was free
    if isinstance(error.orig, sqlite3.Error):
        code = getattr(error.orig, "sqlite_errorcode", 0)
        return (
            code & 0xFF in SQLITE_PASSING
        )  # the rest of the bits say more of the same
    if error.connection_invalidated:  # another one is opened
        return True
    state = getattr(error.orig, "sqlstate", None)
    if state is None:  # no answer at all
        return isinstance(error, exc.OperationalError)
    return str(state).startswith(POSTGRESQL_PASSING)


def conflict(error: exc.IntegrityError) -> Exception:
    """Give the 409 for rows that collide, or the error itself if it is a mistake."""
    text = str(error.orig)
    diagnosis = getattr(error.orig, "diag", None)
    if diagnosis is not None:
        text = diagnosis.message_detail or ""
    state = getattr(error.orig, "sqlstate", None)  # of PostgreSQL, in any language
    unique = re.search(r"UNIQUE constraint failed: (.+)|\((.+?)\)=\(", text)
    if unique and state in {None, "23505"}:
        fields = unique[1] or unique[2]
        fields = re.sub(r"\w+\.", "", fields).replace('"', "")
        if fields == "email":
            return EmailTaken()
        return HTTPException(409, f"This {fields} is taken.")
    if "FOREIGN KEY constraint failed" in text or state == "23503":
        names = re.sub(r"=\(.*\) ", " ", text, flags=re.DOTALL)  # but not the value
        return HTTPException(
            409, f"A row is not there, or other rows need this one. ({names})"
        )
    return error


def explain_bug(_request: Request, _error: Exception) -> JSONResponse:
    response = answer(500, "Internal Server Error")
    # It is made outside the middleware, which adds these to all others.
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Cache-Control"] = "no-store"
    return response


def install(app: FastAPI) -> None:
    """Let the app answer all of this in one shape."""
    app.add_exception_handler(RequestValidationError, explain_validation)
    app.add_exception_handler(405, explain_method)
    app.add_exception_handler(413, explain_length)
    app.add_exception_handler(exc.SQLAlchemyError, explain_database)
    app.add_exception_handler(Exception, explain_bug)
