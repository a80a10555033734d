"""Standard Webhooks: who signed a request, and that it is neither old nor changed.

Source: the Standard Webhooks specification 1.0 (headers `webhook-id`, `webhook-timestamp`, `webhook-signature`; HMAC
SHA-256 over `id.timestamp.body`, key base64 after `whsec_`, several signatures parted by spaces while keys rotate). The
window of five minutes either way is our choice; the specification asks for one without naming it.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from services.ingest.adapters import signing
from services.ingest.adapters.channel import Answer, Request, Verdict

WINDOW_SECONDS: Final = 300
ID_LENGTH_MAX: Final = 200
SIGNATURES_MAX: Final = 20
PREFIX: Final = b"whsec_"


class SignatureRefused(ValueError):
    """A signature is missing, wrong, too old or too new; `reason` is `unauthorized` or `stale`."""

    def __init__(self, reason: str, problem: str) -> None:
        super().__init__(problem)
        self.reason = reason


def is_signed(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a request claims to be signed this way. Header names are in lower case."""
    return b"webhook-signature" in headers


def _key(secret: bytes) -> bytes | None:
    try:
        return base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return None


def sign(secret: bytes, webhook_id: str, timestamp: int, body: bytes) -> str:
    """Return the signature header's value for a body, as a sender makes it.

    Raises:
        ValueError: the secret is not base64.
    """
    key = _key(secret)
    if key is None:
        raise ValueError("a Standard Webhooks secret is base64, with or without `whsec_` before it")
    said = f"{webhook_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, said, hashlib.sha256).digest()).decode()


def verify_request(request: Request, secrets: Mapping[str, str], now: datetime) -> Verdict:
    """Return the verdict on a request that an account's secret should have signed; its `webhook-id` names it."""
    keys = signing.secrets_of(secrets)
    if not keys:
        return signing.refused("no_secret")
    headers = {
        name.encode("latin-1", "replace"): value.encode("utf-8", "surrogatepass")
        for name, value in request.headers.items()
    }
    if not is_signed(headers):
        return signing.refused("missing_signature")
    try:
        _, webhook_id = verify(headers, request.body, {"": keys}, now)
    except SignatureRefused as refused:
        return signing.refused("stale" if refused.reason == "stale" else "bad_signature")
    return signing.proved(webhook_id, Answer(202))


def verify(
    headers: Mapping[bytes, bytes], body: bytes, secrets: Mapping[str, list[bytes]], now: datetime
) -> tuple[str, str]:
    """Return the account whose secret signed the request, and its webhook id.

    Everything is compared as bytes: a signature beyond ASCII is wrong, not an error. All secrets are tried, so that the
    time taken does not tell which account matched.

    Raises:
        SignatureRefused: a header is missing or unreadable, the time is outside the window, or no signature is right.
    """
    webhook_id = headers.get(b"webhook-id", b"")
    stamp = headers.get(b"webhook-timestamp", b"")
    if not webhook_id or len(webhook_id) > ID_LENGTH_MAX or not webhook_id.isascii():
        raise SignatureRefused("unauthorized", "webhook-id: is missing or unreadable")
    if not stamp.isdigit() or len(stamp) > 15:
        raise SignatureRefused(
            "unauthorized", "webhook-timestamp: is missing or no number of seconds"
        )
    said = webhook_id + b"." + stamp + b"." + body
    given = [
        part[3:]
        for part in headers.get(b"webhook-signature", b"").split()
        if part.startswith(b"v1,")
    ][:SIGNATURES_MAX]
    signed_by: str | None = None
    for account, candidates in secrets.items():
        for secret in candidates:
            key = _key(secret)
            if key is None:
                continue
            expected = base64.b64encode(hmac.new(key, said, hashlib.sha256).digest())
            for signature in given:
                if hmac.compare_digest(expected, signature):
                    signed_by = account
    if signed_by is None:
        raise SignatureRefused("unauthorized", "webhook-signature: no signature is right")
    if abs(now.timestamp() - int(stamp)) > WINDOW_SECONDS:
        raise SignatureRefused(
            "stale", f"webhook-timestamp: is more than {WINDOW_SECONDS} seconds away from now"
        )
    return signed_by, webhook_id.decode("ascii")
