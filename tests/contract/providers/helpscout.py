"""Help Scout: a reply in a conversation, looked up by its words."""

from services.notifier.adapters import helpdesk, helpscout
from services.notifier.core.post import Trouble
from tests.contract.providers import ProviderCase, VendorError, a_post
from tests.fakes import desk
from tests.fakes import helpscout as helpscout_fake


def account() -> helpscout_fake.HelpScout:
    """An account with one conversation, in which its customer wrote."""
    fake = helpscout_fake.HelpScout()
    fake.users = {256: {"id": 256, "email": "bot@shop.example"}}
    customer = {"id": 238604, "email": "ada@example.com", "type": "customer"}
    fake.conversations["5158"] = {
        "id": 5158, "number": 15473, "status": "active", "subject": "My lamp",
        "mailboxId": 85, "primaryCustomer": customer,
    }  # fmt: skip
    fake.threads["5158"] = [{
        "id": 9001, "type": "customer", "state": "published", "body": "<p>Where is it?</p>",
        "customer": customer, "createdBy": customer, "createdAt": "2026-11-24T07:00:00Z",
    }]  # fmt: skip
    return fake


CASE = ProviderCase(
    provider=helpscout.PROVIDER,
    settings=helpscout.Settings(
        url=desk.BASE, client_id="hs-client", client_secret="env:CLIENT", user_id="256"
    ),
    secrets={"env:CLIENT": "hs-client-secret"},
    fake=account,
    post=a_post(helpscout.PROVIDER, thread="5158"),
    words=lambda post: helpdesk.html_of(post.text),
    has_tokens=True,
    errors=(
        VendorError(404, "", Trouble.WINDOW),
        VendorError(412, '{"message": "Conversation is locked"}', Trouble.WINDOW),
        VendorError(400, '{"message": "Bad request"}', Trouble.MESSAGE),
    ),
)
