"""Made-up rows of any table, to try things out with."""

import enum
import re
import secrets
import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import EmailStr, ValidationError
from rich.progress import track
from sqlalchemy import UniqueConstraint
from sqlmodel import Session, SQLModel, func, select

from core.data.sessions import engine, reading_engine
from database import create_database
from models import User
from tools.data.sheets import hash_all
from tools.data.tables import (
    BATCH,
    count,
    count_rows,
    describe,
    find_class,
    find_model,
    new_row,
    open_database,
    table_of,
)

PASSWORD = "password"  # everybody's: one hash, as each takes a core 0.2 s
TRIES = 100  # for a row that is unlike all others
LIMITS = ("ge", "gt", "le", "lt", "max_length", "max_digits", "decimal_places")


def add_rows(number: int, table: str, add: bool) -> None:
    """Add believable rows; the first account is an administrator."""
    row_class = find_class(table)
    try:
        from faker import Faker
    except ImportError:
        raise SystemExit("fake needs: pip install -r tools/requirements.txt") from None
    open_database(make=True)
    create_database()
    with Session(reading_engine) as session:
        existing = count_rows(session.connection(), table_of(row_class))
        if existing and not add:
            raise SystemExit(
                f"{table} has {count(existing)} already: --add adds to them,"
                " python -m tools.data reset deletes them."
            )
        maker = Maker(row_class, session, Faker())
    print(f"Adding {count(number)} to {table}")
    if row_class is User:
        (hashed_password,) = hash_all([PASSWORD])
        maker.given = {"password": PASSWORD, "hashed_password": hashed_password}
    admin = ""
    for done in track(range(0, number, BATCH), description=table):
        rows = [maker.make_row() for _ in range(min(BATCH, number - done))]
        for user in rows[:1]:
            if isinstance(user, User) and not admin:
                user.is_admin = True
                admin = user.email
        with Session(engine) as session:
            session.add_all(rows)
            session.commit()
    print(f"{table} has {count(existing + number)}.")
    if admin:
        form = f"-d username={admin} -d password={PASSWORD}"
        print("Log in as an administrator:")
        print(f"curl {form} localhost:8000/api/login")


class Maker:
    """It makes up the rows of one table."""

    def __init__(self, row_class: type[SQLModel], session: Session, fake: Any) -> None:
        self.row_class, self.fake = row_class, fake
        self.table = table_of(row_class)
        self.given: dict[str, Any] = {}  # values that are the same in all rows
        create = find_model(row_class, "Create")
        self.fields = dict(row_class.model_fields)
        for name, field in row_class.model_fields.items():
            # What nobody sends has its default, if there is one.
            is_sent = create is None or name in create.model_fields
            if not is_sent and not field.is_required() and name != "created_at":
                del self.fields[name]
        if self.table.autoincrement_column is not None:
            self.fields.pop(self.table.autoincrement_column.name, None)
        self.parents: list[tuple[list[str], list[Any]]] = []
        for key in self.table.foreign_key_constraints:
            columns = [element.column for element in key.elements]
            statement = select(*columns).order_by(func.random()).limit(BATCH)
            rows = [tuple(row) for row in session.connection().execute(statement)]
            self.parents.append((list(key.column_keys), rows))
            is_needed = not all(column.nullable for column in key.columns)
            if not rows and is_needed:
                parent = key.referred_table.name
                raise SystemExit(
                    f"{', '.join(key.column_keys)} must refer to {parent}, which has no"
                    f" rows: make some first: python -m tools.data fake 10 {parent}"
                )
        self.taken: dict[tuple[str, ...], set[Any]] = {}
        for names in find_unique(self.table):
            statement = select(*[self.table.columns[name] for name in names])
            rows = [tuple(row) for row in session.connection().execute(statement)]
            self.taken[names] = set(rows)

    def make_row(self) -> SQLModel:
        """Make a row that keeps all rules, or say which one it cannot keep."""
        problem = ""
        for _ in range(TRIES):
            values = self.make_values()
            try:
                row = new_row(self.row_class, values)
            except ValidationError as error:  # a rule that nobody can guess
                problem = f"{describe(error)}. Give it a default"
                for mistake in error.errors():
                    values.pop(str(mistake["loc"][0]), None)
                try:
                    row = new_row(self.row_class, values)
                except ValidationError:
                    continue
            taken = self.find_taken(row)
            if taken == "":
                return row
            problem = f"all that came to mind for {taken} is taken"
        raise SystemExit(f"No row of {self.table.name} can be made up: {problem}.")

    def find_taken(self, row: SQLModel) -> str:
        """Name the columns whose values another row has, or else remember them."""
        keys = {}
        for names, taken in self.taken.items():
            keys[names] = tuple(getattr(row, name) for name in names)
            if None not in keys[names] and keys[names] in taken:
                return ", ".join(names)
        for names, key in keys.items():
            self.taken[names].add(key)
        return ""

    def make_values(self) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, field in self.fields.items():
            value = self.make_value(name, field)
            if value is not None:
                values[name] = value
        if "email" in values:
            # "Mr. Bradley O'Neill" is mr.bradley.o.neill; a random part is unique.
            part = ".".join(re.findall("[a-z]+", str(values.get("name")).lower()))
            values["email"] = f"{part}.{secrets.token_hex(4)}@example.com"
        for names, rows in self.parents:
            if rows:
                chosen = self.fake.random_element(rows)
                values.update(zip(names, chosen, strict=True))
        return values | self.given

    def make_value(self, name: str, field: Any) -> Any:
        """Make up a value of a type, or return None if that cannot be done."""
        column = self.table.columns.get(name)
        if name in self.given or (column is not None and column.foreign_keys):
            return None
        annotation = field.annotation
        while get_origin(annotation) in {Annotated, Union, UnionType}:
            annotation = get_args(annotation)[0]
        choices: Any = ()
        if get_origin(annotation) is Literal:
            choices = get_args(annotation)
        if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
            choices = list(annotation)
        if choices:
            return self.fake.random_element(choices)
        if annotation is str:
            return self.make_text(name, field)
        if annotation in {int, float, Decimal}:
            return self.make_number(name, field, annotation)
        makers: dict[Any, Callable[[], Any]] = {
            bool: self.fake.pybool,
            EmailStr: lambda: f"{secrets.token_hex(4)}@example.com",
            date: self.fake.date_of_birth,
            datetime: lambda: self.fake.date_time_between("-2y", tzinfo=UTC),
            time: lambda: time(self.fake.random_int(0, 23), 30),
            timedelta: lambda: timedelta(minutes=self.fake.random_int(1, 90)),
            uuid.UUID: uuid.uuid4,
            bytes: lambda: self.fake.word().encode(),
        }
        return makers.get(annotation, lambda: None)()

    def make_text(self, name: str, field: Any) -> str:
        limit = find_limits(field).get("max_length")
        value = self.fake.word()
        if name == "name":
            value = self.fake.name()
        if (name,) in self.taken:
            value = secrets.token_hex(4)
        return str(value[:limit])

    def make_number(self, name: str, field: Any, kind: Any) -> Any:
        limits = find_limits(field)
        span = 2**30 if (name,) in self.taken else 100
        least = limits.get("ge", limits.get("gt", 0))
        most = limits.get("le", limits.get("lt", least + span))
        if most < least:
            least = most - span
        if "max_digits" in limits:
            digits = limits["max_digits"] - limits.get("decimal_places", 0)
            most = min(most, 10**digits - 1)
        if kind is int:
            return self.fake.random_int(int(least), int(most))
        value = float(least) + float(most - least) * self.fake.random.random()
        return kind(f"{value:.{limits.get('decimal_places', 2)}f}")


def find_unique(table: Any) -> list[tuple[str, ...]]:
    """List the columns, or groups of them, that no two rows have the same of."""
    groups = [table.primary_key]
    groups += [rule for rule in table.constraints if isinstance(rule, UniqueConstraint)]
    groups += [index for index in table.indexes if index.unique]
    return [tuple(group.columns.keys()) for group in groups]


def find_limits(field: Any) -> dict[str, Any]:
    """Return what Field(ge=0, max_length=80, …) says."""
    limits: dict[str, Any] = {}
    for rule in field.metadata:
        for name in LIMITS:
            if getattr(rule, name, None) is not None:
                limits[name] = getattr(rule, name)
    return limits
