"""A new name for a column, or its end: what a start does not do by itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Connection, MetaData, Table, inspect, text

from core.data.sessions import autocommit_engine, database, engine, reading_engine
from core.settings import SQLITE
from tools.data import ids
from tools.data.ask import ask
from tools.data.tables import count, open_database


def rename(old: str, new: str) -> None:
    """Rename a column, and the index that Field(index=True) has made for it."""
    table, name = split(old)
    new_table, new_name = split(new)
    if new_table != table:
        raise SystemExit(f"A column stays in its table: write {table}.{new_name}.")
    number = count_values(table, name, free=new_name)
    print(f"Renaming {old}, which has {count(number, 'value')}, to {new}")
    with database.alone(engine) as connection:
        quote = connection.dialect.identifier_preparer.quote
        columns = f"{quote(name)} TO {quote(new_name)}"
        alter = f"ALTER TABLE {quote(table)} RENAME COLUMN {columns}"
        connection.exec_driver_sql(alter)
        for index in inspect(connection).get_indexes(table):
            if index["name"] in {f"ix_{table}_{name}", f"uq_{table}_{name}"}:
                old_index = str(index["name"])
                new_index = old_index.removesuffix(name) + new_name
                rename_index(connection, old_index, new_index)
    print(f"{old} is {new} now.")


def rename_index(connection: Connection, old: str, new: str) -> None:
    quote = connection.dialect.identifier_preparer.quote
    if not SQLITE:
        rename = f"ALTER INDEX {quote(old)} RENAME TO {quote(new)}"
        connection.exec_driver_sql(rename)
        return
    find = text("SELECT sql FROM sqlite_master WHERE type = 'index' AND name = :name")
    create = connection.execute(find, {"name": old}).scalar_one()
    connection.exec_driver_sql(f"DROP INDEX {quote(old)}")
    connection.exec_driver_sql(create.replace(old, new, 1))


def drop(name: str, agreed: bool) -> None:
    """Remove a column, with its indexes, unique rules and references."""
    table, column = split(name)
    number = count_values(table, column)
    ask(f"Remove {name}, and {count(number, 'value')} in it?", agreed)
    if SQLITE:
        with copying_tables() as connection:
            drop_on_sqlite(connection, table, column)
    else:
        with database.alone(engine) as connection:
            operations_on(connection).drop_column(table, column)
    print(f"{name} is gone.")


@contextmanager
def copying_tables() -> Iterator[Connection]:
    """Begin a transaction in which a table can be replaced that others refer to."""
    with autocommit_engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA foreign_keys = OFF")
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        yield connection
        connection.exec_driver_sql("COMMIT")
        connection.exec_driver_sql("PRAGMA foreign_keys = ON")


def drop_on_sqlite(connection: Connection, name: str, column: str) -> None:
    """Copy the table: SQLite itself drops no column of an index or a reference."""
    find = text("SELECT sql FROM sqlite_master WHERE name = :name")
    create = connection.execute(find, {"name": name}).scalar_one()
    options: dict[str, Any] = {"sqlite_autoincrement": "AUTOINCREMENT" in create}
    table = Table(name, MetaData(), autoload_with=connection, **options)
    last = ids.find_last(connection, table)
    operations = operations_on(connection)
    for index in list(table.indexes):
        if column in index.columns:
            operations.drop_index(str(index.name), name)
            table.indexes.remove(index)
    with operations.batch_alter_table(
        name, copy_from=table, recreate="always", table_kwargs=options
    ) as batch:
        batch.drop_column(column)
    ids.go_on_after(connection, table, last)


def operations_on(connection: Connection) -> Operations:
    return Operations(MigrationContext.configure(connection))


def split(name: str) -> list[str]:
    parts = name.split(".")
    if len(parts) != 2 or not all(parts):
        raise SystemExit(f"{name}: write TABLE.COLUMN, as in item.photo")
    return parts


def count_values(table: str, name: str, free: str = "") -> int:
    """Count the values of a column; end if it is not there, or the `free` name is."""
    open_database()
    with reading_engine.connect() as connection:
        inspector = inspect(connection)
        if table not in inspector.get_table_names():
            names = ", ".join(inspector.get_table_names())
            raise SystemExit(f"There is no table {table}. These are there: {names}.")
        columns = [column["name"] for column in inspector.get_columns(table)]
        if name not in columns:
            there = ", ".join(columns)
            raise SystemExit(f"{table} has no column {name}. It has: {there}.")
        if free in columns:
            raise SystemExit(f"{table} has a column {free} already: drop it first.")
        quote = connection.dialect.identifier_preparer.quote
        statement = f"SELECT count({quote(name)}) FROM {quote(table)}"
        return int(connection.exec_driver_sql(statement).scalar_one())
