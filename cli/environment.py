"""Where a command finds Kafka and PostgreSQL: the environment, else the installation that runs on this machine."""

import os
from typing import TypeVar

from chassis.errors import ConfigurationError
from chassis.local import default_data_dir
from chassis.settings import Settings, load_settings
from cli import installation

T = TypeVar("T", bound=Settings)

_NEEDED = ("SIGNALBOX_KAFKA", "SIGNALBOX_DATABASE_URL")


def adopt() -> installation.Installation | None:
    """Where the environment names neither Kafka nor PostgreSQL, take over what the running installation has.

    Returns it, or None where the environment decides. What the environment does say goes before.
    """
    if any(os.environ.get(name) or os.environ.get(f"{name}_FILE") for name in _NEEDED):
        return None
    found = installation.running(default_data_dir())
    if not found:
        return None
    for name, value in found[0].environment.items():
        os.environ.setdefault(name, value)
    return found[0]


def settings(kind: type[T]) -> T:
    """Read settings.

    Raises:
        ConfigurationError: they are missing, and nothing runs here either.
    """
    adopt()
    try:
        return load_settings(kind)
    except ConfigurationError as error:
        if any(os.environ.get(name) for name in _NEEDED):
            raise
        raise ConfigurationError(
            f"{error}. Nothing runs on this machine either: `signalbox up` starts everything."
        ) from None


def common() -> Settings:
    """Read the settings that every service has."""
    return settings(Settings)
