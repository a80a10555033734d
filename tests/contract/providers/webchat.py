"""Our own web chat, by the gateway."""

from services.notifier.adapters import webchat
from services.notifier.core.post import Trouble
from tests.contract.providers import ProviderCase, VendorError, a_post
from tests.fakes import desk
from tests.fakes.gateway import SESSION, Gateway

CASE = ProviderCase(
    provider=webchat.PROVIDER,
    settings=webchat.Settings(url=desk.BASE, key="env:KEY"),
    secrets={"env:KEY": Gateway.key},
    fake=Gateway,
    post=a_post(
        webchat.PROVIDER,
        to=SESSION,
        thread=SESSION,
        answers=f"{SESSION}.client-id-1",
        occasion="received",
        is_automatic=True,
    ),
    errors=(
        VendorError(404, '{"title": "Not found", "field": "session"}', Trouble.ADDRESS),
        VendorError(
            404, '{"title": "Not found", "field": "account"}', Trouble.ACCOUNT, is_recoverable=True
        ),
        VendorError(422, '{"title": "The id was used before"}', Trouble.MESSAGE),
    ),
)
