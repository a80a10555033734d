"""Yelp: the owner's one public comment on a review; how a token is had is shown in `test_provider_social.py`."""

from services.notifier.adapters import yelp
from services.notifier.core.post import Trouble
from tests.contract.providers import ProviderCase, VendorError, a_post
from tests.fakes import desk
from tests.fakes.yelp import YelpPartner

REVIEW = "Rv00000000000000000001"


def said(name: str) -> str:
    """Return a refusal's body."""
    return f'{{"error": {{"id": "{name}", "description": "no", "http_code": 400}}}}'


CASE = ProviderCase(
    provider=yelp.PROVIDER,
    settings=yelp.Settings(access_token="env:TOKEN", api_url=desk.BASE),
    secrets={"env:TOKEN": "yelp-access"},
    fake=lambda: YelpPartner(comments={REVIEW: ""}),
    post=a_post(
        yelp.PROVIDER, to="Us0000000000000000001", thread=REVIEW, answers=REVIEW, subject=""
    ),
    is_quiet=True,
    words=lambda post: yelp.without_emoji(post.text),
    errors=(
        VendorError(401, said("INVALID_TOKEN"), Trouble.ACCOUNT, is_recoverable=True),
        VendorError(400, said("R2R_PROBLEM_WITH_USER_PHOTO"), Trouble.ACCOUNT, is_recoverable=True),
        VendorError(400, said("R2R_COMMENTS_NOT_ALLOWED"), Trouble.ACCOUNT, is_recoverable=True),
        VendorError(400, said("R2R_COMMENT_QUOTA_EXCEEDED"), Trouble.PROVIDER, is_recoverable=True),
        VendorError(400, said("R2R_REVIEW_DOES_NOT_EXIST"), Trouble.WINDOW),
        VendorError(404, "", Trouble.WINDOW),
        VendorError(400, said("R2R_INVALID_RESPONSE_TEXT"), Trouble.MESSAGE),
        VendorError(400, said("R2R_PERMISSION_DENIED"), Trouble.MESSAGE),
    ),
)
