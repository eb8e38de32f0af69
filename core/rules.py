"""Rules: what the database demands of a row besides the types of its columns.

It promises `compare_rules` for core/schema.py: primary keys, references with their ON
DELETE, what is unique, computed columns, defaults of the database and CHECK, compared
alike on SQLite and PostgreSQL; Alembic sees some of them on only one, or not at all.
Nothing else needs you to read this.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from alembic.operations import MigrateOperation, ops
from sqlalchemy import (
    Column,
    Connection,
    Dialect,
    ForeignKeyConstraint,
    Index,
    MetaData,
    Table,
    UniqueConstraint,
    text,
)
from sqlalchemy.schema import CreateTable
from sqlmodel import SQLModel

UNIQUE = "unique"
REFERENCE = "a reference to "
DEFAULT = "a default of the database's own"


class Rule(NamedTuple):
    text: str
    columns: tuple[str, ...] = ()

    def describe(self, table: str) -> str:
        return f"{place(table, self.columns)}: {self.text}"


def rules_of(table: Table, dialect: Dialect) -> set[Rule]:
    """List the rules of a table, from the models or as found in the database."""
    rules = {Rule("the primary key", names(table.primary_key.columns))}
    for constraint in table.constraints:
        if isinstance(constraint, UniqueConstraint):
            rules.add(Rule(UNIQUE, names(constraint.columns)))
    for index in table.indexes:
        if index.unique and not has_expressions(index):
            rules.add(Rule(UNIQUE, names(index.columns)))
    for key in table.foreign_key_constraints:
        rules.add(rule_of_reference(key))
    for column in table.columns:
        if column.computed is not None:
            rules.add(Rule("computed", (column.name,)))
        elif column.server_default is not None:
            rules.add(Rule(DEFAULT, (column.name,)))
    # Some types add a CHECK on some databases, so they are found in the SQL. They are
    # only counted, since PostgreSQL does not store the text that it was given.
    checks = str(CreateTable(table).compile(dialect=dialect)).count("CHECK (")
    if checks:
        rules.add(Rule(f"{checks} CHECK"))
    return rules


def rule_of_reference(key: ForeignKeyConstraint) -> Rule:
    targets = []
    for element in key.elements:
        targets.append(element.target_fullname)
    rule = REFERENCE + ", ".join(targets)
    if key.ondelete not in {None, "NO ACTION"}:
        rule += f" ON DELETE {key.ondelete}"
    return Rule(rule, names(key.columns))


def place(table: str, columns: tuple[str, ...]) -> str:
    if not columns:
        return table
    return f"{table}.{', '.join(columns)}"


def names(columns: Iterable[Column[Any]]) -> tuple[str, ...]:
    return tuple(sorted(column.name for column in columns))


def has_expressions(index: Index) -> bool:
    """Tell whether an index is on more than columns, such as lower(name)."""
    return any(not isinstance(part, Column) for part in index.expressions)


def compare_rules(
    connection: Connection,
) -> tuple[list[MigrateOperation], list[str]]:
    """List the unique indexes to add, and say which other rules differ."""
    found = MetaData()
    found.reflect(connection, only=list(SQLModel.metadata.tables))
    indexes: list[MigrateOperation] = []
    differences: list[str] = []
    for table in SQLModel.metadata.tables.values():
        found_table = found.tables[table.name]
        if connection.dialect.name == "sqlite":
            read_on_delete(connection, found_table)
        wanted = rules_of(table, connection.dialect)
        existing = rules_of(found_table, connection.dialect)
        indexes += unique_indexes(table, existing)
        for rule in sorted(wanted - existing):
            if not can_be_added(rule, found_table):
                differences.append(
                    f"{rule.describe(table.name)} in models.py, not in the database"
                )
        for rule in sorted(existing - wanted):
            if not is_gone(rule, table, found_table):
                differences.append(
                    f"{rule.describe(table.name)} in the database, not in models.py"
                    + describe_way_out(rule, found_table)
                )
    return indexes, differences


def describe_way_out(rule: Rule, found_table: Table) -> str:
    """Say how to drop a unique index; that loses nothing, but values may repeat."""
    for index in found_table.indexes:
        if rule == Rule(UNIQUE, names(index.columns)):
            return f'. This SQL ends it: DROP INDEX "{index.name}"'
    return ""


def unique_indexes(table: Table, existing: set[Rule]) -> Iterator[ops.CreateIndexOp]:
    """Yield an index for each missing unique constraint.

    It does the same as a constraint, which SQLite cannot add.
    """
    for constraint in table.constraints:
        if isinstance(constraint, UniqueConstraint):
            columns = [column.name for column in constraint.columns]
            if Rule(UNIQUE, names(constraint.columns)) not in existing:
                name = constraint.name or f"uq_{table.name}_{'_'.join(columns)}"
                yield ops.CreateIndexOp(str(name), table.name, columns, unique=True)


def read_on_delete(connection: Connection, table: Table) -> None:
    """Ask SQLite for ON DELETE: SQLAlchemy misses it where a column was added."""
    statement = text(
        'SELECT on_delete FROM pragma_foreign_key_list(:table) WHERE "from" = :column'
    )
    for key in table.foreign_key_constraints:
        where = {"table": table.name, "column": key.column_keys[0]}
        key.ondelete = connection.execute(statement, where).scalars().first()


def can_be_added(rule: Rule, found_table: Table) -> bool:
    """Tell whether a rule comes with a new column or is an index."""
    if rule.text == UNIQUE:
        return True
    is_new = len(rule.columns) == 1 and rule.columns[0] not in found_table.columns
    return is_new and (rule.text == DEFAULT or rule.text.startswith(REFERENCE))


def is_gone(rule: Rule, table: Table, found_table: Table) -> bool:
    """Tell whether a rule does no harm, or is reported or replaced elsewhere."""
    if rule.text == DEFAULT:  # it was for rows that were older than the column
        return True
    for column in rule.columns:
        if column not in table.columns:
            return True
    if rule.text == UNIQUE:
        index_names = {index.name for index in table.indexes}
        for index in found_table.indexes:
            if index.name in index_names and names(index.columns) == rule.columns:
                return True
    return False
