"""LiveChat's events, and what its errors mean."""

import json

from services.notifier.adapters import livechat
from services.notifier.core.post import Trouble
from tests.contract.providers import ProviderCase, VendorError, a_post
from tests.fakes import desk
from tests.fakes.livechat import LiveChat


def said(kind: str) -> str:
    return json.dumps({"error": {"type": kind, "message": "see the reference"}})


CASE = ProviderCase(
    provider=livechat.PROVIDER,
    settings=livechat.Settings(
        account_id=LiveChat.account_id, token="env:TOKEN", region="fra", url=desk.BASE
    ),
    secrets={"env:TOKEN": LiveChat.token},
    fake=LiveChat,
    post=a_post(livechat.PROVIDER, to="91c40a77-0000-4000-8000-0000000000c1", thread="QX7LCHAT01"),
    errors=(
        VendorError(422, said("chat_inactive"), Trouble.WINDOW),
        VendorError(403, said("customer_banned"), Trouble.ADDRESS),
        VendorError(404, said("not_found"), Trouble.WINDOW),
        VendorError(421, said("misdirected_request"), Trouble.ACCOUNT, is_recoverable=True),
        VendorError(402, said("license_expired"), Trouble.ACCOUNT, is_recoverable=True),
        VendorError(403, said("authorization"), Trouble.ACCOUNT, is_recoverable=True),
        VendorError(400, said("validation"), Trouble.MESSAGE),
        VendorError(429, said("too_many_requests"), Trouble.PROVIDER, is_recoverable=True),
        VendorError(500, said("internal"), Trouble.PROVIDER, is_unknown=True),
    ),
)
