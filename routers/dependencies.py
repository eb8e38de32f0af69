"""Who is asking, and about whose account: what routers take as parameters."""

import re
from typing import Annotated

from fastapi import Depends, Path
from fastapi.security import OAuth2PasswordBearer
from pydantic import AfterValidator, WithJsonSchema
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError
from sqlmodel import Session

from core import errors
from core.security import Access, find_access
from models import MAX_ID, Token, User, UserPublic, now

# auto_error=False: find_access has its own 401, which says how to log in.
oauth2_scheme = OAuth2PasswordBearer(
    tokenUrl="api/login", auto_error=False, description="`username` is your email."
)
BearerToken = Annotated[str | None, Depends(oauth2_scheme)]


async def get_current_user(token: BearerToken) -> UserPublic:
    """Return the account whose token it is; raises 401."""
    access = await find_access(token)
    return access.user


async def get_current_admin(token: BearerToken) -> UserPublic:
    """Return the administrator whose token it is; raises 401 and 403."""
    user = await get_current_user(token)
    if not user.is_admin:
        raise errors.AdministratorsOnly
    return user


def is_id_or_me(user_id: str) -> str:
    """Check what stands for an account in a path: 1 to 2147483647, or me."""
    if user_id == "me":
        return user_id
    if re.fullmatch("[1-9][0-9]{0,9}", user_id) and int(user_id) <= MAX_ID:
        return user_id
    raise PydanticCustomError("user_id", "An id, or me")


# What /docs shows: it cannot look inside a function that checks.
ID_OR_ME: JsonDict = {
    "anyOf": [
        {"type": "integer", "minimum": 1, "maximum": MAX_ID},
        {"type": "string", "const": "me"},
    ]
}
UserId = Annotated[
    str,
    AfterValidator(is_id_or_me),
    WithJsonSchema(ID_OR_ME),
    Path(description="An id, or `me` for your own."),
]


async def get_access(token: BearerToken, user_id: UserId) -> Access:
    """Find who is asking (`asker_id`), and the account in the path (`user`).

    Raises 401, 404, and 403 for somebody else's account, whether or not it exists.
    """
    if user_id == "me":
        return await find_access(token)
    return await find_access(token, int(user_id))


# The account as answers show it. The row itself, with what belongs to it (say,
# `.notes`), is session.get_one(User, user.id).
CurrentUser = Annotated[UserPublic, Depends(get_current_user)]
CurrentAdmin = Annotated[UserPublic, Depends(get_current_admin)]
AccessDep = Annotated[Access, Depends(get_access)]


def lock_users(session: Session, access: Access) -> tuple[User, User]:
    """Read the asker and the account again, to change it in this transaction.

    What allowed the change may have ended while a password was hashed, so it is checked
    again here, where nobody else can change it; raises 401, 403 and 404.
    """
    # Lock both rows until the commit, always in the order of their ids, or two
    # administrators could wait for each other. SQLite's session has a lock already.
    users: dict[int, User | None] = {}
    for user_id in sorted({access.asker_id, access.user.id}):
        users[user_id] = session.get(User, user_id, with_for_update=True)
    asker = users[access.asker_id]
    token = session.get(Token, access.hashed_token, with_for_update={"read": True})
    if asker is None or token is None or token.expires_at <= now():
        raise errors.DeadToken
    if not access.is_own and not asker.is_admin:
        raise errors.AdministratorsOnly
    user = users[access.user.id]
    if user is None:
        raise errors.UserNotFound
    return asker, user
