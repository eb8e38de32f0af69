"""The last id that a table has given out, since none is given out twice."""

from typing import Any

from sqlalchemy import Connection, Table, func, select, text

from core.settings import SQLITE

GIVEN = "SELECT max(seq) FROM sqlite_sequence WHERE name = :table"
GO_ON = [
    "DELETE FROM sqlite_sequence WHERE name = :table",
    "INSERT INTO sqlite_sequence (name, seq) VALUES (:table, :last)",
]
if not SQLITE:
    SEQUENCE = "pg_get_serial_sequence(quote_ident(:table), :column)"
    GIVEN = f"SELECT pg_sequence_last_value({SEQUENCE}::regclass)"
    GO_ON = [f"SELECT setval({SEQUENCE}, :last)"]


def find_last(connection: Connection, table: Table) -> int:
    """Return the last id, whether its row is still there or not; 0 if there is none."""
    if table.autoincrement_column is None:
        return 0
    statement = select(func.max(table.autoincrement_column))
    largest = connection.execute(statement).scalar_one() or 0
    given = 0
    if remembers(table):
        given = connection.execute(text(GIVEN), names_of(table)).scalar_one() or 0
    return max(largest, given)


def go_on_after(connection: Connection, table: Table, last: int) -> None:
    """Give the next row an id above this one."""
    if last == 0 or not remembers(table):
        return
    for statement in GO_ON:
        connection.execute(text(statement), names_of(table) | {"last": last})


def remembers(table: Table) -> bool:
    """SQLite looks for the largest id, unless it is told to remember the last."""
    return not SQLITE or bool(table.kwargs.get("sqlite_autoincrement"))


def names_of(table: Table) -> dict[str, Any]:
    assert table.autoincrement_column is not None
    return {"table": table.name, "column": table.autoincrement_column.name}
