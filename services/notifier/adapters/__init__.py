"""The notifier's providers: one module each, and the register of them.

A provider's module is imported when it is first asked for, so a notifier starts with those that its accounts are at and no
others. Which providers there are is known without any of them.
"""

import importlib
from collections.abc import Callable, Iterator, Mapping
from typing import Final, TypeVar

from services.notifier.adapters.provider import Provider
from services.notifier.core.accounts import AccountSettings
from services.notifier.core.post import Traits

T = TypeVar("T")

NAMES: Final = (
    "zendesk",
    "helpscout",
    "gorgias",
    "edesk",
    "hubspot",
    "freshdesk",
    "zoho",
    "intercom",
    "twilio_sms",
    "twilio_voice",
    "telegram",
    "slack",
    "apple_messages",
    "chatra",
    "livechat",
    "tidio",
    "webchat",
    "messenger",
    "facebook_page",
    "instagram",
    "whatsapp",
    "x",
    "hootsuite",
    "google_reviews",
    "trustpilot",
    "yelp",
    "discourse",
    "gmail",
    "outgoing_webhook",
)
"""The providers' names, which are their modules' too."""


class _Register(Mapping[str, T]):
    """What `part` takes of each provider, by name; looking one up imports its module, and nothing else does."""

    def __init__(self, part: Callable[[Provider], T]) -> None:
        self._part = part

    def __getitem__(self, name: str) -> T:
        if name not in NAMES:
            raise KeyError(name)
        provider: Provider = importlib.import_module(f"{__name__}.{name}").PROVIDER
        return self._part(provider)

    def __contains__(self, name: object) -> bool:
        return name in NAMES

    def __iter__(self) -> Iterator[str]:
        return iter(NAMES)

    def __len__(self) -> int:
        return len(NAMES)


PROVIDERS: Final[Mapping[str, Provider]] = _Register(lambda provider: provider)
"""The providers by name."""

KINDS: Final[Mapping[str, tuple[type[AccountSettings], Traits]]] = _Register(
    lambda provider: (provider.settings, provider.traits)
)
"""What the policy needs to know of each provider, by name."""
