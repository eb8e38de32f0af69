"""The app: its routers, error answers, middleware, startup and shutdown.

`uvicorn main:app --reload` starts it while you write; `python main.py` on a server.
"""

import gc
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse
from fastapi_offline import FastAPIOffline
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import select

from core import engine, errors, journal, middleware, openapi, queues, settings
from database import create_database, read
from models import User
from routers import login_router, user_router

SELECT_ANY_USER = select(User.id).limit(1)

log = logging.getLogger("uvicorn.error")  # the one that uvicorn prints


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """Run what is above yield before the first request, and the rest at the end."""
    create_database()
    log.info("To try the API, open /docs at the address that Uvicorn shows")
    middleware.has_started.set()  # an earlier request is told why it fails
    # Without this, Python would scan all loaded code for garbage again and again.
    # Together with rarer scans, it makes reads 8 % faster.
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)
    with queues.ended_by_signals():  # at Ctrl-C, all waiting ends
        yield
    engine.close()


DESCRIPTION = """
Accounts with log-in. Begin with *Create User*: **Try it out**, **Execute**. Then press
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
    routes=[openapi.DOCUMENT],
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
    # root_path is the prefix behind a proxy or in another app, usually empty.
    return RedirectResponse(request.scope["root_path"] + "/docs")


if __name__ == "__main__":
    # uvicorn itself reads WEB_CONCURRENCY, the number of workers, and
    # FORWARDED_ALLOW_IPS, the address of a proxy.
    uvicorn.run(
        "main:app",
        host=os.environ.get("HOST") or "127.0.0.1",
        port=settings.read_port(),
        root_path=os.environ.get("ROOT_PATH", ""),  # a prefix that a proxy strips
        # A proxy keeps a connection for 60 s. By default uvicorn closes it after 5 s,
        # perhaps just as the proxy sends a request on it, which would then be a 502.
        timeout_keep_alive=75,
        # Docker kills what has not stopped after 10 s.
        timeout_graceful_shutdown=8,
    )
