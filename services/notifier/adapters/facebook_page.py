"""Facebook Page comments: a notice as the Page's public comment in the customer's thread.

Sources: Meta for Developers, Graph API, edge `comments` of a comment or post (made by POST with `message`, read
with `order`), error codes. Believed and not confirmed: that `pages_manage_engagement` is the permission for it, and
8000 characters to a comment.

Everybody reads it. A comment answers the thread's first comment, under which Facebook shows all answers; a
visitor's own post is answered under the post. There is no idempotency key; an interrupted comment is looked up
among the Page's own in the thread. The private answer that Meta allows once for a comment is not sent: it leaves
the thread that the customer is in, and can be given once only. Nothing was tried against a live account.
"""

from typing import Any, ClassVar, Final

from pydantic import Field

from services.notifier.adapters import graph, helpdesk
from services.notifier.adapters.provider import Api, Provider
from services.notifier.core.delivery import Delivered
from services.notifier.core.post import Post, Traits

VENDOR: Final = "Facebook"
TEXT_MAX: Final = 8_000
"""Characters of a comment (believed)."""
PAGE_SIZE: Final = 100
"""Comments that a look-up reads, the newest."""


class Settings(graph.GraphSettings):
    """A Page whose comments are answered."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "access_token": "env:META_PAGE_TOKEN",
        "app_secret": "env:META_APP_SECRET",
        "page_id": "1029384756",
    }

    page_id: str = Field(pattern=r"^[0-9]{1,40}$")
    """The Page's id."""


TRAITS: Final = Traits(
    channels=frozenset({"facebook_page"}),
    form="text",
    addressing="thread",
    can_find=True,
    is_public=True,
    text_max=TEXT_MAX,
)


async def send(api: Api, post: Post) -> Delivered:
    """Comment in the customer's thread, in the Page's name.

    Raises:
        Problem: it could not be written, and what that means.
    """
    return await graph.comment(api, post, edge="comments", text_max=TEXT_MAX, vendor=VENDOR)


async def find(api: Api, post: Post) -> Delivered | None:
    """Look for the notice among the newest comments of the thread.

    Raises:
        Problem: it could not be told.
    """
    page_id = helpdesk.settings_of(api, Settings).page_id
    return await graph.find_comment(
        api,
        post,
        edge="comments",
        params={"fields": "id,message,created_time,from", "order": "reverse_chronological"},
        page_size=PAGE_SIZE,
        own=frozenset({page_id}),
        vendor=VENDOR,
    )


PROVIDER: Final = Provider(
    name="facebook_page",
    settings=Settings,
    traits=TRAITS,
    send=send,
    find=find,
    renew=(
        "the Page's access token (with pages_manage_engagement and pages_read_engagement) and the app's secret,"
        " and that Meta has not restricted the Page or the app"
    ),
)
