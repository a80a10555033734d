"""What all payloads have in common, and the register of event types."""

from functools import cache
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

Id = Annotated[str, StringConstraints(min_length=1, max_length=200)]
"""An identifier: opaque, compared byte for byte."""

Instant = AwareDatetime
"""A point in time with its offset from UTC."""

REGISTRY: dict[str, type["Payload"]] = {}
"""Every event type we write or must understand, by its name and version."""


class Payload(BaseModel):
    """The data of one event type. Frozen; a reader ignores fields it does not know."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", ser_json_bytes="base64", val_json_bytes="base64"
    )

    TYPE: ClassVar[str]
    TOPIC: ClassVar[str]
    WRITER: ClassVar[str] = ""
    """The stage that writes it, where that is not the topic's writer."""
    EXAMPLE: ClassVar[dict[str, Any]]

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if "TYPE" in cls.__dict__:
            if cls.TYPE in REGISTRY:
                raise TypeError(f"{cls.TYPE} is declared twice")
            REGISTRY[cls.TYPE] = cls

    def to_json(self) -> bytes:
        """Return the payload as UTF-8 JSON."""
        return self.__pydantic_serializer__.to_json(self)


class Part(BaseModel):
    """A piece of a payload that is no event of its own."""

    model_config = ConfigDict(frozen=True, extra="ignore")


M = TypeVar("M", bound=BaseModel)


def trusted(kind: type[M], fields: dict[str, Any]) -> M:
    """Return the model of values that are already what its fields hold, parts as models and sequences as tuples.

    Nothing is checked but the names: it takes a tenth of the time of validation, which is for what comes from outside. Where
    the values hold, the model is the one that `model_validate` returns, and its JSON the same byte for byte.

    Raises:
        TypeError: a required field is missing, or one is given that there is none of.
    """
    template, required = _template(kind)
    values = {**template, **fields}
    if len(values) != len(template) or not required <= fields.keys():
        wrong = sorted((fields.keys() - template.keys()) | (required - fields.keys()))
        raise TypeError(f"{kind.__name__}: unknown or missing: {', '.join(wrong)}")
    model = kind.__new__(kind)
    # The model is frozen, so its own attributes are set past it, as pydantic does.
    object.__setattr__(model, "__dict__", values)
    object.__setattr__(model, "__pydantic_fields_set__", set(fields))
    object.__setattr__(model, "__pydantic_extra__", None)
    object.__setattr__(model, "__pydantic_private__", None)
    return model


@cache
def _template(kind: type[BaseModel]) -> tuple[dict[str, Any], frozenset[str]]:
    """Return the defaults in the order of the fields, which is that of the JSON, and the names of those that have none."""
    fields = kind.model_fields
    required = frozenset(name for name, field in fields.items() if field.is_required())
    made = [name for name, field in fields.items() if field.default_factory is not None]
    if made:
        raise TypeError(f"{kind.__name__}: the defaults of {', '.join(made)} cannot be shared")
    return {name: None if name in required else fields[name].default for name in fields}, required


__all__ = ["REGISTRY", "Field", "Id", "Instant", "Part", "Payload", "trusted"]
