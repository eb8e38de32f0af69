"""The app: its routers, its error answers, its middleware, its start and its stop.

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

from core import engine, errors
from core.middleware import (
    BodyLimitMiddleware,
    BrowserMiddleware,
    PathAndHeadersMiddleware,
)
from core.settings import CORS_ORIGIN_REGEX, CORS_ORIGINS
from database import create_database, read
from models import User
from routers import login_router, user_router

SELECT_ANY_USER = select(User.id).limit(1)


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    create_database()
    # Looking for garbage in all that is loaded by now would cost a read 8 %.
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)
    yield
    engine.close()


# FastAPI, with a /docs that works without the internet and asks no server there.
app = FastAPIOffline(
    title="Users API",
    redoc_url=None,
    lifespan=lifespan,
    swagger_ui_parameters={"validatorUrl": None},
)
app.include_router(user_router.router)
app.include_router(login_router.router)
errors.install(app)

app.add_middleware(BodyLimitMiddleware)
app.add_middleware(PathAndHeadersMiddleware)
app.add_middleware(
    BrowserMiddleware,
    allow_origins=CORS_ORIGINS,
    allow_origin_regex=CORS_ORIGIN_REGEX,
    allow_methods=["*"],
    allow_headers=["*"],
    expose_headers=["Link", "Location", "Retry-After", "X-Total-Count"],
)


@app.get("/health", tags=["health"], responses=errors.documented())
async def health() -> dict[str, str]:
    """Tell whether the table of accounts can be read."""
    try:
        await read(SELECT_ANY_USER)
    except SQLAlchemyError:
        raise errors.DatabaseUnavailable from None
    return {"status": "ok"}


@app.get("/", include_in_schema=False)
async def root(request: Request) -> RedirectResponse:
    return RedirectResponse(request.scope["root_path"] + "/docs")
