"""The app: its routers, error answers, middleware, startup and shutdown.

`uvicorn main:app --reload` starts it.
"""

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse
from fastapi_offline import FastAPIOffline
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import select

from core import engine, errors, journal, middleware, openapi, queues
from database import create_database, read
from models import User
from routers import login_router, user_router

SELECT_ANY_USER = select(User.id).limit(1)


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """Do what is above yield before the first request, what is below it at the end."""
    create_database()
    # Else Python would scan all loaded code for garbage again and again. Rarer scans
    # are enough: together that makes reads 8 % faster.
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)
    with queues.ended_by_signals():  # at Ctrl-C, nobody goes on waiting
        yield
    engine.close()


DESCRIPTION = """
Accounts with log-in. Begin with *Create User*: try it out, and execute. Then press
**Authorize**, with that email as `username` and its password, and try *Read User* with
`me`.
"""


# FastAPI, with a /docs that loads nothing from the internet.
app = FastAPIOffline(
    title="Users API",
    version="1.0.0",
    description=DESCRIPTION,
    openapi_tags=[{"name": "users"}, {"name": "log in"}, {"name": "health"}],
    redoc_url=None,
    lifespan=lifespan,
    generate_unique_id_function=openapi.get_operation_id,
    swagger_ui_parameters={"validatorUrl": None, "persistAuthorization": True},
)
app.include_router(user_router.router)
app.include_router(login_router.router)
errors.install(app)
middleware.install(app)
journal.install()


@app.get("/health", tags=["health"], responses=openapi.HEALTH)
async def health() -> dict[str, str]:
    """Tell whether the table of accounts can be read."""
    try:
        await read(SELECT_ANY_USER)
    except SQLAlchemyError:
        raise errors.DatabaseUnavailable from None
    return {"status": "ok"}


@app.get("/", include_in_schema=False)
async def root(request: Request) -> RedirectResponse:
    # root_path is the prefix behind a proxy, usually empty.
    return RedirectResponse(request.scope["root_path"] + "/docs")
