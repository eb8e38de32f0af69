"""The limit: the same answers from FastAPI, uvicorn and the bare sqlite3 module.

No validation, no permission but a valid token, no errors: what is left when everything
that can be left out is.
"""

import os
import sqlite3
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel

database = sqlite3.connect(
    os.environ["BENCH_DATABASE"], check_same_thread=False, isolation_level=None
)
database.execute("PRAGMA journal_mode = WAL")
app = FastAPI()
COLUMNS = "user.id, user.name, user.email, user.is_admin, user.created_at"


class Account(BaseModel):
    id: int
    name: str
    email: str
    is_admin: bool
    created_at: datetime


def account(row: tuple[Any, ...]) -> Account:
    return Account(
        id=row[0],
        name=row[1],
        email=row[2],
        is_admin=row[3],
        created_at=datetime.fromisoformat(row[4] + "Z"),
    )


def owner(request: Request) -> Account:
    hashed_token = sha256(
        request.headers["authorization"].removeprefix("Bearer ").encode()
    ).hexdigest()
    row = database.execute(
        f"SELECT {COLUMNS} FROM token JOIN user ON user.id = token.user_id"
        " WHERE hashed_token = ? AND expires_at > ?",
        (hashed_token, str(datetime.now(UTC))),
    ).fetchone()
    return account(row)


@app.get("/api/users/me")
async def read_me(request: Request) -> Account:
    return owner(request)


@app.get("/api/users/{user_id}")
async def read_user(user_id: int, request: Request) -> Account:
    owner(request)
    return account(
        database.execute(
            f"SELECT {COLUMNS} FROM user WHERE id = ?", (user_id,)
        ).fetchone()
    )


@app.get("/api/users")
async def list_users(
    request: Request, response: Response, limit: int = 20, after: int = 0
) -> list[Account]:
    owner(request)
    rows = database.execute(
        f"SELECT {COLUMNS} FROM user WHERE id > ? ORDER BY id LIMIT ?",
        (after, limit + 1),
    )
    accounts = [account(row) for row in rows]
    if len(accounts) > limit:
        accounts.pop()
        next_page = request.url.include_query_params(after=accounts[-1].id)
        response.headers["Link"] = f'<{next_page}>; rel="next"'
    return accounts
