"""Which queues and channels a series may name: those of the policy, and `other` for all else.

Owns the bound on the cardinality of the service's series. The names come from `routing.yaml` and
`channels.yaml`, whose owners check them; here only the names are read, and a file that is missing or
wrong names nothing. A queue that a ticket still stands in after the policy dropped it counts as `other`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from chassis.errors import PolicyError
from chassis.policy import read_yaml

OTHER: Final = "other"

NAMES_MAX: Final = 100
"""Queues, and channels, that may have series of their own: past that, the first in the policy's order."""

_OWN_CHANNELS: Final = ("email", "form")
"""Channels whose accounts stand in sections of their own: `mail` and `forms`."""

_EVENT: Final = "event"
"""The channel of every account in the section `events`, which names none."""


@dataclass(frozen=True, slots=True)
class Labels:
    """The names that series may have."""

    queues: frozenset[str] = frozenset()
    channels: frozenset[str] = frozenset()

    def queue(self, name: str) -> str:
        """The label of a queue."""
        return name if name in self.queues else OTHER

    def channel(self, name: str) -> str:
        """The label of a channel."""
        return name if name in self.channels else OTHER


def read(folder: Path) -> Labels:
    """The names of a policy folder."""
    routing = _mapping(folder / "routing.yaml")
    channels = _mapping(folder / "channels.yaml")
    queues = routing.get("queues")
    return Labels(
        queues=_bounded(queues if isinstance(queues, Mapping) else ()),
        channels=_bounded((*_OWN_CHANNELS, *_channels(channels))),
    )


def _mapping(path: Path) -> Mapping[str, object]:
    try:
        content = read_yaml(path)
    except PolicyError:
        return {}
    return content if isinstance(content, Mapping) else {}


def _channels(file: Mapping[str, object]) -> Iterable[str]:
    for section in ("channels", "messages", "events"):
        accounts = file.get(section)
        for account in accounts.values() if isinstance(accounts, Mapping) else ():
            given = account.get("channel") if isinstance(account, Mapping) else None
            if isinstance(given, str):
                yield given
            elif section == "events":
                yield _EVENT


def _bounded(names: Iterable[object]) -> frozenset[str]:
    seen = dict.fromkeys(name for name in names if isinstance(name, str) and name != OTHER)
    return frozenset(list(seen)[:NAMES_MAX])
