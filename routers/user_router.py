"""The accounts: sign up, list, read, change, delete."""

from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Depends, Query, Request, Response
from sqlalchemy.exc import IntegrityError
from sqlmodel import col, delete

from core import errors, journal, openapi, paging
from core.security import (
    SELECT_BY_ID,
    Access,
    find_by_password,
    hash_password,
    is_still_right,
)
from database import Rows, SessionDep
from models import Token, User, UserCreate, UserPublic, UserUpdate
from routers.dependencies import AccessDep, CurrentAdmin, lock_users

router = APIRouter(prefix="/api/users", tags=["users"])


async def prepare_user(sign_up: UserCreate, request: Request) -> User:
    """Hash the password.

    That takes 0.2 s, and few sessions may be open at once. So it is done before
    create_user's session is opened: FastAPI fills parameters from left to right.
    """
    hashed_password = await hash_password(sign_up.password, request)
    # Not User.model_validate(sign_up): it would run every validator a second time.
    return User(**dict(sign_up), hashed_password=hashed_password)


NewUser = Annotated[User, Depends(prepare_user)]


@router.post("", status_code=201, response_model=UserPublic, responses=openapi.SIGN_UP)
def create_user(
    new_user: NewUser, session: SessionDep, request: Request, response: Response
) -> User:
    """Sign up."""
    session.add(new_user)
    try:
        session.commit()
    except IntegrityError as error:
        # The email is taken. The unique index tells; what a SELECT found earlier
        # could be outdated by now. from None: the log needs no traceback of it.
        raise errors.conflict(error) from None
    # Where the new account can be read: behind a proxy this path has a prefix, too.
    response.headers["Location"] = f"{request.url.path}/{new_user.id}"
    return new_user


@router.get("", response_model=list[UserPublic], responses=openapi.LIST)
async def list_users(
    page: Annotated[paging.Page, Query()],
    _admin: CurrentAdmin,
    request: Request,
    response: Response,
) -> Rows:
    """List accounts page by page, for administrators. `Link` leads to the next page."""
    # Dictionaries: response_model turns them into accounts.
    rows, after = await paging.find_page(request, page)
    if page.count:
        total = await paging.count(request, page.q)
        response.headers["X-Total-Count"] = str(total)
    if after is not None:
        next_page = request.url.include_query_params(after=after)
        response.headers["Link"] = f'<{next_page}>; rel="next"'
    return rows


@router.get("/{user_id}", responses=openapi.ONE_USER)
async def read_user(access: AccessDep) -> UserPublic:
    """Read one account."""
    return access.user  # a UserPublic already


class UserChange(NamedTuple):
    """A change of an account, with its passwords checked and hashed."""

    access: Access
    values: dict[str, Any]  # what was sent
    new_hash: dict[str, str]  # the column hashed_password, if there is a new password
    verified_hash: str | None  # the stored hash that current_password matched


def needs_current_password(values: dict[str, Any], email: str) -> bool:
    return "password" in values or values.get("email", email) != email


async def prepare_change(
    access: AccessDep, update: UserUpdate, request: Request
) -> UserChange:
    """Check and hash passwords. That is slow, so it comes before the session."""
    # Not model_dump(exclude_unset=True): it would also apply a field_serializer.
    sent = update.model_fields_set
    values = {name: value for name, value in update if name in sent}
    if "is_admin" in values and not access.asker_is_admin:
        raise errors.AdministratorsOnly
    user = access.user
    verified_hash = None
    if access.is_own and needs_current_password(values, user.email):
        if "current_password" not in values:
            raise errors.CurrentPasswordMissing
        account = await find_by_password(
            SELECT_BY_ID,
            values["current_password"],
            f"user {user.id}",  # wrong passwords count together under this name
            request,
            user_id=user.id,
        )
        if account is None:
            raise errors.WrongCurrentPassword
        verified_hash = account["hashed_password"]
    new_hash = {}
    if "password" in values:
        new_hash["hashed_password"] = await hash_password(values["password"], request)
    return UserChange(access, values, new_hash, verified_hash)


PreparedChange = Annotated[UserChange, Depends(prepare_change)]


@router.patch("/{user_id}", response_model=UserPublic, responses=openapi.CHANGE)
def update_user(change: PreparedChange, session: SessionDep, request: Request) -> User:
    """Change what you send. Your own email and password need `current_password`."""
    access = change.access
    values = change.values
    # Check again: the accounts may have changed while a password was hashed.
    asker, user = lock_users(session, access)
    if "is_admin" in values and not asker.is_admin:
        raise errors.AdministratorsOnly
    if access.is_own and needs_current_password(values, user.email):
        current_password = values.get("current_password", "")
        if not is_still_right(
            current_password, change.verified_hash, user.hashed_password
        ):
            raise errors.WrongCurrentPassword
    # It skips what is not a column of User: password and current_password.
    user.sqlmodel_update(values, update=change.new_hash)
    session.add(user)
    if change.new_hash:  # a new password ends all log-ins but this one
        statement = delete(Token).where(
            col(Token.user_id) == user.id,
            col(Token.hashed_token) != access.hashed_token,
        )
        session.exec(statement)
    try:
        session.commit()
    except IntegrityError as error:
        raise errors.conflict(error) from None
    if not access.is_own or "is_admin" in values:
        fields = ", ".join(values)
        journal.note(
            request, f"account {asker.id} changed {fields} of account {user.id}"
        )
    return user


@router.delete("/{user_id}", status_code=204, responses=openapi.ONE_USER)
def delete_user(access: AccessDep, session: SessionDep, request: Request) -> None:
    """Delete one account and its tokens."""
    asker, user = lock_users(session, access)
    session.delete(user)
    session.commit()
    if not access.is_own:
        journal.note(request, f"account {asker.id} deleted account {user.id}")
