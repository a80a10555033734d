"""An account's settings as adapters' functions want them: secrets resolved, published keys at hand."""

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Protocol

import httpx
from pydantic import BaseModel

from chassis import logs
from chassis.clock import monotonic
from services.ingest.adapters.api import ApiProblem, VendorApi, new_client
from services.ingest.adapters.channel import ChannelSettings
from services.ingest.core.policy import SECRET_REFERENCE

KEYS_SECONDS: Final = 3600.0
"""How long published keys are believed before they are asked for again."""
KEYS_AGAIN_SECONDS: Final = 60.0
"""How soon after a look the next one may follow, when a token names a key that is not among them, or a look failed."""

log = logs.get("ingest.accounts")


class SecretSource(Protocol):
    """Where secrets are read by reference; `adapters.secrets.Secrets` is one."""

    def get(self, reference: str) -> bytes | None:
        """Return a secret's bytes, or None where there is none."""
        ...


def references_of(settings: BaseModel) -> Iterator[str]:
    """Return every reference to a secret that settings hold, at any depth."""
    for name in type(settings).model_fields:
        yield from _references(getattr(settings, name))


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, str) and SECRET_REFERENCE.match(value):
        yield value
    elif isinstance(value, BaseModel):
        yield from references_of(value)
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _references(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _references(inner)


def resolved(settings: BaseModel, secrets: SecretSource) -> dict[str, str]:
    """Return the settings' texts by field name, secrets in place of their references; what is missing is left out."""
    found: dict[str, str] = {}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, bool) or value is None:
            continue
        if isinstance(value, str) and SECRET_REFERENCE.match(value):
            secret = secrets.get(value)
            if secret is not None:
                found[name] = secret.decode("utf-8", "surrogateescape")
        elif isinstance(value, (str, int, float)):
            found[name] = str(value)
    return found


class PublishedKeys:
    """Vendors' published keys (JWKS), fetched when first needed and kept for an hour; old ones serve while none come."""

    def __init__(
        self,
        client: Callable[[], httpx.AsyncClient] = new_client,
        again_seconds: float = KEYS_AGAIN_SECONDS,
    ) -> None:
        self._new_client = client
        self._again_seconds = again_seconds
        self._client: httpx.AsyncClient | None = None
        self._kept: dict[str, tuple[str, float]] = {}
        self._looked: dict[str, float] = {}
        self._lock = asyncio.Lock()

    async def get(self, url: str, *, fresh: bool = False) -> str | None:
        """Return the keys at `url` as JSON; `fresh` asks again where the last look is not too near. None: none are had."""
        kept = self._kept.get(url)
        age = monotonic() - kept[1] if kept is not None else KEYS_SECONDS
        if kept is not None and age < KEYS_SECONDS and not fresh:
            return kept[0]
        async with self._lock:
            since = monotonic() - self._looked.get(url, float("-inf"))
            if since >= self._again_seconds:
                self._looked[url] = monotonic()
                await self._fetch(url)
        kept = self._kept.get(url)
        return kept[0] if kept is not None else None

    async def _fetch(self, url: str) -> None:
        if self._client is None:
            self._client = self._new_client()
        try:
            found = await VendorApi(ChannelSettings(), {}, self._client).get(url)
        except ApiProblem as problem:
            log.warning("keys_not_had", url=url, problem=problem.reason, status=problem.status)
            return
        if isinstance(found, dict) and isinstance(found.get("keys"), list):
            self._kept[url] = (json.dumps(found), monotonic())

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()
