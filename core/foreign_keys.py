"""Which foreign key failed: SQLite only says that one did.

It promises a sentence that names the field, or the table whose rows are in the way,
where that can be told. Nothing else needs you to read this.
"""

from typing import Any

from sqlalchemy import Connection, ExceptionContext, Table, literal, select, true

NEEDED_BY_NOBODY = {"CASCADE", "SET NULL", "SET DEFAULT"}
UNKNOWN = "A row is not there, or other rows refer to this one."


def missing(field: str, table: str) -> str:
    return f"{field}: there is no such row in {table}."


def needed(table: str) -> str:
    return f"Rows in {table} refer to this one."


def explain(context: ExceptionContext) -> str:
    """Look for the reason on the connection where a statement has just failed."""
    execution: Any = context.execution_context  # None for a COMMIT
    compiled: Any = getattr(execution, "compiled", None)  # None for SQL written as text
    written = getattr(compiled, "dml_compile_state", None)
    if context.connection is None or written is None:
        return UNKNOWN
    table = written.dml_table
    for values in execution.compiled_parameters:
        if compiled.isdelete:
            where = compiled.statement.whereclause
            if where is None:
                where = true()
            reason = find_needed(context.connection, table, where, values)
        else:
            reason = find_missing(context.connection, table, values)
        if reason is not None:
            return reason
    return UNKNOWN


def find_missing(
    connection: Connection, table: Table, values: dict[str, Any]
) -> str | None:
    """Find a foreign key among the values that leads to no row."""
    for key in table.foreign_keys:
        value = values.get(key.parent.key)
        statement = select(literal(1)).where(key.column == value)
        if value is not None and connection.execute(statement).first() is None:
            return missing(key.parent.key, key.column.table.name)
    return None


def find_needed(
    connection: Connection, table: Table, where: Any, values: dict[str, Any]
) -> str | None:
    """Find a table whose rows refer to what was to be deleted."""
    for other in table.metadata.tables.values():
        for key in other.foreign_keys:
            if key.column.table is not table or key.ondelete in NEEDED_BY_NOBODY:
                continue
            deleted = select(key.column).where(where).correlate(None)
            statement = select(literal(1)).where(key.parent.in_(deleted))
            if connection.execute(statement, values).first() is not None:
                return needed(other.name)
    return None
