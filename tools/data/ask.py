"""What the commands share: asking before what cannot be undone, and a new file."""

import sys
from pathlib import Path

UNCHANGED = "Nothing was changed."


def ask(question: str, agreed: bool) -> None:
    """Go on only if somebody agreed with --yes, or types yes now."""
    if agreed:
        print(question)
        return
    print(f"{question} Type yes: ", end="", flush=True)
    if sys.stdin.readline().strip() != "yes":
        raise SystemExit(UNCHANGED)


def create_new(file: Path) -> None:
    """Create a file that only its owner can read; never write to an existing one."""
    try:
        file.touch(mode=0o600, exist_ok=False)
    except FileExistsError:
        raise SystemExit(f"{file} is there already: name a new file.") from None
    except OSError as error:
        raise SystemExit(f"{file} cannot be written: {error}") from None
