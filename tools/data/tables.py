"""Any table of the models: its class, its new rows, and how many rows there are."""

import sys
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ValidationError
from sqlalchemy import Connection, Table, inspect
from sqlalchemy import table as named
from sqlmodel import SQLModel, func, select
from sqlmodel.main import default_registry

from core.data.sessions import open_all, reading_engine
from core.settings import DATABASE, SQLITE
from main import app  # noqa: F401 # it knows the tables of every router

BATCH = 1000  # rows
PLACE = str(DATABASE.file or DATABASE.name)


def open_database(*, make: bool = False) -> None:
    """Say which database it is, and open it. Unless `make` is set, it must be there."""
    print(f"Database: {PLACE}")
    if not make and SQLITE and (DATABASE.file is None or not DATABASE.file.exists()):
        raise SystemExit(
            "It is not there: run this in the folder where the server was started, or"
            " with the same DATABASE_URL."
        )
    open_all()
    if make:
        return
    with reading_engine.connect() as connection:
        there = inspect(connection).get_table_names()
    if not SQLModel.metadata.tables.keys() & set(there):
        raise SystemExit("It has no tables yet: start the server once.")


def count(number: int, noun: str = "row") -> str:
    if number == 1:
        return f"1 {noun}"
    return f"{number:,} {noun}s"


def count_rows(connection: Connection, table: Any) -> int:
    return connection.execute(select(func.count()).select_from(table)).scalar_one()


def print_rows(connection: Connection, names: Iterable[str]) -> None:
    """Print how many rows each of these tables has."""
    for name in names:
        print(f"{name}: {count(count_rows(connection, named(name)))}")


def find_class(name: str) -> type[SQLModel]:
    """Return the class of a table, or end with the names that there are."""
    classes: dict[str, type[SQLModel]] = {}
    for mapper in default_registry.mappers:
        classes[str(mapper.local_table.description)] = mapper.class_
    if name not in classes:
        names = ", ".join(sorted(classes))
        raise SystemExit(f"There is no table {name}. These are there: {names}.")
    return classes[name]


def table_of(row_class: type[SQLModel]) -> Table:
    return row_class.__table__  # type: ignore[attr-defined, no-any-return] # SQLModel's


def find_model(row_class: type[SQLModel], ending: str) -> Any:
    """Return ItemCreate or ItemPublic for Item, from the same module, or None."""
    module = sys.modules[row_class.__module__]
    model = getattr(module, row_class.__name__ + ending, None)
    if isinstance(model, type) and issubclass(model, BaseModel):
        return model
    return None


def new_row(row_class: type[SQLModel], values: dict[str, Any]) -> SQLModel:
    """Make a row by the rules of its Create model, or its own; raises ValidationError.

    What the Create model lacks, as the owner's id, the table's own rules check.
    """
    create = find_model(row_class, "Create")
    if create is None:
        return row_class.model_validate(values)
    sent: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for name, value in values.items():
        if name in create.model_fields:
            sent[name] = value
        else:
            rest[name] = value
    return row_class.model_validate(create.model_validate(sent), update=rest)


def describe(error: ValidationError) -> str:
    texts = []
    for mistake in error.errors():
        field = ".".join(str(part) for part in mistake["loc"] or ["line"])
        # Without pydantic's "Value error, " before the words of a rule.
        reason = mistake.get("ctx", {}).get("error", mistake["msg"])
        texts.append(f"{field}: {reason}")
    return "; ".join(texts)
