"""The accounts: sign up, list, read, change, delete."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response

from accounts import refusals
from core.web import paging
from database import Rows, SessionDep
from models import User, UserCreate, UserPublic, UserUpdate
from routers.dependencies import (
    Account,
    CurrentAdmin,
    DeletePermit,
    HashedPassword,
    UpdatePermit,
)

router = APIRouter(prefix="/api/users", tags=["users"])


@router.post("", status_code=201, response_model=UserPublic, responses=refusals.SIGN_UP)
def create_user(
    user: UserCreate,
    hashed_password: HashedPassword,
    session: SessionDep,
    request: Request,
    response: Response,
) -> User:
    """Sign up."""
    new_user = User.model_validate(user, update={"hashed_password": hashed_password})
    session.add(new_user)
    session.commit()  # an email that is taken is a 409: errors.install() in main.py
    # No refresh(): our sessions keep the values after a commit.
    # Where the new account can be read. Behind a proxy the path has its prefix.
    response.headers["Location"] = f"{request.url.path}/{new_user.id}"
    return new_user


class UserPage(paging.Page):
    sort: Literal[
        "id", "-id", "name", "-name", "email", "-email", "created_at", "-created_at"
    ] = "id"


USERS = paging.Listing(User, UserPublic, search=["name", "email"])


@router.get(
    "",
    response_model=list[UserPublic],
    responses=refusals.LIST | USERS.responses,
)
async def list_users(
    page: Annotated[UserPage, Query()],
    _admin: CurrentAdmin,
    request: Request,
    response: Response,
) -> Rows:
    """List accounts page by page, for administrators. `Link` leads to the next page."""
    # Dictionaries: response_model turns them into accounts.
    return await USERS.page(page, request, response)


@router.get("/{user_id}", responses=refusals.ONE_USER)
async def read_user(account: Account) -> UserPublic:
    """Read one account."""
    return account


@router.patch("/{user_id}", response_model=UserPublic, responses=refusals.CHANGE)
def update_user(user: UserUpdate, permit: UpdatePermit, session: SessionDep) -> User:
    """Change what you send. Your own email and password need `current_password`."""
    # While a password was hashed, the account or the token may have gone. This checks
    # again (401, 403, 404), and nobody else can change the row until the commit.
    db_user = permit.lock(session)
    changes = user.model_dump(exclude_unset=True)
    db_user.sqlmodel_update(changes, update=permit.new_hash)
    session.add(db_user)
    if permit.new_hash:  # a new password ends all other log-ins of this account
        permit.end_other_tokens(session)
    session.commit()
    return db_user


@router.delete("/{user_id}", status_code=204, responses=refusals.ONE_USER)
def delete_user(permit: DeletePermit, session: SessionDep) -> None:
    """Delete one account and its tokens."""
    db_user = permit.lock(session)
    session.delete(db_user)
    session.commit()
