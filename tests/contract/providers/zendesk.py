"""Zendesk: a comment in a ticket, found again by the metadata of its audit."""

from services.notifier.adapters import helpdesk, zendesk
from services.notifier.core.post import Trouble
from tests.contract.providers import ProviderCase, VendorError, a_post
from tests.fakes import desk
from tests.fakes import zendesk as zendesk_fake


def account() -> zendesk_fake.Zendesk:
    """An account with one open ticket, and our user in it."""
    fake = zendesk_fake.Zendesk(scope="read write", agents=(777,))
    fake.users = {
        777: {"id": 777, "name": "Signalbox", "email": "bot@shop.example", "role": "agent"},
        84473: {"id": 84473, "name": "Ada", "email": "ada@example.com", "role": "end-user"},
    }
    fake.tickets["5158"] = {
        "id": 5158, "subject": "My lamp", "requester_id": 84473, "status": "open", "tags": [],
        "via": {"channel": "email"},
        "updated_at": "2026-11-24T07:00:00Z",
    }  # fmt: skip
    return fake


CASE = ProviderCase(
    provider=zendesk.PROVIDER,
    settings=zendesk.Settings(
        url=desk.BASE, client_id="signalbox", client_secret="env:CLIENT", author_id="777"
    ),
    secrets={"env:CLIENT": "zd-client-secret"},
    fake=account,
    post=a_post(zendesk.PROVIDER, thread="5158"),
    words=lambda post: helpdesk.html_of(post.text),
    has_tokens=True,
    errors=(
        VendorError(404, '{"error": "RecordNotFound"}', Trouble.WINDOW),
        VendorError(409, '{"error": "UpdateConflict"}', Trouble.PROVIDER, is_recoverable=True),
        VendorError(
            422,
            '{"error": "RecordInvalid", "details": {"status": [{"description": "closed"}]}}',
            Trouble.WINDOW,
        ),
        VendorError(
            422,
            '{"error": "RecordInvalid", "details": {"author": [{"description": "suspended"}]}}',
            Trouble.ACCOUNT,
            is_recoverable=True,
        ),
        VendorError(422, '{"error": "RecordInvalid", "details": {"comment": []}}', Trouble.MESSAGE),
    ),
)
