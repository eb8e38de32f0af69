"""The rungs between uvicorn and this API: constant answers, from no database.

`bare` is uvicorn alone, `with_starlette` adds routes, `with_fastapi` the check of the
answer by a model and the JSON made of it.
"""

import json
from datetime import UTC, datetime

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import Receive, Scope, Send


class Account(BaseModel):
    id: int
    name: str
    email: str
    is_admin: bool
    created_at: datetime


ACCOUNT = {"id": 1, "name": "Person 1", "email": "person1@example.com"}
ACCOUNT |= {"is_admin": True, "created_at": datetime(2026, 1, 1, tzinfo=UTC)}
ONE = json.dumps(ACCOUNT, default=str).encode()
HUNDRED = json.dumps([ACCOUNT] * 100, default=str).encode()


async def bare(scope: Scope, _receive: Receive, send: Send) -> None:
    assert scope["type"] == "http"
    body = ONE if scope["path"] == "/api/users/me" else HUNDRED
    length = (b"content-length", str(len(body)).encode())
    headers = [(b"content-type", b"application/json"), length]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def one(_request: Request) -> Response:
    return Response(ONE, media_type="application/json")


async def hundred(_request: Request) -> Response:
    return Response(HUNDRED, media_type="application/json")


routes = [Route("/api/users/me", one), Route("/api/users", hundred)]
with_starlette = Starlette(routes=routes)
with_fastapi = FastAPI()


@with_fastapi.get("/api/users/me", response_model=Account)
async def read_me() -> dict[str, object]:
    return ACCOUNT


@with_fastapi.get("/api/users", response_model=list[Account])
async def list_users() -> list[dict[str, object]]:
    return [ACCOUNT] * 100
