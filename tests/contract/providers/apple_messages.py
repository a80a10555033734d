"""Apple Messages for Business, whose answers are a status and nothing else."""

from services.notifier.adapters import apple_messages
from services.notifier.core.post import Trouble
from tests.contract.providers import ProviderCase, VendorError, a_post
from tests.fakes import desk
from tests.fakes.apple_messages import AppleMessages

CUSTOMER = AppleMessages.customers[0]

CASE = ProviderCase(
    provider=apple_messages.PROVIDER,
    settings=apple_messages.Settings(
        msp_id=AppleMessages.msp_id,
        business_id=AppleMessages.business_id,
        secret="env:SECRET",
        url=f"{desk.BASE}/v1",
    ),
    secrets={"env:SECRET": AppleMessages.secret},
    fake=AppleMessages,
    post=a_post(apple_messages.PROVIDER, to=CUSTOMER, thread=CUSTOMER, answers="m-1"),
    is_quiet=True,
    errors=(
        VendorError(410, "", Trouble.ADDRESS),
        VendorError(413, "", Trouble.MESSAGE),
    ),
)
