"""The notifier's providers: one module each, and the register of them."""

from types import MappingProxyType, ModuleType
from typing import Final

from services.notifier.adapters import (
    apple_messages,
    chatra,
    discourse,
    edesk,
    facebook_page,
    freshdesk,
    gmail,
    google_reviews,
    gorgias,
    helpscout,
    hootsuite,
    hubspot,
    instagram,
    intercom,
    livechat,
    messenger,
    outgoing_webhook,
    slack,
    telegram,
    tidio,
    trustpilot,
    twilio_sms,
    twilio_voice,
    webchat,
    whatsapp,
    x,
    yelp,
    zendesk,
    zoho,
)
from services.notifier.adapters.provider import Provider

_MODULES: Final[tuple[ModuleType, ...]] = (
    zendesk,
    helpscout,
    gorgias,
    edesk,
    hubspot,
    freshdesk,
    zoho,
    intercom,
    twilio_sms,
    twilio_voice,
    telegram,
    slack,
    apple_messages,
    chatra,
    livechat,
    tidio,
    webchat,
    messenger,
    facebook_page,
    instagram,
    whatsapp,
    x,
    hootsuite,
    google_reviews,
    trustpilot,
    yelp,
    discourse,
    gmail,
    outgoing_webhook,
)

PROVIDERS: Final[MappingProxyType[str, Provider]] = MappingProxyType(
    {module.PROVIDER.name: module.PROVIDER for module in _MODULES}
)
"""The providers by name."""
