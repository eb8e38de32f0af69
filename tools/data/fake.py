"""Made-up accounts to try things out with."""

import enum
import re
import secrets
import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import ValidationError
from rich.progress import track
from sqlalchemy import inspect
from sqlmodel import Session, func, insert, select

from core.data.sessions import engine
from database import create_database
from models import User, UserBase, UserCreate
from tools.data.ask import accounts
from tools.data.people import BATCH, describe, hash_all

PASSWORD = "password"  # everybody's: one hash, as each takes a core 0.2 s


def add_accounts(number: int, *, add: bool) -> None:
    """Add believable accounts, the first an administrator, and say how to log in."""
    create_database()
    with Session(engine) as session:
        existing = session.exec(select(func.count()).select_from(User)).one()
    if existing and not add:
        raise SystemExit(
            f"{accounts(existing)} there already: --add adds to them,"
            " python -m tools.data reset deletes them."
        )
    try:
        from faker import Faker
    except ImportError:
        raise SystemExit("fake needs: pip install -r tools/requirements.txt") from None
    fake = Faker()
    (hashed_password,) = hash_all([PASSWORD])
    admin = ""
    for done in track(range(0, number, BATCH), description=accounts(number)):
        rows = []
        for _ in range(min(BATCH, number - done)):
            user = make_up(fake, hashed_password)
            if not admin:
                user.is_admin = True
                admin = user.email
            row = dict(user)
            del row["id"]
            rows.append(row)
        with engine.begin() as connection:
            connection.execute(insert(User), rows)
    print(f"{accounts(existing + number)}. Log in as an administrator:")
    form = f"-d username={admin} -d password={PASSWORD}"
    print(f"curl {form} localhost:8000/api/login")


def make_up(fake: Any, hashed_password: str) -> User:
    name = fake.name()
    # "Mr. Bradley O'Neill" is mr.bradley.o.neill; a random part makes it unique.
    part = ".".join(re.findall("[a-z]+", name.lower()))
    values = {
        "name": name,
        "email": f"{part}.{secrets.token_hex(4)}@example.com",
        "password": PASSWORD,
    }
    for field_name, field in UserBase.model_fields.items():
        if field_name not in values:
            value = make_value(fake, field_name, field.annotation)
            if value is not None:
                values[field_name] = value
    try:
        sign_up = UserCreate(**values)
    except ValidationError as error:  # a rule that nobody can guess
        for mistake in error.errors():
            values.pop(str(mistake["loc"][0]), None)
        sign_up = leave_out(values)
    created_at = fake.date_time_between("-2y", tzinfo=UTC)
    return User(**dict(sign_up), created_at=created_at, hashed_password=hashed_password)


def leave_out(values: dict[str, Any]) -> UserCreate:
    """Make the account with defaults for the fields that are left out."""
    try:
        return UserCreate(**values)
    except ValidationError as error:
        raise SystemExit(
            f"No value can be made up for this: {describe(error)}. Give it a default."
        ) from None


def make_value(fake: Any, name: str, annotation: Any) -> Any:
    """Make up a value of a type, or return None if that cannot be done."""
    column = inspect(User).columns[name]
    if column.foreign_keys:
        return None
    if column.unique:
        return secrets.token_hex(4)
    if get_origin(annotation) in {Union, UnionType}:
        annotation = get_args(annotation)[0]
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return fake.random_element(list(annotation))
    makers: dict[Any, Callable[[], Any]] = {
        bool: fake.pybool,
        int: lambda: fake.random_int(18, 80),
        float: lambda: round(fake.random.random(), 2),
        Decimal: lambda: Decimal(fake.random_int(1, 99)),
        str: fake.word,
        date: fake.date_of_birth,
        datetime: lambda: fake.date_time_between("-2y", tzinfo=UTC),
        time: lambda: time(fake.random_int(0, 23), fake.random_int(0, 59)),
        timedelta: lambda: timedelta(minutes=fake.random_int(1, 90)),
        uuid.UUID: uuid.uuid4,
        bytes: lambda: fake.word().encode(),
    }
    if annotation in makers:
        return makers[annotation]()
    return None
