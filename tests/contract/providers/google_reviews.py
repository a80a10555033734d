"""Google: the one reply to a review, looked at before and after."""

from services.notifier.adapters import google_reviews
from services.notifier.core.post import Trouble
from tests.contract.providers import ProviderCase, VendorError, a_post
from tests.fakes import desk
from tests.fakes.google_reviews import GoogleReviews

PLACES = ("accounts/1/locations/3", "accounts/1/locations/2")


def places() -> GoogleReviews:
    """Two places, the second with one review."""
    fake = GoogleReviews()
    fake.write(f"{PLACES[1]}/reviews/Ab1", "Lamba kırık geldi.", "2026-11-23T10:00:00Z")
    return fake


CASE = ProviderCase(
    provider=google_reviews.PROVIDER,
    settings=google_reviews.Settings(
        client_id="client",
        client_secret="env:SECRET",
        refresh_token="env:REFRESH",
        locations=PLACES,
        api_url=desk.BASE,
        token_url=f"{desk.BASE}/token",
    ),
    secrets={"env:SECRET": "client-secret", "env:REFRESH": "refresh-token"},
    fake=places,
    post=a_post(google_reviews.PROVIDER, to="Ab1", thread="Ab1", answers="Ab1", subject=""),
    has_tokens=True,
    is_quiet=True,
    errors=(
        VendorError(400, '{"error": {"status": "FAILED_PRECONDITION"}}', Trouble.MESSAGE),
        VendorError(404, '{"error": {"status": "NOT_FOUND"}}', Trouble.WINDOW),
    ),
)
