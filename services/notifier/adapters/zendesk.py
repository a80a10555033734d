"""Zendesk Support: a notice as a public comment in the customer's ticket, found again by a mark of ours.

Sources: Zendesk's developer pages on updating a ticket (`PUT /api/v2/tickets/{id}.json` with a public comment, answered by
the ticket and the audit of the update), on metadata (what an update sets under `metadata` stands in the audit under
`metadata.custom`, up to a kilobyte), on ticket audits (a `Comment` event's id is the comment's), on OAuth and on rate
limits. An `Idempotency-Key` is taken where tickets are created and not where they are updated, so a comment has none: the
audit's metadata holds the notice's id instead, and an interrupted send is looked up by it, exactly.

Zendesk sends the mail itself, by its trigger "Notify requester and CCs of comment update". Tickets that came from public
places (X, Facebook pages, reviews) may carry a comment back there, so a ticket is read first and such a one is refused.

Believed and not confirmed: the names of public places in a ticket's `via.channel`, the order of the list of audits (all of its pages are read where it is not the newest first), 409
for an update that met another, the error `RecordInvalid` with a `status` detail for a closed ticket. Nothing was tried
against a live account.
"""

from typing import Any, ClassVar, Final, Literal, Self

import msgspec
from pydantic import Field, model_validator

from services.notifier.adapters import helpdesk
from services.notifier.adapters.provider import Answer, Api, Problem, Provider, later
from services.notifier.core.accounts import AccountSettings, ApiAddress, SecretReference
from services.notifier.core.delivery import Delivered, Failed, Unknown
from services.notifier.core.post import Post, Traits, Trouble

VENDOR: Final = "Zendesk"
MARK: Final = "signalbox_notice"
"""The name under which an audit's metadata holds the notice's id."""
PUBLIC: Final = (
    "twitter",
    "facebook",
    "instagram",
    "any_channel",
    "google_play",
    "youtube",
    "forum",
)
"""Where a ticket's comments may be carried back to for all to read."""
AUDITS_PAGE: Final = 100
"""Audits a page, the most there are."""
PAGES_MAX: Final = 10
"""Pages of audits that a look-up reads: a thousand changes of one ticket."""


class Settings(AccountSettings):
    """A Zendesk account: an OAuth client of it, or a user's mail address and API token."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "url": "https://lantern-oak.zendesk.com",
        "client_id": "signalbox",
        "client_secret": "env:ZENDESK_CLIENT_SECRET",
        "author_id": "361234567890",
    }

    url: ApiAddress
    """The account's address, `https://<subdomain>.zendesk.com`."""
    client_id: str = ""
    """The OAuth client's id; its scopes are `read` (audits need it whole) and `write`."""
    client_secret: SecretReference | None = None
    """The OAuth client's secret."""
    email: str = ""
    """The mail address whose API token is used, where there is no OAuth client. Zendesk is withdrawing API tokens."""
    api_token: SecretReference | None = None
    """That API token."""
    author_id: str = Field(pattern=r"^[0-9]{1,20}$")
    """The Zendesk user in whose name notices are written; the same id stands in the channel's `own_ids`."""
    answered_status: Literal["", "open", "pending", "hold", "solved"] = ""
    """The status a ticket gets with an agent's answer; empty leaves it. Automatic notices never change it."""

    public_channels: tuple[str, ...] = PUBLIC
    """The `via.channel` of tickets whose comments others may read, which are never answered here."""

    @model_validator(mode="after")
    def _can_log_in(self) -> Self:  # noqa: N804 - an "after" validator gets the model itself
        has_client = bool(self.client_id) and self.client_secret is not None
        if not has_client and not (self.email and self.api_token is not None):
            raise ValueError("needs client_id and client_secret, or email and api_token")
        return self


TRAITS: Final = Traits(
    channels=frozenset({"zendesk"}),
    form="html",
    addressing="thread",
    can_find=True,
    text_max=helpdesk.TEXT_MAX,
)


class _Via(msgspec.Struct, frozen=True):
    channel: str | int | None = None


class _Ticket(msgspec.Struct, frozen=True):
    status: str | None = None
    via: _Via | None = None


class _Shown(msgspec.Struct, frozen=True):
    ticket: _Ticket


class _Event(msgspec.Struct, frozen=True):
    id: str | int | None = None
    type: str | None = None


class _Metadata(msgspec.Struct, frozen=True):
    custom: dict[str, Any] | None = None


class _Audit(msgspec.Struct, frozen=True):
    id: str | int | None = None
    created_at: str | None = None
    metadata: _Metadata | None = None
    events: tuple[_Event, ...] = ()

    @property
    def comment_id(self) -> str:
        """The comment that came with the update; empty where none did."""
        return next((helpdesk.id_of(one.id) for one in self.events if one.type == "Comment"), "")


class _Updated(msgspec.Struct, frozen=True):
    audit: _Audit


class _Audits(msgspec.Struct, frozen=True):
    audits: tuple[_Audit, ...]
    next_page: str | None = None


_CLOSED: Final = helpdesk.over(f"{VENDOR}: the ticket is closed and takes no more comments")


async def _login(api: Api) -> dict[str, Any]:
    settings = helpdesk.settings_of(api, Settings)
    if settings.client_secret is None:
        return {"basic": (f"{settings.email}/token", api.secret("api_token"))}
    form = {
        "grant_type": "client_credentials",
        "client_id": settings.client_id,
        "client_secret": api.secret("client_secret"),
        "scope": "read write",
    }
    return {"headers": helpdesk.bearer(await api.token(f"{settings.url}/oauth/tokens", form))}


def _explain(answer: Answer) -> Failed | Unknown | None:
    """Return what a refusal means; a closed ticket takes no comments, and never will."""
    if answer.status in (404, 410):
        return helpdesk.over(f"{VENDOR}: the ticket is gone")
    if answer.status == 409:
        reason = f"{VENDOR}: the ticket was being changed"
        return Failed(reason, is_recoverable=True, trouble=Trouble.PROVIDER)
    if answer.status == 422:
        body = answer.body if isinstance(answer.body, dict) else {}
        details = body.get("details")
        named = set(details) if isinstance(details, dict) else set()
        if "status" in named:
            return _CLOSED
        if named & {"author", "author_id", "submitter"}:
            reason = f"{VENDOR}: nothing can be written in the name of author_id"
            return Failed(reason, is_recoverable=True, trouble=Trouble.ACCOUNT)
    return None


async def send(api: Api, post: Post) -> Delivered:
    """Write the notice into the customer's ticket as a public comment.

    Raises:
        Problem: it could not be written, and what that means.
    """
    settings = helpdesk.settings_of(api, Settings)
    ticket = helpdesk.number_of(post, VENDOR)
    comment = {
        "html_body": helpdesk.html_of(helpdesk.fitting(post, VENDOR)),
        "public": True,
        "author_id": int(settings.author_id),
    }
    url, login = f"{settings.url}/api/v2/tickets/{ticket}.json", await _login(api)
    answer = await api.call("GET", url, explain=_explain, **login)
    shown = helpdesk.shaped(answer, _Shown, VENDOR).ticket
    if shown.status == "closed":
        raise Problem(_CLOSED)
    if shown.via is None or shown.via.channel is None:
        later(f"{VENDOR}: the ticket is not shown with its channel, and others may read it")
    if shown.via.channel in settings.public_channels:
        raise Problem(helpdesk.over(f"{VENDOR}: others may read what is written in this ticket"))
    update: dict[str, Any] = {
        "comment": comment,
        "metadata": {MARK: post.key, "signalbox_automatic": post.is_automatic},
    }
    if settings.answered_status and not post.is_automatic:
        update["status"] = settings.answered_status
    answer = await api.call(
        "PUT", url, is_making=True, json={"ticket": update}, explain=_explain, **login
    )
    return helpdesk.taken(answer, _Updated, lambda made: made.audit.comment_id)


async def find(api: Api, post: Post) -> Delivered | None:
    """Look for the notice's id in the ticket's audits.

    Raises:
        Problem: it could not be told.
    """
    settings = helpdesk.settings_of(api, Settings)
    url = f"{settings.url}/api/v2/tickets/{helpdesk.number_of(post, VENDOR)}/audits.json"
    login = await _login(api)
    for number in range(1, PAGES_MAX + 1):
        params = {"sort_order": "desc", "per_page": str(AUDITS_PAGE), "page": str(number)}
        answer = await api.call("GET", url, params=params, explain=_explain, **login)
        page = helpdesk.shaped(answer, _Audits, VENDOR)
        if not page.audits and number == 1:
            raise helpdesk.not_shown(VENDOR)
        for audit in page.audits:
            custom = (audit.metadata.custom if audit.metadata is not None else None) or {}
            if custom.get(MARK) == post.key:
                return Delivered("found in the ticket", audit.comment_id)
        if not page.next_page or helpdesk.is_done([one.created_at for one in page.audits], post):
            return None
    raise helpdesk.not_told(VENDOR)


PROVIDER: Final = Provider(
    name="zendesk",
    settings=Settings,
    traits=TRAITS,
    send=send,
    find=find,
    renew=(
        "the OAuth client's secret (Admin Center, Apps and integrations, APIs, OAuth clients) or the API token, and that"
        " the user of author_id is an active agent"
    ),
)
