"""Import accounts from a CSV file, by the rules of a sign-up, and export them."""

import csv
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.progress import track
from sqlalchemy import inspect
from sqlalchemy.exc import IntegrityError
from sqlmodel import JSON, Session, col, select

from accounts.passwords import make_hash
from core.data.columns import Misfit
from core.data.sessions import engine
from core.web.errors import find_conflict
from database import create_database
from main import app  # noqa: F401 # it knows what is taken, and every table
from models import User, UserCreate, UserPublic
from tools.data.ask import accounts, create_new

BATCH = 1000  # rows
SHOWN = 20  # mistakes
NOT_IMPORTED = {"id", "is_admin", "created_at"}  # a new account gets these by itself
Mistakes = dict[int, str]  # by line


# ---- Import: a whole file, or nothing. ----


def import_accounts(file: Path) -> None:
    """Add the accounts in a CSV file, whose first line names the fields."""
    create_database()
    sign_ups, mistakes = read_accounts(file)
    stop_at(mistakes)
    if not sign_ups:
        raise SystemExit(f"Nothing was imported: there is no account in {file}.")
    stop_at(add_accounts(sign_ups, hashes=None))  # before the hashing, which takes long
    hashes = hash_all([sign_up.password for sign_up in sign_ups.values()])
    stop_at(add_accounts(sign_ups, hashes))
    print(f"Added {accounts(len(sign_ups))}.")


def read_accounts(file: Path) -> tuple[dict[int, UserCreate], Mistakes]:
    """Return the sign-ups in a file, and what is wrong with its other lines."""
    sign_ups: dict[int, UserCreate] = {}
    mistakes: Mistakes = {}
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines, restkey="more cells than columns")
            known = set(UserCreate.model_fields)
            unknown = [name for name in reader.fieldnames or [] if name not in known]
            if unknown:
                raise SystemExit(describe_columns(unknown))
            for row in reader:
                try:
                    sign_ups[reader.line_num] = UserCreate(**read_row(row))
                except ValidationError as error:
                    mistakes[reader.line_num] = describe(error)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SystemExit(f"{file} cannot be read as CSV in UTF-8: {error}") from None
    return sign_ups, mistakes


def describe_columns(unknown: list[str]) -> str:
    name = unknown[0]
    reason = f"no field of an account is called {name!r}"
    if name in NOT_IMPORTED:
        reason = f"each new account gets its own {name}, so delete this column"
    columns = ", ".join(UserCreate.model_fields)
    return f"Nothing was imported: {reason}. The columns may be: {columns}."


def read_row(row: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a row; an empty cell is a field that is left out."""
    values: dict[str, Any] = {}
    for name, cell in row.items():
        if not cell:
            continue
        values[name] = cell
        column = inspect(User).columns.get(name)
        if column is not None and isinstance(column.type, JSON):
            values[name] = parse(cell)
    return values


def parse(cell: str) -> Any:
    """Return the JSON in a cell, or the text if it is not JSON."""
    try:
        return json.loads(cell)
    except ValueError:
        return cell


def describe(error: ValidationError) -> str:
    texts = []
    for mistake in error.errors():
        field = ".".join(str(part) for part in mistake["loc"] or ["line"])
        # Without pydantic's "Value error, " before the words of a rule.
        reason = mistake.get("ctx", {}).get("error", mistake["msg"])
        texts.append(f"{field}: {reason}")
    return "; ".join(texts)


def add_accounts(sign_ups: dict[int, UserCreate], hashes: list[str] | None) -> Mistakes:
    """Add all accounts, or return those that collide; without hashes, only try."""
    mistakes: Mistakes = {}
    with Session(engine) as session:
        for index, (line, sign_up) in enumerate(sign_ups.items()):
            hashed_password = ""
            if hashes is not None:
                hashed_password = hashes[index]
            update = {"hashed_password": hashed_password}
            user = User.model_validate(sign_up, update=update)
            try:
                with session.begin_nested():  # a collision undoes only this one
                    session.add(user)
            except IntegrityError as error:
                refusal = find_conflict(error)
                if refusal is None:
                    raise
                mistakes[line] = str(refusal.detail)
            except Misfit as error:
                mistakes[line] = "; ".join(": ".join(one) for one in error.mistakes)
        if hashes is not None and not mistakes:
            session.commit()
    return mistakes


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


def export_accounts(file: Path) -> None:
    """Write all accounts into a new CSV file, as the API shows them."""
    create_database()
    create_new(file)
    number = 0
    with file.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.DictWriter(lines, list(UserPublic.model_fields))
        writer.writeheader()
        with Session(engine) as session:
            statement = (
                select(User).order_by(col(User.id)).execution_options(yield_per=BATCH)
            )
            for user in session.exec(statement):
                writer.writerow(write_row(user))
                number += 1
    print(f"{accounts(number)} in {file}.")


def write_row(user: User) -> dict[str, Any]:
    account = UserPublic.model_validate(user).model_dump(mode="json")
    row = {}
    for name in UserPublic.model_fields:
        value = account[name]
        if isinstance(value, list | dict):
            value = json.dumps(value, ensure_ascii=False)
        row[name] = value
    return row
