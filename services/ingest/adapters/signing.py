"""What the adapters' `verify` functions share: secrets as bytes, constant-time comparison, windows, the usual answers.

Headers are compared as bytes: one that is no ASCII is wrong, and no error.
"""

import base64
import hashlib
import hmac
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Final
from urllib.parse import unquote

from services.ingest.adapters.channel import Answer, Request, Verdict

WINDOW_SECONDS: Final = 300
"""How far a signed time may be away from now, either way, where the vendor names no other window."""

TOKEN_HEADERS: Final = (
    "x-signalbox-token",
    "x-omni-token",
    "x-webhook-token",
    "x-webhook-secret",
    "x-auth-token",
)
TOKEN_LENGTH_MIN: Final = 1


def secrets_of(secrets: Mapping[str, str], *names: str) -> list[bytes]:
    """Return the secrets that are there, as bytes: `secret` and `previous_secret` where no names are given."""
    found = (secrets.get(name, "") for name in (names or ("secret", "previous_secret")))
    return [value.encode("utf-8", "surrogateescape") for value in found if value]


def same(expected: bytes | str, given: bytes | str) -> bool:
    """Whether two values are equal, in constant time, whatever characters somebody sent."""
    return hmac.compare_digest(_bytes(expected), _bytes(given))


def _bytes(value: bytes | str) -> bytes:
    return value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass")


def hex_hmac(key: bytes, said: bytes, algorithm: str = "sha256") -> str:
    """Return an HMAC in lower-case hex."""
    return hmac.new(key, said, algorithm).hexdigest()


def base64_hmac(key: bytes, said: bytes, algorithm: str = "sha256") -> str:
    """Return an HMAC in standard base64."""
    return base64.b64encode(hmac.new(key, said, algorithm).digest()).decode("ascii")


def sha256_hex(data: bytes) -> str:
    """Return a SHA-256 in lower-case hex."""
    return hashlib.sha256(data).hexdigest()


def refused(reason: str, status: int = 401, headers: Mapping[str, str] | None = None) -> Verdict:
    """Return a refusal. 401 where nothing was proved; never a 5xx, which vendors would repeat for hours."""
    return Verdict(False, reason, Answer(status, dict(headers or {})), is_delivery=False)


def proved(name: str | None = None, answer: Answer | None = None) -> Verdict:
    """Return the verdict for a request whose signature is right."""
    return Verdict(True, "verified", answer or Answer(), verified=True, name=name)


def shown(name: str | None = None, answer: Answer | None = None) -> Verdict:
    """Return the verdict for a request that showed a shared token and proves nothing else."""
    return Verdict(True, "shown", answer or Answer(), verified=False, name=name)


def handshake(answer: Answer) -> Verdict:
    """Return the verdict for a challenge: answered, and nothing to store."""
    return Verdict(True, "handshake", answer, verified=False, is_delivery=False)


def signed_by_any(given: str, secrets: Iterable[bytes], expected: Callable[[bytes], str]) -> bool:
    """Whether `given` is the signature that `expected` makes with any of the secrets; all are tried."""
    is_right = False
    for secret in secrets:
        is_right |= same(expected(secret), given)
    return is_right


def is_fresh(
    stamp: str, now: datetime, window: int = WINDOW_SECONDS, *, unit: int = 1
) -> bool | None:
    """Whether a stamp of whole seconds (`unit` 1000: milliseconds) is within the window; None where it is no number."""
    if not stamp.isascii() or not stamp.isdigit() or len(stamp) > 16:
        return None
    return abs(now.timestamp() - int(stamp) / unit) <= window


def by_body_hmac(
    request: Request,
    secrets: Mapping[str, str],
    header: str,
    *,
    prefix: str = "",
    algorithm: str = "sha256",
    encoding: str = "hex",
    name: str | None = None,
) -> Verdict:
    """Return the verdict of the commonest scheme: an HMAC of the raw body in a header, in `hex` or `base64`."""
    keys = secrets_of(secrets)
    if not keys:
        return refused("no_secret")
    given = request.headers.get(header, "").strip()
    if not given:
        return refused("missing_signature")
    if prefix and not given.startswith(prefix):
        return refused("bad_signature")
    make = hex_hmac if encoding == "hex" else base64_hmac
    is_right = signed_by_any(
        given[len(prefix) :], keys, lambda key: make(key, request.body, algorithm)
    )
    return proved(name) if is_right else refused("bad_signature")


def shown_tokens(request: Request) -> list[str]:
    """Return what a request shows as a token: a header's value, a bearer, a Basic password, the last path segment,
    `token` or `secret` in the query.
    """
    found = [request.headers[name].strip() for name in TOKEN_HEADERS if name in request.headers]
    kind, _, rest = request.headers.get("authorization", "").strip().partition(" ")
    if kind.lower() == "bearer":
        found.append(rest.strip())
    if kind.lower() == "basic":
        try:
            found.append(base64.b64decode(rest, validate=True).decode("latin-1").partition(":")[2])
        except ValueError:
            found.append("")
    segment = unquote(request.path.rstrip("/").rpartition("/")[2])
    query = request.query
    found += [
        segment,
        *(query[name] for name in ("token", "secret", "access_token") if name in query),
    ]
    return [value for value in found if len(value) >= TOKEN_LENGTH_MIN]


def by_token(
    request: Request,
    secrets: Mapping[str, str],
    *,
    also: Iterable[str] = (),
    name: str | None = None,
) -> Verdict:
    """Return the verdict where a vendor signs nothing: the account's secret must be shown somewhere.

    `also` names further headers. What is let in this way proves nothing about its content: `verified` stays false.
    """
    keys = secrets_of(secrets)
    if not keys:
        return refused("no_secret")
    given = shown_tokens(request) + [
        request.headers[header].strip() for header in also if header in request.headers
    ]
    is_right = False
    for value in given:
        for key in keys:
            is_right |= same(key, value)
    return shown(name) if is_right else refused("bad_token")


def only(request: Request, *methods: str) -> Verdict | None:
    """Return a refusal for another method than these; None where it is one of them."""
    if request.method.upper() in methods:
        return None
    return refused("wrong_method", 405, {"Allow": ", ".join(methods)})
