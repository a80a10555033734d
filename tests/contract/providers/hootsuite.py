"""Hootsuite: our virtual agent's message in a conversation that it has."""

from services.notifier.adapters import hootsuite
from services.notifier.core.post import Trouble
from tests.contract.providers import ProviderCase, VendorError, a_post
from tests.fakes import desk
from tests.fakes.hootsuite import Hootsuite

CASE = ProviderCase(
    provider=hootsuite.PROVIDER,
    settings=hootsuite.Settings(
        client_id=Hootsuite.client_id,
        client_secret="env:SECRET",
        organization_id=Hootsuite.organization,
        api_url=desk.BASE,
    ),
    secrets={"env:SECRET": Hootsuite.client_secret},
    fake=Hootsuite,
    post=a_post(hootsuite.PROVIDER, to="cp-1", thread="0-0001", answers="m-1"),
    has_tokens=True,
    is_quiet=True,
    errors=(
        VendorError(404, '{"errors": [{"code": 1043}]}', Trouble.WINDOW),
        VendorError(429, '{"errors": [{"code": 1003}]}', Trouble.PROVIDER, is_recoverable=True),
    ),
)
