"""WhatsApp: a text to a number; templates are shown in `test_provider_social.py`."""

from services.notifier.adapters import whatsapp
from services.notifier.core.post import Trouble
from tests.contract.providers import ProviderCase, VendorError, a_post
from tests.contract.providers.messenger import said
from tests.fakes import desk
from tests.fakes.graph import WhatsApp

CASE = ProviderCase(
    provider=whatsapp.PROVIDER,
    settings=whatsapp.Settings(
        access_token="env:TOKEN",
        app_secret="env:SECRET",
        phone_number_id=WhatsApp.number,
        api_url=desk.BASE,
    ),
    secrets={"env:TOKEN": WhatsApp.access_token, "env:SECRET": WhatsApp.app_secret},
    fake=WhatsApp,
    post=a_post(
        whatsapp.PROVIDER, to="+15550107788", thread="", answers="wamid.HBgLMTU1NTAxMDc3ODg="
    ),
    to="15550107788",
    errors=(
        VendorError(401, said(0), Trouble.ACCOUNT, is_recoverable=True),
        VendorError(401, said(190), Trouble.ACCOUNT, is_recoverable=True),
        VendorError(403, said(131031), Trouble.ACCOUNT, is_recoverable=True),
        VendorError(400, said(131042), Trouble.ACCOUNT, is_recoverable=True),
        VendorError(400, said(131047), Trouble.WINDOW),
        VendorError(400, said(131026), Trouble.ADDRESS),
        VendorError(400, said(131030), Trouble.ADDRESS),
        VendorError(400, said(130429), Trouble.PROVIDER, is_recoverable=True),
        VendorError(400, said(131056), Trouble.PROVIDER, is_recoverable=True),
        VendorError(400, said(131048), Trouble.PROVIDER, is_recoverable=True),
        VendorError(400, said(80007), Trouble.PROVIDER, is_recoverable=True),
        VendorError(503, said(131016), Trouble.PROVIDER, is_recoverable=True),
        VendorError(500, said(131000), Trouble.PROVIDER, is_unknown=True),
        VendorError(404, said(132001), Trouble.MESSAGE),
        VendorError(400, said(131009), Trouble.MESSAGE),
    ),
)
