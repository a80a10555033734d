"""Our signed webhooks, against a receiver that checks them."""

from services.notifier.adapters import outgoing_webhook
from services.notifier.core.post import Trouble
from tests.contract.providers import ProviderCase, VendorError, a_post
from tests.fakes import desk, receiver

CASE = ProviderCase(
    provider=outgoing_webhook.PROVIDER,
    settings=outgoing_webhook.Settings(url=f"{desk.BASE}/signalbox", secret="env:SECRET"),
    secrets={"env:SECRET": receiver.Receiver.secret},
    fake=receiver.Receiver,
    post=a_post(outgoing_webhook.PROVIDER, thread="case-17", answers="case-17/3"),
    is_quiet=True,
    errors=(
        VendorError(404, "", Trouble.ACCOUNT, is_recoverable=True),
        VendorError(410, "", Trouble.ACCOUNT, is_recoverable=True),
        VendorError(422, '{"error": "payload"}', Trouble.MESSAGE),
        VendorError(503, "", Trouble.PROVIDER, is_recoverable=True),
    ),
)
