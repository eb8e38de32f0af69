"""One model for each audience: what people send, what they change, what they see.

A field that is declared once is in PATCH as well, and a row stays readable, whatever
rules its fields get later.
"""

import enum
from collections.abc import Collection
from copy import copy
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from types import FunctionType, NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin
from uuid import UUID

from pydantic import (
    BaseModel,
    PlainSerializer,
    SerializeAsAny,
    ValidatorFunctionWrapHandler,
    WrapSerializer,
    WrapValidator,
    computed_field,
    create_model,
    field_serializer,
)
from pydantic_core import PydanticUndefined
from sqlalchemy import Dialect, Enum, String, TypeDecorator, event
from sqlmodel import SQLModel

from core.start import StartRefused

Model = TypeVar("Model", bound=SQLModel)


# ---- PATCH: every field may be left out. ----


class Change(SQLModel):
    """What @all_optional adds to a model."""

    def model_dump(self, **_: Any) -> dict[str, Any]:
        """Return what was sent, as it was checked.

        pydantic's own adds computed fields, which may need what was left out.
        """
        sent = self.model_fields_set
        return {name: value for name, value in self if name in sent}


def all_optional(model: type[Model]) -> type[Model]:
    """Return a model whose fields may all be left out. Null is not left out."""
    fields: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        optional = copy(field)
        optional.default = PydanticUndefined
        optional.default_factory = NoneType  # None, which /docs does not show
        fields[name] = (field.annotation, optional)
    made: Any = create_model(model.__name__, __base__=(Change, model), **fields)
    return cast(type[Model], made)


# ---- Answers: rules are for what comes in, and a row stays readable. ----

# Types without a rule: whatever their columns hold passes.
PLAIN_TYPES = [str, int, float, bool, bytes, Decimal, UUID, NoneType]
PLAIN_TYPES += [datetime, date, time, timedelta]
WRITERS = (PlainSerializer, WrapSerializer)
FUNCTIONS = (FunctionType, property, classmethod, staticmethod)
# It is written as what it is, not as what it should be.
AS_IT_IS = cast(Any, SerializeAsAny)()


def without_rules(model: type[Model]) -> type[Model]:
    """Return a plain pydantic model with the same fields, for rows that are stored.

    It takes whatever a column holds, and is filled five times as fast as a SQLModel.
    """
    fields: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        plain = copy(field)
        plain.default, plain.default_factory = PydanticUndefined, None
        plain.metadata = [part for part in field.metadata if isinstance(part, WRITERS)]
        fields[name] = (type_as_stored(field.annotation), plain)
    config: Any = {"from_attributes": True, "populate_by_name": True}
    for key, value in model.model_config.items():
        if key.startswith("ser_"):  # how bytes and durations are written
            config[key] = value
    made: Any = create_model(
        model.__name__,
        __config__=config,
        __doc__=model.__doc__,
        __validators__=find_functions(model),
        **fields,
    )
    for name in model.__class_vars__ - SQLModel.__class_vars__:
        setattr(made, name, getattr(model, name))
    return cast(type[Model], made)


def type_as_stored(annotation: Any) -> Any:
    """Return a type that takes whatever its column holds; /docs shows it as before."""
    parts = [annotation]
    if get_origin(annotation) in {Union, UnionType}:
        parts = list(get_args(annotation))
    if all(part in PLAIN_TYPES for part in parts):
        return annotation
    return Annotated[annotation, WrapValidator(take_it), AS_IT_IS]


def take_it(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    """Take what is stored, such as a member that an Enum no longer has.

    Rows of other tables (a Relationship) are shown as their own model says, or all of
    their columns would be.
    """
    return check(value) if holds_rows(value) else value


def holds_rows(value: Any) -> bool:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | set | tuple):
        return any(holds_rows(one) for one in value)
    return isinstance(value, BaseModel)


def find_functions(model: type[Model]) -> dict[str, Any]:
    """Return a model's methods, computed fields and serializers, for a copy of it."""
    found: dict[str, Any] = {}
    for class_ in reversed(model.__mro__[: model.__mro__.index(SQLModel)]):
        members = vars(class_).items()
        found |= {name: one for name, one in members if isinstance(one, FUNCTIONS)}
    for name, field in model.model_computed_fields.items():
        computed = computed_field(return_type=field.return_type, alias=field.alias)
        found[name] = computed(field.wrapped_property)
    # Private, since pydantic has no public list of them; test_fields.py sees it work.
    for name, one in model.__pydantic_decorators__.field_serializers.items():
        found[name] = field_serializer(*one.info.fields, mode=one.info.mode)(one.func)
    return found


# ---- An Enum in the database. ----


class MembersAsText(TypeDecorator[enum.Enum | str]):
    """Store the name of an Enum's member as text, so that members may come and go.

    A member that was removed is read as its name.
    """

    impl = String
    cache_ok = True

    def __init__(self, enum_class: type[enum.Enum]) -> None:
        super().__init__()
        self.enum_class = enum_class

    def process_bind_param(self, value: Any, _dialect: Dialect) -> str | None:
        return value.name if isinstance(value, enum.Enum) else value

    def process_result_value(self, value: str | None, _dialect: Dialect) -> Any:
        return self.enum_class.__members__.get(value or "", value)


@event.listens_for(Enum, "before_parent_attach")
def store_members_as_text(enum_type: Enum, column: Any) -> None:
    """Give each column that SQLModel makes for an Enum the type above."""
    if type(enum_type) is not Enum or enum_type.values_callable is not None:
        return  # somebody has said how it is stored
    if enum_type.enum_class is not None:
        enum_type.native_enum = False  # no type of its own on PostgreSQL
        column.type = MembersAsText(enum_type.enum_class)


# ---- A field in the wrong place. ----


def check_fields(
    table: type[SQLModel],
    sent: type[SQLModel],
    shown: type[SQLModel],
    *,
    not_sent: Collection[str],
    not_stored: Collection[str],
) -> None:
    """Raise StartRefused if a field is in a model where it cannot or must not be."""
    columns = table.model_fields.keys()
    for name in sent.model_fields.keys() & not_sent:
        raise StartRefused(
            f"models.py: anybody could send {sent.__name__}.{name}. Keep {name} out of"
            f" it and of what it inherits from: it belongs in {table.__name__}."
        )
    for name in columns & set(not_stored):
        raise StartRefused(f"models.py: {name} must not be a column of a table.")
    for name in sent.model_fields.keys() - columns - set(not_stored):
        raise StartRefused(
            f"models.py: {sent.__name__}.{name} would be sent and lost. Write {name}"
            f" into {table.__name__}, too."
        )
    for name in shown.model_fields.keys() - columns:
        raise StartRefused(
            f"models.py: {shown.__name__}.{name} has nothing to show. Write {name} into"
            f" {table.__name__}, too, or make it a computed_field."
        )
