"""The app: its routers, error answers, middleware, start and stop.

`uvicorn main:app --reload` starts it while you write; `python main.py` on a server.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse
from fastapi_offline import FastAPIOffline

from accounts.refusals import HINTS, TAKEN
from core import server
from core.data.reads import check_readable
from core.web import errors, journal, middleware, openapi
from database import create_database, get_session
from models import User
from routers import login_router, user_router


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """Run what is above yield before the first request; requests come at yield."""
    with server.starting():  # a refused start is one line, without a traceback
        create_database()
        openapi.check_routes(app, get_session, hidden="hashed_password")
    with server.running(app):  # when the server stops, this closes all connections
        yield


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
    lifespan=lifespan,
    **openapi.OPTIONS,
)
app.include_router(user_router.router)
app.include_router(login_router.router)
# Every error is an answer with "detail", 409 for an email that is taken included.
errors.install(app, taken_values=TAKEN, missing_fields=HINTS)
middleware.install(app)
journal.install()


@app.get("/health", tags=["health"], responses=openapi.documented())
async def health() -> dict[str, str]:
    """Tell whether the table of accounts can be read: for who sends requests here."""
    await check_readable(User)  # or it raises a 503
    return {"status": "ok"}


@app.get("/live", tags=["health"])
async def live() -> dict[str, str]:
    """Tell that the server answers, whatever the database does: for who restarts it."""
    return {"status": "ok"}


@app.get("/", include_in_schema=False)
async def root(request: Request) -> RedirectResponse:
    # The path under which a proxy, or an app that mounts this one, serves it.
    return RedirectResponse(request.scope["root_path"] + "/docs")


if __name__ == "__main__":
    server.serve("main:app", create_database)
