"""The throttle: guessing a password is slow, for one account and from one address.

A right password gives a `Proof`. Wrong ones are stored, so that all workers count them.
"""

import contextlib
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, NamedTuple

from anyio import to_thread
from fastapi import Request
from sqlmodel import Field, Session, SQLModel, bindparam, col, delete, func, select

from accounts import passwords
from accounts.refusals import TooManyWrongPasswords
from core.data import sessions
from core.data.reads import read
from core.texts import find_address
from core.turns import NO_LIMIT, client_network
from core.web import journal
from models import Token, User, now

WINDOW = timedelta(minutes=1)
MAX_WRONG_FOR_ACCOUNT = 10  # in a window
MAX_WRONG_FROM_ADDRESS = 100


class WrongPassword(SQLModel, table=True):
    """A wrong password, kept for a minute."""

    id: int | None = Field(default=None, primary_key=True)
    # Digests, so that nobody can read here who tried to log in, and from where.
    account: str = Field(index=True)  # of an email and a client's address, or of an id
    address: str = Field(index=True)  # of a client's address
    expires_at: datetime = Field(index=True)


class Proof(NamedTuple):
    """That somebody knows the password of an account."""

    user_id: int
    password: str
    verified_hash: str = ""  # the hash that the password matched
    stronger_hash: str = ""  # one to store instead, if BCRYPT_ROUNDS was raised

    def still_holds(self, user: User) -> bool:
        """Tell whether the password is right for the hash that is stored now."""
        if self.verified_hash == user.hashed_password:
            return True
        return passwords.is_password(self.password, user.hashed_password)

    def strengthen(self, user: User) -> None:
        """Store the stronger hash, if the one that is stored now is weak."""
        if self.stronger_hash and passwords.is_weak(user.hashed_password):
            user.hashed_password = self.stronger_hash


SELECT_HASH = select(User.id, User.hashed_password)
SELECT_BY_EMAIL = SELECT_HASH.where(col(User.email) == bindparam("email"))
SELECT_BY_ID = SELECT_HASH.where(col(User.id) == bindparam("user_id"))


async def prove_by_email(email: str, password: str, request: Request) -> Proof | None:
    """Prove a password at log-in, or return None; raises 429 and 503."""
    address = ""  # nobody's
    with contextlib.suppress(ValueError):
        address = find_address(email)
    # Wrong passwords count together if they are for one email and from one address.
    account = f"{address or email} {client_network(request)}"
    proof = await prove(SELECT_BY_EMAIL, password, account, request, email=address)
    if proof is not None and passwords.is_weak(proof.verified_hash):
        line = passwords.log_ins
        stronger_hash = await passwords.hash_password(password, request, line)
        return proof._replace(stronger_hash=stronger_hash)
    return proof


async def prove_by_id(user_id: int, password: str, request: Request) -> Proof | None:
    """Prove a current password, or return None; raises 429 and 503."""
    account = f"user {user_id}"
    return await prove(SELECT_BY_ID, password, account, request, user_id=user_id)


async def prove(
    statement: Any, password: str, account: str, request: Request, **who: Any
) -> Proof | None:
    """Compare a password with the hash that a statement finds.

    Those for one account are tried one after another, so that a crowd gets no more
    tries than a single client.
    """
    account = digest(account)
    address = digest(client_network(request))
    # The turn ends once a wrong password is stored, so that the next one counts it.
    async with passwords.turn_at(passwords.log_ins, request, account):
        await refuse_guessing("account", account, MAX_WRONG_FOR_ACCOUNT)
        await refuse_guessing("address", address, MAX_WRONG_FROM_ADDRESS)
        rows = await read(statement, **who)
        user_id, expected = None, passwords.no_hash()
        if rows:
            user_id, expected = rows[0]["id"], rows[0]["hashed_password"]
        is_right = await to_thread.run_sync(
            passwords.is_password, password, expected, limiter=NO_LIMIT
        )
        if user_id is not None and is_right:
            return Proof(user_id, password, expected)
        whose = "an unknown email" if user_id is None else f"account {user_id}"
        journal.note(request, f"wrong password for {whose}")
        async with sessions.turn_at(sessions.writers):
            await to_thread.run_sync(store, account, address, limiter=NO_LIMIT)
        return None


def count_wrong_passwords(column: Any) -> Any:
    """Build the query that counts the wrong passwords with a value in a column."""
    expires_at = col(WrongPassword.expires_at)
    return select(
        func.count().label("number"), func.min(expires_at).label("until")
    ).where(
        column == bindparam("value"),
        expires_at > bindparam("now"),
        # Not those that a wrong clock has dated far ahead.
        expires_at <= bindparam("end"),
    )


COUNTS = {
    "account": count_wrong_passwords(WrongPassword.account),
    "address": count_wrong_passwords(WrongPassword.address),
}


async def refuse_guessing(kind: str, value: str, most: int) -> None:
    """Raise 429 after too many wrong passwords for an account or from an address."""
    moment = now()
    (wrong,) = await read(COUNTS[kind], value=value, now=moment, end=moment + WINDOW)
    if wrong["number"] >= most:
        seconds = int((wrong["until"] - moment).total_seconds()) + 1
        raise TooManyWrongPasswords(seconds=seconds)


def store(account: str, address: str) -> None:
    with Session(sessions.engine) as session:
        expires_at = now() + WINDOW
        session.add(
            WrongPassword(account=account, address=address, expires_at=expires_at)
        )
        remove_expired(session)
        session.commit()


def remove_expired(session: Session) -> None:
    """Delete expired tokens and wrong passwords, whoever they belong to.

    A hundred at a time, without those that another worker is deleting.
    """
    tables: list[Any] = [Token, WrongPassword]
    for table in tables:
        (key,) = table.__table__.primary_key
        expired = select(key).where(table.expires_at <= now()).limit(100)
        expired = expired.with_for_update(skip_locked=True)
        session.exec(delete(table).where(key.in_(expired)))


def digest(text: str) -> str:
    """Return the SHA-256 of a text, in hex."""
    return sha256(text.encode(errors="replace")).hexdigest()
