"""Pages of a list of any table, which cost the same at its start and at its end.

`Page` is what somebody asks for, and a `Listing` answers it. Instead of counting rows
to skip, a page begins after the last row of the page before, which an index finds at
once: use-the-index-luke.com/no-offset.
"""

import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any
from urllib.parse import urlencode

from fastapi import Request, Response
from pydantic import BaseModel, Field, TypeAdapter, field_validator
from pydantic_core import to_jsonable_python
from sqlalchemy import ColumnElement, tuple_
from sqlmodel import SQLModel, bindparam, func, or_, select

from core import refusals
from core.data.columns import fit
from core.data.reads import Rows, read, scan
from core.data.sessions import database
from core.texts import is_storable
from core.web.openapi import Responses, document_header, documented


class Page(BaseModel, extra="forbid"):
    """What to list, and from where. Each list adds `sort: Literal[…]`."""

    limit: int = Field(default=20, ge=1, le=100)
    sort: str = "id"
    after: str = Field(default="", description="Where a page ended, from `Link`.")
    q: str = Field(default="", max_length=320, description="Part of a text to find.")
    count: bool = Field(default=False, description="Add `X-Total-Count`.")

    @field_validator("after", "q")
    @classmethod
    def can_be_looked_for(cls, text: str) -> str:
        if not is_storable(text):
            raise ValueError("Leave out NUL")
        return unicodedata.normalize("NFC", text)


def sort_fields(sort: str) -> list[str]:
    """Name the fields that a list is sorted by; the id breaks ties."""
    field = sort.removeprefix("-")
    return ["id"] if field == "id" else [field, "id"]


class Listing:
    """The lists of one table: how rows are shown, and which columns q searches."""

    def __init__(
        self, table: type[SQLModel], shown: type[SQLModel], search: Sequence[str] = ()
    ) -> None:
        self.table = table
        self.shown = shown
        self.search = search
        self.types = cache(self.make_type)
        self.select = cache(self.build_select)  # building takes longer than running

    def column(self, name: str) -> Any:
        return getattr(self.table, name)

    def make_type(self, name: str) -> TypeAdapter[Any]:
        annotation: Any = self.table.model_fields[name].annotation
        return TypeAdapter(annotation)

    def responses(self, *listed: type[refusals.Refusal]) -> Responses:
        """List the refusals and headers of a list for `responses=`."""
        made = documented(*listed, refusals.Mistake, refusals.SearchTooLong)
        link = document_header("Link", 'The next page: `<path>; rel="next"`.')
        total = document_header("X-Total-Count", "How many match, with `count=true`.")
        return {**made, 200: {"headers": link | total}}

    def build_select(self, sort: str, *, is_first: bool) -> Any:
        """Build a page's query, from the start of the list or after some row."""
        columns = [self.column(name) for name in sort_fields(sort)]
        descending = sort.startswith("-")
        shown = [self.column(name).label(name) for name in self.shown.model_fields]
        statement = select(*shown).limit(bindparam("limit"))
        for column in columns:
            statement = statement.order_by(column.desc() if descending else column)
        if is_first:
            return statement
        here = tuple_(*columns)
        ends = [bindparam(f"end_{one.key}", type_=one.type) for one in columns]
        end = tuple_(*ends)
        return statement.where(here < end if descending else here > end)

    def parse_after(self, page: Page) -> dict[str, Any]:
        """Return the values of the last row's sort fields; raises 422."""
        names = sort_fields(page.sort)
        values = {}
        try:
            parts = page.after.rsplit(",", len(names) - 1)
            for name, part in zip(names, parts, strict=True):
                value = self.types(name).validate_strings(part)
                values[f"end_{name}"] = fit(value, self.column(name).type)
        except (ValueError, OverflowError):
            message = "Take it from Link, with the same sort"
            mistake = {"type": "after", "loc": ["query", "after"], "msg": message}
            raise refusals.Mistake([mistake]) from None
        return values

    def matches(self, q: str) -> ColumnElement[bool]:
        """Build the condition for a search; `%` and `_` stand for themselves."""
        q = q.lower()
        found = []
        for name in self.search:
            lower = database.in_lower_case(self.column(name), q)
            found.append(lower.contains(q, autoescape=True))
        return or_(*found)

    async def page(self, page: Page, request: Request, response: Response) -> Rows:
        """Find a page's rows; `Link` leads to the next, X-Total-Count says how many."""
        statement = self.select(page.sort, is_first=not page.after)
        values: dict[str, Any] = {"limit": page.limit + 1}  # one more: is there a next?
        if page.after:
            values.update(self.parse_after(page))
        if page.q:
            statement = statement.where(self.matches(page.q))
            rows = await scan(request, statement, **values)
        else:
            rows = await read(statement, **values)
        if page.count:
            total = await self.count(page, request)
            response.headers["X-Total-Count"] = str(total)
        if len(rows) > page.limit:
            rows.pop()  # it is the first of the next page
            after = end_of_page(rows[-1], page.sort)
            query = urlencode({**request.query_params, "after": after})
            response.headers["Link"] = f'<{request.url.path}?{query}>; rel="next"'
        return rows

    async def count(self, page: Page, request: Request) -> int:
        statement = select(func.count().label("number")).select_from(self.table)
        if page.q:
            statement = statement.where(self.matches(page.q))
        rows = await scan(request, statement)
        return int(rows[0]["number"])


def end_of_page(row: dict[str, Any], sort: str) -> str:
    """Write where a page ends, as the answer shows it, for `after`."""
    ends = []
    for name in sort_fields(sort):
        value = row[name]
        if isinstance(value, datetime):  # "+" would have to be escaped
            value = value.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"
        ends.append(str(to_jsonable_python(value)))
    return ",".join(ends)
