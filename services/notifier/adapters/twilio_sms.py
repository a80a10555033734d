"""Text messages by Twilio: SMS to a telephone number, and WhatsApp where a customer wrote to a number of Twilio's by it.

Sources: Twilio's pages on the Messages resource (`POST …/Messages.json` with `To`, `Body`, `From` or
`MessagingServiceSid`, `StatusCallback`; 1,600 characters of a body; the list with `To` and `PageSize`), on status
callbacks, and on opt-out (STOP and its like are kept by Twilio; what is sent then is refused with 21610).

There is no idempotency key. What may have been sent is looked up by its recipient and its words in the account's list. The
callbacks reach the gateway at the channel `twilio_sms`, which tells whether a message arrived.

A customer who wrote by WhatsApp through Twilio is answered by WhatsApp; after 24 hours Twilio refuses that with 63016, and
templates are not sent by this provider. A long SMS is one message in segments, each of which costs.

Believed and not confirmed: that the list has the newest first and shows a message as soon as it is taken. Nothing was tried
against a live account.
"""

import re
from typing import Any, ClassVar, Final, Self

import msgspec
from pydantic import Field, model_validator

from services.notifier.adapters import helpdesk, twilio
from services.notifier.adapters.provider import Api, Provider, unknown
from services.notifier.core.accounts import ApiAddress
from services.notifier.core.delivery import Delivered
from services.notifier.core.post import Post, Traits

TEXT_MAX: Final = 1_600
"""Characters of a body; more is refused with 21617."""
LOOKED_AT: Final = 200
"""Messages to the customer that a look-up reads, the newest first."""

NOT_DELIVERED: Final = frozenset({"failed", "undelivered", "canceled"})
"""What becomes of a message that Twilio took and that never arrived."""

_NETWORK: Final = re.compile(r"(whatsapp):(\+[0-9]{3,15})")


class Settings(twilio.Settings):
    """A Twilio number or messaging service for text messages."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "account_sid": "AC00000000000000000000000000000001",
        "secret": "env:TWILIO_AUTH_TOKEN",
        "from_number": "+15550100200",
        "status_callback": "https://support.lantern-oak.example/v1/channels/twilio_sms/sms",
    }

    messaging_service_sid: str = Field(default="", pattern=r"^(?:MG[0-9a-fA-F]{32})?$")
    """A messaging service, which chooses the number, instead of `from_number`."""
    status_callback: ApiAddress | None = None
    """Where Twilio tells what became of a message: the gateway's address of the channel `twilio_sms`."""

    @model_validator(mode="after")
    def _has_a_sender(self) -> Self:  # noqa: N804 - an "after" validator gets the model itself
        if bool(self.from_number) == bool(self.messaging_service_sid):
            raise ValueError("needs from_number or messaging_service_sid, and not both")
        return self


TRAITS: Final = Traits(
    channels=twilio.TELEPHONES,
    form="text",
    addressing="address",
    can_find=True,
    text_max=TEXT_MAX,
)


class _Taken(msgspec.Struct, frozen=True):
    sid: str


class _Listed(msgspec.Struct, frozen=True):
    sid: str
    body: str | None = None
    direction: str = ""
    status: str = ""
    date_created: str | None = None


class _List(msgspec.Struct, frozen=True):
    messages: tuple[_Listed, ...]


def _parties(api: Api, post: Post) -> dict[str, str]:
    """Return who writes to whom, by the network that the customer wrote by."""
    settings = helpdesk.settings_of(api, Settings)
    by = _NETWORK.fullmatch(post.thread)
    to = by.group() if by is not None else twilio.number_of(post)
    if settings.messaging_service_sid:
        return {"To": to, "MessagingServiceSid": settings.messaging_service_sid}
    ours = f"{by[1]}:{settings.from_number}" if by is not None else settings.from_number
    return {"To": to, "From": ours}


async def send(api: Api, post: Post) -> Delivered:
    """Hand the text to Twilio for the customer's number.

    Raises:
        Problem: it was not taken, or nobody knows.
    """
    settings = helpdesk.settings_of(api, Settings)
    form = {
        **_parties(api, post),
        "Body": helpdesk.fitting(post, twilio.VENDOR, TEXT_MAX),
    }
    if settings.status_callback is not None:
        form["StatusCallback"] = settings.status_callback
    answer = await api.call(
        "POST",
        twilio.resource(api, "Messages"),
        is_making=True,
        form=form,
        explain=twilio.explain,
        **twilio.login(api),
    )
    return helpdesk.taken(answer, _Taken, lambda made: made.sid)


async def find(api: Api, post: Post) -> Delivered | None:
    """Look for the words among the newest messages to the customer.

    Raises:
        Problem: it could not be told.
    """
    params = {"To": _parties(api, post)["To"], "PageSize": str(LOOKED_AT)}
    answer = await api.call(
        "GET",
        twilio.resource(api, "Messages"),
        params=params,
        explain=twilio.explain,
        **twilio.login(api),
    )
    listed = helpdesk.shaped(answer, _List, twilio.VENDOR).messages
    times = [twilio.instant(one.date_created) for one in listed]
    ours, lost = (
        [
            helpdesk.Written(one.sid, at, one.body or "", is_html=False)
            for one, at in zip(listed, times, strict=True)
            if one.direction.startswith("outbound") and (one.status in NOT_DELIVERED) == is_lost
        ]
        for is_lost in (False, True)
    )
    found = helpdesk.sought(post, ours, twilio.VENDOR)
    if found is None and helpdesk.sought(post, lost, twilio.VENDOR) is not None:
        unknown(f"{twilio.VENDOR}: it was taken and could not be delivered")
    if found is not None or len(listed) < LOOKED_AT:
        return found
    if not helpdesk.is_before(min((at for at in times if at is not None), default=None), post):
        raise helpdesk.not_told(twilio.VENDOR)
    return None


PROVIDER: Final = Provider(
    name="twilio_sms",
    settings=Settings,
    traits=TRAITS,
    send=send,
    find=find,
    renew=(
        "the auth token or the API key (Console, Account, API keys & tokens), and that the account is neither suspended nor"
        " out of funds and still has its number or messaging service"
    ),
)
