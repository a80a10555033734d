"""Gorgias: a message in a ticket, found again by its external id."""

from services.notifier.adapters import gorgias, helpdesk
from services.notifier.core.post import Trouble
from tests.contract.providers import ProviderCase, VendorError, a_post
from tests.fakes import desk
from tests.fakes import gorgias as gorgias_fake


def account() -> gorgias_fake.Gorgias:
    """An account with one ticket that came by mail."""
    fake = gorgias_fake.Gorgias(users={93: "bot@shop.example"})
    customer = {"id": 8, "email": "ada@example.com", "name": "Ada"}
    fake.tickets["5158"] = {
        "id": 5158, "channel": "email", "subject": "My lamp", "customer": customer,
    }  # fmt: skip
    fake.messages.append({
        "id": 9001, "ticket_id": 5158, "public": True, "channel": "email", "from_agent": False,
        "external_id": None, "sender": customer, "body_text": "Where is it?", "via": "email",
        "created_datetime": "2026-11-24T07:00:00.000000", "source": {"type": "email"},
    })  # fmt: skip
    return fake


CASE = ProviderCase(
    provider=gorgias.PROVIDER,
    settings=gorgias.Settings(
        url=desk.BASE,
        api_user="bot@shop.example",
        api_key="env:KEY",
        from_address="support@shop.example",
        from_name="Lantern & Oak",
        sender_id="93",
    ),
    secrets={"env:KEY": "gorgias-api-key"},
    fake=account,
    post=a_post(gorgias.PROVIDER, thread="5158"),
    words=lambda post: helpdesk.html_of(post.text),
    errors=(
        VendorError(404, '{"error": {"msg": "Not found"}}', Trouble.WINDOW),
        VendorError(
            400, '{"error": {"msg": "Failed", "data": {"source": ["Invalid"]}}}',
            Trouble.ACCOUNT, is_recoverable=True,
        ),
        VendorError(400, '{"error": {"msg": "Failed", "data": {"body": []}}}', Trouble.MESSAGE),
    ),
)  # fmt: skip
