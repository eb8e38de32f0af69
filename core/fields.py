"""What a text may hold, and two functions that fit a model to another audience.

It promises that a field which is declared once is in PATCH as well, and that an account
stays readable whatever rule its fields get later. Nothing else needs you to read this.
"""

import unicodedata
from copy import copy
from typing import Any, TypeVar, cast

from email_validator import EmailNotValidError, validate_email
from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic_core import PydanticUndefined
from sqlmodel import SQLModel

Model = TypeVar("Model", bound=SQLModel)

MAX_EMAIL = 254  # characters, RFC 5321, section 4.5.3.1.3


def left_out() -> None:
    """Stand for a field that was not sent; `exclude_unset` leaves it out."""


def all_optional(model: type[Model]) -> type[Model]:
    """Give a model whose fields may all be left out. Null is not left out."""
    fields: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        optional = copy(field)
        optional.default = PydanticUndefined
        optional.default_factory = left_out
        fields[name] = (field.annotation, optional)
    return cast(type[Model], create_model(model.__name__, __base__=model, **fields))


def without_rules(model: type[Model]) -> type[Model]:
    """Give a plain model with the same fields, for rows that a table holds already.

    Rules are for what comes in: a row from before the rule must stay readable. A plain
    pydantic model is filled five times as fast as a SQLModel, too.
    """
    fields: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        plain = Field(
            alias=field.alias,
            exclude=field.exclude,
            title=field.title,
            description=field.description,
            json_schema_extra=field.json_schema_extra,
        )
        fields[name] = (field.annotation, plain)
    config = ConfigDict(from_attributes=True, populate_by_name=True)
    plain_model = create_model(
        model.__name__, __config__=config, __doc__=model.__doc__, **fields
    )
    return cast(type[Model], cast(type[BaseModel], plain_model))


def normal_address(text: str) -> str | None:
    """Give an address as it is stored, in lower case, or None if it is not one."""
    address = text.strip()
    # The length first: on long input the check itself takes seconds.
    if len(address) > MAX_EMAIL:
        return None
    try:
        checked = validate_email(address, check_deliverability=False)
    except EmailNotValidError:  # whose text repeats what was typed
        return None
    return checked.normalized.lower()


# Unicode categories: controls, formats such as zero-width spaces, kinds of white space.
INVISIBLE = {"Cc", "Cf", "Zs", "Zl", "Zp"}
# Letters, marks and signs that show nothing: fillers, variation selectors, an empty
# braille pattern (Default_Ignorable_Code_Point in unicode.org/Public/UCD/latest/ucd).
FILLERS = (
    "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0"
    "\ufe00\ufe01\ufe02\ufe03\ufe04\ufe05\ufe06\ufe07"
    "\ufe08\ufe09\ufe0a\ufe0b\ufe0c\ufe0d\ufe0e\ufe0f"
)
# Marks that turn the direction of text, so that it reads as what it is not.
DIRECTIONS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def is_blank(text: str) -> bool:
    """Tell whether nobody would see anything of a text."""
    for character in text:
        if character in FILLERS:
            continue
        if unicodedata.category(character) not in INVISIBLE:
            return False
    return True


def fits_on_one_line(text: str) -> bool:
    """Tell whether a text has no control characters, line separators or directions."""
    for character in text:
        if character in DIRECTIONS:
            return False
        if unicodedata.category(character) in {"Cc", "Zl", "Zp"}:
            return False
    return True


def is_storable(text: str) -> bool:
    """Tell whether a database takes a text: no NUL, no half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text
