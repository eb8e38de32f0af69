"""Accounts and tokens. Each class is schema, and with table=True it is the table as well."""

from datetime import UTC, datetime

from email_validator import EmailNotValidError, validate_email
from pydantic import StrictBool, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError, PydanticUndefined
from sqlmodel import Field, Index, SQLModel

MAX_PASSWORD = 72  # bytes in UTF-8: bcrypt's limit


def email_address(text: str) -> str:
    """Check an address and give it in lower case, for the unique index to know it again; raises ValueError."""
    try:
        return validate_email(text.strip(), check_deliverability=False).normalized.lower()
    except EmailNotValidError:  # whose message repeats what was typed
        raise PydanticCustomError("email", "An email address looks like name@example.com") from None


class UserBase(SQLModel):
    """What people write and see. A field added here is in the table, sign-up, PATCH, every answer and /docs."""

    name: str = Field(max_length=100)
    email: str = Field(unique=True, schema_extra={"json_schema_extra": {"format": "email"}})


class User(UserBase, table=True):
    """The table. A field that only the code may see goes here."""

    __table_args__ = (
        Index("ix_user_name_id", "name", "id"),
        Index("ix_user_created_at_id", "created_at", "id"),
        {"sqlite_autoincrement": True},  # else the id of a deleted account is handed out again
    )

    id: int | None = Field(default=None, primary_key=True)
    is_admin: bool = False
    created_at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    hashed_password: str


class UserPublic(UserBase):
    """What every answer shows. A field that people see but do not write goes here and into User."""

    id: int
    is_admin: bool
    created_at: datetime


ACCOUNT = [getattr(User, field) for field in UserPublic.model_fields]  # the columns of an answer


class UserCreate(UserBase):
    model_config = {"extra": "forbid"}

    password: str  # a field that people write but nobody sees goes here and, as a column, into User

    @field_validator("*", mode="before")
    @classmethod
    def check(cls, value: object, info: ValidationInfo) -> object:
        """Refuse what the contract refuses, and in any field what JSON can say but no column can hold."""
        match info.field_name, value:
            case "name" | "email" | "password", str(text) if not text.strip():
                raise PydanticCustomError("blank", "All fields are required.")
            case _, str(text) if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
                raise PydanticCustomError("not_storable", "Leave out NUL and halves of surrogate pairs")
            case "name", str(text) if any(character < " " or "\x7f" <= character < "\xa0" for character in text):
                raise PydanticCustomError("control_character", "Leave out line breaks and other control characters")
            case "password", str(text) if len(text.encode()) > MAX_PASSWORD:
                raise PydanticCustomError("too_long", "A password has at most 72 bytes in UTF-8 (bcrypt's limit)")
            case "email", str(text):
                return email_address(text)
        return value


class UserUpdate(UserCreate):
    current_password: str
    is_admin: StrictBool


for field in UserUpdate.model_fields.values():  # a PATCH may have any of them: what is not sent is not set
    field.default, field.default_factory = PydanticUndefined, lambda: None
UserUpdate.model_rebuild(force=True)


class Token(SQLModel, table=True):
    """A log-in. Of its token only the SHA-256 is stored."""

    hashed_token: str = Field(primary_key=True)
    user_id: int = Field(foreign_key="user.id", ondelete="CASCADE", index=True)
    expires_at: datetime


class TokenPublic(SQLModel):
    access_token: str
    token_type: str = "bearer"
    expires_in: int  # seconds, as in RFC 6749, section 5.1


class LoginAttempt(SQLModel, table=True):
    """A log-in of a client (an email at an address) that is being tried or failed, for a minute."""

    id: int | None = Field(default=None, primary_key=True)
    client: str = Field(index=True)
    failed: bool = False
    expires_at: datetime = Field(index=True)
