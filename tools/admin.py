"""Make an account an administrator: `python -m tools.admin EMAIL`."""

import asyncio
import sys

from sqlmodel import col, update

from database import create_database, write
from models import User


async def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit("Usage: python -m tools.admin EMAIL")
    create_database()
    email = sys.argv[1].strip().lower()
    if not await write(update(User).where(col(User.email) == email).values(is_admin=True).returning(col(User.id))):
        raise SystemExit(f"Nobody has signed up as {email} yet. Sign up first (POST /api/users), then run this again.")
    print(f"{email} is an administrator now.")


if __name__ == "__main__":
    asyncio.run(main())
