"""A new name for a column, or its end: what a start does not do by itself."""

from sqlalchemy import Connection, inspect
from sqlalchemy.exc import DBAPIError

from core.data.kinds import first_line
from core.data.sessions import database, engine, reading_engine
from core.settings import SQLITE
from tools.data.ask import ask
from tools.data.tables import count, open_database


def rename(old: str, new: str) -> None:
    """Rename a column. The next start makes its index anew, with the new name."""
    table, name = split(old)
    new_table, new_name = split(new)
    if new_table != table:
        raise SystemExit(f"A column stays in its table: write {table}.{new_name}.")
    number = count_values(table, name, free=new_name)
    print(f"Renaming {old}, which has {count(number, 'value')}, to {new}")
    with database.alone(engine) as connection:
        quote = connection.dialect.identifier_preparer.quote
        for index in inspect(connection).get_indexes(table):
            if index["name"] in {f"ix_{table}_{name}", f"uq_{table}_{name}"}:
                connection.exec_driver_sql(f"DROP INDEX {quote(str(index['name']))}")
        connection.exec_driver_sql(
            f"ALTER TABLE {quote(table)} RENAME {quote(name)} TO {quote(new_name)}"
        )
    print(f"{old} is {new} now.")


def drop(name: str, agreed: bool) -> None:
    """Remove a column with its indexes."""
    table, column = split(name)
    number = count_values(table, column)
    ask(f"Remove {name}, and {count(number, 'value')} in it?", agreed)
    try:
        with database.alone(engine) as connection:
            drop_column(connection, table, column)
    except DBAPIError as error:
        advice = ""
        if SQLITE:
            advice = (
                "\nTake it out of models.py, and copy all the rest into a new file:"
                " python -m tools.data move sqlite:///new.db"
            )
        raise SystemExit(f"The database says: {first_line(error)}{advice}") from None
    print(f"{name} is gone.")


def drop_column(connection: Connection, table: str, column: str) -> None:
    quote = connection.dialect.identifier_preparer.quote
    if SQLITE:  # PostgreSQL drops them by itself
        for index in inspect(connection).get_indexes(table):
            if column in index["column_names"]:
                connection.exec_driver_sql(f"DROP INDEX {quote(str(index['name']))}")
    connection.exec_driver_sql(f"ALTER TABLE {quote(table)} DROP {quote(column)}")


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
