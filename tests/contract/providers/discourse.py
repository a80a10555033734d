"""Discourse: our user's post in a topic, looked up among the topic's last."""

from services.notifier.adapters import discourse
from services.notifier.core.post import Trouble
from tests.contract.providers import ProviderCase, VendorError, a_post
from tests.fakes import desk
from tests.fakes.discourse import Discourse


def forum() -> Discourse:
    """A forum with one topic of two posts; the second, 802, is the customer's."""
    fake = Discourse()
    fake.write(77, "Has anybody got one of the new lamps?", "maria", "2026-11-23T10:00:00.000Z")
    fake.write(77, "Where is mine, please?", "ada", "2026-11-24T07:00:00.000Z")
    return fake


CASE = ProviderCase(
    provider=discourse.PROVIDER,
    settings=discourse.Settings(url=desk.BASE, api_key="env:KEY", username=Discourse.username),
    secrets={"env:KEY": Discourse.api_key},
    fake=forum,
    post=a_post(discourse.PROVIDER, to="9", thread="77", answers="802", subject=""),
    errors=(
        VendorError(404, '{"error_type": "not_found"}', Trouble.WINDOW),
        VendorError(422, '{"action": "create_post", "errors": ["short"]}', Trouble.MESSAGE),
        VendorError(
            403,
            '{"errors": ["no"], "error_type": "invalid_access"}',
            Trouble.ACCOUNT,
            is_recoverable=True,
        ),
        VendorError(
            429,
            '{"errors": ["slow"], "error_type": "rate_limit", "extras": {"wait_seconds": 12}}',
            Trouble.PROVIDER,
            is_recoverable=True,
        ),
    ),
)
