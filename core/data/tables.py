"""The tables follow the models, in what only adds: tables, columns, indexes.

Alembic compares them. What could lose or invent data refuses the start, with what to do
instead, and nothing is changed. Rows that exist stay as they are.
"""

import warnings
from inspect import unwrap
from typing import Any, TypeVar

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
Change = TypeVar("Change", bound=MigrateOperation)
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
    comparison = Comparison(connection)
    for found in script.upgrade_ops_list[0].ops:
        # Tables that the models do not know may be somebody else's.
        if isinstance(found, ops.ModifyTableOps):
            if found.table_name in SQLModel.metadata.tables:
                comparison.compare_table(found)
    if comparison.refused:
        raise StartRefused("\n".join([*comparison.refused, WAYS_OUT]))
    for name, change in comparison.changes:
        try:
            Operations(context).invoke(change)
        except IntegrityError:
            reason = f"{name}: existing rows are not unique\n{WAYS_OUT}"
            raise StartRefused(reason) from None
    # An index that is made anew is dropped first, so its name is there twice.
    return list(dict(comparison.changes))


def pick(found: ops.ModifyTableOps, kind: type[Change]) -> list[Change]:
    return [change for change in found.ops if isinstance(change, kind)]


class Comparison:
    """What Alembic has found: what is added, and what is refused."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.changes: list[tuple[str, MigrateOperation]] = []
        self.refused: list[str] = []

    def compare_table(self, found: ops.ModifyTableOps) -> None:
        self.table = SQLModel.metadata.tables[found.table_name]
        added = pick(found, ops.AddColumnOp)
        self.new = [change.column.name for change in added]
        for new in added:
            self.add_column(new)
        for unknown in pick(found, ops.DropColumnOp):
            self.keep_column(unknown)
        for different in pick(found, ops.AlterColumnOp):
            self.compare_column(different)
        self.compare_references(found)
        self.compare_indexes(found)

    def add(self, name: str, change: MigrateOperation) -> None:
        self.changes.append((name, change))

    def refuse(self, name: str, reason: str) -> None:
        self.refused.append(f"{self.table.name}.{name}: {reason}")

    def add_column(self, change: ops.AddColumnOp) -> None:
        """Give old rows the default of a new column, or refuse one that has none."""
        model = change.column
        references = []
        for key in model.foreign_keys:
            target = key.target_fullname
            reference = ForeignKey(target, onupdate=key.onupdate, ondelete=key.ondelete)
            references.append(reference)
        default = model.server_default
        advice = "Let it be empty: `int | None = Field(default=None, …)`"
        if not references:  # old rows refer to nothing
            default = default or self.write_default(model)
            advice = "Give it a default, one for every row (`= …`), or `| None`"
        if not model.nullable and default is None:
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
        self.add(f"{self.table.name}.{model.name}", change)

    def write_default(self, model: Column[Any]) -> Any:
        """Write the default that is the same for every row in SQL, or return None."""
        default: Any = model.default
        value = None
        if default is not None and default.is_scalar:
            value = default.arg
        if default is not None and default.is_callable:
            factory = unwrap(default.arg)
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
        name, column = change.column_name, change.to_column()
        alter = f'ALTER TABLE "{self.table.name}"'
        drop = f'{alter} DROP COLUMN "{name}"'
        reason = "in the database, not in models.py, and it must not be empty."
        if self.new:
            new = self.new[0]
            reason = (
                f"in the database, not in models.py, which has {new}. If that is its"
                f' new name: {alter} RENAME COLUMN "{name}" TO "{new}".'
            )
        elif column.nullable or column.server_default is not None:
            says = "%s.%s is not in models.py. It is left alone; this removes it: %s"
            log.warning(says, self.table.name, name, drop)
            return
        self.refuse(name, f"{reason} This removes it, and what it holds: {drop}")

    def compare_column(self, change: ops.AlterColumnOp) -> None:
        """Let a text be longer; refuse what else has become different."""
        old: Any = change.existing_type
        model = self.table.columns[change.column_name]
        new: Any = model.type
        are_texts = isinstance(old, TEXT) and isinstance(new, TEXT)
        if are_texts and change.modify_nullable is None:
            # A shorter text is a rule for new values. SQLite stores any length.
            if not SQLITE and (old.length or 0) < (new.length or 0):
                self.add(f"{self.table.name}.{model.name} (longer)", change)
            return
        in_database = self.describe(old, change.existing_nullable)
        in_models = self.describe(new, model.nullable)
        reason = f"{in_database} in the database, {in_models} in models.py"
        self.refuse(model.name, reason)

    def describe(self, kind: Any, is_nullable: bool | None) -> str:
        sql = kind.compile(self.connection.dialect)
        return f"{sql} or null" if is_nullable else str(sql)

    def compare_references(self, found: ops.ModifyTableOps) -> None:
        """Refuse a reference that is only in the database, or only in the models."""
        made = [list(key.local_cols) for key in pick(found, ops.CreateForeignKeyOp)]
        for dropped in pick(found, ops.DropConstraintOp):
            rule: Any = dropped.to_constraint()
            columns = rule.columns.keys()
            # On SQLite, SQLAlchemy misses the ON DELETE of a column that was added
            # later: then one reference is dropped and made.
            if SQLITE and columns in made:
                made.remove(columns)
            else:
                name = str(rule.name or ", ".join(columns))
                self.refuse(name, "a rule of the database alone")
        for columns in made:
            if not set(columns) <= set(self.new):  # else it comes with the column
                name = ", ".join(columns)
                self.refuse(name, "the reference is in models.py alone")

    def compare_indexes(self, found: ops.ModifyTableOps) -> None:
        """Add indexes; drop only those of the same names."""
        table = self.table.name
        made = pick(found, ops.CreateIndexOp)
        names = [new.index_name for new in made]
        rules = pick(found, ops.CreateUniqueConstraintOp)
        unique = [list(rule.columns) for rule in rules]
        known = []  # as unique indexes, which were made here earlier
        for dropped in pick(found, ops.DropIndexOp):
            name, index = str(dropped.index_name), dropped.to_index()
            columns = index.columns.keys()
            if name in names:
                self.add(name, dropped)
            elif index.unique and columns in unique:
                known.append(columns)
            elif index.unique and set(columns) <= set(self.table.columns.keys()):
                # Any other does no harm.
                self.refuse(name, f'unique in the database alone: DROP INDEX "{name}"')
        for rule in rules:
            columns = list(rule.columns)
            if columns not in known:
                # An index, since SQLite adds no constraint to a table.
                name = str(rule.constraint_name or f"uq_{table}_{'_'.join(columns)}")
                self.add(name, ops.CreateIndexOp(name, table, columns, unique=True))
        for new in made:
            self.add(str(new.index_name), new)
