"""The API with a resource that somebody added as SQLModel's tutorial teaches it."""

from collections.abc import Sequence

from sqlmodel import Field, SQLModel, col, select

from database import SessionDep
from main import app
from routers.dependencies import CurrentUser


class NoteBase(SQLModel):
    text: str = Field(max_length=1000)


class Note(NoteBase, table=True):
    id: int | None = Field(default=None, primary_key=True)
    user_id: int = Field(foreign_key="user.id", ondelete="CASCADE", index=True)


class NotePublic(NoteBase):
    id: int


@app.get("/api/notes", response_model=list[NotePublic])
def list_notes(user: CurrentUser, session: SessionDep) -> Sequence[Note]:
    statement = select(Note).where(col(Note.user_id) == user.id).limit(20)
    return session.exec(statement).all()
