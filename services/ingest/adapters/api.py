"""A vendor's API over HTTPS: bounded in time and size, tokens kept while they last, and errors that say what to do.

Adapters build addresses from the account's settings and never from a vendor's answer, and redirects are not followed, so
credentials go to no other host. TLS is verified by httpx' defaults; the proxy variables of the environment are not used.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import httpx
import msgspec

from chassis import vendor_api
from chassis.clock import monotonic
from services.ingest.adapters import json_body
from services.ingest.adapters.channel import ChannelSettings, ParseError

T = TypeVar("T")

ANSWER_BYTES_MAX: Final = 8 * 1024 * 1024
TIMEOUT: Final = httpx.Timeout(20.0, connect=5.0)
TOKEN_SPARE_SECONDS: Final = 60.0
TOKEN_SECONDS: Final = 300.0
"""How long a token is kept whose life its issuer does not tell."""
RETRY_AFTER_MAX: Final = 3600.0


class ApiProblem(Exception):
    """A vendor's API did not give what was asked. `is_final`: asking again will not help, until somebody mends something.

    `reason` is one of `unauthorized`, `forbidden`, `missing`, `refused`, `throttled`, `failed`, `unreachable`,
    `bad_answer`, `too_large`, `no_secret`, `bad_address`. `status` is the HTTP status, 0 where there was none.
    """

    def __init__(
        self,
        reason: str,
        *,
        status: int = 0,
        retry_after: float | None = None,
        is_final: bool = False,
    ) -> None:
        super().__init__(f"{reason} ({status})" if status else reason)
        self.reason = reason
        self.status = status
        self.retry_after = retry_after
        self.is_final = is_final


def new_client() -> httpx.AsyncClient:
    """Return a client as vendors' APIs are asked with."""
    return httpx.AsyncClient(
        timeout=TIMEOUT,
        follow_redirects=False,
        trust_env=False,
        limits=httpx.Limits(max_connections=20, max_keepalive_connections=10),
        headers={"User-Agent": "signalbox-ingest"},
    )


class VendorApi:
    """One account's API: its settings, its secrets by field name, and tokens while they last."""

    def __init__(
        self,
        settings: ChannelSettings,
        secrets: Mapping[str, str],
        client: httpx.AsyncClient,
        *,
        now: Callable[[], float] = monotonic,
    ) -> None:
        self.settings = settings
        self.secrets = secrets
        self._client = client
        self._now = now
        self._tokens: dict[tuple[str, str], tuple[str, float]] = {}

    async def get(
        self,
        url: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        missing: bool = False,
    ) -> Any:
        """Return the JSON at `url`; with `missing`, None for a 404 instead of an error.

        Raises:
            ApiProblem: it could not be had, and whether to ask again.
        """
        return await self._json(
            "GET", url, missing=missing, params=dict(params or {}) or None, headers=headers
        )

    async def post(
        self,
        url: str,
        *,
        json: Any = None,
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Return the JSON that answers a POST.

        Raises:
            ApiProblem: it could not be had, and whether to ask again.
        """
        return await self._json(
            "POST", url, json=json, data=dict(form) if form is not None else None, headers=headers
        )

    async def token(
        self, url: str, form: Mapping[str, str], *, basic: tuple[str, str] | None = None
    ) -> str:
        """Return an OAuth access token, asked for at `url` and kept until shortly before it expires.

        Raises:
            ApiProblem: the token could not be had.
        """
        key = (url, "&".join(f"{name}={value}" for name, value in sorted(form.items())))
        kept = self._tokens.get(key)
        if kept is not None and kept[1] > self._now():
            return kept[0]
        answer = await self._json("POST", url, data=dict(form), auth=basic)
        access = answer.get("access_token") if isinstance(answer, dict) else None
        if not isinstance(access, str) or not access:
            raise ApiProblem("bad_answer")
        life = answer.get("expires_in")
        seconds = float(life) if isinstance(life, (int, float)) else TOKEN_SECONDS
        if isinstance(life, str) and life.isdigit():
            seconds = float(life)
        self._tokens[key] = (access, self._now() + max(0.0, seconds - TOKEN_SPARE_SECONDS))
        return access

    def forget_tokens(self) -> None:
        """Ask for new tokens next time; called after an API said that one is no good."""
        self._tokens.clear()

    async def _json(self, method: str, url: str, *, missing: bool = False, **more: Any) -> Any:
        status, body, headers = await self._bytes(method, url, **more)
        if status == 404 and missing:
            return None
        if status in (401, 403):
            self.forget_tokens()
            raise ApiProblem(
                "unauthorized" if status == 401 else "forbidden",
                status=status,
                retry_after=retry_after(headers),
            )
        if status == 429:
            raise ApiProblem("throttled", status=status, retry_after=retry_after(headers) or 30.0)
        if status >= 500 or status == 408:
            raise ApiProblem("failed", status=status, retry_after=retry_after(headers))
        if status >= 300:
            raise ApiProblem(
                "missing" if status in (404, 410) else "refused", status=status, is_final=True
            )
        if not body.strip():
            return None
        try:
            json_body.check(body)
            return msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ParseError):
            raise ApiProblem("bad_answer", status=status) from None

    async def _bytes(
        self, method: str, url: str, **more: Any
    ) -> tuple[int, bytes, Mapping[str, str]]:
        if urlsplit(url).scheme not in ("http", "https"):
            raise ApiProblem("bad_address", is_final=True)
        more = {name: value for name, value in more.items() if value is not None}
        chunks: list[bytes] = []
        size = 0
        try:
            async with self._client.stream(method, url, **more) as response:
                async for chunk in response.aiter_bytes():
                    size += len(chunk)
                    if size > ANSWER_BYTES_MAX:
                        raise ApiProblem("too_large", status=response.status_code, is_final=True)
                    chunks.append(chunk)
                return response.status_code, b"".join(chunks), response.headers
        except httpx.InvalidURL:
            raise ApiProblem("bad_address", is_final=True) from None
        except httpx.HTTPError as error:
            raise ApiProblem("unreachable") from error


def shaped(answer: object, kind: type[T]) -> T:
    """Return what an API answered as `kind`.

    Raises:
        ApiProblem: `bad_answer`: it has another shape.
    """
    try:
        return msgspec.convert(answer, kind, strict=False)
    except msgspec.ValidationError:
        raise ApiProblem("bad_answer") from None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that an answer asks us to wait, an hour at most; None where it does not."""
    return vendor_api.retry_after(headers, RETRY_AFTER_MAX)
