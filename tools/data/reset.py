"""Empty the database, even if its tables and models.py differ."""

from sqlalchemy import Connection, Inspector, inspect
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import SQLModel

from core.data.kinds import first_line
from core.data.sessions import database, engine, reading_engine
from core.settings import DATABASE, SQLITE
from tools.data.ask import UNCHANGED, ask
from tools.data.tables import open_database, print_rows


def reset(*, agreed: bool) -> None:
    """Drop the models' tables, whatever they look like, and create them again."""
    open_database()
    try:
        with reading_engine.connect() as connection:
            tables, others = find_tables(inspect(connection))
            print_rows(connection, tables + others)
        if others:
            print(f"Tables that refer to them are dropped, too: {', '.join(others)}.")
        ask("Delete all of that?", agreed)
        with database.alone(engine) as connection:
            drop(connection, tables + others)
            SQLModel.metadata.create_all(connection)
    except SQLAlchemyError as error:
        reason = first_line(error)
        raise SystemExit(f"{DATABASE.name}: {reason}\n{UNCHANGED}") from None
    print("The database is empty.")


def find_tables(inspector: Inspector) -> tuple[list[str], list[str]]:
    """Name the models' tables that exist, and others that refer to them."""
    there = inspector.get_table_names()
    tables = [name for name in there if name in SQLModel.metadata.tables]
    others: list[str] = []
    found = tables
    while found:
        dropped = tables + others
        found = []
        for name in there:
            keys = inspector.get_foreign_keys(name)
            targets = {key["referred_table"] for key in keys}
            if name not in dropped and targets.intersection(dropped):
                found.append(name)
        others += found
    return tables, others


def drop(connection: Connection, tables: list[str]) -> None:
    """Drop tables; on PostgreSQL, also the views that depend on them."""
    quote = connection.dialect.identifier_preparer.quote
    cascade = "CASCADE"
    if SQLITE:
        # Tables may refer to each other. References are checked only at the end.
        connection.exec_driver_sql("PRAGMA defer_foreign_keys = ON")
        cascade = ""
    for table in tables:
        connection.exec_driver_sql(f"DROP TABLE {quote(table)} {cascade}")
