"""Pages of a list of any table, which cost the same at its start and at its end.

`Page` is what somebody asks for, and a `Listing` answers it. Instead of counting rows
to skip, a page begins after the last row of the page before, which an index finds at
once: use-the-index-luke.com/no-offset.
"""

import enum
import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import Any
from urllib.parse import quote, unquote, urlencode

from fastapi import Request, Response
from pydantic import BaseModel, Field, TypeAdapter, field_validator
from pydantic_core import to_jsonable_python
from sqlalchemy import (
    Column,
    ColumnElement,
    Integer,
    UniqueConstraint,
    inspect,
    tuple_,
)
from sqlmodel import SQLModel, bindparam, func, or_, select

from core import refusals
from core.data.audiences import MembersAsText
from core.data.columns import fit
from core.data.reads import Rows, read, scan
from core.data.sessions import database
from core.texts import is_storable
from core.web.openapi import document_header, documented


class Page(BaseModel, extra="forbid"):
    """What to list, and from where.

    Each list adds `sort: Literal[…]`, and a field for each column to filter by, such as
    `is_available: bool | None = None`.
    """

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
        return text


class Listing:
    """The lists of one table: how rows are shown, and which columns q searches."""

    def __init__(
        self, table: type[SQLModel], shown: type[SQLModel], search: Sequence[str] = ()
    ) -> None:
        self.table = table
        self.search = [getattr(table, name) for name in search]
        self.columns: Any = inspect(table).local_table.columns
        # What an answer has beside columns is for the path operation to add.
        self.shown = [name for name in shown.model_fields if name in self.columns]
        self.keys = [column.name for column in self.columns if column.primary_key]
        self.indexes = self.find_indexes()
        # Made once for each kind of page: that takes longer than running the query.
        self.get_type = cache(self.make_type)
        self.get_select = cache(self.build_select)
        link = document_header("Link", 'The next page: `<path>; rel="next"`.')
        total = document_header("X-Total-Count", "How many match, with `count=true`.")
        self.responses = documented(refusals.Mistake, refusals.SearchTooLong)
        self.responses[200] = {"headers": link | total}

    async def page(
        self,
        page: Page,
        request: Request,
        response: Response,
        *conditions: ColumnElement[bool],
        **equal: Any,
    ) -> Rows:
        """Find a page's rows; `Link` leads to the next, X-Total-Count says how many.

        Conditions narrow the list. One like `owner_id=user.id` is found by an index.
        """
        filters = self.find_filters(page) | equal
        names = tuple(filters)
        values = {f"is_{name}": filters[name] for name in names}
        searches = list(conditions)
        if page.q:
            searches.append(self.matches(page.q))
        if page.count:
            total = select(func.count().label("number")).select_from(self.table)
            total = total.where(*self.are_equal(names), *searches)
            (found,) = await scan(request, total, **values)
            response.headers["X-Total-Count"] = str(found["number"])
        ends = self.parse_after(page)
        values.update(ends)
        values["limit"] = page.limit + 1  # one more tells whether there is a next page
        statement = self.get_select(page.sort, names, tuple(ends))
        if searches or not self.is_quick(page.sort, names):
            rows = await scan(request, statement.where(*searches), **values)
        else:
            rows = await read(statement, **values)
        if len(rows) > page.limit:
            rows.pop()  # it is the first of the next page
            after = self.write_after(rows[-1], page.sort)
            response.headers["Link"] = link_to_next(request, after)
        return rows

    # ---- Conditions ----

    def column(self, name: str) -> Any:
        return getattr(self.table, name)

    def bind(self, prefix: str, name: str) -> Any:
        """Make the place of a value that is given when the query runs."""
        return bindparam(f"{prefix}_{name}", type_=self.columns[name].type)

    def are_equal(self, names: tuple[str, ...]) -> list[ColumnElement[bool]]:
        return [self.column(name) == self.bind("is", name) for name in names]

    def find_filters(self, page: Page) -> dict[str, Any]:
        """Return the values of the fields that are named like columns; raises 422."""
        found = {}
        for name, value in page:
            if name in Page.model_fields or name not in self.columns or value is None:
                continue
            try:
                found[name] = fit(value, self.columns[name].type)
            except (ValueError, OverflowError):
                raise mistake(name, "No row can have this value") from None
        return found

    def matches(self, q: str) -> ColumnElement[bool]:
        """Build the condition for a search; `%` and `_` stand for themselves."""
        q = unicodedata.normalize("NFC", q).lower()
        found = []
        for column in self.search:
            lower = database.in_lower_case(column, q)
            found.append(lower.contains(q, autoescape=True))
        return or_(*found)

    # ---- Order: rows that have no value in the sort field come last. ----

    def sort_fields(self, sort: str) -> list[str]:
        """Name the fields that a list is sorted by; the primary key breaks ties."""
        field = sort.removeprefix("-")
        if field not in self.columns:
            raise ValueError(f"{self.table.__name__} has no column {field} to sort by")
        return [field, *(key for key in self.keys if key != field)]

    def build_select(
        self, sort: str, filters: tuple[str, ...], ends: tuple[str, ...]
    ) -> Any:
        """Build a page's query, from the start or after the row with these ends."""
        fields = self.sort_fields(sort)
        names = self.shown + [name for name in fields if name not in self.shown]
        shown = [self.column(name).label(name) for name in names]
        statement = select(*shown).where(*self.are_equal(filters))
        may_be_empty = self.columns[fields[0]].nullable
        is_empty = self.column(fields[0]).is_(None)
        if may_be_empty:
            statement = statement.order_by(is_empty)
        descending = sort.startswith("-")
        for name in fields:
            column = self.column(name)
            statement = statement.order_by(column.desc() if descending else column)
        statement = statement.limit(bindparam("limit"))
        if not ends:
            return statement
        # Where the last row has no value, only its key is left to compare.
        compared = [name for name in fields if f"end_{name}" in ends]
        here = tuple_(*(self.column(name) for name in compared))
        end = tuple_(*(self.bind("end", name) for name in compared))
        later = here < end if descending else here > end
        if fields[0] not in compared:
            return statement.where(is_empty, later)
        if may_be_empty:
            return statement.where(or_(is_empty, later))
        return statement.where(later)

    def make_type(self, name: str) -> TypeAdapter[Any]:
        annotation: Any = self.table.model_fields[name].annotation
        if isinstance(self.columns[name].type, MembersAsText):
            annotation = str  # a member's name, even of one that was removed
        return TypeAdapter(annotation)

    def parse_after(self, page: Page) -> dict[str, Any]:
        """Return the values of the last row's sort fields; raises 422."""
        values: dict[str, Any] = {}
        if not page.after:
            return values
        names = self.sort_fields(page.sort)
        parts = page.after.rsplit(",", len(names) - 1)
        if len(parts) < len(names) and self.columns[names[0]].nullable:
            del names[0]  # "5" instead of "Ann,5": the last row had no name
        try:
            for name, part in zip(names, parts, strict=True):
                text = unquote(part) if name in self.keys else part
                value = self.get_type(name).validate_strings(text)
                values[f"end_{name}"] = fit(value, self.columns[name].type)
        except (ValueError, OverflowError):
            raise mistake("after", "Take it from Link, with the same sort") from None
        return values

    def write_after(self, row: dict[str, Any], sort: str) -> str:
        """Write where a page ends, as the answer shows it: `name,id`."""
        parts = []
        for name in self.sort_fields(sort):
            value = row[name]
            if value is None:
                continue
            if isinstance(value, enum.Enum):
                value = value.name
            text = str(to_jsonable_python(value))
            if name in self.keys:
                text = quote(text, safe=" :")  # without commas, which separate them
            parts.append(text)
        return ",".join(parts)

    # ---- Speed: what no index has in order must not stop everybody. ----

    def find_indexes(self) -> list[list[str]]:
        """Name the columns of each index, in order."""
        table: Any = inspect(self.table).local_table
        key = self.columns[self.keys[0]]
        is_number = len(self.keys) == 1 and isinstance(key.type, Integer)
        # In SQLite each index ends with the key, if that is one whole number.
        # PostgreSQL sorts rows that are equal in the index, say those of one owner.
        ends = self.keys if is_number else []
        found = [self.keys]
        for constraint in table.constraints:
            if isinstance(constraint, UniqueConstraint):
                found.append([*constraint.columns.keys(), *self.keys])
        for index in table.indexes:
            is_plain = all(isinstance(part, Column) for part in index.expressions)
            if is_plain and not index.dialect_kwargs:  # such as a condition on rows
                found.append([*index.columns.keys(), *ends])
        return found

    def is_quick(self, sort: str, filters: tuple[str, ...]) -> bool:
        """Tell whether an index has the rows of a list in order.

        It begins with the columns of the filters, and goes on with the sort fields.
        """
        fields = self.sort_fields(sort)
        if self.columns[fields[0]].nullable:
            return False
        number = len(filters)
        for index in self.indexes:
            rest = index[number : number + len(fields)]
            if set(index[:number]) == set(filters) and rest == fields:
                return True
        return False


def mistake(name: str, message: str) -> refusals.Mistake:
    return refusals.Mistake(
        [{"type": "value_error", "loc": ["query", name], "msg": message}]
    )


def link_to_next(request: Request, after: str) -> str:
    """Write a header for the same list after a row: a path, which any proxy keeps."""
    query = [pair for pair in request.query_params.multi_items() if pair[0] != "after"]
    path = quote(request.url.path)
    return f'<{path}?{urlencode([*query, ("after", after)])}>; rel="next"'
