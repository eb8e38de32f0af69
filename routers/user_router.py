"""The accounts: sign up, list, read, change, delete."""

from datetime import UTC, datetime
from functools import cache
from typing import Annotated, Any, Literal, cast

from fastapi import APIRouter, HTTPException, Query, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy import tuple_
from sqlalchemy.exc import IntegrityError
from sqlmodel import bindparam, col, delete, func, insert, or_, select, true, update

from database import Rows, read, write
from models import ACCOUNT, Token, User, UserCreate, UserPublic, UserUpdate
from routers import errors
from routers.login_router import HASH, AllowedUser, BearerToken, CurrentUser, digest, hash_password, is_password

router = APIRouter(prefix="/api/users", tags=["users"])
MINE = errors.NOT_SIGNED_IN, errors.NOT_YOURS
WRITE = errors.BLANK, errors.EMAIL_TAKEN, errors.TOO_LARGE, errors.NOT_JSON, errors.MISTAKE


@router.post("", status_code=201, responses=errors.documented(*WRITE))
async def create_user(sign_up: UserCreate, response: Response) -> UserPublic:
    """Sign up."""
    user = User.model_validate(sign_up, update={"hashed_password": await hash_password(sign_up.password)})
    try:
        rows = await write(insert(User).values(user.model_dump(exclude={"id"})).returning(*ACCOUNT))
    except IntegrityError:  # the unique index decides; looking first would only guess
        raise HTTPException(*errors.EMAIL_TAKEN) from None
    response.headers["Location"] = f"/api/users/{rows[0]['id']}"
    return UserPublic(**rows[0])


class Page(BaseModel, extra="forbid"):
    """Which accounts to list: those behind the last one of the page before (use-the-index-luke.com/no-offset)."""

    limit: int = Field(default=20, ge=1, le=100)
    sort: Literal["id", "-id", "name", "-name", "email", "-email", "created_at", "-created_at"] = "id"
    after: str = Field(default="", pattern=r"^([^\x00]*,)?[0-9]{1,9}$", description="Where a page ended, from `Link`.")
    q: str = Field(default="", max_length=320, pattern=r"^[^\x00]*$", description="Part of the name or email.")
    count: bool = Field(default=False, description="Add `X-Total-Count`, the number of accounts that match.")


def order(sort: str) -> list[str]:
    return ["id"] if sort.endswith("id") else [sort.removeprefix("-"), "id"]  # the id breaks ties


def place(sort: str, after: str) -> dict[str, Any]:
    """Read an `after`, the values of order(sort) joined by a comma; raises 422."""
    *value, last_id = cast(list[Any], after.rsplit(",", 1))
    try:
        if "created_at" in sort:
            value = [datetime.fromisoformat(value[0]).astimezone(UTC)]
        return dict(zip(order(sort), [*value, int(last_id)], strict=True))
    except (ValueError, OverflowError, IndexError):
        raise HTTPException(*errors.WRONG_PLACE) from None


@cache
def page_statement(sort: str, *, further: bool) -> Any:
    """Build a page's statement, once: that takes as long as running it."""
    columns = [User.__table__.c[name] for name in order(sort)]  # type: ignore[attr-defined] # SQLModel declares none
    down = sort.startswith("-")
    statement = select(*ACCOUNT).limit(bindparam("limit")).order_by(*(c.desc() if down else c for c in columns))
    here, end = tuple_(*columns), tuple_(*(bindparam(column.name, type_=column.type) for column in columns))
    return statement.where(here < end if down else here > end) if further else statement


@router.get("", response_model=list[UserPublic], responses=errors.documented(*MINE, errors.MISTAKE))
async def list_users(page: Annotated[Page, Query()], user: CurrentUser, request: Request, response: Response) -> Rows:
    """List accounts page by page, for administrators. `Link` in the answer leads to the next page."""
    if not user.is_admin:
        raise HTTPException(*errors.NOT_YOURS)
    statement = page_statement(page.sort, further=bool(page.after))
    match = or_(*(col(c).icontains(page.q, autoescape=True) for c in (User.name, User.email))) if page.q else true()
    statement = statement.where(match) if page.q else statement
    end = place(page.sort, page.after) if page.after else {}
    rows = await read(statement, slow=bool(page.q), limit=page.limit + 1, **end)  # one more: is there a next page?
    if page.count:
        count = select(func.count().label("count")).select_from(User).where(match)
        response.headers["X-Total-Count"] = str((await read(count, slow=True))[0]["count"])
    if len(rows) > page.limit:
        last = UserPublic(**rows[page.limit - 1]).model_dump(mode="json")
        after = ",".join(str(last[name]) for name in order(page.sort))
        response.headers["Link"] = f'<{request.url.include_query_params(after=after)}>; rel="next"'
    return rows[: page.limit]


@router.get("/{user_id}", responses=errors.documented(*MINE, errors.NOT_FOUND, errors.MISTAKE))
async def read_user(user: AllowedUser) -> UserPublic:
    """Read one account."""
    return user


@router.patch("/{user_id}", responses=errors.documented(*MINE, errors.WRONG_PASSWORD, errors.NOT_FOUND, *WRITE))
async def update_user(user: AllowedUser, changes: UserUpdate, asker: CurrentUser, token: BearerToken) -> UserPublic:
    """Change the fields you send. Your own email and password need `current_password`, `is_admin` an administrator."""
    values = changes.model_dump(exclude_unset=True)
    current_password = values.pop("current_password", "")
    if "is_admin" in values and not asker.is_admin:
        raise HTTPException(*errors.NOT_YOURS)
    if user.id == asker.id and ("password" in values or values.get("email", user.email) != user.email):
        if not await is_password(current_password, await read(HASH, email=user.email)):
            raise HTTPException(*errors.WRONG_PASSWORD)
    if "password" in values:
        values["hashed_password"] = await hash_password(values.pop("password"))
    # The id, set to itself, makes a PATCH that changes nothing a statement like the others.
    change = update(User).where(col(User.id) == user.id).values(id=user.id, **values).returning(*ACCOUNT)
    others = delete(Token).where(col(Token.user_id) == user.id, col(Token.hashed_token) != digest(token))
    try:
        rows = await write(change, others) if "hashed_password" in values else await write(change)
    except IntegrityError:
        raise HTTPException(*errors.EMAIL_TAKEN) from None
    if not rows:  # deleted meanwhile
        raise HTTPException(*errors.NOT_FOUND)
    return UserPublic(**rows[0])


@router.delete("/{user_id}", status_code=204, responses=errors.documented(*MINE, errors.NOT_FOUND, errors.MISTAKE))
async def delete_user(user: AllowedUser) -> None:
    """Delete one account and its tokens."""
    await write(delete(User).where(col(User.id) == user.id))
