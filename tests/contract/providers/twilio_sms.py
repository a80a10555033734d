"""Twilio's text messages, and what its codes mean."""

import json

from services.notifier.adapters import twilio_sms
from services.notifier.core.post import Trouble
from tests.contract.providers import ProviderCase, VendorError, a_post
from tests.fakes import desk
from tests.fakes.twilio import Twilio


def said(code: int) -> str:
    return json.dumps({"code": code, "message": "see the dictionary", "status": 400})


CASE = ProviderCase(
    provider=twilio_sms.PROVIDER,
    settings=twilio_sms.Settings(
        account_sid=Twilio.account_sid,
        secret="env:TOKEN",
        from_number="+15550100200",
        status_callback="https://support.lantern-oak.example/v1/channels/twilio_sms/sms",
        url=desk.BASE,
    ),
    secrets={"env:TOKEN": Twilio.auth_token},
    fake=Twilio,
    post=a_post(twilio_sms.PROVIDER, to="+905321234567", thread="", answers="SM1"),
    errors=(
        VendorError(400, said(21211), Trouble.ADDRESS),
        VendorError(400, said(21610), Trouble.ADDRESS),
        VendorError(400, said(21614), Trouble.ADDRESS),
        VendorError(403, said(21408), Trouble.ADDRESS),
        VendorError(400, said(21617), Trouble.MESSAGE),
        VendorError(400, said(21606), Trouble.ACCOUNT, is_recoverable=True),
        VendorError(400, said(63016), Trouble.WINDOW),
        VendorError(401, said(20003), Trouble.ACCOUNT, is_recoverable=True),
        VendorError(400, said(21611), Trouble.PROVIDER, is_recoverable=True),
        VendorError(429, said(20429), Trouble.PROVIDER, is_recoverable=True),
        VendorError(500, said(20500), Trouble.PROVIDER, is_unknown=True),
    ),
)
