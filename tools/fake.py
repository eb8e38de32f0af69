"""Fill the database with believable accounts: `python -m tools.fake 1000`."""

import argparse
import re
import secrets
from datetime import UTC
from typing import Any

import bcrypt
from faker import Faker
from rich.progress import track
from sqlmodel import func, insert, select

from core.engine import engine
from database import create_database
from models import User

PASSWORD = "password"  # of them all: one hash, as each takes a core for 0.2 s
BATCH = 1000


def count() -> int:
    with engine.connect() as connection:
        return int(
            connection.execute(select(func.count()).select_from(User)).scalar_one()
        )


def fill(number: int) -> str:
    """Add accounts and give the email of one; a random part makes each unique."""
    fake, hashed = Faker(), bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt()).decode()
    email = ""
    for done in track(range(0, number, BATCH), description=f"{number:,} accounts"):
        rows: list[dict[str, Any]] = []
        for _ in range(min(BATCH, number - done)):
            name = fake.name()
            # "Mr. Bradley O'Neill" is mr.bradley.o.neill: an address has no two dots.
            part = ".".join(re.findall("[a-z]+", name.lower()))
            email = f"{part}.{secrets.token_hex(4)}@example.com"
            user = User(
                name=name,
                email=email,
                created_at=fake.date_time_between("-2y", tzinfo=UTC),
                hashed_password=hashed,
            )
            rows.append(user.model_dump(exclude={"id"}))
        with engine.begin() as connection:
            connection.execute(insert(User), rows)
    return email


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.fake", description=__doc__)
    parser.add_argument("number", nargs="?", type=int, help="how many accounts")
    parser.add_argument(
        "--add", action="store_true", help="even if there are accounts already"
    )
    options = parser.parse_args()
    create_database()
    if not options.number or options.number < 1:
        parser.error("say how many accounts, as in: python -m tools.fake 1000")
    if count() and not options.add:
        raise SystemExit(
            f"{count():,} accounts are there already:"
            " --add adds to them, python -m tools.data reset deletes them."
        )
    email = fill(options.number)
    print(f"{count():,} accounts. Log in as one of them:")
    print(f"curl -d username={email} -d password={PASSWORD} localhost:8000/api/login")


if __name__ == "__main__":
    main()
