"""Records that no decision can digest, each a trap that a system like this has fallen into.

`INBOUND_KINDS` go where anybody may write; `STRANGER_KINDS` into streams that only we should write. What must become of
each is its `fate`: parked with its bytes and a cause, dropped as a repeat, or applied in spite of its looks.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from chassis.batch import partition_of
from schemas.topics import COMMANDS, INBOUND, MESSAGES
from tests.faults.checkers import Fate
from tests.faults.pipeline import Counted, Given

Header = tuple[str, bytes | None]


@dataclass(frozen=True, slots=True)
class Odd:
    """A numbered input that is odd: one that fails, one whose event no record can hold, one that asks for a reply."""

    kind: str
    given: Given
    fate: Fate = Fate.APPLY
    headers: Sequence[Header] = ()
    is_too_large: bool = False


@dataclass(frozen=True, slots=True)
class Poison:
    """A record with all that is needed to send it. Its partition is that of its key."""

    kind: str
    topic: str
    partition: int
    key: bytes
    value: bytes | None
    headers: Sequence[Header]
    fate: Fate = Fate.PARK


def envelope(**changes: bytes | None) -> list[Header]:
    """Return the headers of a good input, with some of them changed; None leaves a null value."""
    attributes: dict[str, bytes | None] = {
        "ce_specversion": b"1.0",
        "ce_type": Given.TYPE.encode(),
        "ce_source": b"stranger",
        "ce_id": b"p1",
        "ce_time": b"2026-11-24T08:00:00Z",
        "content-type": b"application/json",
        "ce_partitionkey": b"poison",
    }
    for name, value in changes.items():
        attributes["content-type" if name == "content_type" else f"ce_{name}"] = value
    return list(attributes.items())


GOOD = Given(key="poison", n=0).to_json()
DEEP = b'{"key":' + b"[" * 100_000 + b"]" * 100_000 + b"}"

Made = tuple[bytes | None, list[Header]]

INBOUND_KINDS: Mapping[str, Callable[[], Made]] = {
    "garbage": lambda: (b"\x00\xff\xfe not json", envelope()),
    "no headers": lambda: (GOOD, []),
    "null value": lambda: (None, envelope()),
    "null header": lambda: (GOOD, envelope(id=None)),
    "header not UTF-8": lambda: (GOOD, envelope(type=b"\xff\xfe\xfd")),
    "NUL in the type": lambda: (GOOD, envelope(type=b"test.\x00.v1")),
    "NUL in the source": lambda: (b"{}", envelope(source=b"str\x00anger")),
    "NUL in the partition key": lambda: (b"{}", envelope(partitionkey=b"po\x00ison")),
    "NUL in the key": lambda: (b'{"key":"a\\u0000b","n":-1}', envelope()),
    "lone surrogate": lambda: (b'{"key":"\\ud800","n":-2}', envelope()),
    "10^5 deep": lambda: (DEEP, envelope()),
    "10^5 deep, structured": lambda: (
        DEEP,
        [("content-type", b"application/cloudevents+json")],
    ),
    "1e999": lambda: (b'{"key":"poison","n":-5,"timer_seconds":1e999}', envelope()),
    # A number that Python reads and no index of PostgreSQL holds: only the commit shows what is wrong with it.
    "4,000 digits": lambda: (
        f'{{"key":"poison","n":{random.Random(4).randrange(10**3999, 10**4000)}}}'.encode(),
        envelope(),
    ),
    "6,000 digits": lambda: (b'{"key":"poison","n":' + b"9" * 6_000 + b"}", envelope()),
    "990 kB": lambda: (b"\xf0" * 990_000, envelope()),
    "990 kB of JSON": lambda: (b'{"key":"' + b"x" * 989_000 + b'"}', envelope()),
    "300 kB partition key": lambda: (b"garbage", envelope(partitionkey=b"k" * 300_000)),
    "600 kB correlation id": lambda: (
        Given(key="poison", n=-7).to_json(),
        envelope(correlationid=b"c" * 600_000),
    ),
    "9 kB key": lambda: (
        Given(key=random.Random(9).randbytes(4_500).hex(), n=-8).to_json(),
        envelope(),
    ),
    "unknown type": lambda: (GOOD, envelope(type=b"test.never.v9")),
    "no such time": lambda: (GOOD, envelope(time=b"2026-02-30T25:61:61Z")),
    "sequence abc": lambda: (GOOD, envelope(source=b"signalbox/pipeline_x/1", sequence=b"abc")),
    "own source, no sequence": lambda: (GOOD, envelope(source=b"signalbox/pipeline_x/1")),
}


def inbound(rng: random.Random, kind: str) -> Poison:
    """Return one poisonous record for the open topic, under a key of its own."""
    value, headers = INBOUND_KINDS[kind]()
    unique = f"p{rng.randrange(10**9)}".encode()
    headers = [(name, unique if content == b"p1" else content) for name, content in headers]
    key = f"poison-{rng.randrange(1_000_000)}"
    return Poison(kind, INBOUND.name, partition_of(key, 4), key.encode(), value, headers)


def large_key(rng: random.Random) -> Poison:
    """A record whose key is so large that the dead letter would not fit with it."""
    key = f"{rng.randrange(1_000_000)}" + "k" * 380_000
    return Poison("380 kB key", INBOUND.name, partition_of(key, 4), key.encode(), b"\xf0" * 640_000,
                  envelope())  # fmt: skip


ODD_KINDS: Mapping[str, Callable[[int, str, str], Odd]] = {
    "a failing input": lambda n, key, prefix: Odd(
        "a failing input", Given(key=key, n=n, blow_up=1), Fate.PARK
    ),
    "an event too large": lambda n, key, prefix: Odd(
        "an event too large",
        Given(key=key, n=n, timer_seconds=1.0, padding="p" * 930_000),
        is_too_large=True,
    ),
    "an injected reply_to": lambda n, key, prefix: Odd(
        "an injected reply_to",
        Given(key=key, n=n, timer_seconds=1.0),
        headers=[
            ("reply_to", f"{prefix}notifications".encode()),
            ("correlation_id", b"\xff"),
            ("x-null", None),
            ("x-latin", "é".encode("latin-1")),
        ],
    ),
}
"""By input number, key and topic prefix."""

COUNTED = Counted(key="forged", n=0, count=1).to_json()

STRANGER_KINDS: Mapping[str, Callable[[int], tuple[list[Header], Fate]]] = {
    "forged, no sequence": lambda task: (
        envelope(source=f"signalbox/pipeline_a/{task}".encode(), type=Counted.TYPE.encode()),
        Fate.PARK,
    ),
    "forged, sequence 0": lambda task: (
        envelope(source=f"signalbox/pipeline_a/{task}".encode(), type=Counted.TYPE.encode(),
                 sequence=b"0"),
        Fate.PARK,
    ),
    "forged, 20 digits": lambda task: (
        envelope(source=f"signalbox/pipeline_a/{task}".encode(), type=Counted.TYPE.encode(),
                 sequence=b"9" * 20),
        Fate.PARK,
    ),
    "forged, an old sequence": lambda task: (
        envelope(source=f"signalbox/pipeline_a/{task}".encode(), type=Counted.TYPE.encode(),
                 sequence=b"1"),
        Fate.DUPLICATE,
    ),
    "NUL in our source": lambda task: (
        envelope(source=f"signalbox/pipeline_a/{task}\x00".encode(), type=Counted.TYPE.encode(),
                 sequence=b"1"),
        Fate.PARK,
    ),
    "a stranger in our stream": lambda task: (
        envelope(source=b"stranger", type=Counted.TYPE.encode()),
        Fate.PARK,
    ),
}  # fmt: skip


def stranger(rng: random.Random, kind: str) -> Poison:
    """Return one record that claims to be ours, for one of stage B's topics."""
    topic = rng.choice([MESSAGES.name, COMMANDS.name])
    partition = rng.randrange(4)
    headers, fate = STRANGER_KINDS[kind](partition)
    return Poison(kind, topic, partition, b"forged", COUNTED, headers, fate)
