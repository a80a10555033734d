"""Where others are told who has a ticket: one module a vendor, and the register of them."""

from types import MappingProxyType
from typing import Final

from services.router.adapters import (
    freshdesk,
    gorgias,
    helpscout,
    hubspot,
    intercom,
    slack,
    trello,
    zendesk,
)
from services.router.adapters.api import Vendor
from services.router.core.elsewhere.policy import PlaceSettings

_MODULES: Final = (
    zendesk,
    helpscout,
    gorgias,
    hubspot,
    freshdesk,
    intercom,
    slack,
    trello,
)

VENDORS: Final[MappingProxyType[str, Vendor]] = MappingProxyType(
    {module.VENDOR.name: module.VENDOR for module in _MODULES}
)
"""The adapters by their vendors' names."""

KINDS: Final[MappingProxyType[str, type[PlaceSettings]]] = MappingProxyType(
    {name: vendor.settings for name, vendor in VENDORS.items()}
)
"""What a place of each vendor takes in `elsewhere.yaml`."""
