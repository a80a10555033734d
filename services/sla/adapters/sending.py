"""What every receiver's module stands on: how an attempt can end, secrets by reference, and a request that always ends.

Every way an attempt can end is an answer, never an exception. `Failed` says whether the message may have arrived: after a
lost answer or a server's error nobody knows, after a refused connection or a 429 it surely has not.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import httpx

from chassis import vendor_api
from chassis.secrets import read_secret

ANSWER_BYTES_MAX: Final = 64 * 1024
SECONDS: Final = 10.0
"""For each step of a request: to connect, to write, to hear the answer."""
TOTAL_SECONDS: Final = 25.0
"""For all that one message takes. Below `paging.ATTEMPT`, after which it is tried again."""
DETAIL_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class Delivered:
    """It arrived. `ref` is the receiver's name for the page's first message, where it has one; `remark` what was odd."""

    ref: str = ""
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Failed:
    """It did not arrive, or nobody knows (`is_unknown`); it may be tried again, after `retry_after` if that is said.

    `is_of_message`: the trouble is this message's; the receiver may take others.
    """

    reason: str
    is_unknown: bool = False
    retry_after: timedelta | None = None
    is_of_message: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """It will never arrive like this. `cure` is what a person has to do."""

    reason: str
    cure: str


Attempted = Delivered | Failed | Refused


@dataclass(frozen=True, slots=True)
class Outside:
    """The ways out of the process: a client for HTTP, and the console's address for links (empty: none)."""

    client: httpx.AsyncClient
    console_url: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said: its status, its headers, and the beginning of its body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON; None where it is none."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None


class SecretMissing(Exception):
    """A reference leads to nothing."""

    def __init__(self, reference: str) -> None:
        super().__init__(f"the secret {reference} is missing or empty")
        self.reference = reference


def secret(reference: str) -> str:
    """Read `env:NAME` or `file:/path`, each time anew, so that a secret rotates without a restart.

    Raises:
        SecretMissing: it is missing, empty, or not printable ASCII; names the reference, never the value.
    """
    found = read_secret(reference)
    if found is None or not (found.isascii() and found.isprintable()):
        raise SecretMissing(reference)
    return found


def new_client() -> httpx.AsyncClient:
    """Return a client that follows no redirect and no proxy of the environment: a secret goes where it was meant to, or nowhere."""
    return httpx.AsyncClient(
        timeout=httpx.Timeout(SECONDS), follow_redirects=False, trust_env=False
    )


async def request(
    client: httpx.AsyncClient,
    method: str,
    url: str,
    *,
    body: Any = None,
    token: str = "",
    query: Mapping[str, str] | None = None,
    bytes_max: int = ANSWER_BYTES_MAX,
) -> Answer | Failed:
    """Ask a server once; `body` goes as JSON, `token` as a bearer's. An answer is read up to `bytes_max`."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    content: bytes | None = None
    if body is not None:
        headers["Content-Type"] = "application/json; charset=utf-8"
        content = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
    try:
        async with client.stream(
            method, url, content=content, headers=headers, params=query
        ) as response:
            found = bytearray()
            async for piece in response.aiter_bytes():
                found += piece
                if len(found) >= bytes_max:
                    break
            return Answer(response.status_code, response.headers, bytes(found[:bytes_max]))
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
        return Failed(f"cannot be reached ({type(error).__name__})")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return Failed(f"gave no answer ({type(error).__name__})", is_unknown=True)


def trouble(answer: Answer) -> Failed | None:
    """What a status says that has nothing to do with the message; None where it has."""
    if answer.status == 429:
        return Failed("asks for patience (429)", retry_after=retry_after(answer.headers))
    if answer.status == 408 or answer.status >= 500:
        return Failed(
            f"has trouble of its own ({answer.status})",
            is_unknown=True,
            retry_after=retry_after(answer.headers),
        )
    return None


def retry_after(headers: Mapping[str, str]) -> timedelta | None:
    """How long an answer asks us to wait, by seconds or by a date; None where it does not."""
    seconds = vendor_api.retry_after(headers)
    return None if seconds is None else timedelta(seconds=seconds)


def detail(text: object, *secrets: str) -> str:
    """Words of a receiver that may be shown: one short line without our secrets."""
    said = str(text)
    for one in secrets:
        said = said.replace(one, "…") if one else said
    return "".join(c if c.isprintable() else " " for c in said)[:DETAIL_MAX]
