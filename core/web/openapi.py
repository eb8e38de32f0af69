"""What /docs and generated clients know about each route, and what no route may do.

`documented` makes the dictionary for `responses=` of a route from its refusals.
"""

import copy
import inspect
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute, iter_route_contexts
from fastapi.utils import generate_unique_id
from pydantic import TypeAdapter
from sqlmodel import SQLModel
from starlette.routing import Route

from core import refusals
from core.start import StartRefused

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


def documented(*listed: type[refusals.Refusal]) -> Responses:
    """List refusals for `responses=`, each with its text as an example."""
    responses: Responses = {}
    every_one: list[type[refusals.Refusal]] = [*listed, refusals.DatabaseUnavailable]
    for refusal in every_one:
        model = Mistakes if refusal is refusals.Mistake else Refused
        new: dict[str, Any] = {"model": model, "content": {}}
        response = responses.setdefault(refusal.status, new)
        content = response["content"].setdefault("application/json", {"examples": {}})
        value = {"detail": refusal.text, **refusal.more}
        content["examples"][refusal.__name__] = {"value": value}
        if refusal.header is not None:
            response["headers"] = document_header(*refusal.header)
    return responses


def document_header(name: str, description: str) -> dict[str, Any]:
    return {name: {"description": description, "schema": {"type": "string"}}}


class OperationIds:
    """The name of each operation in generated clients: that of its function.

    Of two functions with one name, the second has its tag in front.
    """

    def __init__(self) -> None:
        self.functions: dict[str, object] = {}

    def __call__(self, route: APIRoute) -> str:
        names = [route.name]
        for tag in route.tags:
            names.append(f"{tag}_{route.name}".replace(" ", "_"))
        for name in names:
            if self.functions.setdefault(name, route.endpoint) is route.endpoint:
                return name
        return generate_unique_id(route)


async def show_document(request: Request) -> JSONResponse:
    """Show the OpenAPI document, with the prefix in it if there is one.

    FastAPI's own route, which comes after this one, writes the prefix as the server
    "/v1". A tokenUrl "api/login" would then be /api/login, outside the prefix.
    """
    document = request.app.openapi()
    if prefix := request.scope["root_path"]:
        document = copy.deepcopy(document)
        document["servers"] = [{"url": prefix}, *document.get("servers", [])]
        components = document.get("components", {})
        for scheme in components.get("securitySchemes", {}).values():
            for flow in scheme.get("flows", {}).values():
                for name in ("tokenUrl", "authorizationUrl", "refreshUrl"):
                    if name in flow and "://" not in flow[name]:
                        flow[name] = f"{prefix}/{flow[name].removeprefix('/')}"
    return JSONResponse(document)


# For FastAPI(…): the route above, and what a /docs without internet can do.
OPTIONS: dict[str, Any] = {
    "routes": [Route("/openapi.json", show_document, include_in_schema=False)],
    "generate_unique_id_function": OperationIds(),
    "swagger_ui_parameters": {"validatorUrl": None, "persistAuthorization": True},
    "redoc_url": None,
}


def check_routes(app: FastAPI, get_session: Callable[..., Any], hidden: str) -> None:
    """Raise StartRefused for a route that would stop everybody, or show a column."""
    app.state.get_session = get_session  # the middleware looks whether it is overridden
    for context in iter_route_contexts(app.routes):
        if not isinstance(context.original_route, APIRoute):  # a WebSocket, say
            continue
        name = f"{min(context.methods or ())} {context.path}"
        check_dependant(context.dependant, get_session, name)
        schema: Any = ""
        if context.response_model is not None:
            adapter = TypeAdapter(context.response_model)
            schema = adapter.json_schema(mode="serialization")
        if f"'{hidden}'" in str(schema):
            raise StartRefused(
                f"{name} would answer {hidden}. Write response_model=…, a model without"
                " it, in its decorator."
            )


def check_dependant(dependant: Any, get_session: Callable[..., Any], name: str) -> None:
    """Look for a session in an `async def`: of a path operation, or what it needs."""
    for needed in dependant.dependencies:
        if needed.call is get_session and inspect.iscoroutinefunction(dependant.call):
            raise StartRefused(
                f"{name}: {dependant.call.__name__} is `async def` with a SessionDep,"
                " whose queries would make everybody wait. Write `def` instead."
            )
        check_dependant(needed, get_session, name)
