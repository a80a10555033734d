"""Trustpilot: the one reply to a service review, looked at before and after."""

from services.notifier.adapters import trustpilot
from services.notifier.core.post import Trouble
from tests.contract.providers import ProviderCase, VendorError, a_post
from tests.fakes import desk
from tests.fakes.trustpilot import Trustpilot

REVIEW = "53bf00000000000000000001"


def unit() -> Trustpilot:
    """A business unit with one review."""
    fake = Trustpilot(business_users={"ada-at-trustpilot"})
    fake.write(REVIEW, "Two weeks late.", "2026-11-23T10:00:00.000Z")
    return fake


CASE = ProviderCase(
    provider=trustpilot.PROVIDER,
    settings=trustpilot.Settings(
        api_key="api-key",
        api_secret="env:SECRET",
        business_user_id="ada-at-trustpilot",
        api_url=desk.BASE,
    ),
    secrets={"env:SECRET": "api-secret"},
    fake=unit,
    post=a_post(trustpilot.PROVIDER, to=f"c-{REVIEW}", thread=REVIEW, answers=REVIEW, subject=""),
    has_tokens=True,
    is_quiet=True,
    errors=(VendorError(404, "{}", Trouble.WINDOW),),
)
