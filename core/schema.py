"""The tables: created when there are none, extended by what the models have more.

It promises that rows which exist stay as they are. Only additions are made; whatever
could lose or invent data ends the start and changes nothing. Alembic compares. Nothing
else needs you to read this.
"""

from alembic.autogenerate import produce_migrations
from alembic.migration import MigrationContext
from alembic.operations import MigrateOperation, Operations, ops
from sqlalchemy import (
    Column,
    Connection,
    DefaultClause,
    Engine,
    literal,
    literal_column,
    text,
)
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.sql.schema import ScalarElementColumnDefault
from sqlmodel import SQLModel

from core.settings import DATABASE_URL, exit_with

WAYS_OUT = (
    "Nothing was changed. Give the field a default or `| None`,"
    " put models.py back, or change the database."
)


def create_or_extend_tables(engine: Engine) -> list[str]:
    """Bring the tables up to the models, and name what was added to older ones."""
    try:
        with engine.begin() as connection:
            if engine.dialect.name == "postgresql":  # SQLite's begin has taken its lock
                # A start waits for another's, and for an index on a large table.
                connection.execute(text("SET LOCAL lock_timeout = 0"))
                connection.execute(text("SET LOCAL statement_timeout = 0"))
                connection.execute(text("SELECT pg_advisory_xact_lock(0)"))
            SQLModel.metadata.create_all(connection)
            return extend_tables(connection)
    except (DBAPIError, OSError) as error:
        reason = str(getattr(error, "orig", error)).partition("\n")[0]
        exit_with(f"DATABASE_URL: {DATABASE_URL!r} cannot be opened: {reason}")


def extend_tables(connection: Connection) -> list[str]:
    context = MigrationContext.configure(connection)
    changes = find_changes(context)
    differences = []
    for change in changes:
        difference = describe_difference(change)
        if difference:
            differences.append(difference)
    if differences:
        exit_with("\n".join([*differences, WAYS_OUT]))
    added = []
    for change in changes:
        try:
            Operations(context).invoke(change)
        except IntegrityError:
            name = describe_addition(change)
            exit_with(f"{name}: existing rows are not unique\n{WAYS_OUT}")
        added.append(describe_addition(change))
    return added


def find_changes(context: MigrationContext) -> list[MigrateOperation]:
    """List what tables that exist must change to be as in the models."""
    script = produce_migrations(context, SQLModel.metadata)
    changes: list[MigrateOperation] = []
    for upgrade in script.upgrade_ops_list:
        for table in upgrade.ops:
            # Whole tables that the models do not know may be somebody else's, and an
            # index that they do not know does no harm.
            if isinstance(table, ops.ModifyTableOps):
                for change in table.ops:
                    if not isinstance(change, ops.DropIndexOp):
                        changes.append(change)
    return changes


def describe_difference(change: MigrateOperation) -> str | None:
    """Say what differs if it is more than an addition."""
    match change:
        case ops.AddColumnOp(table_name=table, column=column):
            return prepare_column(table, column)
        case ops.CreateIndexOp():
            return None
        case ops.DropColumnOp(table_name=table, column_name=column):
            return (
                f"{table}.{column}: in the database, but not in models.py"
                " (removed or renamed)"
            )
        case ops.AlterColumnOp(table_name=table, column_name=column):
            old_type, old_null = change.existing_type, change.existing_nullable
            new_type = change.modify_type or old_type
            new_null = change.modify_nullable
            if new_null is None:
                new_null = old_null
            old = describe_type(old_type, old_null)
            new = describe_type(new_type, new_null)
            return f"{table}.{column}: {old} in the database, {new} in models.py"
        case _:
            return (
                f"{change.to_diff_tuple()}: a table that exists cannot change this"
                " (for unique=True, add index=True)"
            )


def prepare_column(table: str, column: Column[object]) -> str | None:
    """Give old rows the default of a new column, or say that it has none."""
    if column.index:  # Alembic lists the index, unique or not, as a change of its own
        column.index = False
        column.unique = False
    default = column.default
    if isinstance(default, ScalarElementColumnDefault):
        value = literal(default.arg, column.type)
        sql = str(value.compile(compile_kwargs={"literal_binds": True}))
        column.server_default = DefaultClause(literal_column(sql))
    elif not column.nullable:
        return f"{table}.{column.name}: required, and the rows that exist have none"
    return None


def describe_type(type_: object, nullable: bool | None) -> str:
    if nullable:
        return f"{type_} or null"
    return str(type_)


def describe_addition(change: MigrateOperation) -> str:
    if isinstance(change, ops.AddColumnOp):
        return f"{change.table_name}.{change.column.name}"
    assert isinstance(change, ops.CreateIndexOp)
    return str(change.index_name)
