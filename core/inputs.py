"""Whether a request will be refused for its input, known before it waits.

FastAPI opens a session before it answers 422, so a mistake would be told only when a
session is free: while the database is locked, after half a minute. It promises
`has_mistakes`. Nothing else needs you to read this.
"""

from contextlib import AsyncExitStack
from typing import Any

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import solve_dependencies
from fastapi.params import Form
from fastapi.routing import APIRoute
from pydantic_core import PydanticUndefined


async def has_mistakes(request: Request) -> bool:
    """Check all that a route and its dependencies take, without calling them."""
    route = request.scope["route"]
    solved = await solve_dependencies(
        request=request,
        dependant=list_parameters(route),
        body=await read_body(request, route),
        async_exit_stack=AsyncExitStack(),
        embed_body_fields=route._embed_body_fields,
    )
    return bool(solved.errors)


def list_parameters(route: APIRoute) -> Dependant:
    found = Dependant()
    dependants = [route.dependant]
    for dependant in dependants:
        found.path_params += dependant.path_params
        found.query_params += dependant.query_params
        found.header_params += dependant.header_params
        found.cookie_params += dependant.cookie_params
        found.body_params += dependant.body_params
        dependants += dependant.dependencies
    return found


async def read_body(request: Request, route: APIRoute) -> Any:
    """Give the body as FastAPI did; it has been read, and Starlette has kept it."""
    if route.body_field and isinstance(route.body_field.field_info, Form):
        return await request.form()
    body = await request.body()
    if not body:
        return PydanticUndefined
    if "json" in request.headers.get("content-type", ""):
        return await request.json()
    return body
