"""Yelp: an agent's answer as the business owner's public comment on a review; for official partners of Yelp only.

Sources: Yelp's pages of the Respond to Reviews API (`POST https://partner-api.yelp.com/reviews/v1/{review_id}` with
`response_text` and `response_type` `public_comment`, the error ids, 5,000 characters, 20 comments for a location
and owner a day, no emoji) and of its token endpoint (`/token/v1`, a token of seven days with a refresh token).
Emoji are left out, and nothing but emoji.

A review has one public comment. Nothing there can be asked for a comment that was made, so an interrupted one stays
unknown and a person looks at biz.yelp.com. Everybody reads it; automatic notices would use the one comment up and
are refused, unless `automatic` allows them. An owner needs a photo at Yelp, or every comment is refused.

Believed and not confirmed: the form of a refresh (`grant_type`, `refresh_token` and the client in the form), that a
refresh token can be used again and again, what a success answers. Nothing was tried against a live account.
"""

import re
from datetime import timedelta
from typing import Any, ClassVar, Final, Self

import msgspec
from pydantic import Field, model_validator

from services.notifier.adapters import helpdesk, public
from services.notifier.adapters.provider import Answer, Api, Provider, refuse
from services.notifier.core.accounts import AccountSettings, ApiAddress, SecretReference
from services.notifier.core.delivery import Delivered, Failed, Unknown
from services.notifier.core.post import Post, Traits, Trouble

VENDOR: Final = "Yelp"
TEXT_MAX: Final = 5_000
"""Characters of a comment."""
QUOTA_PAUSE: Final = timedelta(hours=6)
"""How long we wait when a location has its 20 comments of a day."""

_EMOJI: Final = re.compile(
    "[ ]?[\U0001f000-\U0001faff\u2600-\u27bf\u2b50\u2b55\u231a\u231b\u23e9-\u23fa]"
    "[\U0001f000-\U0001faff\u2600-\u27bf\ufe0f\u200d\u20e3\U000e0020-\U000e007f]*"
)
"""Pictures, symbols that are shown as pictures, and the signs that join and colour them; with the blank before."""

_OURS: Final = frozenset(
    {
        "INVALID_TOKEN",
        "INSUFFICIENT_SCOPE",
        "R2R_COMMENTS_NOT_ALLOWED",
        "R2R_PROBLEM_WITH_USER_PHOTO",
        "R2R_UNACCEPTABLE_BIZ_USER_NAME",
        "R2R_BUSINESS_NOT_CLAIMED",
    }
)
"""Error ids about the owner, the business or our token."""


class Settings(AccountSettings):
    """A business owner's access, given to a partner of Yelp: a token, or what new ones are had with."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "client_id": "yelp-client",
        "client_secret": "env:YELP_CLIENT_SECRET",
        "refresh_token": "env:YELP_REFRESH_TOKEN",
    }

    client_id: str = Field(default="", max_length=200)
    """The partner's OAuth client."""
    client_secret: SecretReference | None = None
    """Its secret."""
    refresh_token: SecretReference | None = None
    """The refresh token that the business owner's consent gave."""
    access_token: SecretReference | None = None
    """An access token that somebody else renews (it lives seven days), in the place of the three."""
    automatic: bool = False
    """Whether an automatic notice may use up a review's one comment."""
    api_url: ApiAddress = "https://partner-api.yelp.com"
    """The partner API's address."""

    @model_validator(mode="after")
    def _can_log_in(self) -> Self:  # noqa: N804 - an "after" validator gets the model itself
        has_client = bool(self.client_id) and None not in (self.client_secret, self.refresh_token)
        if not has_client and self.access_token is None:
            raise ValueError("needs client_id, client_secret and refresh_token, or access_token")
        return self


TRAITS: Final = Traits(
    channels=frozenset({"yelp"}),
    form="text",
    addressing="thread",
    is_public=True,
    text_max=TEXT_MAX,
    per_message=1,
)


class _Error(msgspec.Struct, frozen=True):
    id: str = ""


class _Refusal(msgspec.Struct, frozen=True):
    error: _Error


def _explain(answer: Answer) -> Failed | Unknown | None:
    """Return what a refusal means, by its id; nearly all of them come with 400."""
    try:
        name = msgspec.convert(answer.body, _Refusal, strict=False).error.id
    except msgspec.ValidationError:
        name = ""
    if name in _OURS:
        return Failed(f"{VENDOR}: {name}", True, None, Trouble.ACCOUNT)
    if name == "R2R_COMMENT_QUOTA_EXCEEDED":
        return Failed(f"{VENDOR}: {name}", True, QUOTA_PAUSE, Trouble.PROVIDER)
    if name == "R2R_REVIEW_DOES_NOT_EXIST" or (answer.status in (404, 410) and not name):
        return helpdesk.over(f"{VENDOR}: the review is gone")
    if name.startswith("R2R_") and name.isascii() and len(name) <= 60 and answer.status < 500:
        return Failed(f"{VENDOR}: {name}", False, None, Trouble.MESSAGE)
    return None


async def _login(api: Api) -> dict[str, str]:
    settings = helpdesk.settings_of(api, Settings)
    if settings.access_token is not None:
        return helpdesk.bearer(api.secret("access_token"))
    form = helpdesk.refresh_form(api, settings.client_id)
    return helpdesk.bearer(await api.token(f"{settings.api_url}/token/v1", form))


def without_emoji(text: str) -> str:
    """Return a text without emoji and what joins them; its words stay as they are."""
    return _EMOJI.sub("", text)


async def send(api: Api, post: Post) -> Delivered:
    """Comment on the review in the owner's name.

    Raises:
        Problem: it could not be written, and what that means.
    """
    settings = helpdesk.settings_of(api, Settings)
    public.check_only_answer(post, VENDOR, automatic=settings.automatic)
    text = without_emoji(helpdesk.fitting(post, VENDOR, TEXT_MAX))
    if not text.strip():
        refuse(Trouble.MESSAGE, f"{VENDOR}: there are no words to send, and emoji are not taken")
    review = public.review_of(post, VENDOR)
    await api.call(
        "POST",
        f"{settings.api_url}/reviews/v1/{review}",
        is_making=True,
        json={"response_text": text, "response_type": "public_comment"},
        headers=await _login(api),
        explain=_explain,
        reads_answer=False,
    )
    return public.replied(post, "taken")


PROVIDER: Final = Provider(
    name="yelp",
    settings=Settings,
    traits=TRAITS,
    send=send,
    renew=(
        "the business owner's consent (a new refresh token or access token), and at biz.yelp.com the owner's"
        " photo and name and the claim on the business"
    ),
)
