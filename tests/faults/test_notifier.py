"""The notifier killed at every step of a send: a keyed message has one effect, one without a key at most one, or is told as unknown."""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.faults.conftest import keep
from tests.faults.harness import FAILPOINT_SECONDS, Servers
from tests.faults.notifiers import KEYED, MAIL, PROVIDERS, UNKEYED, Notifiers
from tests.integration.kit import until

pytestmark = [pytest.mark.faults, pytest.mark.slow]

SEEDS = int(os.environ.get("SEEDS", "").strip() or 4)
"""How many kills; one lot each. `make faults T=tests/faults/test_notifier.py SEEDS=200` is the long run."""

PHASES = ("effect_started", "effect_done", "accepted", "before_commit", "after_commit")
"""Begun and not called · answered and not recorded · taken and not answered · around the transaction that records."""


@asynccontextmanager
async def notifiers(servers: Servers, seed: str, name: str) -> AsyncIterator[Notifiers]:
    """The notifier's stand, under a name of its own."""
    directory = servers.directory / "runs" / name
    directory.mkdir(parents=True)
    stand = Notifiers(servers, name, random.Random(f"{seed}/{name}"), directory)
    try:
        async with stand.running():
            yield stand
    finally:
        keep(directory, name)


@pytest.mark.timeout(120 + 30 * SEEDS)
async def test_n1_a_send_that_is_cut_off_anywhere_is_made_once_or_told_as_unknown(
    servers: Servers, seed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    killed: Counter[str] = Counter()
    async with notifiers(servers, seed, "n1") as stand:
        for round_ in range(SEEDS):
            phase = PHASES[round_ % len(PHASES)]
            await _kill_in(stand, phase)
            killed[phase] += 1
            stand.release()
            stand.start()
            await stand.staffed()
        statuses = await stand.settled(180)
        open_ = await stand.rows("SELECT id FROM effect")

    assert sum(killed.values()) == SEEDS
    assert open_ == [], f"seed {seed}: effects are left"
    wrong = []
    came: Counter[tuple[str, str]] = Counter()
    for case in stand.cases:
        status, times = statuses[case.ticket_id], stand.arrived(case)
        is_right = (
            (status, times) == ("sent", 1)
            if case.provider == KEYED
            else (status == "sent" and times == 1) or (status == "unknown" and times <= 1)
        )
        came[case.provider, f"{status}, arrived {times}"] += 1
        if not is_right:
            wrong.append((case.provider, status, times, case.ticket_id))
    with capsys.disabled():  # So that a log of the run keeps what it found.
        print(f"\nSEEDS={SEEDS} SEED={seed}, {len(stand.cases)} answers; killed in:", dict(killed))
        for (provider, how), count in sorted(came.items()):
            print(f"  {provider}: {how}: {count}")
    assert wrong == [], f"seed {seed}: {wrong} after {dict(killed)}"
    keys = Counter(one.key for one in stand.receiver.sent)
    assert set(keys.values()) == {1}


async def _kill_in(stand: Notifiers, phase: str) -> None:
    """Have answers sent by all providers, and kill the notifier in a phase of one of them, by lot."""
    if stand._member is not None and stand.member.exit_code is None:
        stand.member.send(signal.SIGKILL)
        await stand.ended()
    order = [provider for provider in PROVIDERS for _ in range(3)]
    stand.rng.shuffle(order)
    if phase == "accepted":
        victim = stand.rng.choice(PROVIDERS)
        stand.hold(victim)
        before = stand.held(victim)
        member = stand.start()
        for provider in order:
            await stand.answer(provider)
        await until(
            f"{victim} has taken a message", lambda: stand.held(victim) > before, FAILPOINT_SECONDS
        )
        member.send(signal.SIGKILL)
    else:
        passages = stand.rng.randint(1, 4)
        member = stand.start(f"{phase}=kill:{passages}")
        for provider in order:
            await stand.answer(provider)
    await stand.ended()
    assert member.exit_code == -signal.SIGKILL


async def test_n1_while_one_vendor_hangs_the_others_messages_go(
    servers: Servers, seed: str
) -> None:
    """More messages than a task begins at once wait for a vendor that never answers; the others' arrive meanwhile."""
    async with notifiers(servers, seed, "n1hang") as stand:
        stand.start()
        await stand.staffed()
        stand.hold(KEYED)
        hanging = [await stand.answer(KEYED) for _ in range(60)]
        await until("the vendor holds messages", lambda: stand.held(KEYED) >= 8, 60)
        began = time.monotonic()
        others = [await stand.answer(provider) for _ in range(20) for provider in (UNKEYED, MAIL)]

        async def are_sent() -> bool:
            found = await stand.statuses()
            return all(found.get(case.ticket_id) == "sent" for case in others)

        await until("the others' messages have gone", are_sent, 15)
        assert time.monotonic() - began < 15
        found = await stand.statuses()
        assert all(found.get(case.ticket_id, "requested") == "requested" for case in hanging)
        stand.release()
