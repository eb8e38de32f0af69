"""What /docs and generated clients know about each route: its refusals and headers.

It promises a dictionary for `responses=` of each route, and `documented` to make one;
and that /docs sends requests and log-ins to where the API is, even behind a prefix.
Nothing else needs you to read this.
"""

import copy
import re
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from sqlmodel import SQLModel
from starlette.routing import Route

from core import errors

Responses = dict[int | str, dict[str, Any]]


class Refused(SQLModel):
    """Why a request was refused."""

    detail: str


class FieldMistake(SQLModel):
    """What is wrong, and where: `["body", "email"]`."""

    type: str
    loc: list[str | int]
    msg: str


class Mistakes(SQLModel):
    """What is wrong with what was sent."""

    detail: list[FieldMistake]


def get_operation_id(route: APIRoute) -> str:
    """Name an operation in generated clients after its function here."""
    return route.name


async def show_document(request: Request) -> JSONResponse:
    """Show the OpenAPI document, with the prefix in it if there is one.

    FastAPI's own route, which comes after this one, writes the prefix as the server
    "/v1". A tokenUrl "api/login" would then be /api/login, outside the prefix.
    """
    document = request.app.openapi()
    prefix = request.scope["root_path"]
    if prefix:
        document = copy.deepcopy(document)
        document["servers"] = [{"url": prefix}, *document.get("servers", [])]
        components = document.get("components", {})
        for scheme in components.get("securitySchemes", {}).values():
            for flow in scheme.get("flows", {}).values():
                add_prefix(flow, prefix)
    return JSONResponse(document)


def add_prefix(flow: dict[str, Any], prefix: str) -> None:
    """Put the prefix before the URLs of a log-in, but not before those elsewhere."""
    for name in ("tokenUrl", "authorizationUrl", "refreshUrl"):
        url = flow.get(name, "://")
        if "://" not in url:
            flow[name] = f"{prefix}/{url.removeprefix('/')}"


DOCUMENT = Route("/openapi.json", show_document, include_in_schema=False)


def document_header(name: str, description: str) -> dict[str, Any]:
    return {name: {"description": description, "schema": {"type": "string"}}}


def documented(*refusals: type[errors.Refusal]) -> Responses:
    """List refusals for `responses=`, each with its text as an example."""
    responses: Responses = {}
    every_one: list[type[errors.Refusal]] = [*refusals, errors.DatabaseUnavailable]
    for refusal in every_one:
        model: type[SQLModel] = Refused
        if refusal is errors.Mistake:
            model = Mistakes
        new: dict[str, Any] = {"model": model, "content": {}}
        response = responses.setdefault(refusal.status, new)
        content = response["content"].setdefault("application/json", {"examples": {}})
        label = re.sub("(?<=[a-z])(?=[A-Z])", " ", refusal.__name__)
        example = {"summary": label, "value": {"detail": refusal.text}}
        content["examples"][refusal.__name__] = example
        if refusal.header is not None:
            response["headers"] = document_header(*refusal.header)
    return responses


ACCESS = [errors.NotSignedIn, errors.DeadToken]
ACCOUNT = [*ACCESS, errors.AdministratorsOnly, errors.UserNotFound, errors.Mistake]
BODY = [errors.BodyTooLarge, errors.NotJSON, errors.BlankField, errors.Mistake]
WAITING = [errors.TooManyWaiting, errors.TooBusy]

SIGN_UP = documented(*BODY, errors.EmailTaken, *WAITING)
SIGN_UP[201] = {"headers": document_header("Location", "Where the account is.")}
LIST = documented(
    *ACCESS, errors.AdministratorsOnly, errors.Mistake, errors.SearchTooLong
)
LINK = document_header("Link", 'The next page: `<URL>; rel="next"`.')
TOTAL = document_header("X-Total-Count", "How many match, with `count=true`.")
LIST[200] = {"headers": LINK | TOTAL}
ONE_USER = documented(*ACCOUNT)
CHANGE = documented(
    *ACCOUNT,
    *BODY,
    errors.CurrentPasswordMissing,
    errors.WrongCurrentPassword,
    errors.EmailTaken,
    *WAITING,
    errors.TooManyWrongPasswords,
)
LOG_IN = documented(
    errors.WrongLogin,
    errors.BodyTooLarge,
    errors.NotAForm,
    errors.Mistake,
    *WAITING,
    errors.TooManyWrongPasswords,
)
LOG_OUT = documented(*ACCESS)
HEALTH = documented()
