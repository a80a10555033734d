"""WhatsApp by Meta's Cloud API: a notice as a text within 24 hours of the customer's last message, as an approved
template later.

Sources: WhatsApp Business Platform, Cloud API (`POST /{phone-number-id}/messages`: text, template, context,
`recipient` for people without a number, `biz_opaque_callback_data`), error codes. What the message is about comes
back in its statuses by the last of these, so a delivery report names the notice.

There is no idempotency key and no way to ask what was sent: an interrupted send stays unknown until a status tells,
and a person decides. WhatsApp tells many refusals not in the answer but by a status afterwards. Believed and not
confirmed: that a template's values take no line breaks, tabs or long runs of blanks (they are made one line here).
Nothing was tried against a live account.
"""

import re
from typing import Any, ClassVar, Final

import msgspec
from pydantic import Field

from services.notifier.adapters import graph, helpdesk
from services.notifier.adapters.provider import Answer, Api, Provider, refuse
from services.notifier.core.delivery import Delivered, Failed, Unknown
from services.notifier.core.post import Post, Traits, Trouble

VENDOR: Final = "WhatsApp"
TEXT_MAX: Final = 4_096
"""Characters of a text (Cloud API, text messages)."""

OURS: Final = frozenset({131005, 131031, 131042, 131045, 133010})
"""Codes about our token, permission, account, payment or number, beside those that all of Meta shares."""
TOO_MANY: Final = frozenset({130429, 131048, 131056})
"""Codes of limits: throughput, what people reported, too many to one person."""
NOT_SENT: Final = frozenset({131016, 131057, 133004})
"""Codes of a service that is not there for the moment."""
UNREACHABLE: Final = frozenset({131021, 131026, 131030})
"""Codes of a recipient whom WhatsApp cannot reach, or may not."""
OUTSIDE_WINDOW: Final = 131047
DOUBTFUL: Final = 131000

_PHONE: Final = re.compile(r"\+[0-9]{5,20}")
_USER: Final = re.compile(r"[A-Z]{2}\.(?:ENT\.)?[A-Za-z0-9]{1,128}")
_MESSAGE: Final = re.compile(r"wamid\.[A-Za-z0-9+/=_-]{1,180}")


class Settings(graph.GraphSettings):
    """A WhatsApp number."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "access_token": "env:WHATSAPP_TOKEN",
        "app_secret": "env:META_APP_SECRET",
        "phone_number_id": "998877665544",
    }

    phone_number_id: str = Field(pattern=r"^[0-9]{1,40}$")
    """The number's id at Meta; it is not the number."""


TRAITS: Final = Traits(
    channels=frozenset({"whatsapp"}),
    form="text",
    addressing="address",
    text_max=TEXT_MAX,
    window=graph.WINDOW,
    has_templates=True,
)


class _Message(msgspec.Struct, frozen=True):
    id: str = ""
    message_status: str | None = None


class _Made(msgspec.Struct, frozen=True):
    messages: tuple[_Message, ...] = ()


def _explain(answer: Answer) -> Failed | Unknown | None:
    """Return what a refusal means, by its code."""
    code, subcode = graph.code_of(answer)
    reason = f"{VENDOR}: error {code}"
    if code == OUTSIDE_WINDOW:
        return helpdesk.over(f"{reason}: 24 hours are over, only a template may go")
    if code in UNREACHABLE:
        return Failed(f"{reason}: they cannot be reached there", False, None, Trouble.ADDRESS)
    if code in TOO_MANY or code in NOT_SENT:
        return Failed(reason, True, graph.pause_of(answer.headers), Trouble.PROVIDER)
    if code == DOUBTFUL:
        return Unknown(reason)
    if code in OURS or (code == 100 and subcode == graph.NOT_SHOWN):
        return Failed(reason, True, None, Trouble.ACCOUNT)
    shared = graph.of_account(answer, code, reason)
    if shared is not None or code == 0:
        return shared
    return Failed(reason, False, None, Trouble.MESSAGE) if answer.status < 500 else None


def _recipient(post: Post) -> dict[str, str]:
    if _PHONE.fullmatch(post.to):
        return {"to": post.to.removeprefix("+")}
    if not _USER.fullmatch(post.to):
        refuse(Trouble.MESSAGE, f"{VENDOR}: the recipient is neither a number nor a user id")
    return {"recipient": post.to}


def body_of(post: Post) -> dict[str, Any]:
    """Return what is sent: the post's template where it has one, else its text.

    An agent's answer shows which message it answers.

    Raises:
        Problem: it has no words or too many, or nobody to go to.
    """
    body: dict[str, Any] = {
        "messaging_product": "whatsapp",
        "recipient_type": "individual",
        **_recipient(post),
        "biz_opaque_callback_data": post.key,
    }
    if post.template is not None:
        return body | {"type": "template", "template": graph.template_of(post.template)}
    text = helpdesk.fitting(post, VENDOR, TEXT_MAX)
    body |= {"type": "text", "text": {"body": text, "preview_url": False}}
    if not post.is_automatic and _MESSAGE.fullmatch(post.answers):
        body["context"] = {"message_id": post.answers}
    return body


async def send(api: Api, post: Post) -> Delivered:
    """Send the notice to the person, in the chat that they have with our number.

    Raises:
        Problem: it could not be sent, and what that means.
    """
    number = helpdesk.settings_of(api, Settings).phone_number_id
    answer = await graph.call(
        api, "POST", f"{number}/messages", json=body_of(post), is_making=True, explain=_explain
    )
    made = helpdesk.made(answer, _Made)
    message = made.messages[0] if made is not None and made.messages else _Message()
    status = message.message_status or "accepted"
    is_known = status in ("accepted", "held_for_quality_assessment", "paused")
    return Delivered(status if is_known else "taken", message.id)


PROVIDER: Final = Provider(
    name="whatsapp",
    settings=Settings,
    traits=TRAITS,
    send=send,
    renew=(
        "the system user's access token (with whatsapp_business_messaging) and the app's secret, and that the"
        " business account is neither restricted nor without a payment method, and the number registered"
    ),
)
