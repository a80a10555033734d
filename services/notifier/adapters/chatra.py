"""Chatra: a notice as a message pushed into the visitor's chat.

Sources: third-party integrations that agree on it: `POST /api/pushedMessages/` with `clientId`, `text`, `agentId` and
`groupId`, and `Authorization: Chatra.Simple <public key>:<secret key>`. A visitor who is away finds the message when they
come back, or gets it by mail where they left an address and the account is set so.

No idempotency key and no way to read a chat back were found, so an interrupted send is unknown. The text's length and the
number of calls are not documented; 429 is obeyed. Chatra has no mark for automatic messages.

Believed and not confirmed: all of the above. Nothing was tried against a live account.
"""

from typing import Any, ClassVar, Final

from pydantic import Field

from services.notifier.adapters import helpdesk
from services.notifier.adapters.provider import Api, Provider, refuse
from services.notifier.core.accounts import AccountSettings, ApiAddress, SecretReference
from services.notifier.core.delivery import Delivered
from services.notifier.core.post import Post, Traits, Trouble

VENDOR: Final = "Chatra"
TEXT_MAX: Final = 5_000
"""Characters of a message (ours; Chatra names no number)."""


class Settings(AccountSettings):
    """A Chatra account: its API keys, and the agent whose messages ours are."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "public_key": "PcExample00000001",
        "secret_key": "env:CHATRA_SECRET_KEY",
        "agent_id": "agt_signalbox",
    }

    public_key: str = Field(pattern=r"^[A-Za-z0-9_-]{1,100}$")
    """The public API key (Settings, Account, API)."""
    secret_key: SecretReference
    """The secret API key beside it."""
    agent_id: str = Field(pattern=r"^[A-Za-z0-9_-]{1,100}$")
    """The agent in whose name notices are pushed; the same id stands in the channel's `own_ids`."""
    group_id: str = Field(default="", pattern=r"^[A-Za-z0-9_-]{0,100}$")
    """The group that a chat goes to where the push begins one; empty: the visitor's own."""
    url: ApiAddress = "https://app.chatra.io/api"
    """The API's address."""


TRAITS: Final = Traits(
    channels=frozenset({"chatra"}), form="text", addressing="address", text_max=TEXT_MAX
)


async def send(api: Api, post: Post) -> Delivered:
    """Push the notice into the visitor's chat.

    Raises:
        Problem: it was not taken, or nobody knows.
    """
    settings = helpdesk.settings_of(api, Settings)
    if not post.to.strip():
        refuse(Trouble.ADDRESS, f"{VENDOR}: the visitor is not known by their client id")
    body = {
        "clientId": post.to,
        "text": helpdesk.fitting(post, VENDOR, TEXT_MAX),
        "agentId": settings.agent_id,
    }
    if settings.group_id:
        body["groupId"] = settings.group_id
    keys = f"{settings.public_key}:{api.secret('secret_key')}"
    await api.call(
        "POST",
        f"{settings.url}/pushedMessages/",
        is_making=True,
        headers={"Authorization": f"Chatra.Simple {keys}"},
        json=body,
        reads_answer=False,
    )
    return Delivered("taken")


PROVIDER: Final = Provider(
    name="chatra",
    settings=Settings,
    traits=TRAITS,
    send=send,
    renew="the API keys (Settings, Account, API), and that the agent of agent_id still exists",
)
