"""What every section of a recipe is: frozen, typed and documented settings, some of which name variants."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from farfeel.support.registry import Registry

UNKNOWN_NAME = "unknown_name"  # pydantic's type of the error below

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
Share = Annotated[float, Field(ge=0, le=1)]
SampleRate = Annotated[int, Field(ge=8000, le=192000)]
Stages = Annotated[tuple[Count, ...], Field(min_length=1)]
Range = tuple[float, float]
Span = tuple[NotNegative, NotNegative]  # a range of lengths or times
RANGES = (Range, Range | None, Span)


class Named:
    """Marks a setting that names a variant: `Annotated[str, Named(MICROPHONES)]`."""

    def __init__(self, registry: Registry[Any]) -> None:
        self.registry = registry

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._known, handler(source))

    def _known(self, name: str) -> str:
        if name not in self.registry:
            raise PydanticCustomError(UNKNOWN_NAME, "{expected}", {"expected": self.registry.expected(name)})
        self.registry.variant(name)  # raises where two packages bring that name
        return name


class Section(BaseModel):
    """The base class of all sections."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
    later: ClassVar[tuple[str, ...]] = ("options",)
    """Settings that recipes did not have at first. At their defaults, which never change, they are not written: so the
    files of a recipe that does not use them stay as they were, byte for byte."""

    @model_validator(mode="after")
    def _ranges_ascend(self) -> Section:
        for name, value in self:
            if type(self).model_fields[name].annotation in RANGES and value and value[0] > value[1]:
                raise ValueError(f"{name} is {list(value)}, expected a range with its lower end first; exchange them")
        return self

    @model_serializer(mode="wrap")
    def _without_later(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        tree: dict[str, Any] = handler(self)
        fields = type(self).model_fields
        return {
            name: value
            for name, value in tree.items()
            if name not in self.later or value != (fields[name].default if name in fields else {})
        }


def choices_of(section: type[Section], name: str) -> tuple[Any, ...] | Registry[Any] | None:
    """The values that a setting may have: those written down, or a registry; None where it is free."""
    field = section.model_fields[name]
    return _choices(Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation)


def _choices(annotation: Any) -> tuple[Any, ...] | Registry[Any] | None:
    for mark in getattr(annotation, "__metadata__", ()):
        if isinstance(mark, Named):
            return mark.registry
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return next((choices for part in get_args(annotation) if (choices := _choices(part)) is not None), None)


def settings(section: type[Section], prefix: str = "") -> Iterator[tuple[str, type[Section], str]]:
    """Every setting as (dotted key, its section, its name there)."""
    for name, field in section.model_fields.items():
        if isinstance(field.default, Section):
            yield from settings(type(field.default), f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", section, name
