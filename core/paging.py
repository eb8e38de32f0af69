"""Pages of the list, which cost the same at its start and at its end.

It promises `Page`, what somebody asks for; `find_page`, its accounts and where the next
page begins; and `count`, how many match. Instead of counting rows to skip, a page
begins after the last account of the page before, which an index finds at once:
use-the-index-luke.com/no-offset. Nothing else needs you to read this.
"""

import re
import unicodedata
from datetime import UTC, datetime
from functools import cache
from typing import Any, Literal

from fastapi import Request
from pydantic import BaseModel, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError
from sqlalchemy import ColumnElement, tuple_
from sqlmodel import bindparam, func, or_, select

from core.reads import Rows, read, scan
from core.security import PUBLIC_COLUMNS
from core.settings import SQLITE
from models import MAX_ID, User

Sort = Literal[
    "id", "-id", "name", "-name", "email", "-email", "created_at", "-created_at"
]


class Page(BaseModel, extra="forbid"):
    """What to list, and from where."""

    limit: int = Field(default=20, ge=1, le=100)
    sort: Sort = "id"
    after: str = Field(default="", description="Where a page ended, from `Link`.")
    q: str = Field(default="", max_length=320, description="Part of the name or email.")
    count: bool = Field(
        default=False, description="Add `X-Total-Count`, how many accounts match."
    )

    @field_validator("after")
    @classmethod
    def is_where_a_page_ended(cls, after: str, info: ValidationInfo) -> str:
        if after and "sort" in info.data:
            parse_after(info.data["sort"], after)
        return after

    @field_validator("q")
    @classmethod
    def is_storable(cls, q: str) -> str:
        if "\0" in q:
            raise PydanticCustomError("not_storable", "Leave out NUL")
        return unicodedata.normalize("NFC", q)


def sort_fields(sort: str) -> list[str]:
    """Name the fields that a list is sorted by; the id breaks ties."""
    field = sort.removeprefix("-")
    if field == "id":
        return ["id"]
    return [field, "id"]


def parse_after(sort: str, after: str) -> dict[str, Any]:
    """Return the values of the last account's sort fields."""
    value, comma, last_id = after.rpartition(",")
    values: dict[str, Any] = {}
    field = sort.removeprefix("-")
    is_valid = re.fullmatch("[0-9]{1,10}", last_id) and "\0" not in value
    is_valid = is_valid and int(last_id) <= MAX_ID
    is_valid = is_valid and bool(comma) is (field != "id")
    try:
        if field == "created_at":
            time = datetime.fromisoformat(value)
            values[field] = time.replace(tzinfo=time.tzinfo or UTC).astimezone(UTC)
        elif field != "id":
            values[field] = value
    except (ValueError, OverflowError):
        is_valid = False
    if not is_valid:
        raise PydanticCustomError("after", "Take it from Link, with the same sort")
    values["id"] = int(last_id)
    return values


def end_of_page(sort: str, row: dict[str, Any]) -> str:
    """Write where a page ends, as the answer shows it, for `after`."""
    if "created_at" in sort:
        time = row["created_at"].isoformat(timespec="microseconds")
        return f"{time.replace('+00:00', 'Z')},{row['id']}"
    return ",".join(str(row[field]) for field in sort_fields(sort))


@cache
def select_page(sort: str, *, is_first: bool) -> Any:
    """Build a page's query, once: that takes longer than running it."""
    columns: list[Any] = [getattr(User, field) for field in sort_fields(sort)]
    descending = sort.startswith("-")
    statement = select(*PUBLIC_COLUMNS).limit(bindparam("limit"))
    for column in columns:
        if descending:
            statement = statement.order_by(column.desc())
        else:
            statement = statement.order_by(column)
    if is_first:
        return statement
    here = tuple_(*columns)
    end = tuple_(*(bindparam(column.key, type_=column.type) for column in columns))
    if descending:
        return statement.where(here < end)
    return statement.where(here > end)


def page_values(page: Page) -> dict[str, Any]:
    """Return the values for a page's query: one extra row, and where it begins."""
    values: dict[str, Any] = {"limit": page.limit + 1}
    if page.after:
        values.update(parse_after(page.sort, page.after))
    return values


def matches(q: str) -> ColumnElement[bool]:
    """Build the condition for a search; `%` and `_` stand for themselves."""
    q = q.lower()
    return or_(
        in_lower_case(User.name, q).contains(q, autoescape=True),
        in_lower_case(User.email, q).contains(q, autoescape=True),
    )


def in_lower_case(column: Any, q: str) -> Any:
    """Build lower(column), even for letters of q that lower() may not know.

    On PostgreSQL with the locale C it knows only A to Z.
    """
    lower = func.lower(column)
    if SQLITE:  # whose lower() is in core/engine.py
        return lower
    letters = ""
    capitals = ""
    for letter in q:
        if len(letter.upper()) == 1:
            letters += letter
            capitals += letter.upper()
    return func.translate(lower, capitals, letters)


async def find_page(request: Request, page: Page) -> tuple[Rows, str | None]:
    """Find a page's accounts, and the `after` of the next page if there is one."""
    statement = select_page(page.sort, is_first=not page.after)
    values = page_values(page)
    if page.q:
        rows = await scan(request, statement.where(matches(page.q)), **values)
    else:
        rows = await read(statement, **values)
    if len(rows) <= page.limit:
        return rows, None
    rows.pop()  # it is the first of the next page
    return rows, end_of_page(page.sort, rows[-1])


async def count(request: Request, q: str) -> int:
    """Count the accounts that match a search, or all."""
    statement = select(func.count().label("number")).select_from(User)
    if q:
        statement = statement.where(matches(q))
    rows = await scan(request, statement)
    return int(rows[0]["number"])
