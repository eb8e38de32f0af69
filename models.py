"""The classes of accounts: schemas, and with table=True tables as well."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, StrictBool
from sqlmodel import Field, Index, SQLModel

from core.data.audiences import all_optional, without_rules
from core.texts import is_storable, normal_address, not_blank, one_line

MAX_NAME = 100  # characters
MAX_ID = 2**31 - 1  # the largest integer that PostgreSQL's INTEGER holds
MAX_PASSWORD = 72  # bytes in UTF-8: bcrypt's limit


def now() -> datetime:
    return datetime.now(UTC)


# ---- Rules: each takes what was sent and returns what to keep, or raises. ----


def clean_name(name: str) -> str:
    name = one_line(name)
    if len(name) > MAX_NAME:  # one_line's Unicode form (NFC) can be longer
        raise ValueError("A name has at most 100 characters")
    return name


def check_password(password: str) -> str:
    if not is_storable(password):
        raise ValueError("Contains characters that no password can have")
    if len(password.encode()) > MAX_PASSWORD:
        raise ValueError("A password has at most 72 bytes in UTF-8 (bcrypt's limit)")
    return password


# A type with its rules. "Before" runs before pydantic's own check of the type, "After"
# runs after it.
Name = Annotated[str, BeforeValidator(not_blank), AfterValidator(clean_name)]
Email = Annotated[str, BeforeValidator(not_blank), AfterValidator(normal_address)]
Password = Annotated[str, BeforeValidator(not_blank), AfterValidator(check_password)]


EMAIL_IN_DOCS = {
    "examples": ["john@example.com"],
    "json_schema_extra": {"format": "email"},
}


# ---- Accounts ----


class UserBase(SQLModel):
    """What people write and see.

    A field added here is in the table, in sign-up, PATCH, every answer and /docs.
    """

    # If you give a field an alias, its own name is still accepted.
    model_config = {"populate_by_name": True}

    name: Name = Field(max_length=MAX_NAME, schema_extra={"examples": ["John Doe"]})
    email: Email = Field(unique=True, schema_extra=EMAIL_IN_DOCS)


class User(UserBase, table=True):
    """The table. A field that only the code may see goes here."""

    # What SQLAlchemy is told about the whole table: indexes, then options.
    __table_args__ = (
        # index=True is for one column; these have two, for lists by name and by date.
        Index("ix_user_name_id", "name", "id"),
        Index("ix_user_created_at_id", "created_at", "id"),
        # The id of a deleted account is never used again.
        {"sqlite_autoincrement": True},
    )

    id: int | None = Field(default=None, primary_key=True)
    is_admin: bool = False
    created_at: datetime = Field(default_factory=now)
    hashed_password: str


# The same fields without validators: an old row may break a newer rule.
@without_rules
class UserPublic(UserBase):
    """What every answer shows."""

    # A field that people see but do not write goes here and into User.
    id: int
    is_admin: bool
    created_at: datetime


class UserCreate(UserBase):
    """What people send to sign up."""

    model_config = {"extra": "forbid"}

    # A field that people write but nobody sees goes here and, as a column, into User.
    password: Password = Field(schema_extra={"examples": ["secret"]})


# Every field may be left out, as in SQLModel's HeroUpdate. But null is refused.
@all_optional
class UserUpdate(UserCreate):
    """What people send to change an account."""

    model_config = {"json_schema_extra": {"examples": [{"name": "John"}]}}

    current_password: str
    is_admin: StrictBool  # true or false, but not 1 or "yes"


class Token(SQLModel, table=True):
    """A log-in. Only the SHA-256 of its token is stored."""

    hashed_token: str = Field(primary_key=True)
    user_id: int = Field(foreign_key="user.id", ondelete="CASCADE", index=True)
    expires_at: datetime = Field(index=True)


class TokenPublic(SQLModel):
    """The answer to a log-in."""

    access_token: str
    token_type: str = "bearer"
    expires_in: int  # seconds, as in RFC 6749, section 5.1
