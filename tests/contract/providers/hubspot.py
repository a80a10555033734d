"""HubSpot: a message in a conversation, looked up by its words."""

from services.notifier.adapters import helpdesk, hubspot
from services.notifier.core.post import Trouble
from tests.contract.providers import ProviderCase, VendorError, a_post
from tests.fakes import desk
from tests.fakes import hubspot as hubspot_fake


def account() -> hubspot_fake.HubSpot:
    """An account with one conversation by mail, in which its customer wrote."""
    fake = hubspot_fake.HubSpot(actors=("A-777",))
    fake.messages[("5158", "9001")] = {
        "id": "9001", "type": "MESSAGE", "conversationsThreadId": "5158",
        "createdAt": "2026-11-24T07:00:00Z", "createdBy": "V-12", "direction": "INCOMING",
        "senders": [{
            "actorId": "V-12", "name": "Ada",
            "deliveryIdentifier": {"type": "HS_EMAIL_ADDRESS", "value": "ada@example.com"},
        }],
        "text": "Where is it?", "richText": "<p>Where is it?</p>", "subject": "My lamp",
        "channelId": "1002", "channelAccountId": "424242", "truncationStatus": "NOT_TRUNCATED",
    }  # fmt: skip
    return fake


CASE = ProviderCase(
    provider=hubspot.PROVIDER,
    settings=hubspot.Settings(
        url=desk.BASE,
        client_id="hubspot-client",
        client_secret="env:CLIENT",
        refresh_token="env:REFRESH",
        sender_actor_id="A-777",
    ),
    secrets={"env:CLIENT": "hubspot-client-secret", "env:REFRESH": "hubspot-refresh-token"},
    fake=account,
    post=a_post(hubspot.PROVIDER, thread="5158", answers="9001"),
    words=lambda post: helpdesk.html_of(post.text),
    has_tokens=True,
    errors=(
        VendorError(404, '{"status": "error", "category": "OBJECT_NOT_FOUND"}', Trouble.WINDOW),
        VendorError(
            400,
            '{"category": "VALIDATION_ERROR", "message": "senderActorId A-777 is not an agent"}',
            Trouble.ACCOUNT,
            is_recoverable=True,
        ),
        VendorError(400, '{"category": "VALIDATION_ERROR", "message": "text"}', Trouble.MESSAGE),
    ),
)
