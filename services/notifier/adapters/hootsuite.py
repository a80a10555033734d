"""Hootsuite Inbox 2.0: a notice as our virtual agent's message in a conversation that is assigned to it.

Sources: Hootsuite's Inbox 2.0 API (`POST /inbox/v1/virtual-agent/conversations/{id}` with `sendMessage`, 404 once
the conversation is no longer ours, limits, no idempotency keys). The token by the grant `organization_app` with the
client's id and secret is what others' programs do.

Nothing can be looked up there and no id comes back: an interrupted send stays unknown, and a person decides.
Believed and not confirmed: 2000 characters to a message (the strictest network behind the inbox that we know of).
The conversation is left open: a notice hands nothing over and resolves nothing. Nothing was tried against a live
account.
"""

from datetime import timedelta
from typing import Any, ClassVar, Final

from pydantic import Field

from services.notifier.adapters import helpdesk
from services.notifier.adapters.provider import Answer, Api, Provider, refuse
from services.notifier.core.accounts import AccountSettings, ApiAddress, SecretReference
from services.notifier.core.delivery import Delivered, Failed, Unknown
from services.notifier.core.post import Post, Traits, Trouble

VENDOR: Final = "Hootsuite"
TEXT_MAX: Final = 2_000
"""Characters of a message (believed)."""
ID_MAX: Final = 200
THROTTLED: Final = timedelta(seconds=30)
"""How long we wait after 429, which comes without a time. The limits are 20 calls a second and 100,000 a day."""
CONTACT_WINDOW: Final = timedelta(hours=23)
"""The longest a contact may stay silent before Hootsuite takes the conversation from our virtual agent."""


class Settings(AccountSettings):
    """A Hootsuite organisation with Inbox 2.0."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "client_id": "9f1c2d3e",
        "client_secret": "env:HOOTSUITE_CLIENT_SECRET",
        "organization_id": "1234567",
    }

    client_id: str = Field(min_length=1, max_length=200)
    """The REST client's id."""
    client_secret: SecretReference
    """Its secret."""
    organization_id: str = Field(pattern=r"^[0-9A-Za-z-]{1,64}$")
    """The organisation for which the client acts."""
    api_url: ApiAddress = "https://platform.hootsuite.com"
    """The API's address."""


TRAITS: Final = Traits(
    channels=frozenset({"hootsuite"}),
    form="text",
    addressing="thread",
    text_max=TEXT_MAX,
    window=CONTACT_WINDOW,
)


def _explain(answer: Answer) -> Failed | Unknown | None:
    if answer.status in (404, 410):
        return helpdesk.over(f"{VENDOR}: the conversation is not our virtual agent's any more")
    if answer.status == 429 and not answer.headers.get("retry-after"):
        return Failed(f"{VENDOR}: too many calls", True, THROTTLED, Trouble.PROVIDER)
    return None


async def send(api: Api, post: Post) -> Delivered:
    """Send the notice in the customer's conversation.

    Raises:
        Problem: it could not be sent, and what that means.
    """
    settings = helpdesk.settings_of(api, Settings)
    text = helpdesk.fitting(post, VENDOR, TEXT_MAX)
    if not 0 < len(post.thread) <= ID_MAX:
        refuse(Trouble.MESSAGE, f"{VENDOR}: the conversation to answer in is not known")
    token = await api.token(
        f"{settings.api_url}/oauth2/token",
        {"grant_type": "organization_app", "organization_id": settings.organization_id},
        basic=(settings.client_id, api.secret("client_secret")),
    )
    conversation = helpdesk.segment(post.thread)
    await api.call(
        "POST",
        f"{settings.api_url}/inbox/v1/virtual-agent/conversations/{conversation}",
        is_making=True,
        json={"sendMessage": {"text": text}},
        headers=helpdesk.bearer(token),
        explain=_explain,
        reads_answer=False,
    )
    return Delivered("taken")


PROVIDER: Final = Provider(
    name="hootsuite",
    settings=Settings,
    traits=TRAITS,
    send=send,
    renew=(
        "the REST client's secret, and that the client still acts for the organisation and the organisation still"
        " has Advanced Inbox"
    ),
)
