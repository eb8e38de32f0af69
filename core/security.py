"""Passwords, tokens, and the throttle that slows guessing down.

It promises `hash_password`, `find_by_password` and `find_access`; that nothing is
hashed in the event loop; and that in a minute about ten wrong passwords are tried for
an account from a network, and a hundred from a network. Nothing else needs you to read
this.
"""

import math
import os
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, NamedTuple

import bcrypt
from anyio import CapacityLimiter, to_thread
from fastapi import Request
from sqlalchemy.orm import aliased
from sqlmodel import Integer, Session, bindparam, col, delete, func, select

from core import errors, journal, outages
from core.engine import engine
from core.queues import Queue, client_network, run_in_thread
from core.reads import read
from core.settings import BCRYPT_ROUNDS
from models import MAX_PASSWORD, Token, User, UserPublic, WrongPassword, now

# A hash takes a core for 0.2 s: in the event loop it would stop everybody.
CORES = os.cpu_count() or 1
# While nothing can be written, nothing is hashed: whoever hashes wants to write.
hashing = Queue(CORES, 30, errors.TooBusy, outages.writing, line_length=100)
hashing_threads = CapacityLimiter(CORES)
storing_threads = CapacityLimiter(1)


def make_hash(password: str) -> str:
    """Hash a password; that takes a core for 0.2 s."""
    salt = bcrypt.gensalt(BCRYPT_ROUNDS)
    return bcrypt.hashpw(password.encode(), salt).decode()


async def hash_password(password: str, request: Request) -> str:
    """Hash a password when the client's turn has come; raises 429 and 503."""
    async with hashing.turn(request):
        return await to_thread.run_sync(make_hash, password, limiter=hashing_threads)


def is_password(password: str, hashed_password: str) -> bool:
    """Compare a password with a hash. A wrong one takes as long for a cheaper hash."""
    secret = password.encode(errors="replace")
    start = secret[:MAX_PASSWORD]  # bcrypt refuses to look at more bytes
    try:
        is_right = bcrypt.checkpw(start, hashed_password.encode())
    except ValueError:  # an imported account, with a hash that bcrypt does not know
        bcrypt.checkpw(start, no_hash(BCRYPT_ROUNDS).encode())
        return False
    if is_right and len(secret) <= MAX_PASSWORD:
        return True
    # The time that a hash of 10 rounds saves compared with one of 12: each extra round
    # doubles the work, so it is one hash of 10 and one of 11.
    for rounds in range(find_rounds(hashed_password), BCRYPT_ROUNDS):
        bcrypt.checkpw(start, no_hash(rounds).encode())
    return False


def no_hash(rounds: int) -> str:
    """Make a hash that no password matches, to take as long as a real one."""
    return bcrypt.gensalt(rounds).decode() + "." * 31


def is_still_right(password: str, verified_hash: str | None, found_hash: str) -> bool:
    """Tell whether a password that matched one hash matches the one found now.

    Another log-in with this password may have stored a stronger hash meanwhile.
    """
    return verified_hash == found_hash or is_password(password, found_hash)


def find_rounds(hashed_password: str) -> int:
    """Return the cost of a hash: in $2b$12$… it is the 12."""
    return int(hashed_password.split("$")[2])


def is_weak(hashed_password: str) -> bool:
    """Tell whether BCRYPT_ROUNDS has been raised since the hash was made."""
    return find_rounds(hashed_password) < BCRYPT_ROUNDS


def digest(text: str) -> str:
    """Return the SHA-256 of a text, in hex."""
    return sha256(text.encode(errors="replace")).hexdigest()


# ---- Tokens: who is asking. ----


class Access(NamedTuple):
    """Who is asking, with which token, and the account that it is about."""

    hashed_token: str
    asker_id: int
    asker_is_admin: bool
    user: UserPublic

    @property
    def is_own(self) -> bool:
        return self.user.id == self.asker_id


PUBLIC_COLUMNS = [getattr(User, name).label(name) for name in UserPublic.model_fields]
# Two rows of one table in one query: who is asking, and the account with the id, or
# without an id their own. A second query would make a read a fifth slower.
Asker = aliased(User)
ACCOUNT_ID = func.coalesce(bindparam("user_id", None, Integer), Asker.id)
SELECT_ACCESS = (
    select(*PUBLIC_COLUMNS)
    .add_columns(
        col(Asker.id).label("_asker_id"), col(Asker.is_admin).label("_asker_is_admin")
    )
    .select_from(Token)
    .join(Asker, col(Asker.id) == Token.user_id)
    .outerjoin(User, col(User.id) == ACCOUNT_ID)
    .where(
        col(Token.hashed_token) == bindparam("hashed_token"),
        col(Token.expires_at) > bindparam("now"),
    )
)


async def find_access(token: str | None, user_id: int | None = None) -> Access:
    """Find who is asking, and an account: by default their own.

    Raises 401, 404, and 403 for somebody else's account, whether or not it exists.
    """
    if token is None:
        raise errors.NotSignedIn
    hashed_token = digest(token)
    rows = await read(
        SELECT_ACCESS, hashed_token=hashed_token, now=now(), user_id=user_id
    )
    if not rows:
        raise errors.DeadToken
    found = rows[0]
    if found["id"] != found["_asker_id"] and not found["_asker_is_admin"]:
        raise errors.AdministratorsOnly
    if found["id"] is None:
        raise errors.UserNotFound
    return Access(
        hashed_token, found["_asker_id"], found["_asker_is_admin"], UserPublic(**found)
    )


def remove_expired(session: Session) -> None:
    """Delete expired tokens and wrong passwords, whoever they belong to.

    A hundred at a time, without those that another worker is deleting.
    """
    tokens = (
        select(Token.hashed_token)
        .where(col(Token.expires_at) <= now())
        .limit(100)
        .with_for_update(skip_locked=True)
    )
    wrong_passwords = (
        select(WrongPassword.id)
        .where(col(WrongPassword.expires_at) <= now())
        .limit(100)
        .with_for_update(skip_locked=True)
    )
    session.exec(delete(Token).where(col(Token.hashed_token).in_(tokens)))
    session.exec(
        delete(WrongPassword).where(col(WrongPassword.id).in_(wrong_passwords))
    )


# ---- The throttle. Wrong passwords are stored, so that all workers count them. ----

WINDOW = timedelta(minutes=1)
MAX_WRONG_FOR_ACCOUNT = 10  # in a window
MAX_WRONG_FROM_ADDRESS = 100

SELECT_HASH = select(User.id, User.hashed_password)
SELECT_BY_EMAIL = SELECT_HASH.where(col(User.email) == bindparam("email"))
SELECT_BY_ID = SELECT_HASH.where(col(User.id) == bindparam("user_id"))


def count_wrong_passwords(column: Any) -> Any:
    """Build the query that counts the wrong passwords with a value in a column."""
    return select(
        func.count().label("number"), func.min(WrongPassword.expires_at).label("until")
    ).where(
        column == bindparam("value"),
        col(WrongPassword.expires_at) > bindparam("now"),
        # Not those that a wrong clock has dated far ahead.
        col(WrongPassword.expires_at) <= bindparam("end"),
    )


COUNT_FOR_ACCOUNT = count_wrong_passwords(WrongPassword.account)
COUNT_FROM_ADDRESS = count_wrong_passwords(WrongPassword.address)


async def find_by_password(
    statement: Any, password: str, account: str, request: Request, **who: Any
) -> dict[str, Any] | None:
    """Return the id and hash that a statement finds, if the password is right.

    Raises 429 and 503. `account` says which wrong passwords count together. They are
    tried one after another, so a crowd gets no more tries than a single client.
    """
    account = digest(account)
    address = digest(client_network(request))
    # The turn ends once a wrong password is stored, so that the next one counts it.
    async with hashing.turn(request, account):
        await refuse_guessing(account, address)
        rows = await read(statement, **who)
        expected = no_hash(BCRYPT_ROUNDS)
        if rows:
            expected = rows[0]["hashed_password"]
        is_right = await to_thread.run_sync(
            is_password, password, expected, limiter=hashing_threads
        )
        if rows and is_right:
            return rows[0]
        whose = "an unknown email"
        if rows:
            whose = f"account {rows[0]['id']}"
        journal.note(request, f"wrong password for {whose}")
        await run_in_thread(storing_threads, store_wrong_password, account, address)
        return None


async def refuse_guessing(account: str, address: str) -> None:
    """Raise 429 after too many wrong passwords for an account or from an address."""
    window = {"now": now(), "end": now() + WINDOW}
    (for_account,) = await read(COUNT_FOR_ACCOUNT, value=account, **window)
    (from_address,) = await read(COUNT_FROM_ADDRESS, value=address, **window)
    if for_account["number"] >= MAX_WRONG_FOR_ACCOUNT:
        raise errors.TooManyWrongPasswords(seconds_until(for_account["until"]))
    if from_address["number"] >= MAX_WRONG_FROM_ADDRESS:
        raise errors.TooManyWrongPasswords(seconds_until(from_address["until"]))


def seconds_until(time: datetime) -> int:
    return max(1, math.ceil((time - now()).total_seconds()))


def store_wrong_password(account: str, address: str) -> None:
    with Session(engine) as session:
        wrong_password = WrongPassword(
            account=account, address=address, expires_at=now() + WINDOW
        )
        session.add(wrong_password)
        remove_expired(session)
        session.commit()
