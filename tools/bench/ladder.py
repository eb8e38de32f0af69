"""The rungs between uvicorn and this API, each with one thing more than the last.

`bare` is uvicorn alone and `with_starlette` adds routes, both with constant bytes;
`with_fastapi` checks constant data by a model and makes JSON of it; `with_sqlite` reads
this API's `app.db` with the bare sqlite3 module: no permission but a valid token, no
errors, what is left when everything that can be left out is.
"""

import json
import os
import sqlite3
from datetime import UTC, datetime
from hashlib import sha256

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
async def constant_account() -> dict[str, object]:
    return ACCOUNT


@with_fastapi.get("/api/users", response_model=list[Account])
async def constant_accounts() -> list[dict[str, object]]:
    return [ACCOUNT] * 100


with_sqlite = FastAPI()
database = sqlite3.connect(os.environ.get("APP_DB", ""), isolation_level=None)
COLUMNS = "user.id, user.name, user.email, user.is_admin, user.created_at"


def select(query: str, *values: object) -> list[Account]:
    accounts = []
    for id_, name, email, is_admin, created in database.execute(query, values):
        created_at = datetime.fromisoformat(created + "Z")
        accounts.append(
            Account(
                id=id_, name=name, email=email, is_admin=is_admin, created_at=created_at
            )
        )
    return accounts


def find_asker(request: Request) -> Account:
    token = request.headers["authorization"].removeprefix("Bearer ")
    (account,) = select(
        f"SELECT {COLUMNS} FROM token JOIN user ON user.id = token.user_id"
        " WHERE hashed_token = ? AND expires_at > ?",
        sha256(token.encode()).hexdigest(),
        str(datetime.now(UTC)),
    )
    return account


@with_sqlite.get("/api/users/me")
async def read_me(request: Request) -> Account:
    return find_asker(request)


@with_sqlite.get("/api/users/{user_id}")
async def read_user(user_id: int, request: Request) -> Account:
    find_asker(request)
    (account,) = select(f"SELECT {COLUMNS} FROM user WHERE id = ?", user_id)
    return account


@with_sqlite.get("/api/users")
async def list_users(
    request: Request, response: Response, limit: int = 20, after: int = 0
) -> list[Account]:
    find_asker(request)
    page = f"SELECT {COLUMNS} FROM user WHERE id > ? ORDER BY id LIMIT ?"
    accounts = select(page, after, limit + 1)
    if len(accounts) > limit:
        accounts.pop()
        next_page = request.url.include_query_params(after=accounts[-1].id)
        response.headers["Link"] = f'<{next_page}>; rel="next"'
    return accounts
