"""Facebook Messenger: a notice as a message from the Page to a person, by the Send API; later as an approved template.

Sources: Messenger Platform, Send API (`POST /{page-id}/messages`, `messaging_type`, the 24 hours, `metadata` that
comes back in echoes), Human Agent tag (seven days, for answers of people, after a review of the app), Utility
messages (`messaging_type` UTILITY, templates of the Page's own library, permission `page_utility_messaging`),
Conversations API (look-up by the person's id; the words of the newest 20 messages), common error codes.

There is no idempotency key. An interrupted send is looked up in the conversation; that of a template cannot be, for
its words are Meta's, and is for a person. 2000 characters to a text are believed, not found in Meta's pages; a
longer text is refused and never cut: half an answer is worse than one that comes back to its writer. A template
carries no `metadata`: Meta's page shows none beside it, so its echo is known by the app's id alone. Believed and not
confirmed: that its values take no line breaks, as WhatsApp's do not, and what its refusals come with. Nothing was
tried against a live account.
"""

from typing import Any, ClassVar, Final

from pydantic import Field

from services.notifier.adapters import graph, helpdesk
from services.notifier.adapters.provider import Api, Problem, Provider
from services.notifier.core.delivery import Delivered, Failed
from services.notifier.core.post import Post, Traits, Trouble

VENDOR: Final = "Messenger"
TEXT_MAX: Final = 2_000
"""Characters of a text (believed)."""


class Settings(graph.GraphSettings):
    """A Page's Messenger."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "access_token": "env:META_PAGE_TOKEN",
        "app_secret": "env:META_APP_SECRET",
        "page_id": "1029384756",
    }

    page_id: str = Field(pattern=r"^[0-9]{1,40}$")
    """The Page's id."""
    human_agent: bool = False
    """Whether the app has Meta's Human Agent feature: a person's answer may then go up to seven days later."""
    metadata_prefix: str = Field(default="signalbox", max_length=100)
    """What our messages are marked with; the same as the channel's. Empty: they are not marked."""


TRAITS: Final = Traits(
    channels=frozenset({"messenger"}),
    form="text",
    addressing="address",
    can_find=True,
    text_max=TEXT_MAX,
    window=graph.WINDOW,
    answer_window=graph.ANSWER_WINDOW,
    has_templates=True,
)


async def send(api: Api, post: Post) -> Delivered:
    """Send the notice to the person, in the chat that they have with the Page: its template where it has one, else its text.

    Raises:
        Problem: it could not be sent, and what that means.
    """
    settings = helpdesk.settings_of(api, Settings)
    path = f"{settings.page_id}/messages"
    if post.template is not None:
        utility = {
            "recipient": {"id": graph.number(post.to, VENDOR, "the person")},
            "messaging_type": "UTILITY",
            "message": {"template": graph.template_of(post.template)},
        }
        answer = await graph.call(api, "POST", path, json=utility, is_making=True)
        return helpdesk.taken(answer, graph.Made, lambda made: made.message_id)
    text = helpdesk.fitting(post, VENDOR, TEXT_MAX)
    body = graph.direct(post, text, settings.metadata_prefix, VENDOR)
    return await send_direct(
        api, post, path, {"messaging_type": "RESPONSE", **body}, body, settings.human_agent
    )


async def send_direct(
    api: Api,
    post: Post,
    path: str,
    first: dict[str, Any],
    tagged: dict[str, Any],
    has_human_agent: bool,
) -> Delivered:
    """Send a direct message; a person's answer whose 24 hours are over once more with the Human Agent tag, where we have it.

    Raises:
        Problem: it could not be sent, and what that means.
    """
    try:
        answer = await graph.call(api, "POST", path, json=first, is_making=True)
    except Problem as problem:
        outcome = problem.outcome
        is_over = isinstance(outcome, Failed) and outcome.trouble is Trouble.WINDOW
        if not is_over or not has_human_agent or post.is_automatic:
            raise
        late = {"messaging_type": "MESSAGE_TAG", "tag": "HUMAN_AGENT", **tagged}
        answer = await graph.call(api, "POST", path, json=late, is_making=True)
    return helpdesk.taken(answer, graph.Made, lambda made: made.message_id)


async def find(api: Api, post: Post) -> Delivered | None:
    """Look for the notice in the person's conversation with the Page.

    Raises:
        Problem: it could not be told.
    """
    if post.template is not None:
        raise helpdesk.not_told(VENDOR, "a template's words are Meta's, and are not known again")
    page = helpdesk.settings_of(api, Settings).page_id
    return await graph.find_direct(
        api, post, sender=page, own=frozenset({page}), platform="messenger", vendor=VENDOR
    )


PROVIDER: Final = Provider(
    name="messenger",
    settings=Settings,
    traits=TRAITS,
    send=send,
    find=find,
    renew=(
        "the Page's access token (with pages_messaging, for templates page_utility_messaging as well, made by"
        " somebody who may message for the Page) and the app's secret, and that Meta has not restricted the Page or the app"
    ),
)
