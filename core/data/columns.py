"""What a column holds, checked where the ORM writes a row, whatever its table.

A value is refused that its column could not give back, and the others are written as
they will be read: a moment in UTC, a number with its places, an IP address as text.
"""

import enum
import math
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import PurePath
from typing import Any

from pydantic import AnyUrl, BaseModel
from sqlalchemy import BigInteger, Integer, SmallInteger, event, inspect
from sqlalchemy.orm import Mapper, RelationshipDirection, RelationshipProperty, Session
from sqlalchemy.orm.attributes import set_committed_value
from sqlmodel import AutoString, DateTime, Numeric, String

from core.settings import SQLITE
from core.texts import is_storable

MAX_EXPONENT = 300  # the largest power of ten; a float ends at 308
MAX_DEPTH = 100  # lists in lists; an answer with more than 255 fails
SQLITE_PLACES = 10  # SQLite stores a float, of which SQLAlchemy reads so many places
# What SQLModel stores as text. Others would lose something: a SecretStr is all stars.
NETWORKS = IPv4Address | IPv6Address | IPv4Network | IPv6Network
TEXTS = str | Decimal | NETWORKS | PurePath | AnyUrl


class Misfit(Exception):
    """Values that their columns cannot hold: a field and a message for each."""

    def __init__(self, mistakes: list[tuple[str, str]]) -> None:
        super().__init__(mistakes)
        self.mistakes = mistakes


@event.listens_for(Mapper, "before_insert")
@event.listens_for(Mapper, "before_update")
def fit_columns(mapper: Mapper[Any], _connection: object, row: Any) -> None:
    """Check and normalise what is new in a row; raises Misfit."""
    state = inspect(row)
    fields = getattr(type(row), "model_fields", {})
    old: set[str] = set()
    defaults: set[str] = set()
    if state.has_identity:
        old = state.unmodified
    else:
        defaults = fields.keys() - getattr(row, "model_fields_set", set())
    mistakes = []
    for attribute in mapper.column_attrs:
        name = attribute.key
        value = getattr(row, name)
        if value is None or name in old:
            continue
        # Nobody sent a default. A naive datetime.now() there is a mistake in the code.
        if name in defaults and isinstance(value, datetime):
            continue
        try:
            setattr(row, name, fit(value, attribute.columns[0].type))
        except OverflowError:  # a moment or a duration that Python cannot hold
            mistakes.append((name, "Out of range"))
        except ValueError as error:
            alias = getattr(fields.get(name), "alias", None)
            mistakes.append((alias or name, str(error)))
    if mistakes:
        raise Misfit(mistakes)


def fit(value: Any, kind: Any) -> Any:
    """Return a value as a column of this type gives it back.

    Raises ValueError or OverflowError if it cannot hold the value.
    """
    check_storable(value)
    if isinstance(value, bool | enum.Enum):
        return value
    if isinstance(value, datetime):
        return fit_datetime(value, kind)
    if isinstance(value, time) and value.tzinfo is not None:
        raise ValueError("A time of day has no zone, as in 12:30")
    if isinstance(value, timedelta):
        # SQLite stores 1970 plus the duration: one too long is an OverflowError here.
        datetime(1970, 1, 1, tzinfo=UTC) + value
    if isinstance(value, int):
        largest = largest_integer(kind)
        if not -largest - 1 <= value <= largest:
            raise ValueError(f"A whole number from {-largest - 1} to {largest}")
    if isinstance(value, Decimal) and isinstance(kind, Numeric):
        return fit_decimal(value, kind)
    if isinstance(value, TEXTS) and isinstance(kind, String | AutoString):
        value = str(value)
        if kind.length is not None and len(value) > kind.length:
            raise ValueError(f"At most {kind.length} characters")
    return value


def check_storable(value: object, depth: int = 0) -> None:
    """Raise ValueError for what no column holds, in JSON at any depth."""
    if depth > MAX_DEPTH:
        raise ValueError("Nested more than 100 deep")
    if isinstance(value, BaseModel):
        value = dict(value)
    if isinstance(value, str) and not is_storable(value):
        raise ValueError("Contains characters that cannot be stored")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("A number must be finite")
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list | tuple | set | frozenset):
        for inner in value:
            check_storable(inner, depth + 1)


def fit_datetime(value: datetime, kind: Any) -> datetime:
    """Return a moment in UTC, which is also taken for one without a zone."""
    if value.tzinfo is None:
        value = value.replace(tzinfo=UTC)
    value = value.astimezone(UTC)
    # SQLAlchemy's own DateTime forgets the zone on SQLite; SQLModel's does not.
    if isinstance(kind, DateTime) and (SQLITE or not kind.timezone):
        value = value.replace(tzinfo=None)
    return value


def largest_integer(kind: Any) -> int:
    """Return the largest number that a column holds."""
    # SQLite's all have 64 bits; postgresql.org/docs/current/datatype-numeric.html
    if SQLITE or isinstance(kind, BigInteger) or not isinstance(kind, Integer):
        return 2**63 - 1
    if isinstance(kind, SmallInteger):
        return 2**15 - 1
    return 2**31 - 1


def fit_decimal(value: Decimal, kind: Any) -> Decimal:
    """Return a number as its column gives it back, and refuse one that would change."""
    if not value.is_finite() or abs(value.adjusted()) > MAX_EXPONENT:
        raise ValueError("Out of range")
    places = kind.scale
    whole_digits = MAX_EXPONENT + 1
    if kind.precision is not None:
        whole_digits = kind.precision - (kind.scale or 0)
        places = places or 0
    if SQLITE:
        places = SQLITE_PLACES if kind.scale is None else kind.scale
        kept = Decimal(f"{float(value):z.{places}f}")
    elif places is None:
        kept = Decimal(f"{value:zf}")
    else:
        kept = Decimal(f"{value:z.{places}f}")
    if kept != value or kept.adjusted() >= whole_digits:
        raise ValueError(
            f"A number with fewer digits, and at most {places} decimal places"
        )
    return kept


# ---- A deletion: whether other rows need this one is for the database to say. ----


@event.listens_for(Session, "before_flush")
def leave_children_to_the_database(session: Session, *_: object) -> None:
    """Keep the ORM from blanking the keys of rows that refer to a deleted one.

    It would set a key that must not be empty to NULL, before the database can refuse
    the deletion, or delete them, too (ON DELETE CASCADE).
    """
    for row in session.deleted:
        for relationship in inspect(row).mapper.relationships:
            if must_have_parent(relationship):
                nobody: list[Any] | None = [] if relationship.uselist else None
                set_committed_value(row, relationship.key, nobody)


def must_have_parent(relationship: RelationshipProperty[Any]) -> bool:
    """Tell whether it leads to rows whose keys must not be empty."""
    if relationship.direction is not RelationshipDirection.ONETOMANY:
        return False
    if relationship.viewonly or relationship.cascade.delete:
        return False
    pairs = relationship.local_remote_pairs or ()
    return not all(key.nullable for _, key in pairs)
