"""The database: `SessionDep` for what is written, `read` for what every request asks.

Write your own routers with `SessionDep`, as in SQLModel's tutorial.
"""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends
from fastapi.requests import HTTPConnection
from sqlmodel import Session

from core.data.audiences import check_fields
from core.data.reads import Rows, count_rows, read
from core.data.sessions import engine, open_all, open_session
from core.data.tables import create_or_extend_tables
from core.settings import DATABASE
from core.start import log
from models import User, UserCreate, UserPublic

__all__ = ["Rows", "SessionDep", "create_database", "engine", "read"]


async def get_session(connection: HTTPConnection) -> AsyncIterator[Session]:
    """Give each request a session of its own: an ordinary SQLModel Session.

    Only a few are open at once; other requests wait. On SQLite a request that may write
    has the database to itself from its first query on. On PostgreSQL, lock what you
    check: `session.get(…, with_for_update=True)`. A GET should only read.
    """
    async with open_session(connection) as session:
        yield session


# "function": the session is closed before the answer is sent. Use it in `def`, which
# runs in a thread. In `async def` its queries would block all other requests.
SessionDep = Annotated[Session, Depends(get_session, scope="function")]


def create_database() -> None:
    """Create missing tables and columns, and log how many accounts there are.

    Raises StartRefused if that cannot be done, or if a field is in the wrong class.
    """
    check_fields(
        User,
        UserCreate,
        UserPublic,
        not_sent={"id", "is_admin", "hashed_password"},
        not_stored={"password"},
    )
    open_all()
    added = create_or_extend_tables()
    log.info("Database: %s, accounts: %s", DATABASE.name, count_rows(User))
    if added:
        log.info("added %s", ", ".join(added))
