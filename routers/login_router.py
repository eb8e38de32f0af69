"""Log in, log out, and who is asking: passwords, tokens, and the dependencies CurrentUser and AllowedUser."""

import os
import secrets
from asyncio import sleep
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Annotated, Any

import bcrypt
from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Depends, HTTPException, Path, Request, Response
from fastapi.security import OAuth2PasswordBearer, OAuth2PasswordRequestForm
from sqlalchemy.orm import aliased
from sqlmodel import Integer, UTCDateTime, bindparam, col, delete, func, insert, literal, select, update

from database import Rows, read, stop, write
from models import ACCOUNT, MAX_PASSWORD, LoginAttempt, Token, TokenPublic, User, UserPublic, email_address
from routers import errors

ROUNDS = os.environ.get("BCRYPT_ROUNDS") or "12"
if ROUNDS not in map(str, range(4, 32)):
    stop(f"BCRYPT_ROUNDS must be a whole number from 4 to 31, not {ROUNDS!r}")
NO_HASH = bcrypt.gensalt(int(ROUNDS)).decode() + "." * 31  # no password has it, and it takes as long to find out
LIFETIME, ATTEMPTS, WINDOW = timedelta(days=7), 10, timedelta(minutes=1)
router = APIRouter(prefix="/api", tags=["log in"])
LOGIN = errors.WRONG_LOGIN, errors.TOO_LARGE, errors.NOT_A_FORM, errors.MISTAKE, errors.TOO_MANY_LOGINS
cores = CapacityLimiter(os.cpu_count() or 1)  # a hash takes a core for 0.2 s: in the event loop it would stop everybody
bearer = OAuth2PasswordBearer(tokenUrl="/api/login", auto_error=False)
UserId = Annotated[str, Path(pattern="^(me|[1-9][0-9]{0,8})$", description="An id, or `me` for your own.")]
BearerToken = Annotated[str | None, Depends(bearer)]
LoginForm = Annotated[OAuth2PasswordRequestForm, Depends()]
ASKER = aliased(User)
ACCOUNT_FOR_TOKEN = (  # the account with an id, or with NULL the token's own, and who is asking: one query for both
    select(*ACCOUNT)
    .add_columns(col(ASKER.id).label("asker_id"), col(ASKER.is_admin).label("asker_is_admin"))
    .select_from(Token)
    .join(ASKER, col(ASKER.id) == Token.user_id)
    .outerjoin(User, col(User.id) == func.coalesce(bindparam("id", type_=Integer), ASKER.id))
    .where(col(Token.hashed_token) == bindparam("hashed_token"), col(Token.expires_at) > bindparam("now"))
)
HASH = select(User.id, User.hashed_password).where(col(User.email) == bindparam("email"))


async def hash_password(password: str) -> str:
    hashed = await to_thread.run_sync(bcrypt.hashpw, password.encode(), bcrypt.gensalt(int(ROUNDS)), limiter=cores)
    return hashed.decode()


async def is_password(password: str, account: Rows) -> bool:
    """Compare with the account's hash, or with none as long: the time does not tell who has an account."""
    secret, expected = password.encode(errors="replace"), account[0]["hashed_password"] if account else NO_HASH
    same = await to_thread.run_sync(bcrypt.checkpw, secret[:MAX_PASSWORD], expected.encode(), limiter=cores)
    return same and len(secret) <= MAX_PASSWORD


def digest(text: str | None) -> str:
    return sha256((text or "").encode(errors="replace")).hexdigest()


async def find_account(token: str | None, user_id: int | None = None) -> dict[str, Any]:
    """Find an account, by default the token's own, and who is asking; raises 401."""
    accounts = await read(ACCOUNT_FOR_TOKEN, hashed_token=digest(token), now=datetime.now(UTC), id=user_id)
    if not accounts:
        raise HTTPException(*errors.NOT_SIGNED_IN, {"WWW-Authenticate": "Bearer"})
    return accounts[0]


async def current_user(token: BearerToken) -> UserPublic:
    """Find whose token it is; raises 401."""
    return UserPublic(**await find_account(token))


class AccountInPath(OAuth2PasswordBearer):
    """The account in the path, for its owner or an administrator; raises 401, 404, and 403 whether or not it exists.
    It reads the token itself: with one dependency more a read takes a twentieth longer."""

    async def __call__(self, request: Request, user_id: UserId) -> UserPublic:  # type: ignore[override] # FastAPI calls it
        account = await find_account(await super().__call__(request), None if user_id == "me" else int(user_id))
        if account["id"] != account["asker_id"] and not account["asker_is_admin"]:
            raise HTTPException(*errors.NOT_YOURS)
        if not account["id"]:
            raise HTTPException(*errors.NOT_FOUND)
        return UserPublic(**account)


CurrentUser = Annotated[UserPublic, Depends(current_user)]
AllowedUser = Annotated[UserPublic, Depends(AccountInPath("/api/login", bearer.scheme_name, auto_error=False))]


@router.post("/login", responses=errors.documented(*LOGIN))
async def log_in(form: LoginForm, request: Request, response: Response) -> TokenPublic:
    """Log in: `username` is the email. The token in the answer lasts 7 days."""
    try:
        email = email_address(form.username)
    except ValueError:
        email = ""  # nobody's
    client = digest(f"{request.client and request.client.host} {email or form.username}")
    attempt = col(LoginAttempt.id) == await begin_attempt(client)
    account, token, now = await read(HASH, email=email), secrets.token_urlsafe(32), datetime.now(UTC)
    if await is_password(form.password, account):
        # Nothing is stored if the password changed meanwhile; a change that comes now waits, then ends this token.
        owner = col(User.id) == account[0]["id"], col(User.hashed_password) == account[0]["hashed_password"]
        row = select(literal(digest(token)), User.id, literal(now + LIFETIME, UTCDateTime)).where(*owner)
        new = insert(Token).from_select(["hashed_token", "user_id", "expires_at"], row.with_for_update(read=True))
        expired = delete(Token).where(col(Token.user_id) == account[0]["id"], col(Token.expires_at) <= now)
        stored = await write(new.returning(col(Token.user_id)), expired, delete(LoginAttempt).where(attempt))
    else:
        stored = await write(update(LoginAttempt).where(attempt).values(failed=True))
    if not stored:
        raise HTTPException(*errors.WRONG_LOGIN, {"WWW-Authenticate": "Bearer"})
    response.headers["Cache-Control"] = "no-store"
    return TokenPublic(access_token=token, expires_in=int(LIFETIME.total_seconds()))


async def begin_attempt(client: str) -> int:
    """Count a log-in before its password is hashed and return its id; waits while ten are tried, raises 429."""
    while True:
        now = datetime.now(UTC)
        recent = col(LoginAttempt.client) == client, col(LoginAttempt.expires_at) > now
        others = await read(select(LoginAttempt.failed, LoginAttempt.expires_at).where(*recent))
        if len(others) < ATTEMPTS:
            still_few = select(func.count()).where(*recent).scalar_subquery() < ATTEMPTS
            row = select(literal(client), literal(value=False), literal(now + WINDOW, UTCDateTime)).where(still_few)
            new = insert(LoginAttempt).from_select(["client", "failed", "expires_at"], row)
            old = delete(LoginAttempt).where(col(LoginAttempt.expires_at) <= now)
            if begun := await write(old, new.returning(col(LoginAttempt.id)), alone=True):
                return int(begun[0]["id"])
        elif all(other["failed"] for other in others):
            wait = min(other["expires_at"] for other in others) - now
            raise HTTPException(*errors.TOO_MANY_LOGINS, {"Retry-After": str(wait.seconds + 1)})
        await sleep(secrets.SystemRandom().uniform(0.2, 0.6))  # those who wait do not come back all at once


@router.post("/logout", status_code=204, responses=errors.documented(errors.NOT_SIGNED_IN))
async def log_out(token: BearerToken, _: CurrentUser) -> None:
    """Log out: this token is dead."""
    await write(delete(Token).where(col(Token.hashed_token) == digest(token)))
