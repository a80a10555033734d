"""Freshdesk: a reply in a ticket, looked up by its words."""

from services.notifier.adapters import freshdesk, helpdesk
from services.notifier.core.post import Trouble
from tests.contract.providers import ProviderCase, VendorError, a_post
from tests.fakes import desk
from tests.fakes import freshdesk as freshdesk_fake


def account() -> freshdesk_fake.Freshdesk:
    """An account with one ticket."""
    fake = freshdesk_fake.Freshdesk(agents={43: "bot@shop.example"})
    fake.tickets["5158"] = {
        "id": 5158, "subject": "My lamp", "description_text": "Where is it?", "source": 1,
        "requester_id": 9, "requester": {"id": 9, "name": "Ada", "email": "ada@example.com"},
        "created_at": "2026-11-24T07:00:00Z", "updated_at": "2026-11-24T07:00:00Z",
    }  # fmt: skip
    return fake


def refused(field: str) -> str:
    """The body of a refusal of a field."""
    error = f'{{"field": "{field}", "message": "no", "code": "invalid_value"}}'
    return f'{{"description": "Validation failed", "errors": [{error}]}}'


CASE = ProviderCase(
    provider=freshdesk.PROVIDER,
    settings=freshdesk.Settings(
        url=desk.BASE, api_key="env:KEY", user_id="43", from_email="support@shop.example"
    ),
    secrets={"env:KEY": "freshdesk-api-key"},
    fake=account,
    post=a_post(freshdesk.PROVIDER, thread="5158"),
    words=lambda post: helpdesk.html_of(post.text),
    errors=(
        VendorError(404, "", Trouble.WINDOW),
        VendorError(405, "", Trouble.WINDOW),
        VendorError(400, refused("user_id"), Trouble.ACCOUNT, is_recoverable=True),
        VendorError(400, refused("from_email"), Trouble.ACCOUNT, is_recoverable=True),
        VendorError(400, refused("body"), Trouble.MESSAGE),
    ),
)
