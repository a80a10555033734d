"""What Twilio's two providers share: the account, how it logs in, its error codes, and numbers.

Sources: Twilio's pages on API requests (HTTP Basic with the account's SID and auth token, or with an API key's SID and
secret), on the Messages and Calls resources, and its dictionary of error codes. Twilio advises against deciding by codes
that it may refine: what is not named here goes by the answer's status.

Twilio takes no idempotency key for a message or a call.
"""

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from pydantic import Field

from services.notifier.adapters import helpdesk
from services.notifier.adapters.provider import Answer, Api, refuse
from services.notifier.core.accounts import AccountSettings, ApiAddress, SecretReference
from services.notifier.core.delivery import Failed, Unknown
from services.notifier.core.post import Post, Trouble

VENDOR: Final = "Twilio"
TELEPHONES: Final = frozenset({"twilio_sms", "twilio_voice", "aircall", "voip"})
"""Channels whose contacts go by a telephone number: people who called can be written to, and called back."""

NUMBER: Final = re.compile(r"\+[0-9]{3,15}")

_MEANS: Final[dict[int, tuple[Trouble, str]]] = {
    **dict.fromkeys(
        (21211, 21214, 21265, 21266, 21612, 21614, 21635, 63024, 13223, 13224, 13225, 13226),
        (Trouble.ADDRESS, "the number cannot be reached"),
    ),
    21610: (Trouble.ADDRESS, "the recipient has opted out by STOP"),
    21408: (Trouble.ADDRESS, "the account may not write to that country"),
    21215: (Trouble.ADDRESS, "the account may not call that country"),
    21216: (Trouble.ADDRESS, "the account may not call that number"),
    21608: (Trouble.ADDRESS, "a trial account reaches verified numbers only"),
    63016: (Trouble.WINDOW, "the customer wrote more than 24 hours ago"),
    **dict.fromkeys((21602, 21605, 21617, 21619), (Trouble.MESSAGE, "the text is refused")),
    **dict.fromkeys(
        (20003, 20005, 20006, 20008, 20403, 30002),
        (Trouble.ACCOUNT, "the login is refused, or the account suspended"),
    ),
    **dict.fromkeys(
        (21210, 21212, 21213, 21603, 21606, 21659, 21660, 21661, 21701, 21703, 21704, 21705, 63007),
        (Trouble.ACCOUNT, "the sender is refused"),
    ),
    **dict.fromkeys((21609, 21205), (Trouble.ACCOUNT, "the callback's address is refused")),
    **dict.fromkeys((20429, 14107, 21611), (Trouble.PROVIDER, "too many at once")),
}


class Settings(AccountSettings):
    """A Twilio account: its auth token, or an API key of it."""

    account_sid: str = Field(pattern=r"^AC[0-9a-fA-F]{32}$")
    """The account's SID."""
    secret: SecretReference
    """The account's auth token, or the API key's secret where `api_key` is set."""
    api_key: str = Field(default="", pattern=r"^(?:SK[0-9a-fA-F]{32})?$")
    """An API key's SID; it can be withdrawn without touching the auth token, which signs webhooks."""
    from_number: str = Field(default="", pattern=r"^(?:\+[0-9]{3,15})?$")
    """The number that customers see, in E.164."""
    url: ApiAddress = "https://api.twilio.com"
    """The API's address; another region's where the account is kept there."""


def resource(api: Api, name: str) -> str:
    """Return the address of one of the account's lists."""
    settings = helpdesk.settings_of(api, Settings)
    return f"{settings.url}/2010-04-01/Accounts/{settings.account_sid}/{name}.json"


def login(api: Api) -> dict[str, Any]:
    """Return how the account logs in.

    Raises:
        Problem: its secret is missing.
    """
    settings = helpdesk.settings_of(api, Settings)
    return {"basic": (settings.api_key or settings.account_sid, api.secret("secret"))}


def number_of(post: Post) -> str:
    """Return the customer's number.

    Raises:
        Problem: it is none in E.164.
    """
    if not NUMBER.fullmatch(post.to):
        refuse(
            Trouble.ADDRESS, f"{VENDOR}: the address is no telephone number with its country code"
        )
    return post.to


def explain(answer: Answer) -> Failed | Unknown | None:
    """Return what a refusal means by Twilio's code."""
    body = answer.body if isinstance(answer.body, dict) else {}
    code = body.get("code")
    known = _MEANS.get(code) if isinstance(code, int) else None
    if known is None or answer.status >= 500:
        return None
    trouble, what = known
    if trouble is Trouble.PROVIDER and answer.status == 429:
        return None  # Told by the status, with the wait that the headers ask for.
    is_recoverable = trouble in (Trouble.ACCOUNT, Trouble.PROVIDER)
    return Failed(f"{VENDOR}: {what} ({code})", is_recoverable, trouble=trouble)


def instant(value: str | None) -> datetime | None:
    """Return a time as Twilio writes it (RFC 2822) in UTC; None for what is none."""
    if not value:
        return None
    try:
        at = parsedate_to_datetime(value[:100])
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
