"""HubSpot: a notice as a message in the customer's conversation, by the channel that they wrote by.

Sources: HubSpot's reference of the conversations API: sending a message to a thread (`POST …/threads/{id}/messages` with
`type`, `text`, `senderActorId`, `channelId`, `channelAccountId` and `recipients`; 201), reading one message, listing a
thread's messages, a message's `client`, `truncationStatus` and `original-content`; on OAuth (a refresh token) and on error
categories. The channel, its account and the recipient are those of the customer's last message, so an answer takes the way
that it came by. There is no idempotency key and nothing of ours stays with a message: an interrupted send is looked up by
its words among the outgoing messages of our actor.

Believed and not confirmed: that `senderActorId` has to be an agent (`A-<user id>`), that the list of messages takes
`sort=-createdAt` (its pages are all read where it does not), that a plain chat shows `text` where `richText` is given. The
API is in beta, by HubSpot's own word. Nothing was tried against a live account.
"""

from typing import Any, ClassVar, Final, Self

import msgspec
from pydantic import Field, model_validator

from services.notifier.adapters import helpdesk
from services.notifier.adapters.provider import Answer, Api, Problem, Provider, refuse, unknown
from services.notifier.core.accounts import AccountSettings, ApiAddress, SecretReference
from services.notifier.core.delivery import Delivered, Failed, Unknown
from services.notifier.core.post import Post, Traits, Trouble

VENDOR: Final = "HubSpot"
MESSAGES_PAGE: Final = 100
"""Messages asked for at once."""
PAGES_MAX: Final = 5

_OF_ACCOUNT: Final = ("senderActorId", "channelAccountId")
"""Fields of a message that come out of the account's settings; HubSpot's words about a wrong one name it."""


class Settings(AccountSettings):
    """A HubSpot account: a private app's token, or a public app's client with a refresh token."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "access_token": "env:HUBSPOT_TOKEN",
        "sender_actor_id": "A-1234567",
    }

    url: ApiAddress = "https://api.hubapi.com"
    """The API's address."""
    access_token: SecretReference | None = None
    """A private app's access token, with the scopes `conversations.read` and `conversations.write`."""
    client_id: str = ""
    """The public app's client id, where there is no private app."""
    client_secret: SecretReference | None = None
    """That app's client secret."""
    refresh_token: SecretReference | None = None
    """The refresh token that the account gave the app."""
    sender_actor_id: str = Field(pattern=r"^A-[0-9]{1,20}$")
    """The agent in whose name notices are written, `A-` and the user's id; it stands in the channel's `own_ids`."""

    @model_validator(mode="after")
    def _can_log_in(self) -> Self:  # noqa: N804 - an "after" validator gets the model itself
        client = (self.client_id, self.client_secret, self.refresh_token)
        if self.access_token is None and not all(client):
            raise ValueError("needs access_token, or client_id, client_secret and refresh_token")
        return self


TRAITS: Final = Traits(
    channels=frozenset({"hubspot"}),
    form="html",
    addressing="thread",
    can_find=True,
    text_max=helpdesk.TEXT_MAX,
)


class _Identifier(msgspec.Struct, frozen=True):
    type: str | None = None
    value: str | None = None


class _Actor(msgspec.Struct, frozen=True, rename="camel"):
    actor_id: str | None = None
    delivery_identifier: _Identifier | None = None


class _Status(msgspec.Struct, frozen=True, rename="camel"):
    status_type: str | None = None


class _Message(msgspec.Struct, frozen=True, rename="camel"):
    id: str | int | None = None
    type: str | None = None
    direction: str | None = None
    created_at: str | int | None = None
    created_by: str | None = None
    senders: tuple[_Actor, ...] | None = None
    text: str | None = None
    subject: str | None = None
    channel_id: str | int | None = None
    channel_account_id: str | int | None = None
    truncation_status: str | None = None
    status: _Status | None = None


class _Next(msgspec.Struct, frozen=True):
    after: str | None = None


class _Paging(msgspec.Struct, frozen=True):
    next: _Next | None = None


class _Page(msgspec.Struct, frozen=True):
    results: tuple[_Message, ...]
    paging: _Paging | None = None

    @property
    def after(self) -> str:
        """Where the next page begins; empty where this is the last."""
        following = self.paging.next if self.paging is not None else None
        return (following.after if following is not None else None) or ""


class _Original(msgspec.Struct, frozen=True):
    text: str | None = None


async def _login(api: Api) -> dict[str, str]:
    settings = helpdesk.settings_of(api, Settings)
    if settings.access_token is not None:
        return helpdesk.bearer(api.secret("access_token"))
    form = helpdesk.refresh_form(api, settings.client_id)
    return helpdesk.bearer(await api.token(f"{settings.url}/oauth/v1/token", form))


def _explain(answer: Answer) -> Failed | Unknown | None:
    """Return what a refusal means, by HubSpot's category, and by the field that it names."""
    body = answer.body if isinstance(answer.body, dict) else {}
    if answer.status in (404, 410) or body.get("category") == "OBJECT_NOT_FOUND":
        return helpdesk.over(f"{VENDOR}: the conversation is gone")
    if answer.status == 400:
        # Only what it names is looked at, and none of its words kept: they may quote the message.
        said = str(body.get("message", ""))
        named = next((field for field in _OF_ACCOUNT if field in said), None)
        if named is not None:
            reason = f"{VENDOR}: {named} is not taken"
            return Failed(reason, is_recoverable=True, trouble=Trouble.ACCOUNT)
    return None


def _thread(api: Api, post: Post) -> str:
    number = helpdesk.number_of(post, VENDOR, "conversation")
    url = helpdesk.settings_of(api, Settings).url
    return f"{url}/conversations/v3/conversations/threads/{number}/messages"


async def _page(api: Api, url: str, after: str, headers: dict[str, str]) -> _Page:
    params = {"limit": str(MESSAGES_PAGE), "sort": "-createdAt"}
    if after:
        params["after"] = after
    answer = await api.call("GET", url, params=params, headers=headers, explain=_explain)
    return helpdesk.shaped(answer, _Page, VENDOR)


async def _answered(api: Api, url: str, post: Post, headers: dict[str, str]) -> _Message:
    """Return the message that is answered: the customer's last one, or the newest that came in."""
    if post.answers:
        place = f"{url}/{helpdesk.segment(post.answers)}"
        answer = await api.call("GET", place, headers=headers, explain=_explain)
        return helpdesk.shaped(answer, _Message, VENDOR)
    page = await _page(api, url, "", headers)
    incoming = [
        one for one in page.results if one.type == "MESSAGE" and one.direction == "INCOMING"
    ]
    if not incoming:
        refuse(Trouble.MESSAGE, f"{VENDOR}: the conversation has no message to answer")
    return max(incoming, key=lambda one: str(one.created_at or ""))


async def send(api: Api, post: Post) -> Delivered:
    """Write the notice into the customer's conversation.

    Raises:
        Problem: it could not be written, and what that means.
    """
    settings = helpdesk.settings_of(api, Settings)
    url, text = _thread(api, post), helpdesk.fitting(post, VENDOR)
    headers = await _login(api)
    answered = await _answered(api, url, post, headers)
    sender = next(iter(answered.senders or ()), _Actor())
    way = sender.delivery_identifier or _Identifier()
    channel = helpdesk.id_of(answered.channel_id)
    account = helpdesk.id_of(answered.channel_account_id)
    if not (way.type and way.value and channel and account):
        raise Problem(helpdesk.over(f"{VENDOR}: it is not told where the customer can be answered"))
    message: dict[str, Any] = {
        "type": "MESSAGE",
        "text": text,
        "richText": helpdesk.html_of(text),
        "senderActorId": settings.sender_actor_id,
        "channelId": channel,
        "channelAccountId": account,
        "recipients": [
            {
                "recipientField": "TO",
                "deliveryIdentifiers": [{"type": way.type, "value": way.value}],
            }
        ],
    }
    if way.type == "HS_EMAIL_ADDRESS":
        message["subject"] = helpdesk.answer_subject(answered.subject or "", post.subject)
    answer = await api.call(
        "POST", url, is_making=True, json=message, headers=headers, explain=_explain
    )
    return helpdesk.taken(answer, _Message, lambda made: made.id)


async def find(api: Api, post: Post) -> Delivered | None:
    """Look for the notice among the outgoing messages of our actor.

    Raises:
        Problem: it could not be told.
    """
    settings = helpdesk.settings_of(api, Settings)
    url, headers = _thread(api, post), await _login(api)
    after = ""
    for _ in range(PAGES_MAX):
        page = await _page(api, url, after, headers)
        if not page.results and not after:
            raise helpdesk.not_shown(VENDOR)
        written = [
            await _written(api, url, one, headers)
            for one in page.results
            if _is_ours(one, settings) and not helpdesk.is_before(_at(one), post)
        ]
        found = helpdesk.sought(post, written, VENDOR)
        if found is not None and found.message_id in _failed(page):
            unknown(f"{VENDOR}: it was taken and could not be sent")
        after = page.after
        if found is not None or not after:
            return found
        if helpdesk.is_done([one.created_at for one in page.results], post):
            return None
    raise helpdesk.not_told(VENDOR)


def _is_ours(message: _Message, settings: Settings) -> bool:
    actors = {actor.actor_id for actor in message.senders or ()} | {message.created_by}
    is_sent = message.type == "MESSAGE" and message.direction == "OUTGOING"
    return is_sent and settings.sender_actor_id in actors


def _failed(page: _Page) -> set[str]:
    """Return the ids of messages that HubSpot could not send."""
    return {
        helpdesk.id_of(one.id)
        for one in page.results
        if one.status is not None and one.status.status_type == "FAILED"
    }


def _at(message: _Message) -> Any:
    return helpdesk.instant(message.created_at)


async def _written(
    api: Api, url: str, message: _Message, headers: dict[str, str]
) -> helpdesk.Written:
    """Return a message of ours with its whole text, which HubSpot shows on its own where it is long."""
    number, text = helpdesk.id_of(message.id), message.text or ""
    if (message.truncation_status or "NOT_TRUNCATED") != "NOT_TRUNCATED":
        place = f"{url}/{helpdesk.segment(number)}/original-content"
        answer = await api.call("GET", place, headers=headers, explain=_explain)
        text = helpdesk.shaped(answer, _Original, VENDOR).text or text
    return helpdesk.Written(number, _at(message), text, is_html=False)


PROVIDER: Final = Provider(
    name="hubspot",
    settings=Settings,
    traits=TRAITS,
    send=send,
    find=find,
    renew=(
        "the private app's access token (Settings, Integrations, Private apps) or the app's refresh token, its scopes"
        " conversations.read and conversations.write, and that the agent of sender_actor_id exists"
    ),
)
