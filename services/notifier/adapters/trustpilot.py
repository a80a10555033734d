"""Trustpilot: an agent's answer as the company's public reply to a service review.

Sources: Trustpilot's developer pages on OAuth (client credentials and others at one address), integrations for the
path and fields of a reply (`POST /v1/private/reviews/{id}/reply` with `message` and `authorBusinessUserId`) and of
a private review (`companyReply`).

A review has one reply, and sending another is believed to replace it. So it is looked at first: a reply that stands
there is not written over. An interrupted reply is looked up in the same way. Everybody reads it; automatic notices
would use the one reply up and are refused, unless `automatic` allows them. Product reviews are answered in
conversations of their own, which are not built here: they are not found, and that is said.

Believed and not confirmed: that client credentials are enough, the status of a reply that was made, 5000 characters
to one (an own bound). Nothing was tried against a live account.
"""

from typing import Any, ClassVar, Final

import msgspec
from pydantic import Field

from services.notifier.adapters import helpdesk, public
from services.notifier.adapters.provider import Answer, Api, Provider
from services.notifier.core.accounts import AccountSettings, ApiAddress, SecretReference
from services.notifier.core.delivery import Delivered, Failed, Unknown
from services.notifier.core.post import Post, Traits

VENDOR: Final = "Trustpilot"
TEXT_MAX: Final = 5_000
"""Characters of a reply (an own bound; the vendor's is not known)."""


class Settings(AccountSettings):
    """A company's application at Trustpilot."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "api_key": "abc123",
        "api_secret": "env:TRUSTPILOT_API_SECRET",
        "business_user_id": "507f191e810c19729de860ea",
    }

    api_key: str = Field(min_length=1, max_length=200)
    """The application's key."""
    api_secret: SecretReference
    """The application's secret."""
    business_user_id: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")
    """The business user in whose name replies are written."""
    automatic: bool = False
    """Whether an automatic notice may use up a review's one reply."""
    api_url: ApiAddress = "https://api.trustpilot.com"
    """The API's address."""
    token_path: str = Field(
        default="/v1/oauth/oauth-business-users-for-applications/accesstoken",
        pattern=r"^/[A-Za-z0-9/_-]{1,200}$",
    )
    """Where access tokens are had, under `api_url`."""


TRAITS: Final = Traits(
    channels=frozenset({"trustpilot"}),
    form="text",
    addressing="thread",
    can_find=True,
    is_public=True,
    text_max=TEXT_MAX,
    per_message=1,
)


class _Reply(msgspec.Struct, frozen=True):
    text: str | None = None


class _Review(msgspec.Struct, frozen=True, rename={"company_reply": "companyReply"}):
    id: str
    company_reply: _Reply | None = None

    @property
    def reply(self) -> str:
        """The words of the reply; empty where there is none."""
        return (self.company_reply.text or "") if self.company_reply is not None else ""


def _explain(answer: Answer) -> Failed | Unknown | None:
    if answer.status in (404, 410):
        reason = f"{VENDOR}: the review is gone, or is a product review (answer it at Trustpilot)"
        return helpdesk.over(reason)
    return None


def _review(api: Api, post: Post) -> str:
    """Return the review's address.

    Raises:
        Problem: it is not known.
    """
    settings = helpdesk.settings_of(api, Settings)
    return f"{settings.api_url}/v1/private/reviews/{public.review_of(post, VENDOR)}"


async def _login(api: Api) -> dict[str, str]:
    settings = helpdesk.settings_of(api, Settings)
    token = await api.token(
        f"{settings.api_url}{settings.token_path}",
        {"grant_type": "client_credentials"},
        basic=(settings.api_key, api.secret("api_secret")),
    )
    return helpdesk.bearer(token)


async def _standing(api: Api, post: Post) -> str:
    """Return the reply that stands under the review; empty where none does."""
    url = _review(api, post)
    answer = await api.call("GET", url, headers=await _login(api), explain=_explain)
    return helpdesk.shaped(answer, _Review, VENDOR).reply


async def send(api: Api, post: Post) -> Delivered:
    """Reply to the review, if it has no reply yet.

    Raises:
        Problem: it could not be written, and what that means.
    """
    settings = helpdesk.settings_of(api, Settings)
    public.check_only_answer(post, VENDOR, automatic=settings.automatic)
    text = helpdesk.fitting(post, VENDOR, TEXT_MAX)
    ours = public.standing_reply(post, await _standing(api, post), text, VENDOR)
    if ours is not None:
        return ours
    await api.call(
        "POST",
        f"{_review(api, post)}/reply",
        is_making=True,
        json={"message": text, "authorBusinessUserId": settings.business_user_id},
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
    return public.found_reply(post, await _standing(api, post))


PROVIDER: Final = Provider(
    name="trustpilot",
    settings=Settings,
    traits=TRAITS,
    send=send,
    find=find,
    renew=(
        "the application's API secret, that the plan has the API, and that the business user may answer reviews"
        " of the business unit"
    ),
)
