"""Passwords: hashed and compared in threads, a few at a time.

Nothing is hashed in the event loop, where it would stop everybody, nor for a client
that has gone. Log-ins and sign-ups have a line each, in which addresses take turns.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import bcrypt
from anyio import to_thread
from fastapi import Request

from accounts.refusals import TooBusy
from core.refusals import ClientGone
from core.settings import BCRYPT_ROUNDS
from core.turns import NO_LIMIT, Line, client_network
from models import MAX_PASSWORD

CORES = os.cpu_count() or 1  # a hash takes one for 0.2 s
log_ins = Line(CORES, 30, TooBusy, longest=100)
sign_ups = Line(CORES, 30, TooBusy, longest=100)


@asynccontextmanager
async def turn_at(line: Line, request: Request, key: str = "") -> AsyncIterator[None]:
    """Wait for a turn to hash; raises 429 and 503."""
    async with line.turn(client_network(request), key):
        await check_connection(request)
        yield


async def check_connection(request: Request) -> None:
    """Raise ClientGone if nobody waits for the answer."""
    is_gone = await request.is_disconnected()
    # After a cancelled await coverage.py does not see how this goes on.
    if is_gone:  # pragma: no branch
        raise ClientGone


async def hash_password(password: str, request: Request, line: Line = sign_ups) -> str:
    """Hash a password when the client's turn has come; raises 429 and 503.

    The line is `log_ins` for those who have an account already.
    """
    async with turn_at(line, request):
        return await to_thread.run_sync(make_hash, password, limiter=NO_LIMIT)


def make_hash(password: str) -> str:
    salt = bcrypt.gensalt(BCRYPT_ROUNDS)
    return bcrypt.hashpw(password.encode(), salt).decode()


def is_password(password: str, hashed_password: str) -> bool:
    """Compare a password with a hash. A wrong one takes as long for a cheaper hash."""
    secret = password.encode(errors="replace")
    start = secret[:MAX_PASSWORD]  # bcrypt refuses to look at more bytes
    try:
        is_right = bcrypt.checkpw(start, hashed_password.encode())
    except ValueError:  # an imported account, with a hash that bcrypt does not know
        bcrypt.checkpw(start, no_hash().encode())
        return False
    if is_right and len(secret) <= MAX_PASSWORD:
        return True
    # The time that a hash of 10 rounds saves compared with one of 12: each extra round
    # doubles the work, so it is one hash of 10 and one of 11.
    for rounds in range(find_rounds(hashed_password), BCRYPT_ROUNDS):
        bcrypt.checkpw(start, no_hash(rounds).encode())
    return False


def no_hash(rounds: int | None = None) -> str:
    """Make a hash that no password matches, to take as long as a real one."""
    return bcrypt.gensalt(rounds or BCRYPT_ROUNDS).decode() + "." * 31


def find_rounds(hashed_password: str) -> int:
    """Return the cost of a hash: in $2b$12$… it is the 12."""
    return int(hashed_password.split("$")[2])


def is_weak(hashed_password: str) -> bool:
    """Tell whether BCRYPT_ROUNDS has been raised since the hash was made."""
    return find_rounds(hashed_password) < BCRYPT_ROUNDS
