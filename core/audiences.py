"""One model for each audience: what people send, what they change, what they see.

It promises that a field which is declared once is in PATCH as well; that an account
stays readable, whatever rules its fields get later; and that a field which is in a
model, but in no table, stops the startup with a line about it. Nothing else needs you
to read this.
"""

import enum
from copy import copy
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from types import FunctionType, NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin
from uuid import UUID

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    TypeAdapter,
    ValidationError,
    computed_field,
    create_model,
    field_serializer,
)
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, PydanticUndefined, core_schema
from sqlalchemy import Dialect, Enum, String, TypeDecorator, event
from sqlmodel import SQLModel

from core.settings import exit_with

Model = TypeVar("Model", bound=SQLModel)


# ---- PATCH: every field may be left out. ----


def left_out() -> None:
    """Stand for a field that was not sent; it is not in `model_fields_set`.

    A validator that looks at another field finds None there.
    """


def all_optional(model: type[Model]) -> type[Model]:
    """Return a model whose fields may all be left out. Null is not left out."""
    for name, validator in model.__pydantic_decorators__.model_validators.items():
        if validator.info.mode != "before":
            exit_with(
                f"models.py: the model_validator {name} needs every field, and PATCH"
                " sends a few of them. Check it in create_user and update_user"
                " (routers/user_router.py), where the account has them all."
            )
    fields: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        optional = copy(field)
        optional.default = PydanticUndefined
        optional.default_factory = left_out
        fields[name] = (field.annotation, optional)
    return cast(type[Model], create_model(model.__name__, __base__=model, **fields))


# ---- Answers: rules are for what comes in, and a row stays readable. ----

# Types without a rule: whatever their columns hold passes.
PLAIN_TYPES = [str, int, float, bool, bytes, Decimal, UUID, NoneType]
PLAIN_TYPES += [datetime, date, time, timedelta]


def without_rules(model: type[Model]) -> type[Model]:
    """Return a plain model with the same fields, for rows that are already stored.

    A plain pydantic model is also filled five times as fast as a SQLModel.
    """
    fields: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        plain = Field(
            alias=field.alias,
            serialization_alias=field.serialization_alias,
            exclude=field.exclude,
            title=field.title,
            description=field.description,
            examples=field.examples,
            json_schema_extra=field.json_schema_extra,
        )
        fields[name] = (type_as_stored(field), plain)
    config = ConfigDict(from_attributes=True, populate_by_name=True)
    for key, value in model.model_config.items():
        if key.startswith("ser_"):  # how bytes and durations are written
            config.update({key: value})  # type: ignore[misc] # mypy cannot know the key
    plain_model = create_model(
        model.__name__,
        __config__=config,
        __doc__=model.__doc__,
        __validators__=find_functions(model),
        **fields,
    )
    for name in model.__class_vars__ - SQLModel.__class_vars__:
        setattr(plain_model, name, getattr(model, name))
    return cast(type[Model], cast(type[BaseModel], plain_model))


class AsStored:
    """Let any value pass, and write it into the answer as its type does."""

    @staticmethod
    def __get_pydantic_core_schema__(
        source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        schema = handler(source)
        # What is not of the type, such as a removed Enum member, is written as it is.
        written = core_schema.union_schema([schema, core_schema.any_schema()])
        return core_schema.any_schema(
            serialization=core_schema.wrap_serializer_function_ser_schema(
                lambda value, write: write(value), schema=written
            )
        )

    @staticmethod
    def __get_pydantic_json_schema__(
        schema: Any, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        # /docs shows the type, the first of the two choices above. As a step in a chain
        # it stays a reference to a named schema, such as that of an Enum.
        shown = schema["serialization"]["schema"]["choices"][0]
        return handler(core_schema.chain_schema([shown]))


def type_as_stored(field: FieldInfo) -> Any:
    """Return a type that accepts whatever the column of a field may hold."""
    annotation: Any = field.annotation
    parts = [annotation]
    if get_origin(annotation) in {Union, UnionType}:
        parts = list(get_args(annotation))
    # Drop limits such as max_length; keep what decides how a value is written.
    kept = []
    for part in field.metadata:
        if hasattr(part, "__get_pydantic_core_schema__"):
            kept.append(part)
    if not kept and all(part in PLAIN_TYPES for part in parts):
        return annotation
    for part in kept:
        annotation = Annotated[annotation, part]
    return Annotated[annotation, AsStored]


def find_functions(model: type[Model]) -> dict[str, Any]:
    """Return a model's methods, computed fields and serializers, for a copy of it."""
    found: dict[str, Any] = {}
    classes = model.__mro__[: model.__mro__.index(SQLModel)]
    for class_ in reversed(classes):
        members = vars(class_).items()
        found |= {
            name: member
            for name, member in members
            if isinstance(member, FunctionType | property | classmethod | staticmethod)
        }
    for name, field in model.model_computed_fields.items():
        computed = computed_field(
            return_type=field.return_type,
            alias=field.alias,
            title=field.title,
            description=field.description,
        )
        found[name] = computed(field.wrapped_property)
    for name, serializer in model.__pydantic_decorators__.field_serializers.items():
        info = serializer.info
        found[name] = field_serializer(
            *info.fields,
            mode=info.mode,
            return_type=info.return_type,
            when_used=info.when_used,
        )(serializer.func)
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

    def process_bind_param(
        self, value: enum.Enum | str | None, _dialect: Dialect
    ) -> str | None:
        if isinstance(value, enum.Enum):
            return value.name
        return value

    def process_result_value(
        self, value: str | None, _dialect: Dialect
    ) -> enum.Enum | str | None:
        if value is None:
            return None
        return self.enum_class.__members__.get(value, value)


@event.listens_for(Enum, "before_parent_attach")
def store_members_as_text(enum_type: Enum, column: Any) -> None:
    """Give each column that SQLModel makes for an Enum the type above."""
    if type(enum_type) is not Enum or enum_type.values_callable is not None:
        return  # somebody has said how it is stored
    enum_class = enum_type.enum_class
    if enum_class is not None and issubclass(enum_class, enum.Flag):
        exit_with(
            f"models.py: {enum_class.__name__} is a Flag, whose sums no column holds."
            " Make it an Enum, and the field a list of it with sa_type=JSON."
        )
    if enum_class is not None:
        enum_type.native_enum = False  # no type of its own on PostgreSQL
        column.type = MembersAsText(enum_class)


# ---- A field that no table has. ----

NOT_STORED = {"password", "current_password"}  # the routers hash and compare them
NOT_SHOWN = NOT_STORED | {"hashed_password"}
NOT_SIGNED_UP = {"id", "is_admin", "hashed_password"}


def check_fields(
    table: type[SQLModel],
    sign_up: type[SQLModel],
    change: type[SQLModel],
    shown: type[SQLModel],
) -> None:
    """Stop the startup if a field is in a model where it cannot or must not be."""
    for name in NOT_SIGNED_UP.intersection(sign_up.model_fields):
        exit_with(
            f"models.py: anybody could send {sign_up.__name__}.{name}. Keep {name} out"
            f" of {sign_up.__name__} and of UserBase: it belongs in {table.__name__}."
        )
    for name in NOT_SHOWN.intersection(shown.model_fields):
        exit_with(
            f"models.py: everybody could read {shown.__name__}.{name}. Keep {name} out"
            f" of {shown.__name__} and of UserBase."
        )
    for name, field in sign_up.model_fields.items():
        check_default(name, field)
    for model in (sign_up, change):
        for name in model.model_fields:
            if name not in table.model_fields and name not in NOT_STORED:
                exit_with(
                    f"models.py: {model.__name__}.{name} would be sent and lost:"
                    f" {table.__name__} has no such column."
                    f" Write {name} into {table.__name__} as well, or into UserBase"
                    " alone, if everybody may see it."
                )
    for name in shown.model_fields:
        if name in table.__sqlmodel_relationships__:
            exit_with(
                f"models.py: {shown.__name__}.{name} is a Relationship, and lists read"
                f" columns. Put it into a model that inherits from {shown.__name__},"
                " for a path operation of your own."
            )
        if name not in table.model_fields:
            exit_with(
                f"models.py: {shown.__name__}.{name} has nothing to show:"
                f" {table.__name__} has no such column."
                f" Write {name} into {table.__name__} as well, or make it a"
                " computed_field of UserBase."
            )


# Types whose columns do not accept a text, though pydantic reads them from one.
NO_TEXTS = int | float | Decimal | date | time | timedelta | UUID | bytes


def check_default(name: str, field: FieldInfo) -> None:
    """Stop the startup if a field cannot hold its default: pydantic never checks."""
    if field.is_required() or field.default_factory is not None:
        return
    annotation: Any = field.annotation
    try:
        value = TypeAdapter(annotation).validate_python(field.default)
        is_right = not (isinstance(field.default, str) and isinstance(value, NO_TEXTS))
    except ValidationError:
        is_right = False
    if not is_right:
        exit_with(
            f"models.py: {name} cannot have the default {field.default!r}: that is not"
            " of its type. (`= None` needs `| None` in the type.)"
        )
