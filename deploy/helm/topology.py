"""What the chart has to know of the product: topics, groups, who writes and who reads, and the settings there are.

`python -m deploy.helm.topology --write` writes it into the chart, so that no name stands in two places; `--check` says
whether it is still true.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr

from chassis.bus import group_id
from chassis.settings import PREFIX
from cli.parts import SERVICES, settings_type
from schemas.asyncapi import EVERY_STAGE, stages
from schemas.json_schema import writers_of
from schemas.topics import BY_NAME, DEFAULT_PARTITIONS, TOPICS, VALUE_BYTES_MAX

FILE: Final = Path(__file__).with_name("signalbox") / "files" / "topology.json"

PARTS: Final[dict[str, tuple[str, str, tuple[str, ...]]]] = {
    "gateway": ("ingest", "gateway", ()),
    "normaliser": ("ingest", "normaliser", ("ingest.normaliser",)),
    "webchat": ("ingest", "webchat", ("ingest.webchat",)),
    "tickets": ("ingest", "tickets", ("ingest.tickets",)),
    "router": ("router", "all", ("router.tickets", "router.assignment", "router.elsewhere")),
    "sla": ("sla", "all", ("sla",)),
    "notifier": ("notifier", "all", ("notifier", "notifier.feedback")),
}
"""The Deployments: service, `--stage`, and the stages that then read topics there."""

_UNSCALED: Final = frozenset({"router.elsewhere"})
"""Runs only where elsewhere.yaml names a place. A group that nobody has joined has no offsets, and a scaler would take the
whole topic for its lag."""


def read_by(stage: str) -> tuple[str, ...]:
    """Return the topics that a stage reads, in the order of a message's way."""
    return tuple(topic.name for topic in TOPICS if stage in topic.readers)


def document() -> dict[str, Any]:
    """Return all of it."""
    return {
        "partitions": DEFAULT_PARTITIONS,
        "valueBytesMax": VALUE_BYTES_MAX,
        "topics": [
            {
                "name": topic.name,
                "retentionMs": int(topic.retention.total_seconds() * 1000),
                "writers": sorted(_services(topic.name)),
            }
            for topic in TOPICS
        ],
        "stages": {stage: _stage(stage) for stage in stages() if read_by(stage)},
        "parts": {
            name: {"service": service, "stage": stage, "stages": list(reading)}
            for name, (service, stage, reading) in PARTS.items()
        },
        "settings": sorted(_settings(is_secret=False)),
        "secrets": sorted(_settings(is_secret=True)),
    }


def _stage(name: str) -> dict[str, Any]:
    topics = read_by(name)
    return {
        "service": name.partition(".")[0],
        "topics": list(topics),
        "group": group_id("", name, topics),
        "isScaled": name not in _UNSCALED,
    }


def _services(topic: str) -> set[str]:
    writers = writers_of(BY_NAME[topic])
    return {
        service
        for writer in (stages() if EVERY_STAGE in writers else writers)
        if (service := writer.partition(".")[0]) in SERVICES
    }


def _settings(*, is_secret: bool) -> Iterator[str]:
    """Return the variables of all services, once each."""
    kinds = [settings_type(service) for service in SERVICES]
    fields = {name: field for kind in kinds for name, field in kind.model_fields.items()}
    for name, field in fields.items():
        if (field.annotation is SecretStr) == is_secret:
            yield f"{PREFIX}{name.upper()}"


def text() -> str:
    """Return the file's text."""
    return json.dumps(document(), indent=1) + "\n"


def main(arguments: list[str]) -> int:
    """Write the file, or say whether it is fresh."""
    if arguments == ["--write"]:
        FILE.write_text(text(), encoding="utf-8")
        return 0
    if FILE.is_file() and FILE.read_text(encoding="utf-8") == text():
        return 0
    print(f"{FILE.name} is stale: run python -m deploy.helm.topology --write", file=sys.stderr)  # noqa: T201
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
