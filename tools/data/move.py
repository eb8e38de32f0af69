"""Copy all tables into another database, of the same kind or the other.

Two processes do it, since one knows only one database: this one reads the rows, and
another, started with the new DATABASE_URL, writes them, each as the server would.
"""

import json
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import IO, Any

from rich.progress import Progress
from sqlalchemy import (
    JSON,
    Column,
    Connection,
    Table,
    Text,
    cast,
    insert,
    inspect,
    select,
)
from sqlalchemy.exc import DBAPIError
from sqlmodel import SQLModel

from core.data.columns import fit
from core.data.kinds import first_line
from core.data.sessions import (
    close_all,
    database,
    engine,
    open_all,
    reading_engine,
)
from core.data.tables import follow_models
from core.settings import SQLITE, read_database
from core.start import StartRefused
from tools.data import ids
from tools.data.tables import BATCH, PLACE, count, count_rows, open_database

TABLES = SQLModel.metadata.tables
SNAPSHOT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"


# ---- The process that reads. ----


def move(url: str) -> None:
    """Copy all rows, or none."""
    try:
        target = read_database(url)
    except ValueError as error:
        raise SystemExit(f"The new database: {error}") from None
    if target.is_sqlite and target.file is None:
        raise SystemExit("A database in memory would be gone at once: name a file.")
    open_database()
    command = [sys.executable, "-m", "tools.data.move"]
    settings = os.environ | {"DATABASE_URL": url}
    with reading_engine.connect() as connection:
        if not SQLITE:  # all tables as they are at this moment
            connection.exec_driver_sql(SNAPSHOT)
        numbers = {name: count_rows(connection, TABLES[name]) for name in TABLES}
        for name, number in numbers.items():
            print(f"{name}: {count(number)}")
        print(f"Copying them into {target.file or target.name}. Stop the server first:")
        print("what it writes from now on is not copied.")
        writer = subprocess.Popen(
            command, env=settings, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert writer.stdin is not None
        assert writer.stdout is not None
        if writer.stdout.readline():  # it is ready, or else it has said why not
            with suppress(BrokenPipeError), writer.stdin as pipe, Progress() as bar:
                for name, number in numbers.items():
                    task = bar.add_task(name, total=number)
                    for batch in send(connection, TABLES[name], pipe):
                        bar.advance(task, batch)
                pickle.dump(None, pipe)
    if writer.wait() != 0:
        raise SystemExit("Nothing was copied.")
    shown = re.sub("(//[^:/@]*):[^/]*@", r"\1:PASSWORD@", url)
    shown = re.sub("password=[^&]*", "password=PASSWORD", shown)
    print(f"All of it was copied; {PLACE} is as it was. Start the server with")
    print(f"DATABASE_URL='{shown}' .venv/bin/uvicorn main:app")


def send(connection: Connection, table: Table, pipe: IO[bytes]) -> Iterator[int]:
    """Send the rows of a table in batches; yield how many each has."""
    # JSON as text, or its null would look like no value.
    columns = [cast(one, Text) if is_json(one) else one for one in table.columns]
    statement = select(*columns).order_by(*table.primary_key.columns)
    result = connection.execute(statement.execution_options(yield_per=BATCH))
    for rows in result.partitions():
        pickle.dump((table.name, 0, [tuple(row) for row in rows]), pipe)
        yield len(rows)
    pickle.dump((table.name, ids.find_last(connection, table), []), pipe)


def is_json(column: Column[Any]) -> bool:
    return isinstance(column.type, JSON)


# ---- The process that writes: python -m tools.data.move. ----


def receive(pipe: IO[bytes]) -> None:
    """Write what comes from the other process, in one transaction."""
    for table in TABLES.values():
        for column in table.columns:
            if isinstance(column.type, JSON):
                column.type.none_as_null = True  # no value is NULL, not JSON's null
    open_all()
    with database.alone(engine) as connection:
        follow_models(connection)
        for name, table in TABLES.items():
            if number := count_rows(connection, table):
                raise StartRefused(
                    f"{PLACE} is not empty ({name}: {count(number)}). Name another, or"
                    " empty it: DATABASE_URL=… python -m tools.data reset"
                )
        print("ready", flush=True)
        constraints = defer_references(connection)
        while (received := pickle.load(pipe)) is not None:
            name, last, rows = received
            table = TABLES[name]
            if rows:
                values = [fit_row(table, row) for row in rows]
                connection.execute(insert(table), values)
            ids.go_on_after(connection, table, last)
        restore_references(connection, constraints)


def fit_row(table: Table, row: tuple[Any, ...]) -> dict[str, Any]:
    """Return the values of a row as the columns of this database hold them."""
    values = {}
    for column, value in zip(table.columns, row, strict=True):
        if is_json(column) and value is not None:
            values[column.key] = JSON.NULL if value == "null" else json.loads(value)
            continue
        try:
            fitting = value if value is None else fit(value, column.type)
        except (ValueError, OverflowError) as error:
            key = row[: len(table.primary_key.columns)]
            raise StartRefused(f"{table.name}.{column.name}: {error} {key}") from None
        values[column.key] = fitting
    return values


def defer_references(connection: Connection) -> list[str]:
    """Let rows refer to rows that come later; return what PostgreSQL has deferred."""
    if SQLITE:
        connection.exec_driver_sql("PRAGMA defer_foreign_keys = ON")
        return []
    quote = connection.dialect.identifier_preparer.quote
    constraints = []
    for name in TABLES:
        for key in inspect(connection).get_foreign_keys(name):
            if not key["options"].get("deferrable"):
                constraint = quote(str(key["name"]))
                constraints.append(
                    f"ALTER TABLE {quote(name)} ALTER CONSTRAINT {constraint}"
                )
    for constraint in constraints:
        connection.exec_driver_sql(f"{constraint} DEFERRABLE")
    connection.exec_driver_sql("SET CONSTRAINTS ALL DEFERRED")
    return constraints


def restore_references(connection: Connection, constraints: list[str]) -> None:
    """Check all references now, and make them as the models say."""
    if not SQLITE:
        connection.exec_driver_sql("SET CONSTRAINTS ALL IMMEDIATE")
    for constraint in constraints:
        connection.exec_driver_sql(f"{constraint} NOT DEFERRABLE")


if __name__ == "__main__":
    try:
        receive(sys.stdin.buffer)
    except StartRefused as refusal:
        raise SystemExit(str(refusal)) from None
    except DBAPIError as error:
        raise SystemExit(f"{PLACE}: {first_line(error)}") from None
    except (EOFError, KeyboardInterrupt):
        raise SystemExit(1) from None
    finally:
        close_all()
