"""Facebook: the Page's comment in a thread, looked up among the thread's newest."""

from services.notifier.adapters import facebook_page
from services.notifier.core.post import Trouble
from tests.contract.providers import ProviderCase, VendorError, a_post
from tests.contract.providers.messenger import said
from tests.fakes import desk
from tests.fakes.graph import Page

COMMENT = "1029384756555_777"


def page() -> Page:
    """A Page with one comment by somebody else under it."""
    fake = Page(comments={COMMENT: []})
    fake.write(COMMENT, "Me too!", "7700110033")
    return fake


CASE = ProviderCase(
    provider=facebook_page.PROVIDER,
    settings=facebook_page.Settings(
        access_token="env:TOKEN", app_secret="env:SECRET", page_id=Page.page, api_url=desk.BASE
    ),
    secrets={"env:TOKEN": Page.access_token, "env:SECRET": Page.app_secret},
    fake=page,
    post=a_post(
        facebook_page.PROVIDER, to="7700110022", thread=COMMENT, answers=COMMENT, subject=""
    ),
    errors=(
        VendorError(400, said(190), Trouble.ACCOUNT, is_recoverable=True),
        VendorError(400, said(368), Trouble.ACCOUNT, is_recoverable=True),
        VendorError(400, said(100, 33), Trouble.WINDOW),
        VendorError(400, said(32), Trouble.PROVIDER, is_recoverable=True),
        VendorError(500, said(2), Trouble.PROVIDER, is_unknown=True),
    ),
)
