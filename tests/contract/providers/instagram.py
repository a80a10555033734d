"""Instagram: a direct message, looked up in the person's conversation; comments are shown in `test_provider_social.py`."""

from services.notifier.adapters import instagram
from tests.contract.providers import ProviderCase, a_post
from tests.contract.providers.messenger import ERRORS
from tests.fakes import desk
from tests.fakes.graph import Instagram


def written() -> Instagram:
    """An account to which its customer wrote."""
    fake = Instagram()
    fake.write("6543210", "Where is it?", is_ours=False)
    fake.messages["6543210"][0]["created_time"] = "2026-11-24T07:00:00+0000"
    return fake


CASE = ProviderCase(
    provider=instagram.PROVIDER,
    settings=instagram.Settings(
        access_token="env:TOKEN",
        app_secret="env:SECRET",
        account_id=Instagram.page,
        api_url=desk.BASE,
    ),
    secrets={"env:TOKEN": Instagram.access_token, "env:SECRET": Instagram.app_secret},
    fake=written,
    post=a_post(instagram.PROVIDER, to="6543210", thread="", answers="m_prev"),
    errors=ERRORS,
)
