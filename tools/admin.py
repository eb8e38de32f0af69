"""Make an account an administrator: `python -m tools.admin EMAIL`."""

import sys

from sqlmodel import Session, select

from core.engine import engine
from database import create_database
from models import User


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit("Usage: python -m tools.admin EMAIL")
    create_database()
    email = sys.argv[1].strip().lower()
    with Session(engine) as session:
        user = session.exec(select(User).where(User.email == email)).first()
        if user is None:
            raise SystemExit(
                f"Nobody has signed up as {email} yet."
                " Sign up first (POST /api/users), then run this again."
            )
        user.is_admin = True
        session.add(user)
        session.commit()
    print(f"{email} is an administrator now.")


if __name__ == "__main__":
    main()
