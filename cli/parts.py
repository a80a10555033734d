"""The four services by name, and where each keeps its settings, its SQL and its policy.

Names alone cost nothing; what a name stands for is imported when it is asked for.
"""

import importlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from chassis.policy import PolicyFiles
    from chassis.settings import Settings

SERVICES: Final = ("ingest", "router", "sla", "notifier")

_SETTINGS: Final = {
    "ingest": "IngestSettings",
    "router": "Settings",
    "sla": "Settings",
    "notifier": "NotifierSettings",
}


def sql_folder(service: str) -> Path:
    """Return the folder of a service's migrations."""
    found = importlib.util.find_spec(f"services.{service}")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).with_name("sql")


def settings_type(service: str) -> "type[Settings]":
    """Return the settings class of a service."""
    module = importlib.import_module(f"services.{service}.settings")
    return cast("type[Settings]", getattr(module, _SETTINGS[service]))


def policy_files(service: str) -> "PolicyFiles[Any]":
    """Return how a service reads its policy."""
    module = importlib.import_module(f"services.{service}.handlers")
    return cast("PolicyFiles[Any]", module.POLICY)
