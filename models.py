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
# /docs shows an address. Not EmailStr: UserCreate checks and lower-cases what comes in.
EMAIL_FORMAT = {"json_schema_extra": {"format": "email"}}


def now() -> datetime:
    return datetime.now(UTC)


class UserBase(SQLModel):
    """What people write and see.

    A field added here is in the table, in sign-up, PATCH, every answer and /docs.
    """

    # A field with an alias keeps its own name in the code.
    model_config = {"populate_by_name": True}

    name: str = Field(max_length=MAX_NAME)
    email: str = Field(unique=True, schema_extra=EMAIL_FORMAT)


class User(UserBase, table=True):
    """The table. A field that only the code may see goes here."""

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


# Rules are for what comes in. What the table holds is shown as it is
# (core/audiences.py).
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
    password: str

    # pydantic calls each of these with the value of a field. It returns the value to
    # keep, or raises. mode="before" is before the type is checked, mode="wrap" checks
    # the type itself, and "*" is every field.

    @field_validator("name", "email", "password", mode="before")
    @classmethod
    def is_not_blank(cls, value: object) -> object:
        if isinstance(value, str) and is_blank(value):
            raise PydanticCustomError("blank", "All fields are required.")
        return value

    @field_validator("*", mode="wrap")
    @classmethod
    def fits_its_column(
        cls,
        value: object,
        check_type: ValidatorFunctionWrapHandler,
        info: ValidationInfo,
    ) -> object:
        return fit_column(value, check_type, User, info.field_name)

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


# What `= None` does in SQLModel's HeroUpdate, for each field, those of UserCreate too:
# it may be left out. Null is still refused (core/audiences.py).
@all_optional
class UserUpdate(UserCreate):
    """What people send to change an account."""

    current_password: str
    is_admin: StrictBool  # true or false, but not 1 or "yes"


# Ends the start if one of them has a field that User has not.
check_fields(User, [UserCreate, UserUpdate], UserPublic)


class Token(SQLModel, table=True):
    """A log-in. Of its token only the SHA-256 is stored."""

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
    account: str = Field(index=True)  # digest: an email from an address, or a user's id
    address: str = Field(index=True)  # digest: where it came from
    expires_at: datetime = Field(index=True)
