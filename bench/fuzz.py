"""Mutation fuzzing of every parser that reads what strangers send: `python -m bench.fuzz --inputs 100000 --parser email`.

An input is one of a target's seeds, changed a few times by a seeded hand: bits, slices, numbers, pieces of the format, two
seeds grown together. A parser may answer, or refuse with one of its target's own errors; anything else is a find, and so is
an input that takes a second, or memory that grows past `RSS_RISE_MAX`. The same seed makes the same inputs, so a find is
repeated by its number: `--only 4711`.

Other parsers are added with `register`: a name, a function of bytes, its seeds, and the errors it refuses with.
"""

import argparse
import gc
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

import msgspec
import psutil

from bench import fuzz_channels, fuzz_seeds
from services.ingest.core.state import ParseError

SEED: Final = 20_261_124
WARM_UP: Final = 300
INPUT_BYTES_MAX: Final = 200_000
SECONDS_MAX: Final = 1.0
RSS_RISE_MAX: Final = 50 * 1024 * 1024
FINDS_SHOWN: Final = 5

Parser = Callable[[bytes], object]


@dataclass(frozen=True, slots=True)
class Target:
    """A parser under attack. `tokens` are pieces of its format that mutation puts in."""

    name: str
    parse: Parser
    seeds: tuple[bytes, ...]
    tokens: tuple[bytes, ...] = ()
    refusals: tuple[type[Exception], ...] = (ParseError,)


@dataclass(slots=True)
class Outcome:
    """What a run found. Times are processor seconds of one input, memory is in bytes."""

    parser: str
    inputs: int = 0
    answered: int = 0
    refused: int = 0
    finds: int = 0
    slowest_seconds: float = 0.0
    slowest_number: int = -1
    rss_rise_bytes: int = 0
    seconds: float = 0.0

    @property
    def is_good(self) -> bool:
        """Whether there were only answers and refusals, each within a second and all within the memory."""
        return (
            self.finds == 0
            and self.slowest_seconds < SECONDS_MAX
            and self.rss_rise_bytes < RSS_RISE_MAX
        )


TARGETS: dict[str, Target] = {}


def register(
    name: str,
    parse: Parser,
    seeds: Sequence[bytes],
    *,
    tokens: Sequence[bytes] = (),
    refusals: Sequence[type[Exception]] = (ParseError,),
) -> None:
    """Add a parser; a name that is taken is replaced."""
    TARGETS[name] = Target(name, parse, tuple(seeds), tuple(tokens), tuple(refusals))


# --------------------------------------------------------------------------------------------- mutation

_NUMBERS: Final = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)
_DECIMALS: Final = (
    b"0",
    b"-1",
    b"65536",
    b"2147483648",
    b"99999999999999999999",
    b"1e309",
    b"0x41",
)


def _slice(random: Random, data: bytes, longest: int = 64) -> tuple[int, int]:
    start = random.randrange(len(data) + 1)
    return start, min(len(data), start + random.randint(0, longest))


def _flip(random: Random, data: bytes, target: Target) -> bytes:
    del target
    made = bytearray(data or b"\x00")
    for _ in range(random.randint(1, 8)):
        made[random.randrange(len(made))] ^= 1 << random.randrange(8)
    return bytes(made)


def _drop(random: Random, data: bytes, target: Target) -> bytes:
    del target
    start, end = _slice(random, data)
    return data[:start] + data[end:]


def _cut(random: Random, data: bytes, target: Target) -> bytes:
    del target
    return data[: random.randrange(len(data) + 1)]


def _double(random: Random, data: bytes, target: Target) -> bytes:
    del target
    start, end = _slice(random, data)
    times = random.choice((2, 2, 3, 10, 100, 1_000))
    return data[:start] + data[start:end] * times + data[end:]


def _insert(random: Random, data: bytes, target: Target) -> bytes:
    at = random.randrange(len(data) + 1)
    pieces = target.tokens or (b"\x00", b"\r\n", b"\xff")
    return data[:at] + random.choice(pieces) * random.choice((1, 1, 1, 2, 50)) + data[at:]


def _random(random: Random, data: bytes, target: Target) -> bytes:
    del target
    start, end = _slice(random, data, 16)
    return data[:start] + random.randbytes(random.randint(1, 16)) + data[end:]


def _number(random: Random, data: bytes, target: Target) -> bytes:
    del target
    at = random.randrange(len(data) + 1)
    if random.random() < 0.5:
        width = random.choice((1, 2, 4))
        value = random.choice(_NUMBERS) & ((1 << (8 * width)) - 1)
        return data[:at] + value.to_bytes(width, "little") + data[at + width :]
    return data[:at] + random.choice(_DECIMALS) + data[at + 1 :]


def _splice(random: Random, data: bytes, target: Target) -> bytes:
    other = random.choice(target.seeds)
    return data[: random.randrange(len(data) + 1)] + other[random.randrange(len(other) + 1) :]


_MUTATIONS: Final[tuple[Callable[[Random, bytes, Target], bytes], ...]] = (
    _flip, _drop, _cut, _double, _insert, _insert, _random, _number, _splice,
)  # fmt: skip


def made_input(target: Target, number: int, seed: int = SEED) -> bytes:
    """Return the `number`-th input of a target."""
    # A hash of the name would differ from process to process.
    random = Random(f"{seed}/{target.name}/{number}")
    data = random.choice(target.seeds)
    for _ in range(random.choice((1, 1, 2, 3, 5, 8))):
        data = random.choice(_MUTATIONS)(random, data, target)[:INPUT_BYTES_MAX]
    return data


# -------------------------------------------------------------------------------------------------- run


def _rss() -> int:
    gc.collect()
    return int(psutil.Process().memory_info().rss)


def run(
    target: Target,
    inputs: int,
    *,
    seed: int = SEED,
    say: Callable[[str], None] = lambda _: None,
    numbers: Iterator[int] | None = None,
) -> Outcome:
    """Feed a parser; `say` is told of each find, at most `FINDS_SHOWN` of them."""
    outcome = Outcome(target.name)
    began = time.process_time()
    base = 0
    for number in numbers if numbers is not None else range(inputs):
        if outcome.inputs == min(WARM_UP, inputs // 10):
            base = _rss()
        data = made_input(target, number, seed)
        started = time.process_time()
        try:
            target.parse(data)
            outcome.answered += 1
        except target.refusals:
            outcome.refused += 1
        except Exception:  # noqa: BLE001 - whatever it is, it is what we look for
            outcome.finds += 1
            if outcome.finds <= FINDS_SHOWN:
                say(f"{target.name} #{number}: {traceback.format_exc(limit=-4)}")
        took = time.process_time() - started
        outcome.inputs += 1
        if took > outcome.slowest_seconds:
            outcome.slowest_seconds, outcome.slowest_number = took, number
            if took >= SECONDS_MAX:
                say(f"{target.name} #{number}: took {took:.2f} s")
    outcome.rss_rise_bytes = max(0, _rss() - base) if base else 0
    outcome.seconds = time.process_time() - began
    return outcome


for _name, _parse, _seeds, _tokens in (*fuzz_seeds.MAIL_TARGETS, *fuzz_channels.targets()):
    register(_name, _parse, _seeds, tokens=_tokens)


def main(argv: Sequence[str]) -> int:
    """Run from the command line; 1 where a parser failed."""
    parser = argparse.ArgumentParser(prog="python -m bench.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000, help="Inputs for each parser.")
    parser.add_argument("--parser", action="append", choices=[*sorted(TARGETS), "all"])
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--only", type=int, help="The number of one input: parse it alone.")
    told = parser.parse_args(argv)
    wanted = told.parser or ["all"]
    names = sorted(TARGETS) if "all" in wanted else wanted
    is_good = True
    for name in names:
        numbers = iter((told.only,)) if told.only is not None else None
        outcome = run(
            TARGETS[name],
            told.inputs,
            seed=told.seed,
            say=lambda line: print(line, file=sys.stderr),
            numbers=numbers,
        )
        is_good = is_good and outcome.is_good
        told_of = msgspec.to_builtins(outcome) | {"is_good": outcome.is_good}
        print(msgspec.json.encode(told_of).decode(), flush=True)
    return 0 if is_good else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
