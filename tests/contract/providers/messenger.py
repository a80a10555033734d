"""Messenger: a message from the Page, looked up in the person's conversation."""

from services.notifier.adapters import messenger
from services.notifier.core.post import Trouble
from tests.contract.providers import ProviderCase, VendorError, a_post
from tests.fakes import desk
from tests.fakes.graph import Messenger


def said(code: int, subcode: int = 0) -> str:
    """Return a refusal's body."""
    more = f', "error_subcode": {subcode}' if subcode else ""
    return f'{{"error": {{"message": "no", "code": {code}{more}}}}}'


ERRORS = (
    VendorError(400, said(190), Trouble.ACCOUNT, is_recoverable=True),
    VendorError(403, said(10), Trouble.ACCOUNT, is_recoverable=True),
    VendorError(400, said(10, 1893063), Trouble.ACCOUNT, is_recoverable=True),
    VendorError(403, said(200), Trouble.ACCOUNT, is_recoverable=True),
    VendorError(400, said(10, 2018278), Trouble.WINDOW),
    VendorError(400, said(100, 2018001), Trouble.ADDRESS),
    VendorError(400, said(551, 1545041), Trouble.ADDRESS),
    VendorError(400, said(200, 1545041), Trouble.ADDRESS),
    VendorError(400, said(100, 33), Trouble.ACCOUNT, is_recoverable=True),
    VendorError(400, said(100), Trouble.MESSAGE),
    VendorError(400, said(4), Trouble.PROVIDER, is_recoverable=True),
    VendorError(400, said(613), Trouble.PROVIDER, is_recoverable=True),
    VendorError(400, said(80006), Trouble.PROVIDER, is_recoverable=True),
    VendorError(400, said(1200), Trouble.PROVIDER, is_recoverable=True),
    VendorError(400, said(2), Trouble.PROVIDER, is_unknown=True),
    VendorError(400, said(1, 1357046), Trouble.PROVIDER, is_unknown=True),
)
"""What Messenger's and Instagram's refusals mean."""


def written() -> Messenger:
    """A Page to which its customer wrote."""
    fake = Messenger()
    fake.write("7700110022", "Where is it?", is_ours=False)
    fake.messages["7700110022"][0]["created_time"] = "2026-11-24T07:00:00+0000"
    return fake


CASE = ProviderCase(
    provider=messenger.PROVIDER,
    settings=messenger.Settings(
        access_token="env:TOKEN",
        app_secret="env:SECRET",
        page_id=Messenger.page,
        api_url=desk.BASE,
    ),
    secrets={"env:TOKEN": Messenger.access_token, "env:SECRET": Messenger.app_secret},
    fake=written,
    post=a_post(messenger.PROVIDER, to="7700110022", thread="", answers="m_prev"),
    errors=ERRORS,
)
