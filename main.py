"""The app: its routers, its error answers, its middleware. `uvicorn main:app --reload` starts it."""

import gc
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import RedirectResponse
from fastapi_offline import FastAPIOffline
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import literal, select

from database import create_database, read, stop
from routers import errors, login_router, user_router

ORIGINS = [origin.strip() for origin in os.environ.get("CORS_ORIGINS", "").split(",") if origin.strip()]
if not all(re.fullmatch(r"\*|https?://[^/?#\s]+", origin) for origin in ORIGINS):
    stop("CORS_ORIGINS must be origins like https://example.com, separated by commas")


@asynccontextmanager
async def lifespan(_: object) -> AsyncIterator[None]:
    create_database()
    gc.freeze()  # what is loaded by now stays; looking for garbage among it, and often, took 8 % of a read
    gc.set_threshold(20_000, 50, 100)
    yield


quiet = {"validatorUrl": None}  # else Swagger UI asks validator.swagger.io about the document
app = FastAPIOffline(title="Users API", redoc_url=None, lifespan=lifespan, swagger_ui_parameters=quiet)
app.include_router(user_router.router)
app.include_router(login_router.router)
app.add_exception_handler(RequestValidationError, errors.explain_mistakes)
app.add_exception_handler(SQLAlchemyError, errors.explain_database)
app.add_exception_handler(OSError, errors.explain_database)  # the database's folder cannot be looked into
app.add_exception_handler(Exception, lambda *_: errors.answer(500, "Internal Server Error"))
app.add_middleware(errors.Doorman, max_body_size=64 * 1024)
app.add_route("/", lambda _: RedirectResponse("/docs"))
if ORIGINS:
    seen = ["Link", "Location", "Retry-After", "X-Total-Count"]
    app.add_middleware(CORSMiddleware, allow_origins=ORIGINS, allow_methods="*", allow_headers="*", expose_headers=seen)


@app.get("/health", tags=["health"], responses=errors.documented())
async def health() -> dict[str, str]:
    """Tell whether the database answers."""
    await read(select(literal(1)))
    return {"status": "ok"}
