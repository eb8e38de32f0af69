"""Who is asking, and what allows them to change an account."""

import secrets
from datetime import timedelta
from functools import cache
from typing import Any, NamedTuple

from fastapi import Request
from sqlmodel import (
    Integer,
    Session,
    SQLModel,
    bindparam,
    col,
    delete,
    func,
    select,
)

from accounts import refusals
from accounts.passwords import hash_password
from accounts.throttle import Proof, digest, prove_by_id, remove_expired
from core.data.reads import read
from core.web import journal
from models import Token, User, UserCreate, UserPublic, UserUpdate, now

TOKEN_LIFETIME = timedelta(days=7)
# What a PATCH takes and a sign-up does not is for administrators.
OF_ADMINISTRATORS = UserUpdate.model_fields.keys() - UserCreate.model_fields.keys()
OF_ADMINISTRATORS -= {"current_password"}


class Access(NamedTuple):
    """Who is asking, with which token, and the account that it is about."""

    hashed_token: str
    asker_id: int
    asker_is_admin: bool
    user: UserPublic

    @property
    def is_own(self) -> bool:
        return self.user.id == self.asker_id


@cache  # building it takes longer than running it
def select_access() -> Any:
    """Build a query for two rows of one table: who is asking, and the account.

    That is the one with the id, or without an id their own. Two queries would make a
    read a fifth slower.
    """
    shown = [getattr(User, name).label(name) for name in UserPublic.model_fields]
    asker = SQLModel.metadata.tables["user"].alias("asker")
    account_id = func.coalesce(bindparam("user_id", None, Integer), asker.c.id)
    return (
        select(*shown)
        .add_columns(
            asker.c.id.label("_asker_id"), asker.c.is_admin.label("_asker_is_admin")
        )
        .select_from(Token)
        .join(asker, asker.c.id == Token.user_id)
        .outerjoin(User, col(User.id) == account_id)
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
        raise refusals.NotSignedIn
    hashed_token = digest(token)
    rows = await read(
        select_access(), hashed_token=hashed_token, now=now(), user_id=user_id
    )
    if not rows:
        raise refusals.DeadToken
    found = rows[0]
    if found["id"] != found["_asker_id"] and not found["_asker_is_admin"]:
        raise refusals.AdministratorsOnly
    if found["id"] is None:
        raise refusals.UserNotFound
    return Access(
        hashed_token, found["_asker_id"], found["_asker_is_admin"], UserPublic(**found)
    )


class Permit:
    """What allows a change of an account: asked before its session, and again in it.

    Passwords are hashed before the session, and meanwhile the accounts may change.
    """

    def __init__(self, access: Access, changes: dict[str, Any]) -> None:
        self.access = access
        self.changes = changes  # what was sent; nothing for a deletion
        self.proof: Proof | None = None
        self.new_hash: dict[str, str] = {}  # the column, if there is a new password

    def check(self, user: User | UserPublic, *, asker_is_admin: bool) -> bool:
        """Tell whether the change needs the current password; raises 403."""
        if OF_ADMINISTRATORS & self.changes.keys() and not asker_is_admin:
            raise refusals.AdministratorsOnly
        email = self.changes.get("email", user.email)
        is_secured = "password" in self.changes or email != user.email
        if not is_secured or not self.access.is_own:
            return False
        if "current_password" not in self.changes:
            raise refusals.CurrentPasswordMissing
        return True

    async def ask(self, request: Request) -> None:
        """Check and hash passwords; raises 403, 429 and 503."""
        user = self.access.user
        if self.check(user, asker_is_admin=self.access.asker_is_admin):
            password = self.changes["current_password"]
            self.proof = await prove_by_id(user.id, password, request)
            if self.proof is None:
                raise refusals.WrongCurrentPassword
        if "password" in self.changes:
            new_hash = await hash_password(self.changes["password"], request)
            self.new_hash = {"hashed_password": new_hash}

    def lock(self, session: Session) -> User:
        """Return the account, locked until the commit, if the change is still allowed.

        Raises 401, 403 and 404.
        """
        # Always in the order of their ids, or two administrators could wait for each
        # other. On SQLite the session has a lock already.
        users: dict[int, User | None] = {}
        for user_id in sorted({self.access.asker_id, self.access.user.id}):
            users[user_id] = session.get(User, user_id, with_for_update=True)
        asker = users[self.access.asker_id]
        user = users[self.access.user.id]
        hashed_token = self.access.hashed_token
        token = session.get(Token, hashed_token, with_for_update={"read": True})
        if asker is None or token is None or token.expires_at <= now():
            raise refusals.DeadToken
        if not self.access.is_own and not asker.is_admin:
            raise refusals.AdministratorsOnly
        if user is None:
            raise refusals.UserNotFound
        if self.check(user, asker_is_admin=asker.is_admin):
            password = self.changes["current_password"]
            proof = self.proof or Proof(self.access.user.id, password)
            if not proof.still_holds(user):
                raise refusals.WrongCurrentPassword
        return user

    def end_other_tokens(self, session: Session) -> None:
        """Log the account out everywhere but here."""
        statement = delete(Token).where(
            col(Token.user_id) == self.access.user.id,
            col(Token.hashed_token) != self.access.hashed_token,
        )
        session.exec(statement)

    def log_if_admin(self, request: Request) -> None:
        """Log what somebody did as an administrator."""
        what = "deleted"
        if self.changes:
            what = f"changed {', '.join(self.changes)} of"
        if not self.access.is_own or OF_ADMINISTRATORS & self.changes.keys():
            asker_id, user_id = self.access.asker_id, self.access.user.id
            journal.note(request, f"account {asker_id} {what} account {user_id}")


def add_token(session: Session, user_id: int) -> str:
    """Store a new log-in and return its token; remove what has expired."""
    # Not a JWT, which nobody can revoke: 32 random bytes; the table has their digest.
    access_token = secrets.token_urlsafe(32)
    session.add(
        Token(
            hashed_token=digest(access_token),
            user_id=user_id,
            expires_at=now() + TOKEN_LIFETIME,
        )
    )
    remove_expired(session)
    return access_token


def find_token(session: Session, access_token: str | None) -> Token:
    """Find a log-in to end it; raises 401 if another request has just done so."""
    token = session.get(Token, digest(access_token or ""), with_for_update=True)
    if token is None:
        raise refusals.DeadToken
    return token
