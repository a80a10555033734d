"""`signalbox bench normalize`: raw mails to the JSON of their messages, on one core, beside the standard library's reader.

The limit reads the same mails with `email.message_from_bytes` and the modern policy, and decodes each text part: no
language, no quotes, no cleaned HTML, no JSON. Both are counted in seconds of processor time, so that what else the machine
does counts for neither.
"""

import email
import email.policy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from bench import mails
from bench.report import Report, machine, percentile
from services.ingest import adapters
from services.ingest.adapters.channel import Delivery

RECEIVED_AT: Final = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)
OWN: Final = frozenset({"support@lantern-oak.example"})
TRUSTED: Final = frozenset({"mx0.lantern-oak.example"})


@dataclass(frozen=True, slots=True)
class NormalizeOptions:
    """How many mails, made of which seed."""

    count: int = 2_000
    seed: int = mails.SEED


def normalize(raw: bytes) -> bytes:
    """Return a mail's messages as JSON: the whole way that `signalbox normalize` goes for one."""
    parsed = adapters.parse(
        Delivery("email", "support", raw, RECEIVED_AT, own_addresses=OWN, trusted_servers=TRUSTED)
    )
    return b"\n".join(
        message.__pydantic_serializer__.to_json(message) for message in parsed.messages
    )


def read_by_the_standard_library(raw: bytes) -> int:
    """Return how many characters the standard library's modern reader finds in a mail's texts."""
    message = email.message_from_bytes(raw, policy=email.policy.default)
    found = len(str(message["subject"])) + len(str(message["from"]))
    for part in message.walk():
        if part.get_content_maintype() == "text":
            data = part.get_payload(decode=True)
            if isinstance(data, bytes):
                charset = part.get_content_charset() or "utf-8"
                found += len(data.decode(charset, "replace"))
    return found


def _timed(function: Callable[[bytes], object], heap: Sequence[bytes]) -> list[float]:
    seconds: list[float] = []
    for raw in heap:
        began = time.process_time()
        function(raw)
        seconds.append(time.process_time() - began)
    return seconds


def run(options: NormalizeOptions) -> Report:
    """Measure and report."""
    heap = list(mails.make(options.count, options.seed))
    report = Report(
        "normalize",
        settings={
            **machine(),
            "mails": options.count,
            "seed": options.seed,
            "bytes_mean": round(sum(map(len, heap)) / len(heap)),
            "bytes_largest": max(map(len, heap)),
        },
    )
    _timed(normalize, heap[:50])
    _timed(read_by_the_standard_library, heap[:50])
    ours, theirs = _timed(normalize, heap), _timed(read_by_the_standard_library, heap)
    rate, limit = len(heap) / sum(ours), len(heap) / sum(theirs)
    report.figures = {
        "mails_per_core_second": rate,
        "megabytes_per_second": sum(map(len, heap)) / sum(ours) / 1e6,
        "p50_ms": percentile(ours, 0.5) * 1000,
        "p99_ms": percentile(ours, 0.99) * 1000,
    }
    report.limits = {"stdlib_mails_per_core_second": limit}
    report.ratios = {"of_stdlib": rate / limit}
    return report
