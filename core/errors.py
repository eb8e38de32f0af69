"""Every refusal, written once: the code raises it, and core/openapi.py lists it.

It promises an exception for each refusal, and one shape for all of them,
`{"detail": …}`. Nothing else needs you to read this.
"""

import re
import sqlite3
from typing import Any, ClassVar

from fastapi import FastAPI, Request, Response
from fastapi.exception_handlers import http_exception_handler
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy import exc
from sqlmodel import SQLModel
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.routing import Match, Mount

from core import foreign_keys, journal
from core.settings import may_call

HOW_TO_LOG_IN = (
    "POST your email as username and your password as a form to /api/login,"
    " then send 'Authorization: Bearer' and the access_token."
)


class Refusal(HTTPException):
    """A refusal, with its status, its text and what its header says."""

    status: ClassVar[int]
    text: ClassVar[Any]
    header: ClassVar[tuple[str, str] | None] = None

    def __init__(self, headers: dict[str, str] | None = None) -> None:
        super().__init__(self.status, self.text, headers)


class BlankField(Refusal):
    status = 400
    text = "All fields are required."


class Unauthorized(Refusal):
    status = 401
    header = ("WWW-Authenticate", "How to log in: `Bearer`.")

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


class HeadersTooLarge(Refusal):
    status = 431
    text = "The headers of a request have at most 16 KiB."


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


class ComeAgain(Refusal):
    """A refusal of what may be sent again after some seconds."""

    header = ("Retry-After", "Seconds to wait.")

    def __init__(self, seconds: int = 5) -> None:
        super().__init__({"Retry-After": str(seconds)})


class TooManyWrongPasswords(ComeAgain):
    status = 429
    text = "Too many wrong passwords. Wait a minute."


class TooManyWaiting(ComeAgain):
    status = 429
    text = "Too many passwords from your address are waiting. Try again in a moment."


class TooBusy(ComeAgain):
    status = 503
    text = "Too many passwords are waiting. Try again in a moment."


class SearchTooLong(ComeAgain):
    status = 503
    text = "A search or a count may wait for 10 s and take 10 s. Try again later."


class DatabaseUnavailable(ComeAgain):
    status = 503
    text = "The database does not answer. Try again in a moment."

    def __init__(self) -> None:
        super().__init__(1)


class UnknownOutcome(DatabaseUnavailable):
    text = (
        "The database did not say whether this was stored. Look before you send it"
        " again."
    )


# ---- What goes wrong without being raised here: bad input, the database, mistakes ----


# What to type instead, where pydantic's own words do not say it.
TEACHING = {
    "extra_forbidden": "There is no such field or parameter: /docs lists them",
    "model_attributes_type": 'Send a JSON object, like {"name": "John"}',
}
MAX_MISTAKES = 20  # the most that one answer lists
MAX_NAME = 100  # characters of a field's name
# Parameters that people know from lists with page numbers.
NUMBERED_PAGES = {"page", "offset", "skip", "start", "cursor", "per_page", "page_size"}


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
        return answer(NotAForm.status, keep_prefix(request, NotAForm.text))
    mistakes = []
    for mistake in error.errors():
        if mistake["type"] == "blank":
            return answer(BlankField.status, BlankField.text)
        message = mistake["msg"]
        # Where it is; the name of an unknown field may be as long as the whole body.
        location = []
        for part in mistake["loc"]:
            location.append(part[:MAX_NAME] if isinstance(part, str) else part)
        if mistake["type"] == "json_invalid":
            message = f"{message}: {mistake['ctx']['error']}"
        message = TEACHING.get(mistake["type"], message)
        if location == ["body", "username"]:
            message = "Send your email as username"
        if location[0] == "query" and location[-1] in NUMBERED_PAGES:
            message = "Pages have no numbers: an answer's header Link leads to the next"
        mistakes.append({"type": mistake["type"], "loc": location, "msg": message})
    return answer(422, mistakes[:MAX_MISTAKES])


def keep_prefix(request: Request, text: str) -> str:
    """Name the path of the log-in as it is behind a proxy or in another app."""
    return text.replace("/api/login", f"{request.scope['root_path']}/api/login")


async def explain_access(request: Request, error: Exception) -> Response:
    """Answer 401, and say where to log in."""
    assert isinstance(error, Unauthorized)
    error.detail = keep_prefix(request, error.detail)
    return await http_exception_handler(request, error)


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


async def explain_throttle(request: Request, error: Exception) -> Response:
    """Answer 429, and tell the log that somebody is slowed down."""
    assert isinstance(error, HTTPException)
    journal.note(request, f"429 for {request.method} {request.url.path}")
    return await http_exception_handler(request, error)


def first_line(error: Exception) -> str:
    """Return what went wrong in the database, without the statement or a row."""
    return str(getattr(error, "orig", error)).partition("\n")[0]


async def explain_database(request: Request, error: Exception) -> Response:
    """Answer 503 for what passes by itself, 409 for a collision, 422 for a misfit.

    Anything else is a mistake in the code and becomes a 500 with its traceback.
    """
    assert isinstance(error, exc.SQLAlchemyError)
    if passes_by_itself(error):
        journal.log.error("database: %s", first_line(error))
        orig = getattr(error, "orig", None)
        # core/patience.py has an error that says which refusal it is.
        refusal = getattr(orig, "refusal", DatabaseUnavailable)()
        return await http_exception_handler(request, refusal)
    if isinstance(error, exc.IntegrityError):
        collision = conflict(error)
        if isinstance(collision, HTTPException):
            return await http_exception_handler(request, collision)
    if getattr(getattr(error, "orig", None), "sqlstate", None) in UNFIT_VALUE:
        return answer(422, [UNFIT])
    raise error


# sqlite.org/rescode.html: busy, locked, out of memory, read-only, input or output,
# full, cannot be opened, locking protocol, not a database.
SQLITE_PASSING = {5, 6, 7, 8, 10, 13, 14, 15, 26}
# postgresql.org/docs/current/errcodes-appendix.html: connections, resources, shutdowns,
# the system; a statement that was ended, deadlocks, locks, a read-only transaction.
POSTGRESQL_PASSING = ("08", "53", "57", "58", "40001", "40P01", "55P03", "25006")


# Likewise: too long, out of range, not a time, not a character, too large for an index.
# An account's fields are checked earlier (core/fields.py); other tables' may not be.
UNFIT_VALUE = {"22001", "22003", "22008", "22021", "22P05", "54000"}
UNFIT = {
    "type": "not_storable",
    "loc": ["body"],
    "msg": "A value does not fit its column",
}


async def explain_overflow(_request: Request, error: Exception) -> JSONResponse:
    """Answer 422 for a number that SQLite cannot take, where PostgreSQL says 22003."""
    if not str(error).endswith("too large to convert to SQLite INTEGER"):
        raise error
    return answer(422, [UNFIT])


def passes_by_itself(error: exc.SQLAlchemyError) -> bool:
    """Tell whether the same request may succeed in a moment."""
    if not isinstance(error, exc.DBAPIError):
        return isinstance(error, exc.TimeoutError)  # no connection was free
    if isinstance(error.orig, sqlite3.Error):
        code = getattr(error.orig, "sqlite_errorcode", 0)
        main_code = code & 0xFF  # the higher bits only add detail
        return main_code in SQLITE_PASSING
    if error.connection_invalidated:  # another one is opened
        return True
    state = getattr(error.orig, "sqlstate", None)
    if state is None:  # no answer at all
        return isinstance(error, exc.OperationalError)
    return str(state).startswith(POSTGRESQL_PASSING)


def conflict(error: exc.IntegrityError) -> Exception:
    """Return the 409 for rows that collide, or the error itself if it is a mistake."""
    if isinstance(error.orig, sqlite3.Error):
        return explain_sqlite(str(error.orig)) or error
    return explain_postgresql(error) or error


def explain_sqlite(message: str) -> HTTPException | None:
    """Say what collided, from "UNIQUE constraint failed: user.email" and the like."""
    kind, _, names = message.partition(" constraint failed: ")
    if kind == "UNIQUE":
        table = names.partition(".")[0]
        return taken(table, names.replace(f"{table}.", ""))
    if kind == "FOREIGN KEY":
        return HTTPException(409, names)  # what core/foreign_keys.py has found
    if kind == "CHECK":
        return broken(names)
    return None


# postgresql.org/docs/current/errcodes-appendix.html, class 23
RESTRICT, FOREIGN_KEY, UNIQUE, CHECK = "23001", "23503", "23505", "23514"


def explain_postgresql(error: exc.IntegrityError) -> HTTPException | None:
    """Say what collided, from names alone: the server's sentences may be in French."""
    orig: Any = error.orig
    detail = re.search(r"\((.+?)\)=\(", orig.diag.message_detail or "")
    fields = ""
    if detail:
        fields = detail[1].replace('"', "")
    if orig.sqlstate == UNIQUE:
        return taken(orig.diag.table_name, fields)
    if orig.sqlstate == CHECK:
        return broken(orig.diag.constraint_name)
    if orig.sqlstate in {RESTRICT, FOREIGN_KEY}:
        reason = explain_reference(error.statement, orig.diag.table_name, fields)
        return HTTPException(409, reason)
    return None


def explain_reference(statement: str | None, referring: str, fields: str) -> str:
    """Say what is wrong with a reference from a table; a COMMIT has no statement."""
    if statement is None:
        return foreign_keys.UNKNOWN
    changed = re.match(r'(INSERT INTO|UPDATE) "?(\w+)', statement)
    if changed is None or changed[2] != referring:
        return foreign_keys.needed(referring)
    for table in SQLModel.metadata.tables.values():
        for key in table.foreign_key_constraints:
            if (table.name, ", ".join(key.column_keys)) == (referring, fields):
                return foreign_keys.missing(fields, key.referred_table.name)
    return foreign_keys.UNKNOWN


def taken(table: str, fields: str) -> HTTPException:
    if (table, fields) == ("user", "email"):
        return EmailTaken()
    return HTTPException(409, f"This {fields} is taken.")


def broken(rule: str) -> HTTPException:
    return HTTPException(409, f"The database's rule {rule} refuses this.")


def explain_bug(request: Request, _error: Exception) -> JSONResponse:
    response = answer(500, "Internal Server Error")
    # It is made outside the middleware, which adds these to all others.
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Cache-Control"] = "no-store"
    origin = request.headers.get("origin", "")
    # Without this, a page would be told about CORS instead of the mistake.
    if origin and may_call(origin):
        response.headers["Access-Control-Allow-Origin"] = origin
        response.headers["Vary"] = "Origin"
    return response


def install(app: FastAPI) -> None:
    """Make the app answer all of this in one shape."""
    app.add_exception_handler(RequestValidationError, explain_validation)
    app.add_exception_handler(Unauthorized, explain_access)
    app.add_exception_handler(405, explain_method)
    app.add_exception_handler(413, explain_length)
    app.add_exception_handler(429, explain_throttle)
    app.add_exception_handler(exc.SQLAlchemyError, explain_database)
    app.add_exception_handler(OverflowError, explain_overflow)
    app.add_exception_handler(Exception, explain_bug)
