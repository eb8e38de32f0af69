"""Make an account an administrator: `python -m tools.admin EMAIL`.

With --password, it sets a new password instead, for somebody who forgot theirs. With
--token, it prints a token for a script, which nobody can see again.
"""

import argparse
import getpass
import sys
from contextlib import redirect_stdout
from datetime import timedelta

from pydantic import ValidationError
from sqlmodel import Session, col, delete, select

from accounts.passwords import make_hash
from accounts.permits import add_token
from core.data.sessions import close_all, engine
from core.start import StartRefused
from core.texts import find_address
from core.web.journal import printable
from database import create_database
from models import Token, User, UserUpdate
from tools.data.tables import open_database


def ask_password() -> str:
    """Ask twice for a password that a sign-up would take, and return its hash."""
    try:
        password = getpass.getpass("New password: ")
        again = getpass.getpass("Type it again: ")
    except (EOFError, KeyboardInterrupt):
        raise SystemExit("\nNothing was changed.") from None
    if password != again:
        raise SystemExit("The two passwords differ. Nothing was changed: try again.")
    try:
        UserUpdate.model_validate({"password": password})
    except ValidationError as error:
        reason = error.errors()[0]["ctx"]["error"]  # without "Value error, "
        raise SystemExit(f"{reason}\nNothing was changed: try again.") from None
    return make_hash(password)


def find_user(session: Session, text: str) -> User:
    """Find the account that logs in with an address."""
    try:
        email = find_address(text)
    except ValueError as error:
        raise SystemExit(f"{text!r}: {error}.") from None
    statement = select(User).where(User.email == email).with_for_update()
    user = session.exec(statement).first()
    if user is None:
        raise SystemExit(
            f"Nobody has signed up as {email} here yet. Sign up first"
            " (POST /api/users), then run this again."
        )
    return user


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.admin", description=__doc__)
    parser.add_argument("email", metavar="EMAIL", help="the one to log in with")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--password",
        action="store_true",
        help="ask for a new password instead, and log the account out everywhere",
    )
    instead.add_argument(
        "--token",
        type=int,
        metavar="DAYS",
        choices=range(1, 3651),
        help="print a token instead, which lasts for 1 to 3650 days",
    )
    options = parser.parse_args()
    # What a script reads is the token alone.
    with redirect_stdout(sys.stderr if options.token else sys.stdout):
        open_database()
        create_database()
    with Session(engine) as session:
        user = find_user(session, options.email)
        since = user.created_at.strftime("%Y-%m-%dT%H:%M:%SZ")
        who = f"Account {user.id}, {printable(user.name)}, since {since}"
        print(who, file=sys.stderr if options.token else sys.stdout)
        if options.password:
            session.rollback()  # or every writer would wait while somebody types
            user.hashed_password = ask_password()
            session.exec(delete(Token).where(col(Token.user_id) == user.id))
            done = "has a new password now, and is logged out everywhere"
        elif options.token:
            assert user.id is not None
            token = add_token(session, user.id, timedelta(days=options.token))
            session.commit()
            print(token)
            return
        else:
            user.is_admin = True
            done = "is an administrator now"
        session.commit()
        print(f"{user.email} {done}.")


if __name__ == "__main__":
    try:
        main()
    except StartRefused as refusal:
        raise SystemExit(str(refusal)) from None
    finally:
        close_all()
