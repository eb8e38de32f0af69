"""Log in and log out."""

import secrets
from datetime import timedelta
from typing import Annotated, NamedTuple

from fastapi import APIRouter, Depends, Request
from fastapi.security import OAuth2PasswordRequestForm

from core import errors, openapi, security
from core.fields import normal_address
from core.queues import client_network
from database import SessionDep
from models import Token, TokenPublic, User, now
from routers.dependencies import BearerToken, CurrentUser

TOKEN_LIFETIME = timedelta(days=7)

router = APIRouter(prefix="/api", tags=["log in"])

LoginForm = Annotated[OAuth2PasswordRequestForm, Depends()]


class Login(NamedTuple):
    """Who is logging in, and with which password."""

    user_id: int
    password: str
    verified_hash: str  # the hash that the password matches
    stronger_hash: str | None  # one to store instead, if BCRYPT_ROUNDS was raised


async def check_login(form: LoginForm, request: Request) -> Login:
    """Check the password. That is slow, so it comes before the session."""
    email = normal_address(form.username)
    # Wrong passwords count together if they are for one email and from one address.
    counted = f"{email or form.username} {client_network(request)}"
    account = await security.find_by_password(
        security.SELECT_BY_EMAIL, form.password, counted, request, email=email or ""
    )
    if account is None:
        raise errors.WrongLogin
    stronger_hash = None
    if security.is_weak(account["hashed_password"]):
        stronger_hash = await security.hash_password(form.password, request)
    return Login(
        account["id"], form.password, account["hashed_password"], stronger_hash
    )


CheckedLogin = Annotated[Login, Depends(check_login)]


@router.post("/login", responses=openapi.LOG_IN)
def log_in(login: CheckedLogin, session: SessionDep) -> TokenPublic:
    """Log in: `username` is the email. The answer says how long its token lasts."""
    # Locked until the commit; the password may have changed while it was checked.
    user = session.get(User, login.user_id, with_for_update=True)
    if user is None or not security.is_still_right(
        login.password, login.verified_hash, user.hashed_password
    ):
        raise errors.WrongLogin
    if login.stronger_hash is not None and security.is_weak(user.hashed_password):
        user.hashed_password = login.stronger_hash
    # Not a JWT, which nobody can revoke: 32 random bytes; the table has their digest.
    access_token = secrets.token_urlsafe(32)
    token = Token(
        hashed_token=security.digest(access_token),
        user_id=login.user_id,
        expires_at=now() + TOKEN_LIFETIME,
    )
    session.add(user)
    session.add(token)
    security.remove_expired(session)
    session.commit()
    return TokenPublic(
        access_token=access_token, expires_in=int(TOKEN_LIFETIME.total_seconds())
    )


@router.post("/logout", status_code=204, responses=openapi.LOG_OUT)
def log_out(_user: CurrentUser, token: BearerToken, session: SessionDep) -> None:
    """Log out: end this token."""
    hashed_token = security.digest(token or "")  # CurrentUser has refused None
    row = session.get(Token, hashed_token, with_for_update=True)
    if row is None:  # another request has just ended it
        raise errors.DeadToken
    session.delete(row)
    session.commit()
