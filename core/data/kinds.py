"""What sqlite.py and postgresql.py say in the same words."""

from typing import Any, NamedTuple

from pydantic_core import to_json
from sqlalchemy.exc import SQLAlchemyError


class Broken(NamedTuple):
    """A rule of the database that rows would break."""

    rule: str  # UNIQUE, FOREIGN KEY, CHECK or another
    table: str
    names: str  # of columns, or of the rule; "" if the database does not say


def write_json(value: object) -> str:
    """Write a JSON column, even with what json.dumps does not know: times, models."""
    return to_json(value).decode()


ENGINE_OPTIONS: dict[str, Any] = {
    "hide_parameters": True,  # the log shows no secret
    "json_serializer": write_json,
}


def first_line(error: SQLAlchemyError) -> str:
    """Return what the database says. PostgreSQL shows the row on the next line."""
    return str(getattr(error, "orig", error)).partition("\n")[0]
