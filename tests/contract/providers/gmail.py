"""Gmail as a provider of mail."""

import json
from datetime import UTC, datetime

from services.notifier.adapters import gmail
from services.notifier.core.post import Trouble
from services.notifier.core.state import Mail
from tests.contract.providers import WORDS, ProviderCase, VendorError
from tests.fakes import desk
from tests.fakes import gmail as fake

MAIL = Mail(
    from_name="Lantern & Oak",
    from_address="support@lantern-oak.example",
    to_address="ada@example.com",
    envelope_from="support+sb.token@lantern-oak.example",
    reply_to="support+sb.token@lantern-oak.example",
    subject="Re: Lambam h\u00e2l\u00e2 gelmedi",
    text=WORDS,
    html=f"<p>{WORDS}</p>",
    language="en",
    date=datetime.fromtimestamp(fake.Gmail.now, UTC),
    message_id="<sb.token.notice@lantern-oak.example>",
    in_reply_to=None,
    references=(),
    headers=(),
)


def refused(status: int, reason: str) -> str:
    return json.dumps({"error": {"code": status, "errors": [{"reason": reason}]}})


CASE = ProviderCase(
    provider=gmail.PROVIDER,
    settings=gmail.Settings(
        client_id=fake.Gmail.client_id,
        client_secret="env:SECRET",
        refresh_token="env:REFRESH",
        api_url=desk.BASE,
        token_url=f"{desk.BASE}/token",
    ),
    secrets={"env:SECRET": fake.Gmail.client_secret, "env:REFRESH": fake.Gmail.refresh_token},
    fake=fake.Gmail,
    post=MAIL,
    words=lambda mail: str(mail.text),
    has_tokens=True,
    errors=(
        VendorError(403, refused(403, "rateLimitExceeded"), Trouble.PROVIDER, is_recoverable=True),
        VendorError(
            403, refused(403, "userRateLimitExceeded"), Trouble.PROVIDER, is_recoverable=True
        ),
        VendorError(429, refused(429, "dailyLimitExceeded"), Trouble.PROVIDER, is_recoverable=True),
        VendorError(
            403, refused(403, "insufficientPermissions"), Trouble.ACCOUNT, is_recoverable=True
        ),
        VendorError(400, refused(400, "invalidArgument"), Trouble.MESSAGE),
    ),
)
