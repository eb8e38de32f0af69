"""What differs between the tables and the models: what is added, and what is refused.

Alembic compares them. What could lose or invent data refuses the start, with what to do
instead, and nothing is changed. Rows that exist stay as they are.
"""

import re
import warnings
from inspect import formatannotation, unwrap
from typing import Any, TypeVar

from alembic.autogenerate import produce_migrations
from alembic.migration import MigrationContext
from alembic.operations import MigrateOperation, Operations, ops
from sqlalchemy import Connection, Text, cast, exc, literal, literal_column
from sqlmodel import AutoString, Column, ForeignKey, SQLModel, String, func, select
from sqlmodel.main import FieldInfo, default_registry

from core.settings import SQLITE
from core.start import StartRefused, log

UNCHANGED = "Nothing was changed."
# Offered only where no command changes the tables.
RESET = (
    f"{UNCHANGED} To have it as models.py says, keep a copy (python -m tools.data save"
    " FILE) and start with empty tables: python -m tools.data reset"
)
TEXT = String | AutoString
# What a default may look like, for each type.
EXAMPLES = {"int": "0", "float": "0.0", "bool": "False", "str": '""'}
Change = TypeVar("Change", bound=MigrateOperation)
# Comments do nothing, and a default in the database is only for older rows.
PLUGINS = [
    "alembic.autogenerate.*",
    "~alembic.autogenerate.comments",
    "~alembic.autogenerate.defaults",
]


def extend_tables(connection: Connection) -> list[str]:
    """Add what the tables lack and return its names, or raise StartRefused."""
    options = {"autogenerate_plugins": PLUGINS}
    context = MigrationContext.configure(connection, opts=options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about what Alembic does not compare
        script = produce_migrations(context, SQLModel.metadata)
    comparison = Comparison(connection, context)
    for found in script.upgrade_ops_list[0].ops:
        # Tables that the models do not know may be somebody else's.
        if isinstance(found, ops.ModifyTableOps):
            if found.table_name in SQLModel.metadata.tables:
                comparison.compare_table(found)
    if comparison.refused:
        raise StartRefused("\n".join([*comparison.refused, comparison.ending]))
    for name, change in comparison.changes:
        try:
            Operations(context).invoke(change)
        except exc.IntegrityError:
            raise StartRefused(
                f"{name}: unique in models.py, but rows that exist are not. Take that"
                " out of models.py, or change the rows first"
            ) from None
    # An index that is made anew is dropped first, so its name is there twice.
    return list(dict(comparison.changes))


def pick(found: ops.ModifyTableOps, kind: type[Change]) -> list[Change]:
    return [change for change in found.ops if isinstance(change, kind)]


class Comparison:
    """What Alembic has found: what is added, and what is refused."""

    def __init__(self, connection: Connection, context: MigrationContext) -> None:
        self.connection = connection
        self.context = context
        self.changes: list[tuple[str, MigrateOperation]] = []
        self.refused: list[str] = []
        self.ending = UNCHANGED

    def compare_table(self, found: ops.ModifyTableOps) -> None:
        self.table = SQLModel.metadata.tables[found.table_name]
        added = pick(found, ops.AddColumnOp)
        self.new = [change.column for change in added]
        self.renamed: set[str] = set()  # new columns that may be old ones
        for unknown in pick(found, ops.DropColumnOp):
            self.keep_column(unknown.to_column())
        for new in added:
            self.add_column(new)
        for different in pick(found, ops.AlterColumnOp):
            self.compare_column(different)
        self.compare_rules(found)
        self.compare_indexes(found)

    def add(self, name: str, change: MigrateOperation) -> None:
        self.changes.append((name, change))

    def refuse(self, name: str, reason: str, *, is_final: bool = False) -> None:
        self.refused.append(f"{self.table.name}.{name}: {reason}")
        if is_final:
            self.ending = RESET

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
        if not model.nullable and default is None and model.name not in self.renamed:
            advice = write_field(model)
            reason = f"required, and rows that exist have none. In models.py: {advice}"
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

    def keep_column(self, old: Column[Any]) -> None:
        """Leave a column alone that the models do not have, or no longer."""
        name = f"{self.table.name}.{old.name}"
        drop = f"python -m tools.data drop {name}"
        reason = "in the database, not in models.py"
        if not old.nullable and old.server_default is None:
            reason += ", and it must not be empty"
        elif not self.new:
            says = "%s is not in models.py. It is left alone; this removes it: %s"
            log.warning(says, name, drop)
            return
        for new in self.new:
            if self.is_alike(old, new):
                self.renamed.add(new.name)
                rename = f"rename {name} {self.table.name}.{new.name}"
                reason += f"\n  If it is {new.name} now: python -m tools.data {rename}"
        self.refuse(old.name, f"{reason}\n  To remove it, and what it holds: {drop}")

    def is_alike(self, old: Column[Any], new: Column[Any]) -> bool:
        """Tell whether a column may have become another one: its type is the same."""
        if isinstance(old.type, TEXT) and isinstance(new.type, TEXT):
            return True  # of any length
        return not self.context.impl.compare_type(old, new)

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
        field = f"{model.name}: {write_type(find_field(model))}"
        if change.modify_nullable is None:
            dialect = self.connection.dialect
            both = f"{old.compile(dialect)} in the database, {new.compile(dialect)}"
            reason = f"{both} in models.py. Put its type back"
        elif change.existing_nullable:
            reason = f"may be empty in the database. Write in models.py: {field} | None"
        else:
            reason = f"is never empty in the database. Write in models.py: {field}"
        self.refuse(model.name, reason, is_final=True)

    def compare_rules(self, found: ops.ModifyTableOps) -> None:
        """Refuse rules that are only in the database, or only in the models."""
        new = {column.name for column in self.new}
        different = []
        for key in pick(found, ops.CreateForeignKeyOp):
            if not set(key.local_cols) <= new:  # else it comes with the column
                different.append(list(key.local_cols))
        for change in pick(found, ops.DropConstraintOp):
            rule: Any = change.to_constraint()
            columns = rule.columns.keys()
            if change.constraint_type == "unique" and not SQLITE:
                drop = f'ALTER TABLE "{self.table.name}" DROP CONSTRAINT "{rule.name}"'
                self.refuse_unique(columns, drop)
            elif columns not in different:
                different.append(columns)
            elif SQLITE:
                # SQLAlchemy misses the ON DELETE of a column that was added later:
                # then one reference is dropped and made.
                different.remove(columns)
        for columns in different:
            if self.is_known(columns):
                reason = "unique, foreign_key or ondelete is not as in the database"
                self.refuse(", ".join(columns), f"{reason}. Put it back", is_final=True)

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
            elif index.unique:  # any other does no harm
                self.refuse_unique(columns, f'DROP INDEX "{name}"')
        for rule in rules:
            columns = list(rule.columns)
            if columns not in known:
                # An index, since SQLite adds no constraint to a table.
                name = str(rule.constraint_name or f"uq_{table}_{'_'.join(columns)}")
                self.add(name, ops.CreateIndexOp(name, table, columns, unique=True))
        for new in made:
            self.add(str(new.index_name), new)

    def refuse_unique(self, columns: list[str], drop: str) -> None:
        """Refuse a rule of the database alone, if the models still have its columns."""
        if self.is_known(columns):
            reason = "unique in the database alone. Put it back, or end it in SQL"
            self.refuse(", ".join(columns), f"{reason}: {drop}")

    def is_known(self, columns: list[str]) -> bool:
        return set(columns) <= set(self.table.columns.keys())


def write_field(model: Column[Any]) -> str:
    """Write a required field so that rows which exist can have it."""
    field = find_field(model)
    kind = write_type(field)
    optional = f"{model.name}: {kind} | None"
    for key in model.foreign_keys:
        return f'{optional} = Field(default=None, foreign_key="{key.target_fullname}")'
    if isinstance(field, FieldInfo):  # what is in it stays
        return f"{optional} = Field(…)"
    if kind in EXAMPLES:
        return f"{model.name}: {kind} = {EXAMPLES[kind]}, or {optional} = None"
    return f"{optional} = None"


def find_field(model: Column[Any]) -> Any:
    """Return the field in models.py of which a column is made."""
    for mapper in default_registry.mappers:
        fields = mapper.class_.model_fields
        if mapper.local_table is model.table and model.name in fields:
            return fields[model.name]
    return FieldInfo(annotation=model.type.python_type)  # the table has no class


def write_type(field: Any) -> str:
    """Write the type of a field as it stands in models.py, without `| None`."""
    kind = re.sub(r"\w+\.", "", formatannotation(field.annotation))
    return kind.removesuffix(" | None")
