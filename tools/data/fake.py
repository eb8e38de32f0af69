"""Made-up rows of any table, to try things out with."""

import enum
import secrets
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import EmailStr, ValidationError
from rich.progress import track
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, SQLModel, func, select

from core.data.sessions import engine, reading_engine
from core.web.errors import find_conflict
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
TRIES = 100  # for a row that keeps all rules
LIMITS = ("ge", "gt", "le", "lt", "max_length", "decimal_places")


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
        with Session(engine) as session:
            for _ in range(min(BATCH, number - done)):
                row = maker.add_row(session)
                if isinstance(row, User) and not admin:
                    row.is_admin = True
                    admin = row.email
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
        self.fields = dict(row_class.model_fields)
        create = find_model(row_class, "Create")
        for name, field in row_class.model_fields.items():
            # What nobody sends has its default, if there is one.
            is_sent = create is None or name in create.model_fields
            if not is_sent and not field.is_required():
                del self.fields[name]
        if self.table.autoincrement_column is not None:
            self.fields.pop(self.table.autoincrement_column.name, None)
        self.parents: dict[str, list[Any]] = {}  # what each reference may be
        for key in self.table.foreign_keys:
            self.fields.pop(key.parent.name, None)
            statement = select(key.column).order_by(func.random()).limit(BATCH)
            found = list(session.exec(statement))
            if found:
                self.parents[key.parent.name] = found
            elif not key.parent.nullable:
                parent = key.column.table.name
                raise SystemExit(
                    f"{key.parent.name} must refer to {parent}, which has no rows:"
                    f" make some first: python -m tools.data fake 10 {parent}"
                )

    def add_row(self, session: Session) -> SQLModel:
        """Add a row that keeps all rules, or say which one it cannot keep."""
        problem = ""
        for _ in range(TRIES):
            try:
                row = self.make_row()
                with session.begin_nested():
                    session.add(row)
                return row
            except ValidationError as error:
                problem = f"{describe(error)}. Give it a default"
            except IntegrityError as error:
                refusal = find_conflict(error)
                if refusal is None:
                    raise
                problem = str(refusal.detail)
        raise SystemExit(f"No row of {self.table.name} can be made up: {problem}")

    def make_row(self) -> SQLModel:
        values: dict[str, Any] = {}
        for name, field in self.fields.items():
            value = self.make_value(name, field)
            if value is not None:
                values[name] = value
        for name, found in self.parents.items():
            values[name] = self.fake.random_element(found)
        values |= self.given
        try:
            return new_row(self.row_class, values)
        except ValidationError as error:  # a rule that nobody can guess
            for mistake in error.errors():
                values.pop(str(mistake["loc"][0]), None)
            with suppress(ValidationError):
                return new_row(self.row_class, values)
            raise

    def make_value(self, name: str, field: Any) -> Any:
        """Make up a value of a type, or return None if that cannot be done."""
        annotation = field.annotation
        while get_origin(annotation) in {Annotated, Union, UnionType}:
            annotation = get_args(annotation)[0]
        if name == "email" or annotation is EmailStr:
            return f"{self.fake.user_name()}.{secrets.token_hex(4)}@example.com"
        if get_origin(annotation) is Literal:
            return self.fake.random_element(get_args(annotation))
        if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
            return self.fake.random_element(list(annotation))
        if annotation is str:
            return self.make_text(name, field)
        if annotation in {int, float, Decimal}:
            return self.make_number(field, annotation)
        makers: dict[Any, Callable[[], Any]] = {
            bool: self.fake.pybool,
            date: self.fake.date_of_birth,
            datetime: lambda: self.fake.date_time_between("-2y", tzinfo=UTC),
            time: lambda: time(self.fake.random_int(0, 23), 30),
            timedelta: lambda: timedelta(minutes=self.fake.random_int(1, 90)),
            uuid.UUID: uuid.uuid4,
            bytes: lambda: self.fake.word().encode(),
        }
        return makers.get(annotation, lambda: None)()

    def make_text(self, name: str, field: Any) -> str:
        column = self.table.columns.get(name)
        value = self.fake.word()
        if name == "name":
            value = self.fake.name()
        elif column is not None and column.unique:
            value = secrets.token_hex(4)
        return str(value[: find_limits(field).get("max_length")])

    def make_number(self, field: Any, kind: Any) -> Any:
        limits = find_limits(field)
        least = limits.get("ge", limits.get("gt", 0))
        most = limits.get("le", limits.get("lt", least + 100))
        value = self.fake.random.uniform(float(least), float(most))
        if kind is int:
            return round(value)
        return kind(f"{value:.{limits.get('decimal_places', 2)}f}")


def find_limits(field: Any) -> dict[str, Any]:
    """Return what Field(ge=0, max_length=80, …) says."""
    limits: dict[str, Any] = {}
    for rule in field.metadata:
        for name in LIMITS:
            if getattr(rule, name, None) is not None:
                limits[name] = getattr(rule, name)
    return limits
