"""What goes wrong without being raised as a refusal: bad input, the database, mistakes.

Every answer has one shape, `{"detail": …}`.
"""

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exception_handlers import http_exception_handler
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy import exc
from sqlmodel import SQLModel
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.middleware.body_limit import MAX_BODY_SIZE_SCOPE_KEY
from starlette.routing import Match, Mount

from core import refusals
from core.data.columns import Misfit
from core.data.kinds import Broken, first_line
from core.data.sessions import database
from core.refusals import Refusal
from core.settings import may_call
from core.start import log
from core.texts import is_storable
from core.web import journal

# What to type instead, where pydantic's own words do not say it.
TEACHING = {
    "extra_forbidden": "There is no such field or parameter: /docs lists them",
    "model_attributes_type": 'Send a JSON object, like {"name": "John"}',
}
MAX_MISTAKES = 20  # the most that one answer lists
MAX_NAME = 100  # characters of a field's name
# Parameters that people know from lists with page numbers.
NUMBERED_PAGES = {"page", "offset", "skip", "start", "cursor", "per_page", "page_size"}
UNFIT = "A value that cannot be looked for or stored"

# Set by `install`: what an app knows about its own tables and forms.
taken: dict[tuple[str, str], type[Refusal]] = {}
hints: dict[tuple[str, str], str] = {}


async def explain_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    if error.status_code == HTTPStatus.TOO_MANY_REQUESTS:
        journal.note(request, f"429 for {request.method} {request.url.path}")
    detail: Any = error.detail
    if isinstance(detail, str):  # a path in it is as it is behind a proxy
        detail = detail.replace(" /api/", f" {request.scope['root_path']}/api/")
    content = {"detail": detail, **error.more}
    return JSONResponse(content, error.status_code, error.headers)


# ---- Bad input ----


async def explain_validation(request: Request, error: Exception) -> Response:
    """Answer 422, 400 or 415. What was sent may be a password: it is not repeated."""
    assert isinstance(error, RequestValidationError)
    if isinstance(error.body, bytes):
        return await explain_refusal(request, refusals.NotJSON())
    content_type = request.headers.get("content-type", "form").lower()
    if isinstance(error.body, FormData) and "form" not in content_type:
        return await explain_refusal(request, refusals.NotAForm())
    mistakes = []
    for found in error.errors():
        if isinstance(found.get("ctx", {}).get("error"), refusals.Blank):
            return await explain_refusal(request, refusals.BlankField())
        mistake = describe_mistake(request, found)
        if mistake not in mistakes:  # two functions may take the same body
            mistakes.append(mistake)
    mistakes = mistakes[:MAX_MISTAKES]
    return await explain_refusal(request, refusals.Mistake(mistakes))


def describe_mistake(request: Request, found: Mapping[str, Any]) -> dict[str, Any]:
    # Where it is; the name of an unknown field may be as long as the whole body.
    location = []
    for part in found["loc"]:
        location.append(part[:MAX_NAME] if isinstance(part, str) else part)
    kind = found["type"]
    message = TEACHING.get(kind, found["msg"])
    if kind == "value_error":
        message = str(found["ctx"].get("error", message))
    if kind == "json_invalid":
        message = f"{message}: {found['ctx']['error']}"
    if kind == "missing":
        path = request.scope["path"].removeprefix(request.scope["root_path"])
        message = hints.get((path, str(location[-1])), message)
    if location[0] == "query" and location[-1] in NUMBERED_PAGES:
        message = "Pages have no numbers: an answer's header Link leads to the next"
    return {"type": kind, "loc": location, "msg": message}


async def explain_http(request: Request, error: Exception) -> Response:
    """Answer 405 with every method of the path, and 413 in our words."""
    assert isinstance(error, HTTPException)
    if error.detail == "Content Too Large":
        limit = request.scope[MAX_BODY_SIZE_SCOPE_KEY]
        return await explain_refusal(request, refusals.BodyTooLarge(limit))
    response = await http_exception_handler(request, error)
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        response.headers["Allow"] = ", ".join(find_methods(request))
    return response


def find_methods(request: Request) -> list[str]:
    """List the methods of a path, where each route knows only its own."""
    allowed = []
    for method in ("GET", "POST", "PATCH", "PUT", "DELETE"):
        scope = {**request.scope, "method": method}
        for route in request.app.routes:
            if not isinstance(route, Mount) and route.matches(scope)[0] is Match.FULL:
                allowed.append(method)
                break
    if "GET" in allowed:
        allowed.append("HEAD")
    return allowed


# ---- The database ----


async def explain_database(request: Request, error: Exception) -> Response:
    """Answer 503 for what passes by itself, 409 for a collision, 422 for a misfit.

    Anything else is a mistake in the code and becomes a 500 with its traceback.
    """
    refusal = find_refusal(request, error)
    if refusal is None:
        raise error
    return await explain_refusal(request, refusal)


def find_refusal(request: Request, error: Exception) -> Refusal | None:
    match error:
        case Misfit():
            return refusals.Mistake([misfit("body", *one) for one in error.mistakes])
        case exc.TimeoutError():  # no connection was free
            return refusals.DatabaseUnavailable()
        case exc.DBAPIError() if reason := database.why_not_now(error):
            log.error("database: %s", first_line(error))
            return refusals.DatabaseUnavailable(reason)
        case exc.IntegrityError():
            return find_conflict(error)
        case exc.DBAPIError():
            is_unfit: object = database.is_unfit(error)
        case exc.StatementError():  # somebody looks for a moment without a zone, say
            is_query = str(error.statement).startswith("SELECT")
            is_unfit = is_query and isinstance(error.orig, ValueError)
        case _:  # the driver could not write a number or a text
            is_unfit = re.search("SQLite INTEGER|surrogates not", str(error))
    return refusals.Mistake([find_unfit(request)]) if is_unfit else None


def misfit(place: str, name: str, message: str) -> dict[str, Any]:
    return {"type": "misfit", "loc": [place, name], "msg": message}


def find_unfit(request: Request) -> dict[str, Any]:
    """Say which part of a request is to blame for what cannot be looked for."""
    for place, values in ("path", request.path_params), ("query", request.query_params):
        for name, value in values.items():
            # No text for a database, a negative or a large number.
            if not is_storable(str(value)) or re.fullmatch(r"-\d+|\d{10,}", str(value)):
                return misfit(place, name, UNFIT)
    return {"type": "misfit", "loc": ["body"], "msg": UNFIT}


def find_conflict(error: exc.IntegrityError) -> Refusal | None:
    """Return the 409 for rows that collide, or None for a mistake in the code."""
    broken = database.find_broken(error)
    match broken.rule:
        case "UNIQUE" if (broken.table, broken.names) in taken:
            return taken[broken.table, broken.names]()
        case "UNIQUE":
            return refusals.Conflict(f"This {broken.names} is taken.")
        case "CHECK":
            reason = f"The database's rule {broken.names} refuses this."
            return refusals.Conflict(reason)
        case "FOREIGN KEY":
            return refusals.Conflict(explain_reference(error.statement or "", broken))
    return None


def explain_reference(statement: str, broken: Broken) -> str:
    """Say which row is missing, or which rows are in the way, as far as one can tell.

    SQLite says only that some reference failed; then the statement says a little more.
    """
    changed = re.match(r'(INSERT INTO|UPDATE|DELETE FROM) "?(\w+)', statement)
    if changed is None:  # a COMMIT has no statement
        return "A row is not there, or other rows refer to this one."
    missing, referring = [], [broken.table] if broken.table else []
    for table in SQLModel.metadata.sorted_tables:
        for key in table.foreign_key_constraints:
            columns, target = ", ".join(key.column_keys), key.referred_table.name
            if table.name == changed[2] and broken.names in {"", columns}:
                missing.append(f"{columns}: there is no such row in {target}.")
            if target == changed[2] and not broken.table:
                referring.append(table.name)
    if missing and changed[1] != "DELETE FROM":
        return " Or ".join(sorted(missing))
    return f"Rows in {' or '.join(referring)} refer to this one."


# ---- Mistakes in the code ----


def explain_bug(request: Request, _error: Exception) -> JSONResponse:
    """Answer 500. It is made outside the middleware, which adds these to all others."""
    response = JSONResponse({"detail": "Internal Server Error"}, 500)
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Cache-Control"] = "no-store"
    # uvicorn closes the connection, and without this the next request on it is lost.
    response.headers["Connection"] = "close"
    origin = request.headers.get("origin", "")
    # Without this, a page would be told about CORS instead of the mistake.
    if origin and may_call(origin):
        response.headers["Access-Control-Allow-Origin"] = origin
        response.headers["Vary"] = "Origin"
    return response


def install(
    app: FastAPI,
    taken_values: Mapping[tuple[str, str], type[Refusal]],
    missing_fields: Mapping[tuple[str, str], str],
) -> None:
    """Make the app answer all of this in one shape.

    `taken_values` has the refusals of unique columns (table, column), and
    `missing_fields` what to send for a field (path, field).
    """
    taken.update(taken_values)
    hints.update(missing_fields)
    app.add_exception_handler(Refusal, explain_refusal)
    app.add_exception_handler(HTTPException, explain_http)
    app.add_exception_handler(RequestValidationError, explain_validation)
    for kind in (Misfit, exc.SQLAlchemyError, OverflowError, UnicodeEncodeError):
        app.add_exception_handler(kind, explain_database)
    app.add_exception_handler(Exception, explain_bug)
