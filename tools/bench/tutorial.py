"""The tutorial's pattern: `def` endpoints, a `yield` session, a JWT, `EmailStr`.

After fastapi.tiangolo.com/tutorial/sql-databases and /tutorial/security/oauth2-jwt,
with the same routes and answers as this API.
"""

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated

import bcrypt
import jwt
from fastapi import Depends, FastAPI, HTTPException, Query
from fastapi.security import OAuth2PasswordBearer, OAuth2PasswordRequestForm
from pydantic import EmailStr
from sqlmodel import Field, Session, SQLModel, create_engine, select

SECRET = os.environ["BENCH_SECRET"]
ROUNDS = int(os.environ.get("BCRYPT_ROUNDS", "12"))


class UserBase(SQLModel):
    name: str = Field(index=True)
    email: EmailStr = Field(unique=True)


class User(UserBase, table=True):
    id: int | None = Field(default=None, primary_key=True)
    is_admin: bool = False
    created_at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    hashed_password: str


class NoteBase(SQLModel):
    text: str = Field(max_length=1000)


class Note(NoteBase, table=True):
    id: int | None = Field(default=None, primary_key=True)
    user_id: int = Field(foreign_key="user.id", ondelete="CASCADE", index=True)


class NotePublic(NoteBase):
    id: int


class UserPublic(UserBase):
    id: int
    is_admin: bool
    created_at: datetime


class UserCreate(UserBase):
    password: str


url = os.environ["BENCH_DATABASE"]
engine = create_engine(
    url, connect_args={"check_same_thread": False} if url.startswith("sqlite") else {}
)
SQLModel.metadata.create_all(engine)


def get_session() -> Iterator[Session]:
    with Session(engine) as session:
        yield session


SessionDep = Annotated[Session, Depends(get_session)]
bearer = OAuth2PasswordBearer(tokenUrl="/api/login")
app = FastAPI()


def get_current_user(
    session: SessionDep, token: Annotated[str, Depends(bearer)]
) -> User:
    try:
        email = jwt.decode(token, SECRET, algorithms=["HS256"])["sub"]
    except jwt.InvalidTokenError:
        raise HTTPException(401, "Could not validate credentials") from None
    user = session.exec(select(User).where(User.email == email)).first()
    if user is None:
        raise HTTPException(401, "Could not validate credentials")
    return user


CurrentUser = Annotated[User, Depends(get_current_user)]


@app.post("/api/users", status_code=201, response_model=UserPublic)
def create_user(sign_up: UserCreate, session: SessionDep) -> User:
    hashed = bcrypt.hashpw(sign_up.password.encode(), bcrypt.gensalt(ROUNDS)).decode()
    user = User.model_validate(sign_up, update={"hashed_password": hashed})
    session.add(user)
    session.commit()
    session.refresh(user)
    return user


@app.post("/api/login")
def log_in(
    form: Annotated[OAuth2PasswordRequestForm, Depends()], session: SessionDep
) -> dict[str, str]:
    user = session.exec(select(User).where(User.email == form.username)).first()
    if user is None or not bcrypt.checkpw(
        form.password.encode(), user.hashed_password.encode()
    ):
        raise HTTPException(401, "Incorrect email or password")
    claims = {"sub": user.email, "exp": datetime.now(UTC) + timedelta(days=7)}
    return {
        "access_token": jwt.encode(claims, SECRET, algorithm="HS256"),
        "token_type": "bearer",
    }


@app.get("/api/users/me", response_model=UserPublic)
def read_me(user: CurrentUser) -> User:
    return user


@app.get("/api/users/{user_id}", response_model=UserPublic)
def read_user(user_id: int, _: CurrentUser, session: SessionDep) -> User:
    user = session.get(User, user_id)
    if user is None:
        raise HTTPException(404, "User not found")
    return user


@app.get("/api/users", response_model=list[UserPublic])
def list_users(
    _: CurrentUser,
    session: SessionDep,
    offset: int = 0,
    limit: Annotated[int, Query(le=100)] = 100,
) -> list[User]:
    return list(session.exec(select(User).offset(offset).limit(limit)).all())


@app.get("/api/notes", response_model=list[NotePublic])
def list_notes(user: CurrentUser, session: SessionDep) -> list[Note]:
    statement = select(Note).where(Note.user_id == user.id).limit(20)
    return list(session.exec(statement).all())
