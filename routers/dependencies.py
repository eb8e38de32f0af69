"""What routers take as parameters: who is asking, whose account, checked passwords."""

import re
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, Path, Request
from fastapi.security import OAuth2PasswordBearer, OAuth2PasswordRequestForm
from pydantic import AfterValidator, WithJsonSchema
from pydantic.config import JsonDict

from accounts.passwords import hash_password
from accounts.permits import Permit, find_account, find_asker
from accounts.refusals import AdministratorsOnly, WrongLogin
from accounts.throttle import Proof, prove_by_email
from models import MAX_ID, UserCreate, UserPublic, UserUpdate

# auto_error=False: find_asker has its own 401, which says how to log in.
oauth2_scheme = OAuth2PasswordBearer(
    tokenUrl="api/login", auto_error=False, description="`username` is your email."
)
BearerToken = Annotated[str | None, Depends(oauth2_scheme)]


async def get_current_user(token: BearerToken) -> UserPublic:
    """Return the account this token belongs to; raises 401."""
    return await find_asker(token)


# The account as answers show it. The row itself, with what belongs to it (say,
# `.notes`), is session.get_one(User, user.id).
CurrentUser = Annotated[UserPublic, Depends(get_current_user)]


async def get_current_admin(user: CurrentUser) -> UserPublic:
    """Return the administrator this token belongs to; raises 401 and 403."""
    if not user.is_admin:
        raise AdministratorsOnly
    return user


CurrentAdmin = Annotated[UserPublic, Depends(get_current_admin)]


# ---- The account in the path ----


def check_id_or_me(user_id: str) -> str:
    if user_id == "me":
        return user_id
    if re.fullmatch("[1-9][0-9]{0,9}", user_id) and int(user_id) <= MAX_ID:
        return user_id
    raise ValueError("An id, or me")


# What /docs shows: it cannot see what a validator function does.
ID_OR_ME: JsonDict = {
    "anyOf": [
        {"type": "integer", "minimum": 1, "maximum": MAX_ID},
        {"type": "string", "const": "me"},
    ]
}
UserId = Annotated[
    str,
    AfterValidator(check_id_or_me),
    WithJsonSchema(ID_OR_ME),
    Path(description="An id, or `me` for your own."),
]


async def get_account(asker: CurrentUser, user_id: UserId) -> UserPublic:
    """Return the account in the path.

    Raises 401, and 404 if an administrator asks for an account that does not exist.
    Anybody else gets 403 for every account but their own.
    """
    if user_id == "me":
        return asker
    return await find_account(asker, int(user_id))


Account = Annotated[UserPublic, Depends(get_account)]


async def get_delete_permit(
    asker: CurrentUser, token: BearerToken, account: Account, request: Request
) -> AsyncIterator[Permit]:
    """Make the Permit of a deletion; log it, after a success, for an administrator."""
    permit = Permit(asker, token, account, {})  # nothing to change
    yield permit
    permit.log_if_admin(request)


async def get_update_permit(
    asker: CurrentUser,
    token: BearerToken,
    account: Account,
    user: UserUpdate,
    request: Request,
) -> AsyncIterator[Permit]:
    """Make the Permit of a change, with passwords checked and hashed; log it, too.

    Stands left of the session in the router: hashing is slow and needs no database.
    """
    permit = Permit(asker, token, account, user.model_dump(exclude_unset=True))
    await permit.ask(request)
    yield permit
    permit.log_if_admin(request)


DeletePermit = Annotated[Permit, Depends(get_delete_permit, scope="function")]
UpdatePermit = Annotated[Permit, Depends(get_update_permit, scope="function")]


# ---- Passwords. Hashing takes 0.2 s, so it comes before the session. ----


# The same body as in create_user, under the same name: FastAPI reads it once.
async def get_hashed_password(user: UserCreate, request: Request) -> str:
    """Hash the password of a sign-up; raises 429 and 503."""
    return await hash_password(user.password, request)


HashedPassword = Annotated[str, Depends(get_hashed_password)]
LoginForm = Annotated[OAuth2PasswordRequestForm, Depends()]


async def get_login_proof(form: LoginForm, request: Request) -> Proof:
    """Check the password of a log-in; raises 401, 429 and 503."""
    proof = await prove_by_email(form.username, form.password, request)
    if proof is None:
        raise WrongLogin
    return proof


LoginProof = Annotated[Proof, Depends(get_login_proof)]
