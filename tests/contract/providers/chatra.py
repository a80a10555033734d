"""Chatra's pushed messages."""

from services.notifier.adapters import chatra
from services.notifier.core.post import Trouble
from tests.contract.providers import ProviderCase, VendorError, a_post
from tests.fakes import desk
from tests.fakes.chatra import Chatra

CASE = ProviderCase(
    provider=chatra.PROVIDER,
    settings=chatra.Settings(
        public_key=Chatra.public_key,
        secret_key="env:KEY",
        agent_id="agt_signalbox",
        url=desk.BASE,
    ),
    secrets={"env:KEY": Chatra.secret_key},
    fake=Chatra,
    post=a_post(chatra.PROVIDER, to="cli_rosa_01", thread="chat_0099", answers="chat_0099/1/a"),
    is_quiet=True,
    errors=(VendorError(422, '{"error": "no such client"}', Trouble.MESSAGE),),
)
