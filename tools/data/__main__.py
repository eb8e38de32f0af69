"""Look after the data of any table, even while the server is running."""

import argparse
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from core.data.columns import Misfit
from core.data.kinds import first_line
from core.data.sessions import close_all
from core.start import StartRefused
from tools.data import backup, columns, fake, move, reset, sheets


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.data", description=__doc__)
    commands = parser.add_subparsers(required=True)

    def add(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=text)

    save = add("save", "copy the database into a new file")
    save.add_argument("file", type=Path)
    save.set_defaults(run=backup.save)
    restore = add("restore", "put a saved file back")
    restore.add_argument("file", type=Path)
    restore.set_defaults(run=backup.restore)
    empty = add("reset", "delete everything, even if models.py and the database differ")
    empty.set_defaults(run=reset.reset)
    read = add("import", "add the rows of a CSV file to a table")
    read.set_defaults(run=sheets.import_rows)
    write = add("export", "write all rows of a table to a CSV file")
    write.set_defaults(run=sheets.export_rows)
    for command in (read, write):
        command.add_argument("file", type=Path)
        command.add_argument("table", nargs="?", default="user", help="else user")
    made_up = add("fake", "add made-up rows to a table")
    made_up.add_argument("number", type=positive, help="how many")
    made_up.add_argument("table", nargs="?", default="user", help="else user")
    made_up.add_argument("--add", action="store_true", help="add to existing rows")
    made_up.set_defaults(run=fake.add_rows)
    rename = add("rename", "give a column a new name")
    rename.add_argument("old", metavar="TABLE.OLD")
    rename.add_argument("new", metavar="TABLE.NEW")
    rename.set_defaults(run=columns.rename)
    drop = add("drop", "remove a column and what it holds")
    drop.add_argument("name", metavar="TABLE.COLUMN")
    drop.set_defaults(run=columns.drop)
    copy = add("move", "copy all tables from DATABASE_URL into another database")
    copy.add_argument("url", help="an empty database, written like DATABASE_URL")
    copy.set_defaults(run=move.move)
    for command in (restore, empty, drop):
        command.add_argument(
            "--yes", dest="agreed", action="store_true", help="do not ask"
        )
    options = vars(parser.parse_args())
    run = options.pop("run")
    run(**options)


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("say how many, like 1000")
    return int(text)


if __name__ == "__main__":
    try:
        main()
    except StartRefused as refusal:
        raise SystemExit(str(refusal)) from None
    except Misfit as error:  # made up, and too long for its column, say
        name, reason = error.mistakes[0]
        raise SystemExit(f"{name}: {reason}. Say so in its Field(…).") from None
    except DBAPIError as error:
        raise SystemExit(f"The database says: {first_line(error)}") from None
    finally:
        close_all()  # or what was written last may stay in a -wal
