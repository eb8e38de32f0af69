"""The API with tables that somebody added in a module of their own.

Written as FastAPI's and SQLModel's tutorials do it, with mistakes that people make.
`serve(app="tests.own_tables:app")` starts it.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any

from fastapi import (
    APIRouter,
    BackgroundTasks,
    Depends,
    Form,
    HTTPException,
    Request,
    WebSocket,
)
from fastapi.responses import StreamingResponse
from sqlmodel import JSON, Field, Relationship, Session, SQLModel, select
from starlette.types import Receive, Scope, Send

from core.data.audiences import without_rules
from database import SessionDep
from main import app
from models import User, UserPublic
from routers.dependencies import CurrentUser

router = APIRouter(prefix="/api", tags=["things"])


class ThingBase(SQLModel):
    text: str | None = None
    code: str | None = Field(default=None, unique=True, max_length=10)
    more: dict[str, Any] = Field(default_factory=dict, sa_type=JSON)
    count: int | None = None
    price: Decimal | None = Field(default=None, max_digits=8, decimal_places=2)
    at: datetime | None = None
    lasts: timedelta | None = None
    owner_id: int | None = Field(default=None, foreign_key="user.id")


class Thing(ThingBase, table=True):
    id: int | None = Field(default=None, primary_key=True)

    owner: User | None = Relationship()
    parts: list["Part"] = Relationship(back_populates="thing")
    labels: list["Label"] = Relationship(back_populates="thing")
    pages: list["Page"] = Relationship(back_populates="thing", cascade_delete=True)
    marks: list["Mark"] = Relationship(back_populates="thing")

    @property
    def owners(self) -> list[User | None]:
        return [self.owner]

    @property
    def by_name(self) -> dict[str, tuple[User | None, ...]]:
        return {"ann": (self.owner,)}


class ThingCreate(ThingBase):
    pass


class ThingPublic(ThingBase):
    id: int


class Part(SQLModel, table=True):
    """Its thing must be there, and nobody has said what a deletion does."""

    id: int | None = Field(default=None, primary_key=True)
    thing_id: int = Field(foreign_key="thing.id")
    thing: Thing = Relationship(back_populates="parts")


class Label(SQLModel, table=True):
    """The key is a part of the primary key."""

    thing_id: int = Field(foreign_key="thing.id", primary_key=True, ondelete="RESTRICT")
    name: str = Field(default="new", primary_key=True)
    thing: Thing = Relationship(back_populates="labels")


class Page(SQLModel, table=True):
    """The ORM deletes it with its thing."""

    id: int | None = Field(default=None, primary_key=True)
    thing_id: int = Field(foreign_key="thing.id")
    thing: Thing = Relationship(back_populates="pages")


class Mark(SQLModel, table=True):
    """The database deletes it with its thing."""

    id: int | None = Field(default=None, primary_key=True)
    thing_id: int = Field(foreign_key="thing.id", ondelete="CASCADE")
    thing: Thing = Relationship(back_populates="marks")


class Clock(SQLModel, table=True):
    """A mistake: a moment without a zone, made by the code."""

    id: int | None = Field(default=None, primary_key=True)
    at: datetime = Field(default_factory=datetime.now)


CHILDREN: dict[str, Any] = {"part": Part, "label": Label, "page": Page, "mark": Mark}


@router.post("/things", status_code=201, response_model=ThingPublic)
def create_thing(thing: ThingCreate, session: SessionDep) -> Thing:
    db_thing = Thing.model_validate(thing)
    session.add(db_thing)
    session.commit()
    return db_thing


@router.get("/things", response_model=list[ThingPublic])
def list_things(
    session: SessionDep, offset: int = 0, q: str = "", since: datetime | None = None
) -> Sequence[Thing]:
    statement = select(Thing).where(Thing.text != q).offset(offset)
    if since is not None:
        statement = statement.where(Thing.at != since)
    return session.exec(statement).all()


@without_rules
class ThingWithOwner(ThingPublic):
    owner: UserPublic | None
    owners: list[UserPublic]
    by_name: dict[str, tuple[UserPublic, ...]]


@router.get("/things/{thing_id}/owner", response_model=ThingWithOwner)
def read_owner(thing_id: int, session: SessionDep) -> Thing:
    return session.get_one(Thing, thing_id)


@router.get("/things/{thing_id}", response_model=ThingPublic)
def read_thing(thing_id: int, session: SessionDep) -> Thing:
    thing = session.get(Thing, thing_id)
    if thing is None:
        raise HTTPException(status_code=404, detail="Thing not found.")
    return thing


@router.patch("/things/{thing_id}", response_model=ThingPublic)
def update_thing(thing_id: int, thing: ThingCreate, session: SessionDep) -> Thing:
    db_thing = session.get_one(Thing, thing_id)
    db_thing.sqlmodel_update(thing.model_dump(exclude_unset=True))
    session.add(db_thing)
    session.commit()
    return db_thing


@router.post("/things/{thing_id}/{child}", status_code=201)
def add_child(thing_id: int, child: str, session: SessionDep) -> None:
    session.add(CHILDREN[child](thing_id=thing_id))
    session.commit()


@router.get("/children/{child}")
def count_children(child: str, session: SessionDep) -> int:
    return len(session.exec(select(CHILDREN[child])).all())


@router.delete("/things/{thing_id}", status_code=204)
def delete_thing(thing_id: int, session: SessionDep) -> None:
    session.delete(session.get_one(Thing, thing_id))
    session.commit()


@router.post("/clocks", status_code=201)
def create_clock(session: SessionDep) -> None:
    session.add(Clock())
    session.commit()


# ---- Sessions that are used in the wrong place ----


def look_again(session: Session) -> None:
    session.exec(select(User)).all()


@router.post("/later", status_code=202)
def work_later(tasks: BackgroundTasks, session: SessionDep) -> None:
    session.exec(select(User)).all()
    tasks.add_task(look_again, session)


@router.get("/stream")
def stream(session: SessionDep) -> StreamingResponse:
    def write() -> Iterator[str]:
        yield "begun\n"
        for user in session.exec(select(User)):
            yield user.name

    return StreamingResponse(write())


async def get_raw(request: Request) -> bytes:
    return await request.body()


@router.post("/raw")
def measure(session: SessionDep, raw: Annotated[bytes, Depends(get_raw)]) -> int:
    session.exec(select(User)).first()
    return len(raw)


@router.websocket("/rooms")
async def chat(websocket: WebSocket, session: SessionDep) -> None:
    await websocket.accept()
    while (text := await websocket.receive_text()) != "bye":
        thing = Thing(text=text)
        session.add(thing)
        session.commit()
        found = session.get_one(Thing, thing.id)
        await websocket.send_text(str(found.text))
        session.rollback()  # or its connection would stay taken
    await websocket.close()


# ---- Forms, limits and names of one's own ----


@router.post("/form")
def send_form(username: Annotated[str, Form()]) -> str:
    return username


@router.post("/small")
def refuse_large() -> None:
    raise HTTPException(status_code=413, detail="A picture has at most 1 KiB.")


@router.get("/own")
def read_user(user: CurrentUser) -> str:
    """Has the name of the path operation that reads an account."""
    return user.name


@router.get("/own/again", name="read_user")
def read_user_again() -> None:
    """Has the name and the tag of the one above."""


@router.get("/slashed/")
def read_slashed() -> str:
    return "here"


async def bare(_scope: Scope, _receive: Receive, send: Send) -> None:
    """Answer as little as ASGI allows: no headers."""
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"bare"})


app.include_router(router)
app.mount("/bare", bare)
