"""The tables: created where they are missing, extended with what the models add.

It promises that existing rows stay as they are. It only adds; a change that could lose
or invent data stops the startup with a line that says so, and nothing is changed.
Alembic compares columns and indexes; core/rules.py compares the other rules for a row.
Nothing else needs you to read this.
"""

import contextlib
import inspect as python_inspect
import math
import os
import re
import warnings
from collections.abc import Iterator
from typing import Any

from alembic.autogenerate import produce_migrations
from alembic.migration import MigrationContext
from alembic.operations import MigrateOperation, Operations, ops
from sqlalchemy import (
    Column,
    Connection,
    DefaultClause,
    Dialect,
    Engine,
    Executable,
    ForeignKey,
    Text,
    cast,
    func,
    inspect,
    literal,
    literal_column,
    select,
    text,
)
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.sql.schema import CallableColumnDefault, ScalarElementColumnDefault
from sqlalchemy.types import TypeEngine
from sqlmodel import SQLModel

from core.engine import FILE, ON_LOOP, READ_ONLY
from core.errors import first_line, passes_by_itself
from core.rules import compare_rules, has_expressions, names, place
from core.settings import DATABASE, exit_with

# On PostgreSQL, requests wait behind a startup that waits for a table. So it does not
# wait for ever, only for longer than one of their statements may take.
TABLE_TIMEOUT = "15s"

WAYS_OUT = (
    "Nothing was changed. Put models.py back, or keep a copy (python -m tools.data"
    " save FILE) and start with empty tables: python -m tools.data reset"
)


def create_or_extend_tables(engine: Engine, count: Executable) -> tuple[list[str], int]:
    """Bring the tables up to the models; return what was added to old ones, and count.

    It counts here, where no other startup has locked the table.
    """
    try:
        with warnings.catch_warnings(), begin_alone(engine) as connection:
            # About indexes that Alembic does not compare; expression_indexes does.
            warnings.filterwarnings("ignore", message=".*expression-based")
            # About tables that refer to each other: their order does not matter here.
            warnings.filterwarnings("ignore", message="Cannot correctly sort tables")
            old_tables = inspect(connection).get_table_names()
            create_tables(connection)
            new_tables = []
            for name in SQLModel.metadata.tables:
                if name not in old_tables:
                    new_tables.append(name)
            added = extend_tables(connection)
            if len(new_tables) < len(SQLModel.metadata.tables):  # not the first startup
                added = new_tables + added
            return added, connection.execute(count).scalar_one()
    except SQLAlchemyError as error:
        if READ_ONLY:
            exit_with(
                f"DATABASE_URL: {DATABASE.url!r} lacks what models.py has, and with"
                f" mode=ro it is not added: {first_line(error)}"
            )
        if passes_by_itself(error):
            exit_with(
                f"DATABASE_URL: {DATABASE.url!r} cannot be changed now:"
                f" {first_line(error)}\nNothing was changed. Start again in a moment."
            )
        exit_with(f"models.py: {first_line(error)}\n{WAYS_OUT}")


@contextlib.contextmanager
def begin_alone(engine: Engine) -> Iterator[Connection]:
    """Begin a transaction that other startups wait for, as it waits for theirs."""
    with contextlib.ExitStack() as stack:
        try:
            lock_folder(stack)
            engine = engine.execution_options(seconds=0)  # as long as others take
            if READ_ONLY:  # there is no write lock to take
                engine = engine.execution_options(begin="BEGIN")
            connection = stack.enter_context(engine.begin())
            if engine.dialect.name == "postgresql":
                connection.execute(text("SET LOCAL lock_timeout = 0"))
                connection.execute(text("SELECT pg_advisory_xact_lock(0)"))
                connection.execute(text(f"SET LOCAL lock_timeout = '{TABLE_TIMEOUT}'"))
        except (DBAPIError, OSError) as error:
            reason = first_line(error)
            exit_with(f"DATABASE_URL: {DATABASE.url!r} cannot be opened: {reason}")
        yield connection


def lock_folder(stack: contextlib.ExitStack) -> None:
    """Wait for other startups on this SQLite file.

    SQLite's own lock does not tell a startup, which ends, from a program that somebody
    left open. The folder is locked instead, since a lock file would stay behind.
    """
    if not ON_LOOP:
        return
    with contextlib.suppress(ImportError):  # Windows has no fcntl: it waits 4 s
        import fcntl

        folder = os.open(FILE.parent, os.O_RDONLY)
        stack.callback(os.close, folder)
        fcntl.flock(folder, fcntl.LOCK_EX)


def create_tables(connection: Connection) -> None:
    """Create the tables that are missing."""
    for table in SQLModel.metadata.tables.values():
        # An index may be declared twice, by index=True and in __table_args__.
        seen = set()
        for index in list(table.indexes):
            columns = tuple(str(column) for column in index.expressions)
            if (index.name, index.unique, columns) in seen:
                table.indexes.remove(index)
            seen.add((index.name, index.unique, columns))
    SQLModel.metadata.create_all(connection)


def extend_tables(connection: Connection) -> list[str]:
    """Add what the tables lack and return its names, or stop the startup."""
    context = MigrationContext.configure(
        connection,
        opts={
            "compare_type": types_differ,
            # Comments do nothing, and a default in the database is only for rows
            # that are older than the field.
            "autogenerate_plugins": [
                "alembic.autogenerate.*",
                "~alembic.autogenerate.comments",
                "~alembic.autogenerate.defaults",
            ],
        },
    )
    changes = find_changes(context)
    differences = []
    for change in changes:
        difference = prepare(connection, change)
        if difference is not None:
            differences.append(difference)
    unique_indexes, other_rules = compare_rules(connection)
    changes += unique_indexes
    differences += other_rules
    if connection.dialect.name == "sqlite":
        changes += expression_indexes(connection)
    if differences:
        exit_with("\n".join([*differences, WAYS_OUT]))
    added = []
    for change in changes:
        apply(context, change)
        name = name_addition(change)
        if name is not None:
            added.append(name)
    return added


# ---- Columns and indexes, as Alembic compares them. ----


def find_changes(context: MigrationContext) -> list[MigrateOperation]:
    """List the changes that make existing tables match the models."""
    found: list[MigrateOperation] = []
    script = produce_migrations(context, SQLModel.metadata)
    for upgrade in script.upgrade_ops_list:
        for table in upgrade.ops:
            # Whole tables that the models do not know may be somebody else's.
            if isinstance(table, ops.ModifyTableOps):
                found.extend(table.ops)
    created = set()
    for change in found:
        if isinstance(change, ops.CreateIndexOp):
            created.add((change.table_name, change.index_name))
    changes = []
    for change in found:
        if isinstance(change, ops.DropIndexOp):
            if (change.table_name, change.index_name) not in created:
                continue  # an index that the models do not know does no harm
        if isinstance(change, (ops.AddConstraintOp, ops.DropConstraintOp)):
            continue  # compare_rules sees them on both databases
        changes.append(change)
    return changes


def expression_indexes(connection: Connection) -> Iterator[ops.CreateIndexOp]:
    """Yield the indexes such as lower(name) that SQLite lacks: Alembic skips them."""
    statement = text("SELECT name FROM sqlite_master WHERE type = 'index'")
    existing = connection.execute(statement).scalars().all()
    for table in SQLModel.metadata.tables.values():
        for index in table.indexes:
            if has_expressions(index) and index.name not in existing:
                yield ops.CreateIndexOp.from_index(index)


def types_differ(
    context: MigrationContext,
    _found: object,
    _column: object,
    old: TypeEngine[Any],
    new: TypeEngine[Any],
) -> bool | None:
    """Compare lengths: Alembic overlooks a limit that was added or removed."""
    old_length = text_length(context.dialect, old)
    new_length = text_length(context.dialect, new)
    if old_length is None or new_length is None:
        return None  # Alembic decides
    if old_length == math.inf:
        return False  # a limit that was added later is for new values
    if new_length > old_length and context.dialect.name == "sqlite":
        return False  # it stores any length
    return new_length != old_length


def text_length(dialect: Dialect, type_: TypeEngine[Any]) -> float | None:
    """Return how long a text may be, or None for a type that is not text."""
    sql = type_.compile(dialect)
    found = re.fullmatch(r"VARCHAR(?:\((\d+)\))?", sql)
    if found is None:
        return None
    return float(found[1] or math.inf)


def prepare(connection: Connection, change: MigrateOperation) -> str | None:
    """Make sure that a change keeps the rows, or say why it cannot be made."""
    match change:
        case ops.AddColumnOp():
            return prepare_column(connection, change)
        case ops.DropColumnOp(table_name=table, column_name=name):
            return (
                f"{table}.{name}: in the database, but not in models.py (removed or"
                " renamed). If it was renamed, this SQL does it in the database, too:"
                f' ALTER TABLE "{table}" RENAME COLUMN "{name}" TO …'
            )
        case ops.AlterColumnOp():
            return describe_alteration(connection.dialect, change)
    return None


def prepare_column(connection: Connection, change: ops.AddColumnOp) -> str | None:
    """Give old rows the default of a new column, or say that it has none."""
    model = change.column
    references = []
    for key in model.foreign_keys:
        references.append(
            ForeignKey(
                key.target_fullname, onupdate=key.onupdate, ondelete=key.ondelete
            )
        )
    # A new column, without what is added after it: an index, unique or not.
    change.column = Column(
        model.name,
        model.type,
        *references,
        nullable=model.nullable,
        server_default=model.server_default,
    )
    change.inline_references = True  # SQLite cannot add them in any other way
    default = find_default(model)
    if default is not None and not references:  # old rows refer to nothing
        change.column.server_default = default_clause(connection, default, model.type)
    if model.nullable or change.column.server_default is not None:
        return None
    name = f"{change.table_name}.{model.name}"
    if references:
        return (
            f"{name}: a required reference, and rows that exist have none."
            " Let it be empty: `int | None = Field(default=None, foreign_key=…)`"
        )
    if model.default is not None:
        return (
            f"{name}: required, with a default_factory. Rows that exist need one value:"
            " give it `default=` instead, or `| None`"
        )
    return (
        f"{name}: required, and rows that exist have none. Give it a default (`= …`)"
        " or `| None`, even while the table is empty"
    )


def find_default(model: Column[Any]) -> object:
    """Return the default that is the same for every row, or None."""
    if isinstance(model.default, ScalarElementColumnDefault):
        return model.default.arg
    if isinstance(model.default, CallableColumnDefault):
        factory = python_inspect.unwrap(model.default.arg)
        # A class such as list or dict gives the same each time. A function such as
        # now or uuid4 may not.
        if isinstance(factory, type):
            return factory()
    return None


def default_clause(
    connection: Connection, value: object, type_: TypeEngine[Any]
) -> DefaultClause:
    return DefaultClause(literal_column(quote(connection, value, type_)))


def quote(connection: Connection, value: object, type_: TypeEngine[Any]) -> str:
    """Let the database write a value in SQL, as a column of this type stores it."""
    stored = literal(value, type_)
    if connection.dialect.name == "sqlite":
        statement = select(func.quote(stored))
    else:
        statement = select(func.quote_literal(cast(stored, Text)))
    return str(connection.execute(statement).scalar_one())


def describe_alteration(dialect: Dialect, change: ops.AlterColumnOp) -> str | None:
    """Say how a column differs, unless a text may just be longer."""
    old_type = change.existing_type
    new_type = change.modify_type or old_type
    assert old_type is not None
    assert new_type is not None
    old_null = change.existing_nullable
    new_null = change.modify_nullable
    if new_null is None:
        old_length = text_length(dialect, old_type)
        new_length = text_length(dialect, new_type)
        if old_length and new_length and old_length < new_length:
            return None
        new_null = old_null
    old = describe_type(dialect, old_type, old_null)
    new = describe_type(dialect, new_type, new_null)
    name = f"{change.table_name}.{change.column_name}"
    return f"{name}: {old} in the database, {new} in models.py"


def describe_type(
    dialect: Dialect, type_: TypeEngine[Any], nullable: bool | None
) -> str:
    sql = type_.compile(dialect)
    if nullable:
        return f"{sql} or null"
    return sql


def apply(context: MigrationContext, change: MigrateOperation) -> None:
    try:
        Operations(context).invoke(change)
    except SQLAlchemyError as error:
        if passes_by_itself(error):
            raise
        reason = first_line(error)
        if isinstance(error, IntegrityError):
            reason = "existing rows are not unique"
        exit_with(f"{place_of(context, change)}: {reason}\n{WAYS_OUT}")


def place_of(context: MigrationContext, change: MigrateOperation) -> str:
    if isinstance(change, ops.CreateIndexOp):
        return place(change.table_name, names(change.to_index(context).columns))
    return str(name_addition(change))


def name_addition(change: MigrateOperation) -> str | None:
    match change:
        case ops.AddColumnOp(table_name=table, column=column):
            return f"{table}.{column.name}"
        case ops.AlterColumnOp(table_name=table, column_name=name):
            return f"{table}.{name} (longer)"
        case ops.CreateIndexOp(index_name=name):
            return name
    return None  # an index that is dropped, to be created as it is now
