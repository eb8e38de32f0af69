"""Copies of the database, made and put back even while the server is running."""

import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from sqlalchemy import URL
from sqlmodel import create_engine

from core.data.sessions import database, open_all
from core.data.tables import follow_models
from core.settings import DATABASE
from tools.data.ask import ask, create_new
from tools.data.tables import count, open_database


def save(file: Path) -> None:
    """Write the whole database, as it is at this moment, into a new file."""
    check_kind("pg_dump --format=custom --file=FILE URL")
    open_database()  # its tables may differ from models.py: then a copy is needed most
    create_new(file)
    with closing(database.connect()) as connection:
        # A consistent copy; writers need not wait for it (sqlite.org/lang_vacuum).
        connection.execute("VACUUM INTO ?", (str(file),))
    print(f"{count(count_accounts(file), 'account')} in {file}.")


def restore(file: Path, *, agreed: bool) -> None:
    """Replace what the database holds with what a file holds."""
    check_kind("pg_restore --clean --dbname=URL FILE")
    saved = count_accounts(file)
    open_all()
    holds = count(saved, "account")
    ask(f"Replace all of {DATABASE.name} with {holds} from {file}?", agreed)
    with tempfile.TemporaryDirectory() as folder:
        # What the models have gained since then is added to a copy. If they differ in
        # any other way, it ends here, and the database is as it was.
        copy = Path(shutil.copy(file, folder))
        engine = create_engine(URL.create("sqlite", database=str(copy)))
        with engine.begin() as connection:
            follow_models(connection)
        engine.dispose()
        with closing(open_file(copy)) as source, closing(database.connect()) as target:
            source.backup(target)  # in one transaction, which servers wait for
    print(f"{holds} in {DATABASE.name}.")


def check_kind(command: str) -> None:
    if DATABASE.file is None:
        raise SystemExit(
            f"{DATABASE.name} is not a file. PostgreSQL has a tool for this: {command}"
        )


def open_file(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)


def count_accounts(file: Path) -> int:
    """Count the accounts in a file, or say that it is not a database of this API."""
    if not file.is_file():
        raise SystemExit(f"There is no file {file}.")
    try:
        with closing(open_file(file)) as connection:
            (problem,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
            (number,) = connection.execute('SELECT count(*) FROM "user"').fetchone()
    except sqlite3.Error as error:
        problem = str(error)
    if problem != "ok":
        raise SystemExit(f"{file} is not a database of this API: {problem}")
    return int(number)
