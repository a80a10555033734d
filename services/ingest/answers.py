"""What all ways into the gateway's HTTP share: bodies under limits, and refusals as RFC 9457 problem JSON."""

import asyncio
import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final

import msgspec
from fastapi import Request
from starlette.responses import Response

from services.ingest.core.pace import network_of

PROBLEM: Final = "application/problem+json"
HEADER_LENGTH_MAX: Final = 2_000


class Problem(Exception):
    """An answer other than 2xx, as RFC 9457 has it. `reason` is one of `metrics.REFUSALS`, or `unavailable`.

    `members` are further members of the body, for whoever can do something with them.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        title: str,
        detail: str,
        *,
        field: str | None = None,
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.reason = reason
        self.title = title
        self.detail = detail
        self.field = field
        self.headers = dict(headers or {})
        self.members = dict(members or {})

    def response(self) -> Response:
        """Return the HTTP answer."""
        body: dict[str, Any] = {
            "type": f"urn:signalbox:problem:{self.reason}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }
        if self.field is not None:
            body["field"] = self.field
        body |= self.members
        return as_json(body, self.status, self.headers, PROBLEM)


def as_json(
    content: Any,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    media_type: str = "application/json",
) -> Response:
    """Return an answer in JSON."""
    return Response(msgspec.json.encode(content), status, headers, media_type)


def too_many(what: str, wait: float) -> Problem:
    """Return the answer for who asks too often; `wait` in seconds."""
    return Problem(
        429,
        "too_many",
        "Too many requests",
        f"{what}; try again later",
        headers={"Retry-After": str(max(1, math.ceil(wait)))},
    )


def unavailable(wait: float) -> Problem:
    """Return the answer for what cannot be done now; `wait` in seconds."""
    return Problem(
        503,
        "unavailable",
        "Not now",
        "The request could not be stored now; please send it again",
        headers={"Retry-After": str(max(1, math.ceil(wait)))},
    )


def client_of(request: Request) -> str:
    """Return what the sender's network address is counted as."""
    client = request.scope.get("client")
    return _network_of(client[0] if client else "")


_network_of = lru_cache(maxsize=10_000)(network_of)


def kept_headers(request: Request, is_kept: Callable[[bytes], bool]) -> dict[str, str]:
    """Return the headers that are stored with what came, each bounded; names in lower case. The last of a name counts."""
    return {
        name.decode("latin-1"): value[:HEADER_LENGTH_MAX].decode("latin-1").replace("\x00", "")
        for name, value in request.scope["headers"]
        if is_kept(name)
    }


def _too_large(limit: int) -> Problem:
    return Problem(
        413, "too_large", "Too large", f"body: has more than {limit} bytes", field="body"
    )


async def read_body(request: Request, limit: int, seconds: float) -> bytes:
    """Return the body, or refuse it as soon as it is too large or too slow.

    Raises:
        Problem: 413, 408, or 400 where the sender hung up.
    """
    length = request.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and int(length[:15]) > limit:
        raise _too_large(limit)
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(seconds):
            while True:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise Problem(
                        400, "disconnected", "Disconnected", "body: ended early", field="body"
                    )
                chunks.append(message.get("body", b""))
                size += len(chunks[-1])
                if size > limit:
                    raise _too_large(limit)
                if not message.get("more_body", False):
                    break
    except TimeoutError:
        raise Problem(
            408,
            "too_slow",
            "Too slow",
            f"body: did not arrive within {seconds:g} seconds",
            field="body",
        ) from None
    return b"".join(chunks)
