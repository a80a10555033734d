"""Intercom: an admin's comment in a conversation, looked up by its words."""

from services.notifier.adapters import intercom
from services.notifier.core.post import Trouble
from tests.contract.providers import ProviderCase, VendorError, a_post
from tests.fakes import desk
from tests.fakes import intercom as intercom_fake


def account() -> intercom_fake.Intercom:
    """A workspace with one conversation."""
    fake = intercom_fake.Intercom(admins={"880123": "bot@shop.example"})
    author = {"type": "user", "id": "u1", "name": "Ada", "email": "ada@example.com"}
    fake.conversations["5158"] = {
        "type": "conversation", "id": "5158", "created_at": 1795503600,
        "source": {"type": "conversation", "id": "s1", "body": "<p>Where is it?</p>", "author": author},
        "conversation_parts": {"conversation_parts": [], "total_count": 0},
    }  # fmt: skip
    return fake


def refused(code: str) -> str:
    """The body of a refusal by one of Intercom's codes."""
    return f'{{"type": "error.list", "errors": [{{"code": "{code}", "message": "said"}}]}}'


CASE = ProviderCase(
    provider=intercom.PROVIDER,
    settings=intercom.Settings(url=desk.BASE, access_token="env:TOKEN", admin_id="880123"),
    secrets={"env:TOKEN": "intercom-access-token"},
    fake=account,
    post=a_post(intercom.PROVIDER, thread="5158"),
    errors=(
        VendorError(404, refused("not_found"), Trouble.WINDOW),
        VendorError(404, refused("admin_not_found"), Trouble.ACCOUNT, is_recoverable=True),
        VendorError(400, refused("intercom_version_invalid"), Trouble.ACCOUNT, is_recoverable=True),
        VendorError(409, refused("resource_conflict"), Trouble.PROVIDER, is_recoverable=True),
        VendorError(422, refused("parameter_invalid"), Trouble.MESSAGE),
    ),
)
