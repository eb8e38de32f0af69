"""Look after the data, even while the server is running."""

import argparse
from pathlib import Path

from core.start import StartRefused
from tools.data import backup, fake, people, reset


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.data", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    save = commands.add_parser("save", help="copy the database into a new file")
    save.add_argument("file", type=Path)
    restore = commands.add_parser("restore", help="put a saved file back")
    restore.add_argument("file", type=Path)
    restore.add_argument("--yes", action="store_true", help="do not ask")
    empty = commands.add_parser(
        "reset", help="delete everything, even if models.py and the database differ"
    )
    empty.add_argument("--yes", action="store_true", help="do not ask")
    read = commands.add_parser("import", help="add the accounts of a CSV file")
    read.add_argument("file", type=Path)
    write = commands.add_parser("export", help="write all accounts to a CSV file")
    write.add_argument("file", type=Path)
    made_up = commands.add_parser("fake", help="add made-up accounts")
    made_up.add_argument("number", type=int, help="how many")
    made_up.add_argument("--add", action="store_true", help="add to existing accounts")
    options = parser.parse_args()
    match options.command:
        case "save":
            backup.save(options.file)
        case "restore":
            backup.restore(options.file, agreed=options.yes)
        case "reset":
            reset.reset(agreed=options.yes)
        case "import":
            people.import_accounts(options.file)
        case "export":
            people.export_accounts(options.file)
        case "fake":
            if options.number < 1:
                parser.error("say how many, as in: python -m tools.data fake 1000")
            fake.add_accounts(options.number, add=options.add)


if __name__ == "__main__":
    try:
        main()
    except StartRefused as refusal:
        raise SystemExit(str(refusal)) from None
