"""Telegram's bot, and what its descriptions mean."""

import json
from typing import Any

from services.notifier.adapters import telegram
from services.notifier.core.post import Trouble
from tests.contract.providers import ProviderCase, VendorError, a_post
from tests.fakes import desk
from tests.fakes.telegram import TOKEN, Telegram


def said(status: int, description: str, **parameters: Any) -> str:
    body = {"ok": False, "error_code": status, "description": description}
    return json.dumps(body | ({"parameters": parameters} if parameters else {}))


CASE = ProviderCase(
    provider=telegram.PROVIDER,
    settings=telegram.Settings(token="env:TOKEN", url=desk.BASE),
    secrets={"env:TOKEN": TOKEN},
    fake=Telegram,
    post=a_post(telegram.PROVIDER, to="55501", thread="55501", answers="55501:31"),
    errors=(
        VendorError(403, said(403, "Forbidden: bot was blocked by the user"), Trouble.ADDRESS),
        VendorError(400, said(400, "Bad Request: chat not found"), Trouble.ADDRESS),
        VendorError(
            400,
            said(
                400,
                "Bad Request: group chat was upgraded to a supergroup chat",
                migrate_to_chat_id=-1007,
            ),
            Trouble.ADDRESS,
        ),
        VendorError(400, said(400, "Bad Request: BUSINESS_PEER_USAGE_MISSING"), Trouble.WINDOW),
        VendorError(403, said(403, "Forbidden: BUSINESS_PEER_USAGE_MISSING"), Trouble.WINDOW),
        VendorError(
            400,
            said(400, "Bad Request: BUSINESS_CONNECTION_INVALID"),
            Trouble.ACCOUNT,
            is_recoverable=True,
        ),
        VendorError(400, said(400, "Bad Request: message is too long"), Trouble.MESSAGE),
        VendorError(401, said(401, "Unauthorized"), Trouble.ACCOUNT, is_recoverable=True),
        VendorError(404, said(404, "Not Found"), Trouble.ACCOUNT, is_recoverable=True),
        VendorError(
            429,
            said(429, "Too Many Requests: retry after 5", retry_after=5),
            Trouble.PROVIDER,
            is_recoverable=True,
        ),
    ),
)
