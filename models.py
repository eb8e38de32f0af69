"""The SQLModel classes. Each is a schema, and with table=True it is a table as well."""

import unicodedata
from datetime import UTC, datetime

from pydantic import (
    StrictBool,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
)
from pydantic_core import PydanticCustomError
from sqlmodel import Field, Index, SQLModel

from core.audiences import all_optional, check_fields, without_rules
from core.fields import (
    fit_column,
    fits_on_one_line,
    is_blank,
    normal_address,
)

MAX_NAME = 100  # characters
MAX_ID = 2**31 - 1  # what the column of an id holds on PostgreSQL
MAX_PASSWORD = 72  # bytes in UTF-8: bcrypt's limit

# For /docs only: example values.
NAME_EXAMPLE = {"examples": ["John Doe"]}
PASSWORD_EXAMPLE = {"examples": ["secret"]}
# Not EmailStr: that would keep an address's capital letters, and UserCreate does not.
EMAIL_FORMAT = {
    "examples": ["john@example.com"],
    "json_schema_extra": {"format": "email"},
}


def now() -> datetime:
    return datetime.now(UTC)


class UserBase(SQLModel):
    """What people write and see.

    A field added here is in the table, in sign-up, PATCH, every answer and /docs.
    """

    # A field with an alias can be set by its own name, too.
    model_config = {"populate_by_name": True}

    name: str = Field(schema_extra=NAME_EXAMPLE, max_length=MAX_NAME)
    email: str = Field(unique=True, schema_extra=EMAIL_FORMAT)


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


# Answers show old rows, even if they break a newer rule. So @without_rules turns this
# class into a plain pydantic model without rules (core/audiences.py).
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
    password: str = Field(schema_extra=PASSWORD_EXAMPLE)

    # A validator gets the value of a field and returns the value to keep, or raises.
    # PydanticCustomError is like ValueError, with a type for the 422 ("blank" becomes a
    # 400). "before" runs ahead of pydantic's own check of the type, "wrap" runs around
    # it, and no mode means after it. "*" stands for every field.

    @field_validator("name", "email", "password", mode="before")
    @classmethod
    def is_not_blank(cls, value: object) -> object:
        if isinstance(value, str) and is_blank(value):
            raise PydanticCustomError("blank", "All fields are required.")
        return value

    @field_validator("name")
    @classmethod
    def is_a_name(cls, name: str) -> str:
        # NFC makes "é" one character, however it was typed.
        name = unicodedata.normalize("NFC", name.strip())
        if not fits_on_one_line(name):
            raise PydanticCustomError(
                "one_line",
                "Must not contain line breaks, control or direction characters",
            )
        if len(name) > MAX_NAME:  # a few letters are two characters in this form
            raise PydanticCustomError("too_long", "A name has at most 100 characters")
        return name

    @field_validator("email")
    @classmethod
    def is_an_address(cls, email: str) -> str:
        address = normal_address(email)
        if address is None:
            raise PydanticCustomError(
                "email", "An email address looks like name@example.com"
            )
        return address

    @field_validator("password")
    @classmethod
    def fits_bcrypt(cls, password: str) -> str:
        if len(password.encode()) > MAX_PASSWORD:
            raise PydanticCustomError(
                "too_long", "A password has at most 72 bytes in UTF-8 (bcrypt's limit)"
            )
        return password

    # Keep this one last, so that it runs around all others. It refuses what the column
    # cannot hold, a number too large or NUL, with a 422; the database would make it a
    # 500. check_type(value) is pydantic's own check; info.field_name is the field.
    @field_validator("*", mode="wrap")
    @classmethod
    def fits_its_column(
        cls,
        value: object,
        check_type: ValidatorFunctionWrapHandler,
        info: ValidationInfo,
    ) -> object:
        return fit_column(value, check_type, User, info.field_name)


# Every field may be left out, as if each had `= None` in SQLModel's HeroUpdate. But
# null is refused where a field does not allow it (core/audiences.py).
@all_optional
class UserUpdate(UserCreate):
    """What people send to change an account."""

    model_config = {"json_schema_extra": {"examples": [{"name": "John"}]}}

    current_password: str  # may be left out, like all fields here
    is_admin: StrictBool  # true or false, but not 1 or "yes"


# Stops the startup if one of them has a field that User lacks.
check_fields(User, UserCreate, UserUpdate, UserPublic)


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


class WrongPassword(SQLModel, table=True):
    """A wrong password, kept for a minute to slow down guessing."""

    id: int | None = Field(default=None, primary_key=True)
    # Digests, so that nobody can read here who tried to log in, and from where.
    account: str = Field(index=True)  # of an email and a client's address, or of an id
    address: str = Field(index=True)  # of a client's address
    expires_at: datetime = Field(index=True)
