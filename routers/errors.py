"""Every refusal, written once: the routers raise it, /docs lists it."""

import logging
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlmodel import SQLModel
from starlette.datastructures import FormData
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.types import Receive, Scope, Send

Error = tuple[int, Any]
BLANK: Error = 400, "All fields are required."
HOW = "POST your email as username and your password as a form to /api/login"
NOT_SIGNED_IN: Error = 401, f"Log in first: {HOW}, then send 'Authorization: Bearer' and the access_token."
WRONG_LOGIN: Error = 401, "Incorrect email or password."
NOT_YOURS: Error = 403, "Only an administrator may do this."
WRONG_PASSWORD: Error = 403, "Current password is incorrect."
NOT_FOUND: Error = 404, "User not found."
EMAIL_TAKEN: Error = 409, "Email already registered."
TOO_LARGE: Error = 413, "A body has at most 64 KiB."
NOT_JSON: Error = 415, "Send JSON and the header 'Content-Type: application/json' (curl --json does both)."
NOT_A_FORM: Error = 415, f"This is no form: {HOW} (curl -d does)."
MISTAKE: Error = 422, [{"type": "missing", "loc": ["body", "email"], "msg": "Field required"}]
WRONG_PLACE: Error = 422, [{"type": "after", "loc": ["query", "after"], "msg": "Take it from Link, with the same sort"}]
TOO_MANY_LOGINS: Error = 429, "Too many failed log-ins. Wait a minute."
NO_DATABASE: Error = 503, "The database does not answer. Try again in a moment."


class Detail(SQLModel):
    detail: str | list[dict[str, Any]]


def documented(*errors: Error) -> dict[int | str, dict[str, Any]]:
    """List errors for `responses=`, each with its text as the example."""
    responses: dict[int | str, dict[str, Any]] = {}
    for status, detail in (*errors, NO_DATABASE):
        response = responses.setdefault(status, {"model": Detail, "content": {"application/json": {"examples": {}}}})
        response["content"]["application/json"]["examples"][str(detail)] = {"value": {"detail": detail}}
    return responses


def answer(status: int, detail: Any, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"detail": detail}, status, headers)


async def explain_mistakes(request: Request, error: Exception) -> JSONResponse:
    """Answer 422, or the 400 and 415 of the contract. What was sent may be a password and is not repeated."""
    assert isinstance(error, RequestValidationError)
    if isinstance(error.body, bytes):
        return answer(*NOT_JSON)
    if isinstance(error.body, FormData) and "form" not in request.headers.get("content-type", "form"):
        return answer(*NOT_A_FORM)
    mistakes = [{key: mistake[key] for key in ("type", "loc", "msg")} for mistake in error.errors()]
    return answer(*BLANK) if any(mistake["type"] == "blank" for mistake in mistakes) else answer(422, mistakes)


async def explain_database(_: Request, error: Exception) -> JSONResponse:
    """Answer 503: the database is locked, gone or unreachable."""
    # The first line only: in the second one PostgreSQL may show a row.
    logging.getLogger("uvicorn.error").error("database: %s", str(getattr(error, "orig", error)).partition("\n")[0])
    return answer(*NO_DATABASE, {"Retry-After": "1"})


class Doorman(RequestBodyLimitMiddleware):
    """A trailing slash means nothing, and 413 is JSON where no route reads the body, too."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["path"] = scope["path"].rstrip("/") or "/"
            if int(dict(scope["headers"]).get(b"content-length", 0)) > self.max_body_size:
                return await answer(*TOO_LARGE)(scope, receive, send)
        return await super().__call__(scope, receive, send)
