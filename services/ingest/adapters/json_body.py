"""JSON from strangers: bounded before it is parsed, and refused by the name of the field that is wrong."""

import re
from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError

from services.ingest.core.state import ParseError

DEPTH_MAX: Final = 32
"""Levels of arrays and objects; what we take needs three."""
DIGITS_MAX: Final = 40
"""Digits in a row outside strings; a number longer than that is no quantity."""

_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_DIGITS: Final = re.compile(rb"[0-9]{%d}" % (DIGITS_MAX + 1))
_BRACKET: Final = re.compile(rb"[\[\]{}]")

M = TypeVar("M", bound=BaseModel)


def check(body: bytes) -> None:
    """Refuse JSON that is nested too deeply or holds giant numbers, without parsing it.

    Raises:
        ParseError: which of the two.
    """
    if body.count(b"[") + body.count(b"{") <= DEPTH_MAX and _DIGITS.search(body) is None:
        return  # Nearly all there is; what stands in strings need not be told apart.
    bare = _STRING.sub(b"", body)
    if _DIGITS.search(bare):
        raise ParseError("number_too_long", f"a number has more than {DIGITS_MAX} digits", "body")
    depth = 0
    for found in _BRACKET.finditer(bare):
        depth += 1 if found.group() in b"[{" else -1
        if depth > DEPTH_MAX:
            raise ParseError("nested_too_deep", f"is nested more than {DEPTH_MAX} deep", "body")


def field_of(error: ValidationError) -> tuple[str, str]:
    """Return the first wrong field's path and what is wrong with it; never its value."""
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "body"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = "is not known here"
    return where, message


def read(body: bytes, kind: type[M]) -> M:
    """Return `body` as a model.

    Raises:
        ParseError: it is nested too deeply, no JSON, or a field is wrong; `field` names it.
    """
    check(body)
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        field, message = field_of(error)
        raise ParseError(
            "invalid_field" if field != "body" else "invalid_json", f"{field}: {message}", field
        ) from None
