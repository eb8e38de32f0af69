"""Bring an older database up to the models, where that only adds. Alembic does the comparing."""

from alembic.autogenerate import produce_migrations
from alembic.migration import MigrationContext
from alembic.operations import MigrateOperation, Operations, ops
from sqlalchemy import Column, Connection, DefaultClause, literal, literal_column
from sqlalchemy.exc import IntegrityError
from sqlalchemy.sql.schema import ScalarElementColumnDefault
from sqlmodel import SQLModel

WAYS_OUT = "Nothing was changed. Give the field a default or `| None`, put models.py back, or change the database."


def add_what_is_new(connection: Connection) -> list[str]:
    """Add what the models have more, or give a line for each difference that could lose or invent data."""
    SQLModel.metadata.create_all(connection)
    context = MigrationContext.configure(connection)
    found = produce_migrations(context, SQLModel.metadata).upgrade_ops_list[0].ops
    changes = [change for table in found if isinstance(table, ops.ModifyTableOps) for change in table.ops]
    changes = [change for change in changes if not isinstance(change, ops.DropIndexOp)]  # one too many loses nothing
    differences = [line for change in changes if (line := difference(change))]
    for change in [] if differences else changes:
        try:
            Operations(context).invoke(change)
        except IntegrityError:
            differences.append(f"{change.to_diff_tuple()[1]}: rows that exist are not unique")
    return [*differences, WAYS_OUT] if differences else []


def difference(change: MigrateOperation) -> str | None:
    """Say what differs if it is more than an addition. The default of a new column becomes that of the old rows."""
    match change:
        case ops.AddColumnOp(table_name=table, column=Column(name=column, nullable=null, default=default)):
            change.column.index = False  # which is a change of its own
            if isinstance(default, ScalarElementColumnDefault):
                sql = literal(default.arg, change.column.type).compile(compile_kwargs={"literal_binds": True})
                change.column.server_default = DefaultClause(literal_column(str(sql)))
            elif not null:
                return f"{table}.{column}: required, and the rows that exist have none"
        case ops.DropColumnOp(table_name=table, column_name=column):
            return f"{table}.{column}: in the database, but not in models.py (removed or renamed)"
        case ops.AlterColumnOp(table_name=table, column_name=column, existing_type=old, existing_nullable=null):
            new, may = change.modify_type or old, null if change.modify_nullable is None else change.modify_nullable
            here, there = f"{old}{' or null' if null else ''}", f"{new}{' or null' if may else ''}"
            return f"{table}.{column}: {here} in the database, {there} in models.py"
        case _ if not isinstance(change, ops.CreateIndexOp):
            return f"{change.to_diff_tuple()}: a table that exists cannot change this (for unique=True, add index=True)"
    return None
