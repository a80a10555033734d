"""The gateway's HTTP, as a client: asks again while it says 503 or nothing, under one idempotency key."""

import asyncio
import secrets
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import httpx

from cli.errors import CommandError

PATIENCE_SECONDS: Final = 60.0
PAUSE_SECONDS_MAX: Final = 2.0


@dataclass(frozen=True, slots=True)
class Accepted:
    """A 202: the id that the gateway gave, whether it knew the request already, and how often it was asked."""

    id: str
    is_repeat: bool
    attempts: int


class Refused(CommandError):
    """The gateway said 4xx: asking again will not help."""

    def __init__(self, what: str, status: int, detail: str) -> None:
        super().__init__(f"The gateway refused {what} with {status}: {detail}")
        self.status = status


class Gateway:
    """A client of one gateway. Use it as an async context manager."""

    def __init__(self, url: str, key: str = "", patience_seconds: float = PATIENCE_SECONDS) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.AsyncClient(
            base_url=url, headers=headers, timeout=10.0, trust_env=False
        )
        self._patience_seconds = patience_seconds

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._client.aclose()

    async def send(
        self,
        method: str,
        path: str,
        body: bytes | dict[str, Any],
        *,
        idempotency_key: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Accepted:
        """Send until it is accepted.

        Raises:
            Refused: what is asked is wrong.
            CommandError: nobody accepted it in time.
        """
        key = idempotency_key or secrets.token_hex(16)
        content: dict[str, Any] = {"content": body} if isinstance(body, bytes) else {"json": body}
        asked = {"Idempotency-Key": key, "Content-Type": "application/json", **(headers or {})}
        deadline = time.monotonic() + self._patience_seconds
        pause, attempts, why = 0.1, 0, ""
        while True:
            attempts += 1
            try:
                answer = await self._client.request(method, path, headers=asked, **content)
            except httpx.TransportError as error:
                why = str(error) or type(error).__name__
            else:
                if answer.status_code == 202:
                    repeat = answer.headers.get("Idempotent-Replayed") == "true"
                    return Accepted(str(answer.json()["id"]), repeat, attempts)
                why = _problem(answer)
                if answer.status_code < 500:
                    raise Refused(f"{method} {path}", answer.status_code, why)
            if time.monotonic() + pause > deadline:
                raise CommandError(
                    f"The gateway at {self._client.base_url} did not accept {method} {path} within"
                    f" {self._patience_seconds:g} s ({why}); is ingest running?"
                )
            await asyncio.sleep(pause)
            pause = min(pause * 2, PAUSE_SECONDS_MAX)


def _problem(answer: httpx.Response) -> str:
    try:
        return str(answer.json().get("detail", ""))[:300] or answer.reason_phrase
    except (ValueError, AttributeError):
        return answer.reason_phrase
