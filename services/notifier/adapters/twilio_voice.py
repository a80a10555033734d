"""A call back by Twilio: rings our own line, says whom it is about, and connects the customer once somebody presses a key.

Sources: Twilio's pages on the Calls resource (`POST …/Calls.json` with `To`, `From` and `Twiml` of at most 4,000
characters) and on `<Gather>`, `<Say>`, `<Dial>` and `<Number>`. The key goes to the channel `twilio_voice` at the gateway,
whose address carries the customer's number; Twilio signs the whole address, and the gateway answers with the `<Dial>`.

The customer is never called before one of our people is on the line, so no machine talks to them and no mailbox of ours
does. Therefore only what a person decided is called about (an agent's answer, which is read out to whoever takes the
call); an automatic notice is refused and goes by another way.

There is no idempotency key, and the list of calls does not say what a call was about, so an interrupted one is unknown: an
agent sees by themselves whether the telephone rang. Nothing was tried against a live account.
"""

from typing import Any, ClassVar, Final
from urllib.parse import quote
from xml.sax.saxutils import escape, quoteattr

import msgspec
from pydantic import Field

from services.notifier.adapters import helpdesk, twilio
from services.notifier.adapters.provider import Api, Provider, refuse
from services.notifier.core.accounts import ApiAddress
from services.notifier.core.delivery import Delivered
from services.notifier.core.post import Post, Traits, Trouble

TWIML_MAX: Final = 4_000
"""Characters of the instructions that come with a call."""
TEXT_MAX: Final = 2_000
"""Characters that are read out (ours): some two and a half minutes, and they fit the instructions with room for marks."""
RING_SECONDS: Final = 30
"""How long our line rings before nobody is there (ours)."""
KEY_SECONDS: Final = 15
"""How long somebody has for the key once everything is said (ours)."""

_SPOKEN: Final = {
    "en": ("en-US", "Press any key to be connected to the customer."),
    "tr": ("tr-TR", "Müşteriye bağlanmak için herhangi bir tuşa basın."),
    "ru": ("ru-RU", "Нажмите любую клавишу, чтобы соединиться с клиентом."),
}


class Settings(twilio.Settings):
    """A Twilio number that calls go out by, and the line of ours that is rung first."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "account_sid": "AC00000000000000000000000000000001",
        "secret": "env:TWILIO_AUTH_TOKEN",
        "from_number": "+15550100200",
        "agent_number": "+15550100300",
        "callback_url": "https://support.lantern-oak.example/v1/channels/twilio_voice/hotline",
    }

    from_number: str = Field(pattern=r"^\+[0-9]{3,15}$")
    """The number of ours that both sides see, in E.164."""
    agent_number: str = Field(pattern=r"^(?:\+[0-9]{3,15}|sip:[^\s<>\"]{3,200})$")
    """The line that is rung first: a number in E.164, or a SIP address."""
    callback_url: ApiAddress
    """The gateway's address of the channel `twilio_voice`, exactly as Twilio calls it."""


TRAITS: Final = Traits(
    channels=twilio.TELEPHONES,
    form="text",
    addressing="address",
    text_max=TEXT_MAX,
)


class _Taken(msgspec.Struct, frozen=True):
    sid: str


def instructions(text: str, language: str, customer: str, callback_url: str) -> str:
    """Return the TwiML of a call to our own line. All of `text` is read out as words, whatever it looks like."""
    voice, prompt = _SPOKEN.get(language, _SPOKEN["en"])
    action = quoteattr(f"{callback_url}?connect={quote(customer, safe='')}")
    said = quoteattr(voice)
    return (
        f'<Response><Gather action={action} method="POST" numDigits="1" timeout="{KEY_SECONDS}">'
        f"<Say language={said}>{escape(text)}</Say><Say language={said}>{escape(prompt)}</Say>"
        "</Gather><Hangup/></Response>"
    )


async def send(api: Api, post: Post) -> Delivered:
    """Ring our line for a call to the customer.

    Raises:
        Problem: the call was not placed, or nobody knows.
    """
    settings = helpdesk.settings_of(api, Settings)
    if post.is_automatic:
        refuse(Trouble.MESSAGE, f"{twilio.VENDOR}: nobody is called for an automatic notice")
    customer = twilio.number_of(post)
    text = helpdesk.fitting(post, twilio.VENDOR, TEXT_MAX)
    twiml = instructions(text, post.language, customer, settings.callback_url)
    if len(twiml) > TWIML_MAX:
        refuse(Trouble.MESSAGE, f"{twilio.VENDOR}: the text with its marks is too long to be read")
    answer = await api.call(
        "POST",
        twilio.resource(api, "Calls"),
        is_making=True,
        form={
            "To": settings.agent_number,
            "From": settings.from_number,
            "Twiml": twiml,
            "Timeout": str(RING_SECONDS),
        },
        explain=twilio.explain,
        **twilio.login(api),
    )
    taken = helpdesk.made(answer, _Taken)
    return Delivered("ringing our line", taken.sid if taken is not None else "")


PROVIDER: Final = Provider(
    name="twilio_voice",
    settings=Settings,
    traits=TRAITS,
    send=send,
    renew=(
        "the auth token or the API key (Console, Account, API keys & tokens), and that the account is neither suspended nor"
        " out of funds, still has its number and may call that country"
    ),
)
