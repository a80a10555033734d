"""Twilio's calls back: our own line rings, and the customer's number waits in the address of the key."""

import json

from services.notifier.adapters import twilio_voice
from services.notifier.core.post import Trouble
from tests.contract.providers import ProviderCase, VendorError, a_post
from tests.fakes import desk
from tests.fakes.twilio import Twilio


def said(code: int) -> str:
    return json.dumps({"code": code, "message": "see the dictionary", "status": 400})


CASE = ProviderCase(
    provider=twilio_voice.PROVIDER,
    settings=twilio_voice.Settings(
        account_sid=Twilio.account_sid,
        secret="env:TOKEN",
        from_number="+15550100200",
        agent_number="+15550100300",
        callback_url="https://support.lantern-oak.example/v1/channels/twilio_voice/hotline",
        url=desk.BASE,
    ),
    secrets={"env:TOKEN": Twilio.auth_token},
    fake=Twilio,
    post=a_post(twilio_voice.PROVIDER, to="+905321234567", thread="CA1", answers="CA1"),
    errors=(
        VendorError(400, said(21215), Trouble.ADDRESS),
        VendorError(400, said(21210), Trouble.ACCOUNT, is_recoverable=True),
        VendorError(429, said(20429), Trouble.PROVIDER, is_recoverable=True),
        VendorError(503, said(20503), Trouble.PROVIDER, is_unknown=True),
    ),
)
