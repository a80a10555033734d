"""Google reviews: an agent's answer as the business's public reply.

Sources: Google Business Profile API (`accounts.locations.reviews.updateReply`: PUT of the review's `reply`, which
makes or replaces it, for verified locations, with the scope `business.manage`; `reviews.get`). 4096 characters to a
reply is what integrations tell.

A review has one reply. It is looked at first: a reply that stands there already is a person's word or an earlier
one of ours, and is not written over. An interrupted reply is looked up in the same way. Everybody reads it;
automatic notices would use the one reply up and are refused, unless `automatic` allows them. Google may take a
reply down by its rules afterwards. Believed and not confirmed: that it changes nothing but blanks in a reply's
words. Nothing was tried against a live account.
"""

from typing import Annotated, Any, ClassVar, Final

import msgspec
from pydantic import Field, StringConstraints

from services.notifier.adapters import helpdesk, public
from services.notifier.adapters.provider import Answer, Api, Problem, Provider
from services.notifier.core.accounts import AccountSettings, ApiAddress, SecretReference
from services.notifier.core.delivery import Delivered, Failed, Unknown
from services.notifier.core.post import Post, Traits, Trouble

VENDOR: Final = "Google"
TEXT_MAX: Final = 4_096
"""Characters of a reply (integrations)."""

Location = Annotated[
    str,
    StringConstraints(pattern=r"^accounts/[A-Za-z0-9_-]{1,100}/locations/[A-Za-z0-9_-]{1,100}$"),
]


class Settings(AccountSettings):
    """Places at Google, and somebody who manages them."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "client_id": "1234-abc.apps.googleusercontent.com",
        "client_secret": "env:GOOGLE_CLIENT_SECRET",
        "refresh_token": "env:GOOGLE_REFRESH_TOKEN",
        "locations": ["accounts/1/locations/2"],
    }

    client_id: str = Field(min_length=1, max_length=300)
    """The OAuth client."""
    client_secret: SecretReference
    """The OAuth client's secret."""
    refresh_token: SecretReference
    """The refresh token of somebody who manages the places, for the scope `business.manage`."""
    locations: tuple[Location, ...] = Field(min_length=1, max_length=100)
    """The places. A review's id does not tell its place, so it is looked for in each of them, in this order."""
    automatic: bool = False
    """Whether an automatic notice may use up a review's one reply."""
    api_url: ApiAddress = "https://mybusiness.googleapis.com"
    """The API's address."""
    token_url: ApiAddress = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address
    """Where access tokens are had."""


TRAITS: Final = Traits(
    channels=frozenset({"google_reviews"}),
    form="text",
    addressing="thread",
    can_find=True,
    is_public=True,
    text_max=TEXT_MAX,
    per_message=1,
)


class _Reply(msgspec.Struct, frozen=True):
    comment: str | None = None


class _Review(
    msgspec.Struct, frozen=True, rename={"review_id": "reviewId", "review_reply": "reviewReply"}
):
    review_id: str
    review_reply: _Reply | None = None

    @property
    def reply(self) -> str:
        """The words of the reply; empty where there is none."""
        return (self.review_reply.comment or "") if self.review_reply is not None else ""


def _explain(answer: Answer) -> Failed | Unknown | None:
    if answer.status in (404, 410):
        return helpdesk.over(f"{VENDOR}: the review is gone")
    return None


async def _login(api: Api) -> dict[str, str]:
    settings = helpdesk.settings_of(api, Settings)
    form = helpdesk.refresh_form(api, settings.client_id)
    return helpdesk.bearer(await api.token(settings.token_url, form))


async def _look(api: Api, post: Post) -> tuple[str, str]:
    """Return a review's whole name, and the reply that stands there.

    Raises:
        Problem: it is in none of the places, or could not be looked at.
    """
    settings = helpdesk.settings_of(api, Settings)
    review, headers = public.review_of(post, VENDOR), await _login(api)
    found: tuple[str, str] | None = None
    for location in settings.locations:
        name = f"{location}/reviews/{review}"
        try:
            answer = await api.call(
                "GET", f"{settings.api_url}/v4/{name}", headers=headers, explain=_explain
            )
        except Problem as problem:
            outcome = problem.outcome
            if isinstance(outcome, Failed) and outcome.trouble is Trouble.WINDOW:
                continue
            raise
        found = name, helpdesk.shaped(answer, _Review, VENDOR).reply
        break
    if found is None:
        raise Problem(helpdesk.over(f"{VENDOR}: the review is in none of the places, or gone"))
    return found


async def send(api: Api, post: Post) -> Delivered:
    """Reply to the review, if it has no reply yet.

    Raises:
        Problem: it could not be written, and what that means.
    """
    settings = helpdesk.settings_of(api, Settings)
    public.check_only_answer(post, VENDOR, automatic=settings.automatic)
    text = helpdesk.fitting(post, VENDOR, TEXT_MAX)
    name, standing = await _look(api, post)
    ours = public.standing_reply(post, standing, text, VENDOR)
    if ours is not None:
        return ours
    await api.call(
        "PUT",
        f"{settings.api_url}/v4/{name}/reply",
        is_making=True,
        json={"comment": text},
        headers=await _login(api),
        explain=_explain,
        reads_answer=False,
    )
    return public.replied(post, "taken")


async def find(api: Api, post: Post) -> Delivered | None:
    """Look whether the notice stands under the review.

    Raises:
        Problem: it could not be told.
    """
    _, standing = await _look(api, post)
    return public.found_reply(post, standing)


PROVIDER: Final = Provider(
    name="google_reviews",
    settings=Settings,
    traits=TRAITS,
    send=send,
    find=find,
    renew=(
        "the OAuth client's secret and the refresh token (scope business.manage, of somebody who manages the"
        " places), Google's access to the Business Profile APIs, and that the places are verified"
    ),
)
