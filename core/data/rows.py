"""Rows of any table by their id, and whose they are."""

from typing import Any, Protocol, TypeVar

from sqlmodel import Session, SQLModel

from core.refusals import NotFound

Row = TypeVar("Row", bound=SQLModel)


class Asker(Protocol):
    """Who is asking: `CurrentUser`, or a class of your own with these two."""

    id: int
    is_admin: bool


def get_or_404(session: Session, table: type[Row], row_id: Any) -> Row:
    """Return a row; raises 404."""
    row = session.get(table, row_id)
    if row is None:
        raise NotFound(f"{table.__name__} not found.")
    return row


def get_own(
    session: Session,
    table: type[Row],
    row_id: Any,
    user: Asker,
    owner: str = "owner_id",
) -> Row:
    """Return a row that belongs to a user, locked until the commit; raises 404.

    Somebody else's is a 404, too, as if it did not exist. Administrators may have it.
    `owner` names the column with the owner's id.
    """
    row = session.get(table, row_id, with_for_update=True)
    if row is None:
        raise NotFound(f"{table.__name__} not found.")
    if getattr(row, owner) != user.id and not user.is_admin:
        raise NotFound(f"{table.__name__} not found.")
    return row
