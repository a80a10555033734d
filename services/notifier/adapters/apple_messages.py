"""Apple Messages for Business: a notice as the business's message in the customer's conversation.

Sources: Apple's pages for messaging providers: sending messages (`POST /v1/message`; headers `id`, `Source-Id`,
`Destination-Id`, `auto-reply` for what no person wrote; body with `type`, `body` and the ids again), authentication (a JWT
by HS256 with the decoded API secret, `iss` the provider's id and `iat`, refused an hour later), and the answers: 200 with
an empty body, 410 once the customer has ended the conversation, which means that nobody may write to them any more. There is no
window: a business may answer at any time.

A message has a UUID that the sender makes (here the notice's id, so a repeat has the same one). That Apple drops a repeat is
not documented, so this provider counts as one without a key, and an interrupted send is unknown: Apple keeps nothing that
could be looked up.

Believed and not confirmed: 200 for a message whose id came before, the text's length. Apple documents the Basic
Multilingual Plane for texts; emoji beyond it are sent as they are. Nothing was tried against a live account: that needs
Apple's approval.
"""

import base64
import binascii
import hmac
import json
import re
from typing import Any, ClassVar, Final

from pydantic import Field

from chassis.clock import SystemClock
from services.notifier.adapters import helpdesk
from services.notifier.adapters.provider import Answer, Api, Provider, refuse
from services.notifier.core.accounts import AccountSettings, ApiAddress, SecretReference
from services.notifier.core.delivery import Delivered, Failed, Unknown
from services.notifier.core.post import Post, Traits, Trouble

VENDOR: Final = "Apple"
TEXT_MAX: Final = 10_000
"""Characters of a message (ours; Apple names no number)."""

_CUSTOMER: Final = re.compile(r"[!-~]{1,500}")
"""What can stand in a header; Apple's ids look like `urn:mbid:AQAA…`."""


class Settings(AccountSettings):
    """A business at Apple, and its messaging provider (your own company, as Apple approved it)."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "msp_id": "7a1c2f9e-0000-4000-8000-000000000001",
        "business_id": "a884eddf-0000-4000-8000-000000000002",
        "secret": "env:APPLE_MSP_SECRET",
    }

    msp_id: str = Field(pattern=r"^[!-~]{1,100}$")
    """The messaging provider's id."""
    business_id: str = Field(pattern=r"^[!-~]{1,100}$")
    """The business's id, which messages come from."""
    secret: SecretReference
    """The provider's API secret, in base64 as Apple shows it."""
    url: ApiAddress = "https://mspgw.push.apple.com/v1"
    """The service's address."""


TRAITS: Final = Traits(
    channels=frozenset({"apple_messages"}), form="text", addressing="address", text_max=TEXT_MAX
)


def _part(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token(secret: str, msp_id: str, issued_at: int) -> str | None:
    """Return a JSON Web Token for Apple; None where the secret is no base64."""
    try:
        key = base64.b64decode(secret, validate=True)
    except (binascii.Error, ValueError):
        return None
    if not key:
        return None
    header = _part(json.dumps({"alg": "HS256", "typ": "JWT"}).encode())
    said = f"{header}.{_part(json.dumps({'iss': msp_id, 'iat': issued_at}).encode())}"
    return f"{said}.{_part(hmac.digest(key, said.encode(), 'sha256'))}"


def _explain(answer: Answer) -> Failed | Unknown | None:
    if answer.status == 410:
        reason = f"{VENDOR}: the customer has ended the conversation"
        return Failed(reason, is_recoverable=False, trouble=Trouble.ADDRESS)
    return None


async def send(api: Api, post: Post) -> Delivered:
    """Send the notice to the customer's devices.

    Raises:
        Problem: it was not taken, or nobody knows.
    """
    settings = helpdesk.settings_of(api, Settings)
    if not _CUSTOMER.fullmatch(post.to):
        refuse(Trouble.ADDRESS, f"{VENDOR}: the customer is not known by Apple's opaque id")
    issued_at = int(SystemClock().now().timestamp())
    signed = token(api.secret("secret"), settings.msp_id, issued_at)
    if signed is None:
        refuse(Trouble.ACCOUNT, f"{VENDOR}: the API secret is no base64")
    headers = {
        **helpdesk.bearer(signed),
        "id": post.key,
        "source-id": settings.business_id,
        "destination-id": post.to,
    }
    if post.is_automatic:
        headers["auto-reply"] = "true"
    await api.call(
        "POST",
        f"{settings.url}/message",
        is_making=True,
        headers=headers,
        json={
            "v": 1,
            "type": "text",
            "id": post.key,
            "sourceId": settings.business_id,
            "destinationId": post.to,
            "body": helpdesk.fitting(post, VENDOR, TEXT_MAX),
        },
        explain=_explain,
        reads_answer=False,
    )
    return Delivered("taken", post.key)


PROVIDER: Final = Provider(
    name="apple_messages",
    settings=Settings,
    traits=TRAITS,
    send=send,
    renew="the messaging provider's API secret and the business's connection to it (register.apple.com)",
)
