"""Who is asking, and what allows them to change an account."""

import secrets
from datetime import timedelta
from typing import Any

from fastapi import Request
from sqlmodel import Session, bindparam, col, delete, select

from accounts import refusals
from accounts.passwords import hash_password, log_ins
from accounts.throttle import Proof, digest, prove_by_id, remove_expired
from core.data.reads import read
from core.web import journal
from models import Token, User, UserCreate, UserPublic, UserUpdate, now

TOKEN_LIFETIME = timedelta(days=7)
MAX_TOKENS = 50  # of one account
# What a PATCH takes and a sign-up does not is for administrators.
OF_ADMINISTRATORS = UserUpdate.model_fields.keys() - UserCreate.model_fields.keys()
OF_ADMINISTRATORS -= {"current_password"}


# A field that User lacks is for the start to refuse (database.py), not for an import.
COLUMNS = [name for name in UserPublic.model_fields if name in User.model_fields]
SHOWN = [getattr(User, name).label(name) for name in COLUMNS]
SELECT_BY_ID = select(*SHOWN).where(col(User.id) == bindparam("user_id"))
SELECT_BY_TOKEN = (
    select(*SHOWN)
    .join(Token, col(Token.user_id) == col(User.id))
    .where(
        col(Token.hashed_token) == bindparam("hashed_token"),
        col(Token.expires_at) > bindparam("now"),
    )
)


async def find_asker(token: str | None) -> UserPublic:
    """Return the account that a token belongs to; raises 401."""
    if token is None:
        raise refusals.NotSignedIn
    rows = await read(SELECT_BY_TOKEN, hashed_token=digest(token), now=now())
    if not rows:
        raise refusals.DeadToken
    return UserPublic(**rows[0])


async def find_account(asker: UserPublic, user_id: int) -> UserPublic:
    """Return an account, if it is one's own or an administrator asks.

    Raises 404, and 403 for somebody else's account, whether or not it exists.
    """
    if user_id == asker.id:
        return asker
    if not asker.is_admin:
        raise refusals.AdministratorsOnly
    rows = await read(SELECT_BY_ID, user_id=user_id)
    if not rows:
        raise refusals.UserNotFound
    return UserPublic(**rows[0])


class Permit:
    """What allows a change of an account: asked before its session, and again in it.

    Passwords are hashed before the session, and meanwhile the accounts may change.
    """

    def __init__(
        self,
        asker: UserPublic,
        token: str | None,
        account: UserPublic,
        changes: dict[str, Any],
    ) -> None:
        self.asker = asker
        # None only in a test that overrides get_current_user.
        self.hashed_token = None if token is None else digest(token)
        self.account = account
        self.is_own = account.id == asker.id
        self.changes = changes  # what was sent; nothing for a deletion
        self.proof: Proof | None = None
        self.new_hash: dict[str, str] = {}  # the column, if there is a new password

    def check(self, user: User | UserPublic, *, asker_is_admin: bool) -> bool:
        """Tell whether the change needs the current password; raises 403."""
        if OF_ADMINISTRATORS & self.changes.keys() and not asker_is_admin:
            raise refusals.AdministratorsOnly
        email = self.changes.get("email", user.email)
        is_secured = "password" in self.changes or email != user.email
        if not is_secured or not self.is_own:
            return False
        if "current_password" not in self.changes:
            raise refusals.CurrentPasswordMissing
        return True

    async def ask(self, request: Request) -> None:
        """Check and hash passwords; raises 403, 429 and 503."""
        user = self.account
        if self.check(user, asker_is_admin=self.asker.is_admin):
            password = self.changes["current_password"]
            self.proof = await prove_by_id(user.id, password, request)
            if self.proof is None:
                raise refusals.WrongCurrentPassword
        if "password" in self.changes:
            password = self.changes["password"]
            new_hash = await hash_password(password, request, log_ins)
            self.new_hash = {"hashed_password": new_hash}

    def lock(self, session: Session) -> User:
        """Return the account, locked until the commit, if the change is still allowed.

        Raises 401, 403 and 404.
        """
        # Always in the order of their ids, or two administrators could wait for each
        # other. On SQLite the session has a lock already.
        users: dict[int, User | None] = {}
        for user_id in sorted({self.asker.id, self.account.id}):
            users[user_id] = session.get(User, user_id, with_for_update=True)
        asker = users[self.asker.id]
        user = users[self.account.id]
        if asker is None or not self.is_signed_in(session):
            raise refusals.DeadToken
        if not self.is_own and not asker.is_admin:
            raise refusals.AdministratorsOnly
        if user is None:
            raise refusals.UserNotFound
        if self.check(user, asker_is_admin=asker.is_admin):
            password = self.changes["current_password"]
            proof = self.proof or Proof(self.account.id, password)
            if not proof.still_holds(user):
                raise refusals.WrongCurrentPassword
        return user

    def is_signed_in(self, session: Session) -> bool:
        """Tell whether the token is still valid; it stays so until the commit."""
        if self.hashed_token is None:
            return True
        token = session.get(Token, self.hashed_token, with_for_update={"read": True})
        return token is not None and token.expires_at > now()

    def end_other_tokens(self, session: Session) -> None:
        """Log the account out everywhere but here."""
        statement = delete(Token).where(
            col(Token.user_id) == self.account.id,
            col(Token.hashed_token) != self.hashed_token,
        )
        session.exec(statement)

    def log_if_admin(self, request: Request) -> None:
        """Log what somebody did as an administrator."""
        what = "deleted"
        if self.changes:
            what = f"changed {', '.join(self.changes)} of"
        if not self.is_own or OF_ADMINISTRATORS & self.changes.keys():
            asker_id, user_id = self.asker.id, self.account.id
            journal.note(request, f"account {asker_id} {what} account {user_id}")


def add_token(
    session: Session, user_id: int, lifetime: timedelta = TOKEN_LIFETIME
) -> str:
    """Store a new log-in and return its token; remove old ones."""
    # Not a JWT, which nobody can revoke: 32 random bytes; the table has their digest.
    access_token = secrets.token_urlsafe(32)
    remove_expired(session)
    remove_oldest(session, user_id)
    session.add(
        Token(
            hashed_token=digest(access_token),
            user_id=user_id,
            expires_at=now() + lifetime,
        )
    )
    return access_token


def remove_oldest(session: Session, user_id: int) -> None:
    """Make room for one more token: those of an account that end last stay."""
    tokens = select(Token.hashed_token).where(Token.user_id == user_id)
    newest_first = tokens.order_by(col(Token.expires_at).desc())
    oldest = newest_first.offset(MAX_TOKENS - 1)
    session.exec(delete(Token).where(col(Token.hashed_token).in_(oldest)))


def find_token(session: Session, access_token: str | None) -> Token:
    """Find a log-in to end it; raises 401 if another request has just done so."""
    token = session.get(Token, digest(access_token or ""), with_for_update=True)
    if token is None:
        raise refusals.DeadToken
    return token
