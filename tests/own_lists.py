"""The API with lists of somebody's own tables: three kinds of keys, and a file to send.

`serve(app="tests.own_lists:app")` starts it.
"""

import enum
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID, uuid4

from fastapi import APIRouter, Query, Request, Response, UploadFile
from sqlmodel import Field, Index, SQLModel, col, text

from core.data.audiences import without_rules
from core.data.rows import get_or_404, get_own
from core.web import paging
from database import Rows, SessionDep
from main import app
from routers.dependencies import CurrentUser

router = APIRouter(prefix="/api", tags=["lists"])


class Kind(enum.Enum):
    novel = "a novel"
    poem = "a poem"


class BookBase(SQLModel):
    title: str
    price: Decimal = Field(max_digits=8, decimal_places=2)
    at: datetime
    kind: Kind
    pages: int = Field(default=0, index=True)
    is_lent: bool = False
    due: date | None = None
    lasts: timedelta | None = None


LENT = text("is_lent")


class Book(BookBase, table=True):
    __table_args__ = (
        Index("ix_book_title_id", "title", "id"),
        Index("ix_book_owner_id_price_id", "owner_id", "price", "id"),
        # Some rows only, so no list of all of them is in its order.
        Index("ix_lent", "at", "id", sqlite_where=LENT, postgresql_where=LENT),
    )

    id: int | None = Field(default=None, primary_key=True)
    owner_id: int = Field(foreign_key="user.id")


class Scroll(BookBase, table=True):
    id: UUID = Field(default_factory=uuid4, primary_key=True)
    owner_id: int = Field(foreign_key="user.id", index=True)


class Tablet(BookBase, table=True):
    id: str = Field(default_factory=lambda: f"{uuid4()}, 50% [✓]", primary_key=True)
    owner_id: int = Field(foreign_key="user.id")


@without_rules
class BookPublic(BookBase):
    id: int | UUID | str


class BookPage(paging.Page):
    sort: Literal[
        "id",
        "-id",
        "title",
        "-title",
        "price",
        "-price",
        "at",
        "-at",
        "kind",
        "-kind",
        "pages",
        "-pages",
        "is_lent",
        "-is_lent",
        "due",
        "-due",
        "lasts",
        "-lasts",
    ] = "id"
    title: str | None = None
    price: Decimal | None = None
    at: datetime | None = None
    kind: Kind | None = None
    pages: int | None = None
    is_lent: bool | None = None
    due: date | None = None
    at_least: int | None = None


TABLES: dict[str, Any] = {"books": Book, "scrolls": Scroll, "tablets": Tablet}
LISTINGS = {
    name: paging.Listing(table, BookPublic, search=["title"])
    for name, table in TABLES.items()
}
Kinds = Literal["books", "scrolls", "tablets"]
Query_ = Annotated[BookPage, Query()]


@router.post("/{kind}", status_code=201, response_model=BookPublic)
def create(kind: Kinds, book: BookBase, user: CurrentUser, session: SessionDep) -> Any:
    row = TABLES[kind].model_validate(book, update={"owner_id": user.id})
    session.add(row)
    session.commit()
    return row


@router.get("/{kind}", response_model=list[BookPublic])
async def read_list(
    kind: Kinds, page: Query_, request: Request, response: Response
) -> Rows:
    conditions = []
    if page.at_least is not None:
        conditions.append(col(TABLES[kind].pages) >= page.at_least)
    return await LISTINGS[kind].page(page, request, response, *conditions)


@router.get("/{kind}/of mine ✓", response_model=list[BookPublic])
async def read_mine(
    kind: Kinds, page: Query_, user: CurrentUser, request: Request, response: Response
) -> Rows:
    return await LISTINGS[kind].page(page, request, response, owner_id=user.id)


@router.get("/{kind}/{book_id}", response_model=BookPublic)
def read_one(kind: Kinds, book_id: str, session: SessionDep) -> Any:
    key = TABLES[kind].model_fields["id"].annotation
    return get_or_404(session, TABLES[kind], UUID(book_id) if key is UUID else book_id)


@router.delete("/books/{book_id}", status_code=204)
def delete_book(book_id: int, user: CurrentUser, session: SessionDep) -> None:
    session.delete(get_own(session, Book, book_id, user))
    session.commit()


@router.post("/books/{book_id}/pages", response_model=BookPublic)
def add_page(book_id: int, user: CurrentUser, session: SessionDep) -> Book:
    book = get_own(session, Book, book_id, user)
    book.pages += 1
    session.add(book)
    session.commit()
    return book


uploads = APIRouter(prefix="/api/uploads", tags=["uploads"])


@uploads.post("/photo", max_body_size=1024 * 1024)
def upload(photo: UploadFile) -> int:
    return len(photo.file.read())


@uploads.post("/note", max_body_size=2 * 1024)
async def note(request: Request) -> int:
    return len(await request.body())


class WrongPage(paging.Page):
    sort: Literal["prize"] = "prize"


@uploads.get("/wrong", response_model=list[BookPublic])
async def read_wrong(
    page: Annotated[WrongPage, Query()], request: Request, response: Response
) -> Rows:
    return await LISTINGS["books"].page(page, request, response)


app.include_router(uploads)
app.include_router(router)
