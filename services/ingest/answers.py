"""What all ways into the gateway's HTTP share: bodies under limits, and refusals as RFC 9457 problem JSON."""

import asyncio
import math
from collections.abc import Mapping
from typing import Any, Final

from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from services.ingest.core.pace import network_of

PROBLEM: Final = "application/problem+json"
HEADER_LENGTH_MAX: Final = 2_000


class Problem(Exception):
    """An answer other than 2xx, as RFC 9457 has it. `reason` is one of `metrics.REFUSALS`, or `unavailable`."""

    def __init__(
        self,
        status: int,
        reason: str,
        title: str,
        detail: str,
        *,
        field: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.reason = reason
        self.title = title
        self.detail = detail
        self.field = field
        self.headers = dict(headers or {})

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
        return JSONResponse(body, self.status, self.headers, media_type=PROBLEM)


def too_many(what: str, wait: float) -> Problem:
    """Return the answer for who asks too often; `wait` in seconds."""
    return Problem(
        429,
        "too_many",
        "Too many requests",
        f"{what}; try again later",
        headers={"Retry-After": str(max(1, math.ceil(wait)))},
    )


def client_of(request: Request) -> str:
    """Return what the sender's network address is counted as."""
    return network_of(request.client.host if request.client is not None else "")


async def read_body(request: Request, limit: int, seconds: float) -> bytes:
    """Return the body, or refuse it as soon as it is too large or too slow.

    Raises:
        Problem: 413, 408, or 400 where the sender hung up.
    """
    too_large = Problem(
        413, "too_large", "Too large", f"body: has more than {limit} bytes", field="body"
    )
    length = request.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and int(length[:15]) > limit:
        raise too_large
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limit:
                    raise too_large
                chunks.append(chunk)
    except TimeoutError:
        raise Problem(
            408,
            "too_slow",
            "Too slow",
            f"body: did not arrive within {seconds:g} seconds",
            field="body",
        ) from None
    except ClientDisconnect:
        raise Problem(
            400, "disconnected", "Disconnected", "body: ended early", field="body"
        ) from None
    return b"".join(chunks)
