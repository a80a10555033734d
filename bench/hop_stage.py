"""The service that `signalbox bench hop` measures: one event in, one state changed, one event out, all durable.

Run as `python -m bench.hop_stage serve`. Its rule is as small as a rule can be, so what is measured is the loop.
"""

import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from chassis import lifecycle
from chassis.ledger import DocumentStore
from chassis.settings import Settings
from chassis.stage import Input, Outcome, Received, Stage
from schemas.envelope import Envelope
from schemas.payload import Payload
from schemas.topics import INBOUND, TICKETS

SERVICE = "bench"


class BenchGiven(Payload):
    """An input of about 600 bytes; `n` numbers it, `sent_at` is the driver's clock in seconds."""

    TYPE: ClassVar[str] = "bench.given.v1"
    TOPIC: ClassVar[str] = INBOUND.name
    EXAMPLE: ClassVar[dict[str, Any]] = {"key": "k1", "n": 1, "sent_at": 0.0, "text": "…"}

    key: str
    n: int
    sent_at: float
    text: str


class BenchCounted(Payload):
    """The answer to an input: how many its key has had."""

    TYPE: ClassVar[str] = "bench.counted.v1"
    TOPIC: ClassVar[str] = TICKETS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        "key": "k1",
        "n": 1,
        "sent_at": 0.0,
        "count": 1,
        "text": "…",
    }

    key: str
    n: int
    sent_at: float
    count: int
    text: str


class Tally(msgspec.Struct, frozen=True):
    """How many inputs a key has had."""

    count: int = 0


class HopStage(Stage[Tally]):
    """Counts per key and passes on."""

    name = "bench"
    topics = (INBOUND,)
    understands = frozenset({BenchGiven.TYPE})

    def __init__(self) -> None:
        self.store = DocumentStore[Tally](self.name, Tally)

    def key(self, envelope: Envelope, event: Payload) -> str:
        """Return the input's own key."""
        del envelope
        assert isinstance(event, BenchGiven)
        return event.key

    def partition_key(self, event: Payload) -> str:
        """Return the input's own key."""
        assert isinstance(event, BenchCounted)
        return event.key

    def decide(self, state: Tally | None, item: Input, now: datetime) -> Outcome[Tally]:
        """Count."""
        del now
        assert isinstance(item, Received)
        event = item.event
        assert isinstance(event, BenchGiven)
        tally = Tally((state.count if state is not None else 0) + 1)
        answer = BenchCounted(
            key=event.key, n=event.n, sent_at=event.sent_at, count=tally.count, text=event.text
        )
        return Outcome(state=tally, events=(answer,))


class BenchSettings(Settings):
    """Nothing of its own."""


def application(settings: Settings) -> lifecycle.Application:
    """Return the stage as a service."""
    del settings
    return lifecycle.Application(
        service=SERVICE, sql=Path(__file__).with_name("sql"), stages=(HopStage(),)
    )


def main(argv: Sequence[str]) -> int:
    """Serve until told to stop."""
    return lifecycle.run(application, BenchSettings, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
