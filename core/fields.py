"""What a field may hold: addresses, names, and what a database column accepts.

It promises that a value which passes here can be stored and read again, whatever the
type of its field. Nothing else needs you to read this.
"""

import enum
import math
import unicodedata
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import PurePath
from types import NoneType
from typing import Any

from email_validator import EmailNotValidError, validate_email
from pydantic import AnyUrl, BaseModel, ValidatorFunctionWrapHandler
from pydantic_core import PydanticCustomError
from sqlalchemy import (
    BigInteger,
    DateTime,
    Integer,
    Numeric,
    SmallInteger,
    String,
    inspect,
)
from sqlmodel import AutoString, SQLModel

from core.settings import SQLITE

MAX_EMAIL = 254  # characters, RFC 5321, section 4.5.3.1.3
MAX_EXPONENT = 300  # the largest power of ten; a float ends at 308
MAX_DEPTH = 100  # lists in lists; an answer with more than 255 fails
# What SQLModel stores as text. Others would lose something: a SecretStr is all stars.
TEXTS = (
    str
    | Decimal
    | IPv4Address
    | IPv6Address
    | IPv4Network
    | IPv6Network
    | PurePath
    | AnyUrl
)


def normal_address(text: str) -> str | None:
    """Return an address as it is stored, in lower case; None if it is not one."""
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
# Letters, marks and signs that show nothing: fillers, an empty braille pattern,
# variation selectors, tags (Default_Ignorable_Code_Point in
# unicode.org/Public/UCD/latest/ucd/DerivedCoreProperties.txt).
FILLERS = set("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2065\u2800")
FILLERS |= set("\u3164\uffa0")
for first, last in [(0xFE00, 0xFE0F), (0xFFF0, 0xFFF8), (0xE0000, 0xE0FFF)]:
    FILLERS |= {chr(number) for number in range(first, last + 1)}
# Marks that turn the direction of text, so that it reads as what it is not.
DIRECTIONS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def is_blank(text: str) -> bool:
    """Tell whether a text shows nothing at all."""
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
    """Tell whether a database accepts a text: no NUL, no half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def check_storable(value: object, depth: int = 0) -> None:
    """Check a value, in JSON at any depth, for what no column holds.

    Raises PydanticCustomError.
    """
    if depth > MAX_DEPTH:
        raise PydanticCustomError("too_deep", "Nested more than 100 deep")
    if isinstance(value, BaseModel):
        value = dict(value)
    if isinstance(value, str):
        if not is_storable(value):
            raise PydanticCustomError(
                "not_storable", "Contains characters that cannot be stored"
            )
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise PydanticCustomError("not_finite", "A number must be finite")
    elif isinstance(value, dict):
        check_storable(list(value), depth)
        check_storable(list(value.values()), depth)
    elif isinstance(value, list | tuple | set | frozenset):
        for inner in value:
            check_storable(inner, depth + 1)


def fit_column(
    value: object,
    check_type: ValidatorFunctionWrapHandler,
    model: type[SQLModel],
    name: str | None,
) -> Any:
    """Return what was sent as the column of a field stores it.

    `check_type` is pydantic's own check. Raises PydanticCustomError if
    the column cannot hold it.
    """
    check_storable(value)
    try:
        checked = check_type(value)
        check_storable(checked)  # again: the text "nan" is a float now
        attribute = inspect(model).column_attrs.get(name or "")
        if attribute is None or isinstance(checked, NoneType | bool | enum.Enum):
            return checked
        return fit_type(checked, attribute.columns[0].type)
    except OverflowError:  # a time or a duration that Python cannot hold
        raise PydanticCustomError("out_of_range", "Out of range") from None


def fit_type(value: Any, kind: Any) -> Any:
    """Return a value as its column stores it; a time without a zone is taken as UTC."""
    if isinstance(value, datetime):
        return fit_datetime(value, kind)
    if isinstance(value, time) and value.tzinfo is not None:
        raise PydanticCustomError("zone", "A time of day has no zone, as in 12:30")
    if isinstance(value, timedelta):
        # SQLite stores 1970 plus the duration: one too long is an OverflowError here.
        datetime(1970, 1, 1, tzinfo=UTC) + value
    if isinstance(value, int):
        check_range(value, largest_integer(kind))
    if isinstance(value, Decimal) and isinstance(kind, Numeric):
        return fit_decimal(value, kind)
    if isinstance(value, TEXTS) and isinstance(kind, String | AutoString):
        return fit_text(str(value), kind.length)
    return value


def fit_datetime(value: datetime, kind: Any) -> datetime:
    if value.tzinfo is None:
        value = value.replace(tzinfo=UTC)
    value = value.astimezone(UTC)
    # SQLAlchemy's own DateTime forgets the zone on SQLite; SQLModel's does not.
    if isinstance(kind, DateTime) and (SQLITE or not kind.timezone):
        value = value.replace(tzinfo=None)
    return value


def fit_text(text: str, length: int | None) -> str:
    if length is not None and len(text) > length:
        raise PydanticCustomError(
            "too_long", "At most {length} characters", {"length": length}
        )
    return text


def largest_integer(kind: Any) -> int:
    """Return the largest number that a column holds.

    From sqlite.org/datatype3.html and
    postgresql.org/docs/current/datatype-numeric.html.
    """
    if SQLITE or isinstance(kind, BigInteger) or not isinstance(kind, Integer):
        return 2**63 - 1
    if isinstance(kind, SmallInteger):
        return 2**15 - 1
    return 2**31 - 1


def check_range(value: int, largest: int) -> None:
    if not -largest - 1 <= value <= largest:
        raise PydanticCustomError(
            "out_of_range",
            "A whole number from {smallest} to {largest}",
            {"smallest": -largest - 1, "largest": largest},
        )


def fit_decimal(value: Decimal, kind: Any) -> Decimal:
    """Return a number as its column gives it back, and refuse one that would change.

    SQLite stores a float, and SQLAlchemy reads 10 decimal places of it by default.
    """
    if not value.is_finite() or abs(value.adjusted()) > MAX_EXPONENT:
        raise PydanticCustomError("out_of_range", "Out of range")
    places = kind.scale
    if SQLITE:
        if places is None:
            places = 10
        kept = Decimal(f"{float(value):z.{places}f}")
    else:
        if places is None and kind.precision is not None:
            places = 0
        kept = Decimal(f"{value:zf}" if places is None else f"{value:z.{places}f}")
    whole_digits = MAX_EXPONENT + 1
    if kind.precision is not None:
        whole_digits = kind.precision - (kind.scale or 0)
    if kept != value or kept.adjusted() >= whole_digits:
        raise PydanticCustomError(
            "out_of_range",
            "A number with fewer digits, and at most {places} decimal places",
            {"places": places},
        )
    return kept
