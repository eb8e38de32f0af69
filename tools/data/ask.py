"""What the commands say: a question before what cannot be undone, and a number."""

import sys


def ask(question: str, agreed: bool) -> None:
    """Go on only if somebody agreed with --yes, or types yes now."""
    if agreed:
        return
    print(f"{question} Type yes: ", end="", flush=True)
    if sys.stdin.readline().strip() != "yes":
        raise SystemExit("Nothing was changed.")


def accounts(number: int) -> str:
    if number == 1:
        return "1 account"
    return f"{number:,} accounts"
