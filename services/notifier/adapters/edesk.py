"""eDesk: a notice as an outgoing message in the customer's ticket, handed on to the marketplace or shop it came from.

Sources: eDesk's OpenAPI reference on creating a message (`POST /messages` with `ticket_id`, `type` and `body`; nothing leaves
without `send`), on reading tickets (`messages_ids`) and messages, on error codes (4001 to 4022, by field, under
`error.details`) and on the rate limit (60 calls a minute; 429 tells no time). There is no idempotency key and no call that
lists a ticket's messages: an interrupted send is looked up by its words among the ticket's newest messages, one call each.

The text goes plain: what marketplaces let through of HTML differs. Each of them has a limit of its own to a message's
length, which eDesk knows and its API does not tell beforehand (4020).

Not known: whether what is sent reaches every marketplace (the reference speaks of e-mail), how messages of an API token are
signed (`from_user`). Nothing was tried against a live account.
"""

from typing import Annotated, Any, ClassVar, Final, Literal

import msgspec
from pydantic import Field

from services.notifier.adapters import helpdesk
from services.notifier.adapters.provider import Answer, Api, Problem, Provider, later
from services.notifier.core.accounts import AccountSettings, ApiAddress, SecretReference
from services.notifier.core.delivery import Delivered, Failed, Unknown
from services.notifier.core.post import Post, Traits, Trouble

VENDOR: Final = "eDesk"
TEXT_MAX: Final = 10_000
"""Characters of a message (an own bound; marketplaces allow less, and eDesk refuses what is too long for one)."""
LOOKED_AT_MAX: Final = 12
"""Messages that a look-up reads, the newest: each costs a call out of 60 a minute."""
OLD_IN_A_ROW: Final = 2
"""Messages older than the notice that end a look-up: ids of different types do not grow together."""

NOT_FOUND: Final = 4002
NOT_ALLOWED: Final = 4004
WRONG_CHANNEL: Final = frozenset({4013, 4015})
TOO_LONG: Final = 4020


class Settings(AccountSettings):
    """An eDesk account."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "api_token": "env:EDESK_API_TOKEN",
        "user_id": "4711",
        "answered_channels": ["12", "13"],
    }

    url: ApiAddress = "https://api.edesk.com/v1"
    """The API's address, with its version."""
    api_token: SecretReference
    """An API token from eDesk's settings."""
    answered_channels: Annotated[tuple[str, ...], Field(min_length=1)] | Literal["all"]
    """The ids of eDesk channels whose tickets are answered, or `all` where nobody else may read the answers of any of them."""
    user_id: str = Field(default="", pattern=r"^[0-9]{0,20}$")
    """The user that messages of the token are shown under, where eDesk shows one; it stands in the channel's `own_ids`."""


TRAITS: Final = Traits(
    channels=frozenset({"edesk"}),
    form="html",
    addressing="thread",
    can_find=True,
    text_max=TEXT_MAX,
)


class _Message(msgspec.Struct, frozen=True):
    id: str | int | None = None
    type: str | None = None
    direction: str | None = None
    body: str | None = None
    created_at: str | int | None = None
    from_user: Any = None

    @property
    def user_id(self) -> str:
        """The id of the user who wrote it: a number, a text, or an object that has one; empty where there is none."""
        user = self.from_user.get("id") if isinstance(self.from_user, dict) else self.from_user
        is_id = isinstance(user, (int, str)) and not isinstance(user, bool)
        return str(user).strip() if is_id else ""


class _MessageAnswer(msgspec.Struct, frozen=True):
    data: _Message


class _Ticket(msgspec.Struct, frozen=True):
    channel_id: str | int | None = None
    messages_ids: tuple[str | int, ...] | None = None


class _TicketAnswer(msgspec.Struct, frozen=True):
    data: _Ticket


def _codes(answer: Answer) -> set[int]:
    """Return the codes of a refusal's fields; what else it says may quote the message and is not looked at."""
    body = answer.body if isinstance(answer.body, dict) else {}
    error = body.get("error")
    details = error.get("details") if isinstance(error, dict) else None
    found: set[int] = set()
    for one in details.values() if isinstance(details, dict) else ():
        code = one.get("errorCode") if isinstance(one, dict) else None
        if isinstance(code, int):
            found.add(code)
    return found


def _explain(answer: Answer) -> Failed | Unknown | None:
    """Return what a refusal means, by eDesk's error codes."""
    if answer.status in (404, 410):
        return helpdesk.over(f"{VENDOR}: the ticket is gone")
    codes = _codes(answer)
    if answer.status != 400 or not codes:
        return None
    if NOT_FOUND in codes:
        return helpdesk.over(f"{VENDOR}: the ticket is gone ({NOT_FOUND})")
    if codes & WRONG_CHANNEL:
        code = min(codes & WRONG_CHANNEL)
        return helpdesk.over(f"{VENDOR}: the ticket's channel takes no such message ({code})")
    if NOT_ALLOWED in codes:
        reason = f"{VENDOR}: the token's user may not write in this ticket ({NOT_ALLOWED})"
        return Failed(reason, is_recoverable=True, trouble=Trouble.ACCOUNT)
    if TOO_LONG in codes:
        reason = f"{VENDOR}: the text is too long for the ticket's marketplace ({TOO_LONG})"
        return Failed(reason, is_recoverable=False, trouble=Trouble.MESSAGE)
    told = ", ".join(str(code) for code in sorted(codes))
    return Failed(f"{VENDOR}: the message is refused ({told})", is_recoverable=False)


async def send(api: Api, post: Post) -> Delivered:
    """Send the notice as a message of the customer's ticket.

    Raises:
        Problem: it could not be sent, and what that means.
    """
    settings = helpdesk.settings_of(api, Settings)
    number, text = helpdesk.number_of(post, VENDOR), helpdesk.fitting(post, VENDOR, TEXT_MAX)
    if settings.answered_channels != "all":
        channel = helpdesk.id_of((await _ticket(api, number)).channel_id)
        if channel not in settings.answered_channels:
            raise Problem(helpdesk.over(f"{VENDOR}: tickets of this channel are not answered"))
    message = {
        "ticket_id": int(number),
        "type": "Message",
        "direction": "Outgoing",
        "body": text,
        "send": True,
        "full_response": True,
    }
    answer = await api.call(
        "POST",
        f"{settings.url}/messages",
        is_making=True,
        json=message,
        headers=helpdesk.bearer(api.secret("api_token")),
        explain=_explain,
    )
    return helpdesk.taken(answer, _MessageAnswer, lambda made: _name(made.data))


async def _ticket(api: Api, number: str) -> _Ticket:
    url = f"{helpdesk.settings_of(api, Settings).url}/tickets/{number}"
    headers = helpdesk.bearer(api.secret("api_token"))
    answer = await api.call("GET", url, headers=headers, explain=_explain)
    return helpdesk.shaped(answer, _TicketAnswer, VENDOR).data


def _name(message: _Message) -> str:
    """Return a message's name: its id is its own within its type only."""
    number = helpdesk.id_of(message.id)
    return f"{message.type or 'Message'}:{number}" if number else ""


async def find(api: Api, post: Post) -> Delivered | None:
    """Look for the notice among the newest messages of the ticket.

    Raises:
        Problem: it could not be told.
    """
    settings = helpdesk.settings_of(api, Settings)
    headers = helpdesk.bearer(api.secret("api_token"))
    ticket = await _ticket(api, helpdesk.number_of(post, VENDOR))
    if not ticket.messages_ids:
        raise helpdesk.not_shown(VENDOR)
    numbers = sorted(ticket.messages_ids, key=_order, reverse=True)
    written: list[helpdesk.Written] = []
    old = 0
    for number in numbers[:LOOKED_AT_MAX]:
        message = await _message(api, helpdesk.id_of(number), headers)
        if message is None:
            continue
        if message.type is None or message.body is None:
            later(f"{VENDOR}: a message is not shown with its words")
        at = helpdesk.instant(message.created_at)
        old = old + 1 if helpdesk.is_before(at, post) else 0
        if _is_ours(message, settings):
            is_html = "</" in message.body or "<br" in message.body.lower()
            written.append(helpdesk.Written(_name(message), at, message.body, is_html))
        if old >= OLD_IN_A_ROW:
            break
    found = helpdesk.sought(post, written, VENDOR)
    if found is None and old < OLD_IN_A_ROW and len(numbers) > LOOKED_AT_MAX:
        raise helpdesk.not_told(VENDOR)
    return found


def _is_ours(message: _Message, settings: Settings) -> bool:
    is_reply = message.type == "Message" and message.direction == "Outgoing"
    return is_reply and (not settings.user_id or message.user_id in ("", settings.user_id))


def _order(number: str | int) -> tuple[int, str]:
    text = helpdesk.id_of(number)
    return (int(text), "") if text.isascii() and text.isdigit() and len(text) < 20 else (0, text)


async def _message(api: Api, number: str, headers: dict[str, str]) -> _Message | None:
    """Return one message; None where it is gone."""
    url = f"{helpdesk.settings_of(api, Settings).url}/messages/{helpdesk.segment(number)}"
    gone: list[int] = []

    def explain(answer: Answer) -> Failed | Unknown | None:
        if answer.status in (404, 410):
            gone.append(answer.status)
        return _explain(answer)

    try:
        answer = await api.call("GET", url, headers=headers, explain=explain)
    except Problem:
        if gone:
            return None
        raise
    return helpdesk.shaped(answer, _MessageAnswer, VENDOR).data


PROVIDER: Final = Provider(
    name="edesk",
    settings=Settings,
    traits=TRAITS,
    send=send,
    find=find,
    renew="the API token (Settings, API), and that its user may write in the channels' tickets",
)
