"""Copies of the database, made and put back even while the server is running."""

import os
import sqlite3
import tempfile
import time
from contextlib import closing
from pathlib import Path

from sqlalchemy import URL, Engine, NullPool, inspect
from sqlmodel import SQLModel, create_engine

from core.data.sessions import database, open_all
from core.data.tables import follow_models
from core.settings import DATABASE
from core.start import START_SECONDS
from tools.data.ask import UNCHANGED, ask, create_new
from tools.data.tables import PLACE, open_database, print_rows

MODELS = SQLModel.metadata.tables
# A trigger or a view would run somebody's SQL in every request.
UNEXPECTED = (
    "SELECT type, name FROM sqlite_master"
    " WHERE type NOT IN ('table', 'index') OR sql LIKE 'CREATE VIRTUAL%'"
)


def save(file: Path) -> None:
    """Write the whole database, as it is at this moment, into a new file."""
    check_kind("pg_dump --format=custom --file=FILE URL")
    open_database()  # its tables may differ from models.py: then a copy is needed most
    create_new(file)
    with closing(database.connect()) as connection:
        # A consistent copy; writers need not wait for it (sqlite.org/lang_vacuum).
        connection.execute("VACUUM INTO ?", (str(file),))
    with make_engine(file).connect() as copy:
        names = inspect(copy).get_table_names()
        print_rows(copy, [name for name in names if name in MODELS])
    print(f"All of that is in {file.absolute()}.")


def restore(file: Path, *, agreed: bool) -> None:
    """Replace what the database holds with what a file holds."""
    check_kind("pg_restore --clean --dbname=URL FILE")
    if not file.is_file():
        raise SystemExit(f"There is no file {file}.")
    print(f"Database: {PLACE}")
    if not Path(PLACE).exists():
        print("It is not there yet: no server has used this place.")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy.db"
        try:
            # With what is in a -wal beside it, which a killed server leaves.
            with closing(open_file(file)) as source, closing(connect(copy)) as target:
                source.backup(target)
                check(target)
        except (sqlite3.Error, ValueError) as error:
            raise SystemExit(
                f"{file} cannot be restored: {error}.\n{UNCHANGED}"
            ) from None
        # What the models have gained since then is added. If they differ in any other
        # way, it ends here.
        with make_engine(copy).begin() as connection:
            follow_models(connection)
            print_rows(connection, MODELS)
        ask(f"Replace all of {PLACE} with that, from {file.absolute()}?", agreed)
        open_all()
        put(copy)
    print("Done.")


def check_kind(command: str) -> None:
    if DATABASE.file is None:
        raise SystemExit(
            f"{PLACE} is not a file. PostgreSQL has a tool for this: {command}"
        )


def connect(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(file, isolation_level=None)


def make_engine(file: Path) -> Engine:
    url = URL.create("sqlite", database=str(file.absolute()))
    return create_engine(url, poolclass=NullPool)  # no connection stays open


def open_file(file: Path) -> sqlite3.Connection:
    """Open a saved file to read it."""
    uri = f"{file.absolute().as_uri()}?mode=ro"
    if not os.access(file.parent, os.W_OK) and not Path(f"{file}-wal").exists():
        uri += "&immutable=1"  # or SQLite would make a -wal where it cannot
    return sqlite3.connect(uri, uri=True)


def check(copy: sqlite3.Connection) -> None:
    """Raise ValueError for what must not take the database's place."""
    for kind, name in copy.execute(UNEXPECTED):
        raise ValueError(f"it has a {kind}, {name}: drop that in a copy of it first")
    (problem,) = copy.execute("PRAGMA integrity_check(1)").fetchone()
    if problem != "ok":
        raise ValueError(problem)
    names = {name for (name,) in copy.execute("SELECT name FROM sqlite_master")}
    if not names & MODELS.keys():
        raise ValueError(f"none of its tables is called {', '.join(MODELS)}")


def put(copy: Path) -> None:
    """Write a copy into the database in one transaction, which servers wait for.

    If this process is killed, the database stays as it was.
    """
    deadline = time.monotonic() + START_SECONDS

    def give_up(status: int, _left: int, _total: int) -> None:
        # Python's own backup() would try for ever.
        if status == sqlite3.SQLITE_BUSY and time.monotonic() > deadline:
            raise SystemExit(f"{PLACE} is locked by another program. {UNCHANGED}")

    try:
        with closing(connect(copy)) as source, closing(database.connect()) as target:
            for setting in ("page_size", "encoding"):  # SQLite changes neither
                (needed,) = target.execute(f"PRAGMA {setting}").fetchone()
                (found,) = source.execute(f"PRAGMA {setting}").fetchone()
                if found != needed:
                    raise SystemExit(
                        f"The file's {setting} is {found}, not {needed}. {UNCHANGED}\n"
                        "Restore a copy that was made with DATABASE_URL=sqlite:///FILE"
                        " python -m tools.data move sqlite:///COPY"
                    )
            source.backup(target, progress=give_up)
    except sqlite3.Error as error:
        raise SystemExit(f"{PLACE}: {error}\n{UNCHANGED}") from None
