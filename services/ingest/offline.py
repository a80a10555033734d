"""`signalbox normalize` and `signalbox verify`: the adapters without a broker, a database or an account.

A line in, a line out. What cannot be handled answers `{"id": …, "error": "…"}` with the field that is wrong.
"""

import base64
import binascii
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

import msgspec
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from schemas.messages import MessageContent
from services.ingest import adapters
from services.ingest.adapters import json_body
from services.ingest.adapters.channel import Delivery, ParseError, Request


class _Line(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    channel: Annotated[str, Field(min_length=1, max_length=64)]
    method: str = "POST"
    url: str = ""
    headers: dict[str, str] = Field(default_factory=dict)
    body_base64: str = ""
    account: Annotated[str, Field(min_length=1, max_length=64)] = "default"


class _Normalize(_Line):
    received_at: AwareDatetime | None = None


class _Verify(_Line):
    secrets: dict[str, str] = Field(default_factory=dict)
    now: AwareDatetime | None = None


def normalize(
    channel: str,
    body: bytes,
    now: datetime,
    *,
    account: str = "default",
    method: str = "POST",
    url: str = "",
    headers: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return `{"messages", "ignored"}` of one delivery, as the normaliser reads it.

    Raises:
        ParseError: it cannot be read, or there is no such channel.
    """
    if channel not in adapters.CHANNELS:
        known = ", ".join(sorted(adapters.CHANNELS))
        raise ParseError("unknown_channel", f"channel: must be one of {known}", "channel")
    parsed = adapters.parse(
        Delivery(
            channel=channel,
            account=account,
            body=body,
            received_at=now,
            method=method,
            url=url,
            headers=_lower(headers or {}),
        )
    )
    return {
        "messages": [payload(message) for message in parsed.messages],
        "ignored": parsed.ignored if not parsed.messages else None,
    }


def payload(message: MessageContent) -> Any:
    """Return a message as the JSON that events carry."""
    return msgspec.Raw(message.__pydantic_serializer__.to_json(message))


def normalize_line(asked: object, now: datetime) -> dict[str, Any]:
    """Answer one line of `normalize --batch`; `now` stands in where the line has no `received_at`."""
    try:
        line = _Normalize.model_validate(asked)
        answer = normalize(
            line.channel,
            _body(line),
            line.received_at or now,
            account=line.account,
            method=line.method,
            url=line.url,
            headers=line.headers,
        )
    except (ValidationError, ParseError) as error:
        return {"id": _id(asked), "error": _problem(error)}
    return {"id": _id(asked), **answer}


def verify_line(asked: object, now: datetime) -> dict[str, Any]:
    """Answer one line of `verify --batch`; `now` stands in where the line has none."""
    try:
        line = _Verify.model_validate(asked)
        channel = adapters.CHANNELS.get(line.channel)
        if channel is None or channel.verify is None:
            known = ", ".join(
                sorted(name for name, one in adapters.CHANNELS.items() if one.verify is not None)
            )
            raise ParseError("unknown_channel", f"channel: must be one of {known}", "channel")
        request = Request(line.method, line.url, _lower(line.headers), _body(line))
    except (ValidationError, ParseError) as error:
        return {"id": _id(asked), "error": _problem(error)}
    verdict = adapters.verify(channel, request, line.secrets, line.now or now)
    return {
        "id": _id(asked),
        "accepted": verdict.accepted,
        "reason": verdict.reason,
        "respond": {
            "status": verdict.respond.status,
            "headers": dict(verdict.respond.headers),
            "body": verdict.respond.body,
        },
    }


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _id(asked: object) -> object:
    return asked.get("id") if isinstance(asked, dict) else None


def _body(line: _Line) -> bytes:
    try:
        return base64.b64decode(line.body_base64, validate=True)
    except (binascii.Error, ValueError):
        raise ParseError("invalid_base64", "body_base64: is not base64", "body_base64") from None


def _problem(error: ValidationError | ParseError) -> str:
    if isinstance(error, ParseError):
        return error.detail
    field, message = json_body.field_of(error)
    return f"{field}: {message}"
