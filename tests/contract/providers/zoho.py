"""Zoho Desk: a reply by mail in a ticket, looked up by its words."""

from services.notifier.adapters import helpdesk, zoho
from services.notifier.core.post import Trouble
from tests.contract.providers import ProviderCase, VendorError, a_post
from tests.fakes import desk
from tests.fakes import zoho as zoho_fake


def account() -> zoho_fake.Zoho:
    """A portal with one ticket and its customer's thread."""
    fake = zoho_fake.Zoho()
    fake.tickets["5158"] = {
        "id": "5158", "subject": "My lamp", "email": "ada@example.com", "channel": "Email",
        "contactId": "9",
    }  # fmt: skip
    fake.threads["5158"] = [{
        "id": "9001", "channel": "EMAIL", "direction": "in", "visibility": "public",
        "status": "SUCCESS", "content": "<div>Where is it?</div>", "contentType": "text/html",
        "fromEmailAddress": "ada@example.com", "createdTime": "2026-11-24T07:00:00.000Z",
        "author": {"type": "END_USER", "name": "Ada", "email": "ada@example.com"},
    }]  # fmt: skip
    return fake


def refused(field: str) -> str:
    """The body of a refusal of a field."""
    error = f'{{"fieldName": "/{field}", "errorType": "invalid", "errorMessage": ""}}'
    return f'{{"errorCode": "INVALID_DATA", "message": "no", "errors": [{error}]}}'


CASE = ProviderCase(
    provider=zoho.PROVIDER,
    settings=zoho.Settings(
        url=desk.BASE,
        accounts_url=desk.BASE,
        org_id="2389290",
        client_id="1000.client",
        client_secret="env:CLIENT",
        refresh_token="env:REFRESH",
        from_address="support@shop.example",
        agent_id="777",
    ),
    secrets={"env:CLIENT": "zoho-client-secret", "env:REFRESH": "1000.refresh-token"},
    fake=account,
    post=a_post(zoho.PROVIDER, thread="5158"),
    words=lambda post: helpdesk.html_of(post.text),
    has_tokens=True,
    errors=(
        VendorError(404, '{"errorCode": "RESOURCE_NOT_FOUND"}', Trouble.WINDOW),
        VendorError(422, refused("fromEmailAddress"), Trouble.ACCOUNT, is_recoverable=True),
        VendorError(422, refused("to"), Trouble.ADDRESS),
        VendorError(422, refused("content"), Trouble.MESSAGE),
    ),
)
