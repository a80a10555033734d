"""Instagram: a notice as a direct message, or as a public answer in a comment's thread.

Sources: Instagram Platform (messaging: `POST /{id}/messages`; comments: `POST /{comment-id}/replies` with
`message`, and the same edge to read), Messenger Platform (Send API, Human Agent tag, Conversations API), error
codes. With Instagram Login the professional account sends, at graph.instagram.com; with Facebook Login the linked
Page, at graph.facebook.com.

Where the customer's message stands decides: a comment has a thread at Instagram, a direct message has none. A post
whose thread is neither empty nor a comment's id is refused, so that words for one person never stand under a post
by mistake.

Believed and not confirmed: 1000 bytes to a direct message; `metadata` of Instagram's messages (their echoes are
known by the app's id as well); `from` of a comment's answers; 300 characters and one link to a comment, which
Instagram's former API had as its rule and no page of the present one takes back. Nothing was tried against a live
account.
"""

from typing import Any, ClassVar, Final

from pydantic import Field

from services.notifier.adapters import graph, helpdesk, messenger
from services.notifier.adapters.provider import Api, Provider, refuse
from services.notifier.core.accounts import ApiAddress
from services.notifier.core.delivery import Delivered
from services.notifier.core.post import Post, Traits, Trouble

VENDOR: Final = "Instagram"
BYTES_MAX: Final = 1_000
"""UTF-8 bytes of a direct message (believed)."""
COMMENT_MAX: Final = 300
"""Characters of a comment (the former API's rule)."""
PAGE_SIZE: Final = 50
"""Answers to a comment that a look-up reads."""


class Settings(graph.GraphSettings):
    """A professional Instagram account."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "access_token": "env:INSTAGRAM_TOKEN",
        "app_secret": "env:INSTAGRAM_APP_SECRET",
        "account_id": "17841400000000001",
    }

    account_id: str = Field(pattern=r"^[0-9]{1,40}$")
    """The professional account's id, as it stands in the channel's `page_id`."""
    page_id: str = Field(default="", pattern=r"^[0-9]{0,40}$")
    """The linked Page's id, with Facebook Login; the Page then sends, and `api_url` is https://graph.facebook.com."""
    api_url: ApiAddress = "https://graph.instagram.com"
    """The Graph API's address: this one with Instagram Login."""
    human_agent: bool = False
    """Whether the app has Meta's Human Agent feature: a person's answer may then go up to seven days later."""
    metadata_prefix: str = Field(default="signalbox", max_length=100)
    """What our messages are marked with; the same as the channel's. Empty: they are not marked."""

    @property
    def sender(self) -> str:
        """The id that sends."""
        return self.page_id or self.account_id

    @property
    def own(self) -> frozenset[str]:
        """The ids that our messages come from."""
        return frozenset({self.account_id, self.sender})


TRAITS: Final = Traits(
    channels=frozenset({"instagram"}),
    form="text",
    addressing="address",
    can_find=True,
    text_max=BYTES_MAX,
    window=graph.WINDOW,
    answer_window=graph.ANSWER_WINDOW,
    public_thread=r".+",  # A comment's thread is the one it stands in; direct messages have none.
)


async def send(api: Api, post: Post) -> Delivered:
    """Send the notice to the person, or answer in their comment's thread.

    Raises:
        Problem: it could not be sent, and what that means.
    """
    if post.thread:
        return await graph.comment(api, post, edge="replies", text_max=COMMENT_MAX, vendor=VENDOR)
    settings = helpdesk.settings_of(api, Settings)
    text = helpdesk.fitting(post, VENDOR, BYTES_MAX)
    if len(text.encode()) > BYTES_MAX:
        refuse(Trouble.MESSAGE, f"{VENDOR}: the text is longer than {BYTES_MAX} bytes")
    body = graph.direct(post, text, settings.metadata_prefix, VENDOR)
    return await messenger.send_direct(
        api, post, f"{settings.sender}/messages", body, body, settings.human_agent
    )


async def find(api: Api, post: Post) -> Delivered | None:
    """Look for the notice in the conversation, or among the answers to the comment.

    Raises:
        Problem: it could not be told.
    """
    settings = helpdesk.settings_of(api, Settings)
    if not post.thread:
        return await graph.find_direct(
            api,
            post,
            sender=settings.sender,
            own=settings.own,
            platform="instagram",
            vendor=VENDOR,
        )
    return await graph.find_comment(
        api,
        post,
        edge="replies",
        params={"fields": "id,text,timestamp,from"},
        page_size=PAGE_SIZE,
        own=settings.own,
        vendor=VENDOR,
    )


PROVIDER: Final = Provider(
    name="instagram",
    settings=Settings,
    traits=TRAITS,
    send=send,
    find=find,
    renew=(
        "the access token (with Instagram Login it lasts 60 days and is exchanged for a new one; it needs"
        " messages and comments of the account) and the app's secret, and that the account is still a professional"
        " one"
    ),
)
