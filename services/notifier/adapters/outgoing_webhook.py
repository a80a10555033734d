"""Webhooks of ours: a notice posted to a system that delivers it itself, signed as Standard Webhooks asks.

Source: the Standard Webhooks specification 1.0: `webhook-id` stays the same over all attempts, so a receiver drops repeats by it;
`webhook-timestamp` is the attempt's own; `webhook-signature` has `v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body`,
several of them parted by spaces while secrets are exchanged; any 2xx is success, 410 says that nothing is wanted any more; a
payload has `type`, `timestamp` and `data`, and is kept below 20 KiB.

    {"type": "notice.solved", "timestamp": "2026-11-24T08:00:00Z",
     "data": {"id": "…", "occasion": "solved", "is_automatic": true, "to": "…", "thread": "…", "answers": "…",
              "subject": "…", "text": "…", "html": "…", "language": "en"}}

A receiver that cannot be found (404) or wants nothing any more (410) is the account's trouble, not the recipient's: notices wait
until the address is mended.
"""

import base64
import binascii
import hashlib
import hmac
from typing import Any, ClassVar, Final

import msgspec

from chassis.clock import now_seconds
from services.notifier.adapters.provider import Answer, Api, Provider, refuse
from services.notifier.core.accounts import AccountSettings, ApiAddress, SecretReference
from services.notifier.core.delivery import Delivered, Failed
from services.notifier.core.post import ANY_CHANNEL, Post, Traits, Trouble

TEXT_MAX: Final = 15_000
"""Characters of a text, so that what carries it stays below the payload's limit as a rule."""
PAYLOAD_BYTES_MAX: Final = 256 * 1024
"""Beyond this nothing is sent; the specification advises 20 KiB and leaves more to those who agree on it."""
PREFIX: Final = "whsec_"
KEY_BYTES: Final = (24, 64)
"""What the specification asks of a secret's length."""


class Settings(AccountSettings):
    """A receiver: `url` is where notices are posted. While secrets are exchanged, `secret_before` signs as well."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "url": "https://messages.shop.example/signalbox",
        "secret": "env:SHOP_WEBHOOK_SECRET",
    }

    url: ApiAddress
    """Where notices are posted."""
    secret: SecretReference
    """The signing secret, `whsec_` and 24 to 64 bytes in base64; give the receiver the same."""
    secret_before: SecretReference | None = None
    """The secret that `secret` takes the place of, until the receiver knows the new one."""


async def send(api: Api, post: Post) -> Delivered:
    """Post the notice under its key.

    Raises:
        Problem: it was not taken.
    """
    settings: Settings = api.settings
    if len(post.text) > TEXT_MAX:
        refuse(Trouble.MESSAGE, f"the text is longer than {TEXT_MAX} characters")
    body = payload(post)
    if len(body) > PAYLOAD_BYTES_MAX:
        refuse(Trouble.MESSAGE, f"the notice is larger than {PAYLOAD_BYTES_MAX} bytes")
    at = int(now_seconds())
    keys = [_key(api, "secret")]
    if settings.secret_before is not None:
        keys.append(_key(api, "secret_before"))
    headers = {
        "Content-Type": "application/json",
        "webhook-id": post.key,
        "webhook-timestamp": str(at),
        "webhook-signature": " ".join(sign(key, post.key, at, body) for key in keys),
    }
    await api.call(
        "POST", settings.url, content=body, headers=headers, explain=_explain, reads_answer=False
    )
    return Delivered("taken by the receiver", post.key)


def payload(post: Post) -> bytes:
    """Return what is posted; the same post gives the same bytes."""
    return msgspec.json.encode(
        {
            "type": f"notice.{post.occasion}",
            "timestamp": post.date,
            "data": {
                "id": post.key,
                "occasion": post.occasion,
                "is_automatic": post.is_automatic,
                "to": post.to,
                "thread": post.thread,
                "answers": post.answers,
                "subject": post.subject,
                "text": post.text,
                "html": post.html,
                "language": post.language,
            },
        }
    )


def sign(key: bytes, webhook_id: str, at: int, body: bytes) -> str:
    """Return one signature of a body, at an instant in seconds since 1970."""
    said = f"{webhook_id}.{at}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, said, hashlib.sha256).digest()).decode()


def _key(api: Api, field: str) -> bytes:
    """Return the bytes of a secret.

    Raises:
        Problem: it is missing, no base64 or too short (trouble of the account).
    """
    try:
        key = base64.b64decode(api.secret(field).removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        refuse(Trouble.ACCOUNT, f"the secret of {field} is no base64 after {PREFIX}")
    if not KEY_BYTES[0] <= len(key) <= KEY_BYTES[1]:
        refuse(Trouble.ACCOUNT, f"the secret of {field} has not 24 to 64 bytes")
    return key


def _explain(answer: Answer) -> Failed | None:
    if answer.status in (404, 410):
        return Failed(f"the receiver is not there ({answer.status})", True, None, Trouble.ACCOUNT)
    return None


PROVIDER: Final = Provider(
    name="outgoing_webhook",
    settings=Settings,
    traits=Traits(
        channels=frozenset({ANY_CHANNEL}),
        form="text",
        addressing="address",
        is_keyed=True,
        text_max=TEXT_MAX,
    ),
    send=send,
    renew="the signing secret, the same at both ends, or the receiver's address",
)
