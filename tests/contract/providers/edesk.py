"""eDesk: a message in a ticket, looked up by its words."""

from services.notifier.adapters import edesk
from services.notifier.core.post import Trouble
from tests.contract.providers import ProviderCase, VendorError, a_post
from tests.fakes import desk
from tests.fakes import edesk as edesk_fake


def account() -> edesk_fake.EDesk:
    """An account with one ticket and its customer's message."""
    fake = edesk_fake.EDesk(quota=1_000)
    fake.tickets["5158"] = {
        "id": 5158, "subject": "My lamp", "contact_id": 77, "messages_ids": [9001], "channel_id": 12,
        "last_updated_at": "2026-11-24 07:00:00",
    }  # fmt: skip
    fake.messages["9001"] = {
        "id": 9001, "ticket_id": 5158, "type": "Message", "direction": "Incoming",
        "body": "Where is it?", "created_at": "2026-11-24 07:00:00", "from_consumer_id": 77,
    }  # fmt: skip
    return fake


def refused(code: int) -> str:
    """The body of a refusal by one of eDesk's codes."""
    return (
        '{"error": {"httpCode": 400, "message": "Validation error",'
        f' "details": {{"field": {{"errorCode": {code}}}}}}}}}'
    )


CASE = ProviderCase(
    provider=edesk.PROVIDER,
    settings=edesk.Settings(
        url=f"{desk.BASE}/v1", api_token="env:TOKEN", user_id="4711", answered_channels=("12",)
    ),
    secrets={"env:TOKEN": "edesk-api-token"},
    fake=account,
    post=a_post(edesk.PROVIDER, thread="5158"),
    words=lambda post: post.text,
    errors=(
        VendorError(404, '{"error": {"httpCode": 404}}', Trouble.WINDOW),
        VendorError(400, refused(4002), Trouble.WINDOW),
        VendorError(400, refused(4004), Trouble.ACCOUNT, is_recoverable=True),
        VendorError(400, refused(4013), Trouble.WINDOW),
        VendorError(400, refused(4020), Trouble.MESSAGE),
        VendorError(400, refused(4008), Trouble.MESSAGE),
        VendorError(400, '{"error": {"details": "in words"}}', Trouble.MESSAGE),
    ),
)
