"""What all payloads have in common, and the register of event types."""

from typing import Annotated, Any, ClassVar

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


__all__ = ["REGISTRY", "Field", "Id", "Instant", "Part", "Payload"]
