"""Import rows from a CSV file, by the rules of their models, and export them."""

import csv
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError
from rich.progress import track
from sqlalchemy.exc import IntegrityError
from sqlmodel import JSON, Session, SQLModel, select

from accounts.passwords import make_hash
from core.data.audiences import MembersAsText
from core.data.columns import Misfit
from core.data.sessions import engine, reading_engine
from core.web.errors import find_conflict
from database import create_database
from models import User
from tools.data import ids
from tools.data.ask import create_new
from tools.data.tables import (
    BATCH,
    count,
    describe,
    find_class,
    find_model,
    new_row,
    open_database,
    table_of,
)

SHOWN = 20  # mistakes
Lines = dict[int, dict[str, Any]]  # the values of each line
Mistakes = dict[int, str]  # by line


# ---- Import: a whole file, or nothing. ----


def import_rows(file: Path, table: str) -> None:
    """Add the rows in a CSV file, whose first line names the columns."""
    row_class = find_class(table)
    open_database(make=True)
    create_database()
    lines = read_lines(file, row_class)
    if not lines:
        raise SystemExit(f"Nothing was imported: there is no row in {file}.")
    print(f"Adding {count(len(lines))} of {file} to {table}")
    if row_class is User:
        for values in lines.values():
            values["hashed_password"] = ""
        add_lines(row_class, lines, keep=False)  # before the hashing, which takes long
        hashes = hash_all([values["password"] for values in lines.values()])
        for values, hashed_password in zip(lines.values(), hashes, strict=True):
            values["hashed_password"] = hashed_password
    add_lines(row_class, lines, keep=True)
    print(f"Added {count(len(lines))} to {table}.")


def read_lines(file: Path, row_class: type[SQLModel]) -> Lines:
    """Return what the lines of a file hold, by their numbers."""
    found: Lines = {}
    try:
        with file.open(newline="", encoding="utf-8-sig") as text:
            reader = csv.DictReader(text)
            check_columns(reader.fieldnames or [], row_class)
            for row in reader:
                if None in row:
                    number = reader.line_num
                    raise csv.Error(f"line {number} has more cells than columns")
                found[reader.line_num] = read_row(row, row_class)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SystemExit(f"{file} cannot be read as CSV in UTF-8: {error}") from None
    return found


def check_columns(names: Any, row_class: type[SQLModel]) -> None:
    create = find_model(row_class, "Create")
    known: set[str] = set()
    if row_class is not User:  # a new account gets its id and its hash by itself
        known.update(table_of(row_class).columns.keys())
    if create is not None:
        known.update(create.model_fields)
    for name in names:
        if name not in known:
            table, may_be = table_of(row_class).name, ", ".join(sorted(known))
            raise SystemExit(
                f"Nothing was imported: a row of {table} takes no {name!r}."
                f" Columns may be: {may_be}."
            )


def read_row(row: dict[str, Any], row_class: type[SQLModel]) -> dict[str, Any]:
    """Return the fields of a row; an empty cell is a field that is left out."""
    values: dict[str, Any] = {}
    for name, cell in row.items():
        if cell:
            column = table_of(row_class).columns.get(name)
            values[name] = read_cell(cell, getattr(column, "type", None))
    return values


def read_cell(cell: Any, kind: Any) -> Any:
    """Return the JSON in a cell, or the member of an Enum, or the text."""
    if isinstance(kind, JSON):
        try:
            return json.loads(cell)
        except ValueError:
            return cell
    if isinstance(kind, MembersAsText):
        for member in kind.enum_class:
            if str(member.value) == cell:
                return member
    return cell


def add_lines(row_class: type[SQLModel], lines: Lines, *, keep: bool) -> None:
    """Add all rows, or end with the mistakes; unless `keep` is set, only try."""
    mistakes: Mistakes = {}
    with Session(engine) as session:
        for line, values in lines.items():
            try:
                row = new_row(row_class, values)
                with session.begin_nested():  # a collision undoes only this one
                    session.add(row)
            except ValidationError as error:
                mistakes[line] = describe(error)
            except Misfit as error:
                mistakes[line] = "; ".join(": ".join(one) for one in error.mistakes)
            except IntegrityError as error:
                refusal = find_conflict(error)
                if refusal is None:
                    raise
                mistakes[line] = str(refusal.detail)
        stop_at(mistakes)
        if keep:
            connection = session.connection()
            last = ids.find_last(connection, table_of(row_class))
            ids.go_on_after(connection, table_of(row_class), last)
            session.commit()


def hash_all(passwords: list[str]) -> list[str]:
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        hashes = threads.map(make_hash, passwords)
        total = len(passwords)
        return list(track(hashes, total=total, description="hashing passwords"))


def stop_at(mistakes: Mistakes) -> None:
    if not mistakes:
        return
    for line, text in list(mistakes.items())[:SHOWN]:
        print(f"line {line}: {text}")
    if len(mistakes) > SHOWN:
        print(f"and {len(mistakes) - SHOWN:,} more")
    raise SystemExit("Nothing was imported.")


# ---- Export. ----


def export_rows(file: Path, table: str) -> None:
    """Write all rows of a table into a new CSV file, as the API shows them."""
    row_class = find_class(table)
    open_database()
    create_database()
    create_new(file)
    model = find_model(row_class, "Public") or row_class
    columns = table_of(row_class).columns
    names = [name for name in model.model_fields if name in columns]
    statement = select(row_class).order_by(*table_of(row_class).primary_key.columns)
    number = 0
    with file.open("w", newline="", encoding="utf-8") as text:
        writer = csv.DictWriter(text, names)
        writer.writeheader()
        with Session(reading_engine) as session:
            found = session.exec(statement.execution_options(yield_per=BATCH))
            for row in found:
                writer.writerow(write_row(row, model, set(names)))
                number += 1
    print(f"{count(number)} of {table} in {file}.")


def write_row(row: SQLModel, model: Any, names: set[str]) -> dict[str, Any]:
    if not isinstance(row, model):
        row = model.model_validate(row)
    try:
        shown = row.model_dump(mode="json", include=names, warnings=False)
    except PydanticSerializationError as error:  # bytes that are no text
        raise SystemExit(f"{error}. `save` and `move` keep it.") from None
    cells = {}
    for name, value in shown.items():
        cells[name] = value
        if isinstance(value, list | dict):
            cells[name] = json.dumps(value, ensure_ascii=False)
    return cells
