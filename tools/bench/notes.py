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


class NoteCreate(NoteBase):
    pass


class NotePublic(NoteBase):
    id: int


@app.get("/api/notes", response_model=list[NotePublic])
def list_notes(user: CurrentUser, session: SessionDep) -> Sequence[Note]:
    statement = select(Note).where(col(Note.user_id) == user.id).limit(20)
    return session.exec(statement).all()


@app.post("/api/notes", status_code=201, response_model=NotePublic)
def create_note(note: NoteCreate, user: CurrentUser, session: SessionDep) -> Note:
    db_note = Note.model_validate(note, update={"user_id": user.id})
    session.add(db_note)
    session.commit()
    session.refresh(db_note)
    return db_note
