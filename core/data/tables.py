"""The tables follow the models, in what only adds: tables, columns, indexes.

Alembic compares them. What could lose or invent data refuses the start, with what to do
instead, and nothing is changed. Rows that exist stay as they are.
"""

import inspect as python_inspect
import warnings
from typing import Any

from alembic.autogenerate import produce_migrations
from alembic.migration import MigrationContext
from alembic.operations import MigrateOperation, Operations, ops
from sqlalchemy import (
    Column,
    Connection,
    ForeignKey,
    String,
    Text,
    cast,
    func,
    inspect,
    literal,
    literal_column,
    select,
)
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.sql.schema import CallableColumnDefault, ScalarElementColumnDefault
from sqlmodel import AutoString, SQLModel

from core.data.kinds import first_line
from core.data.sessions import database, engine
from core.settings import DATABASE, SQLITE
from core.start import StartRefused, log

WAYS_OUT = (
    "Nothing was changed. Put models.py back, or keep a copy (python -m tools.data"
    " save FILE) and start with empty tables: python -m tools.data reset"
)
TEXT = String | AutoString
# Comments do nothing, and a default in the database is only for older rows.
PLUGINS = [
    "alembic.autogenerate.*",
    "~alembic.autogenerate.comments",
    "~alembic.autogenerate.defaults",
]


def create_or_extend_tables() -> list[str]:
    """Bring the tables up to the models; return what was added to old ones.

    Raises StartRefused.
    """
    try:
        with database.alone(engine) as connection:
            return follow_models(connection)
    except SQLAlchemyError as error:
        reason = first_line(error)
        if database.READ_ONLY:
            reason = f"it lacks what models.py has, and mode=ro adds nothing: {reason}"
        elif not isinstance(error, DBAPIError) or not database.why_not_now(error):
            raise StartRefused(f"models.py: {reason}\n{WAYS_OUT}") from error
        raise StartRefused(f"DATABASE_URL: {DATABASE.name!r}: {reason}") from error


def follow_models(connection: Connection) -> list[str]:
    """Do it in a transaction; raises StartRefused or what the database says."""
    old_tables = inspect(connection).get_table_names()
    if "alembic_version" in old_tables:
        log.info("The tables are Alembic's: nothing is compared or changed")
        return []
    SQLModel.metadata.create_all(connection)
    if not old_tables:  # the first start
        return []
    new_tables = [name for name in SQLModel.metadata.tables if name not in old_tables]
    return new_tables + extend_tables(connection)


def extend_tables(connection: Connection) -> list[str]:
    """Add what the tables lack and return its names, or raise StartRefused."""
    options = {"autogenerate_plugins": PLUGINS}
    context = MigrationContext.configure(connection, opts=options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about what Alembic does not compare
        script = produce_migrations(context, SQLModel.metadata)
    comparisons = []
    for upgrade in script.upgrade_ops_list:
        for table in upgrade.ops:
            # Tables that the models do not know may be somebody else's.
            if not isinstance(table, ops.ModifyTableOps):
                continue
            if table.table_name in SQLModel.metadata.tables:
                comparisons.append(Comparison(connection, table))
    refused = [reason for comparison in comparisons for reason in comparison.refused]
    if refused:
        raise StartRefused("\n".join([*refused, WAYS_OUT]))
    added = []
    for comparison in comparisons:
        for name, change in comparison.changes:
            try:
                Operations(context).invoke(change)
            except IntegrityError:
                reason = f"{name}: existing rows are not unique\n{WAYS_OUT}"
                raise StartRefused(reason) from None
            added.append(name)
    return list(dict.fromkeys(added))  # an index that is made anew is in it twice


class Comparison:
    """What Alembic has found in one table: what is added, and what is refused."""

    def __init__(self, connection: Connection, found: ops.ModifyTableOps) -> None:
        self.connection = connection
        self.table = found.table_name
        self.changes: list[tuple[str, MigrateOperation]] = []
        self.refused: list[str] = []
        self.new = [
            op.column.name for op in found.ops if isinstance(op, ops.AddColumnOp)
        ]
        unknown = [op for op in found.ops if isinstance(op, ops.DropColumnOp)]
        self.unknown = {op.column_name for op in unknown}
        unique = [
            op for op in found.ops if isinstance(op, ops.CreateUniqueConstraintOp)
        ]
        self.unique = [list(op.columns) for op in unique]
        self.made = [op for op in found.ops if isinstance(op, ops.CreateIndexOp)]
        self.dropped = [op for op in found.ops if isinstance(op, ops.DropIndexOp)]
        # On SQLite, SQLAlchemy misses the ON DELETE of a column that was added later:
        # then one reference is dropped and made.
        dropped = [
            keys_of(op) for op in found.ops if isinstance(op, ops.DropConstraintOp)
        ]
        keys = [op for op in found.ops if isinstance(op, ops.CreateForeignKeyOp)]
        self.same = [
            op.local_cols for op in keys if SQLITE and op.local_cols in dropped
        ]
        for change in found.ops:
            self.compare(change)
        self.compare_indexes()

    def add(self, name: str, change: MigrateOperation) -> None:
        self.changes.append((name, change))

    def refuse(self, name: str, reason: str) -> None:
        self.refused.append(f"{self.table}.{name}: {reason}")

    def compare(self, change: MigrateOperation) -> None:
        match change:
            case ops.AddColumnOp():
                self.add_column(change)
            case ops.DropColumnOp():
                self.keep_column(change)
            case ops.AlterColumnOp():
                self.compare_column(change)
            case ops.CreateUniqueConstraintOp():
                self.make_unique(change)
            case ops.CreateForeignKeyOp(local_cols=columns):
                # A new column brings its reference along.
                if columns not in self.same and not set(columns) <= set(self.new):
                    name = ", ".join(columns)
                    self.refuse(name, "the reference is in models.py alone")
            case ops.DropConstraintOp():
                if keys_of(change) not in self.same:
                    name = str(change.constraint_name or ", ".join(keys_of(change)))
                    self.refuse(name, "a rule of the database alone")

    def add_column(self, change: ops.AddColumnOp) -> None:
        """Give old rows the default of a new column, or refuse one that has none."""
        model = change.column
        references = []
        for key in model.foreign_keys:
            target = key.target_fullname
            reference = ForeignKey(target, onupdate=key.onupdate, ondelete=key.ondelete)
            references.append(reference)
        default = model.server_default
        if default is None and not references:  # old rows refer to nothing
            default = self.write_default(model)
        if not model.nullable and default is None:
            advice = "Give it a default, one for every row (`= …`), or `| None`"
            if references:
                advice = "Let it be empty: `int | None = Field(default=None, …)`"
            reason = f"required, and rows that exist have none. {advice}"
            self.refuse(model.name, reason)
        # A new column, without what is added after it: an index, unique or not.
        change.column = Column(
            model.name,
            model.type,
            *references,
            nullable=model.nullable,
            server_default=default,
        )
        change.inline_references = True  # SQLite cannot add them in any other way
        self.add(f"{self.table}.{model.name}", change)

    def write_default(self, model: Column[Any]) -> Any:
        """Write the default that is the same for every row in SQL, or return None."""
        value = None
        if isinstance(model.default, ScalarElementColumnDefault):
            value = model.default.arg
        if isinstance(model.default, CallableColumnDefault):
            factory = python_inspect.unwrap(model.default.arg)
            # A class such as list or dict gives the same each time. A function such as
            # now or uuid4 may not.
            if isinstance(factory, type):
                value = factory()
        if value is None:
            return None
        stored = literal(value, model.type)
        statement = select(func.quote(stored))
        if not SQLITE:
            statement = select(func.quote_literal(cast(stored, Text)))
        return literal_column(self.connection.execute(statement).scalar_one())

    def keep_column(self, change: ops.DropColumnOp) -> None:
        """Leave a column alone that the models do not have, or no longer."""
        old, column = change.column_name, change.to_column()
        alter = f'ALTER TABLE "{self.table}"'
        drop = f'{alter} DROP COLUMN "{old}"'
        if self.new:
            self.refuse(
                old,
                f"in the database, not in models.py, which has {self.new[0]}. If that"
                f' is its new name: {alter} RENAME COLUMN "{old}" TO "{self.new[0]}".'
                f" If it is not, remove it, and what it holds: {drop}",
            )
        elif column.nullable or column.server_default is not None:
            says = "%s.%s is not in models.py. It is left alone; this removes it: %s"
            log.warning(says, self.table, old, drop)
        else:
            self.refuse(
                old,
                "in the database, not in models.py, and it must not be empty. This"
                f" removes it, and what it holds: {drop}",
            )

    def compare_column(self, change: ops.AlterColumnOp) -> None:
        """Let a text be longer; refuse what else has become different."""
        old: Any = change.existing_type
        new: Any = change.modify_type or old
        must_change = change.modify_nullable is not None
        if isinstance(old, TEXT) and isinstance(new, TEXT) and not must_change:
            # A shorter text is a rule for new values. SQLite stores any length.
            if not SQLITE and (old.length or 0) < (new.length or 0):
                self.add(f"{self.table}.{change.column_name} (longer)", change)
            return
        nullable = change.modify_nullable if must_change else change.existing_nullable
        in_database = self.describe(old, nullable=change.existing_nullable)
        in_models = self.describe(new, nullable=nullable)
        reason = f"{in_database} in the database, {in_models} in models.py"
        self.refuse(change.column_name, reason)

    def describe(self, kind: Any, *, nullable: bool | None) -> str:
        sql = kind.compile(self.connection.dialect)
        return f"{sql} or null" if nullable else str(sql)

    def make_unique(self, change: ops.CreateUniqueConstraintOp) -> None:
        """Add a unique index, since SQLite adds no constraint to a table."""
        columns = list(change.columns)
        unique = [index for index in self.dropped if index.to_index().unique]
        if columns in [columns_of(index) for index in unique]:
            return  # it was made here earlier
        name = str(change.constraint_name or f"uq_{self.table}_{'_'.join(columns)}")
        self.add(name, ops.CreateIndexOp(name, self.table, columns, unique=True))

    def compare_indexes(self) -> None:
        """Add indexes; drop only those of the same names."""
        names = [index.index_name for index in self.made]
        for index in self.dropped:
            name, columns = str(index.index_name), columns_of(index)
            is_known = self.unknown.isdisjoint(columns) and columns not in self.unique
            if name in names:
                self.add(name, index)
            elif index.to_index().unique and is_known:  # any other does no harm
                self.refuse(name, f'unique in the database alone: DROP INDEX "{name}"')
        for made in self.made:
            self.add(str(made.index_name), made)


def keys_of(change: ops.DropConstraintOp) -> list[str]:
    """Return the columns of a reference or a unique constraint."""
    constraint: Any = change.to_constraint()
    return [column.name for column in constraint.columns]


def columns_of(index: ops.DropIndexOp) -> list[str]:
    return [column.name for column in index.to_index().columns]
