"""The attacks of the ledger's design on the running pipeline: after each of them, every check holds.

Each test is one pipeline under load; several faults share one where they do not hide each other. The instants, the
targets and the pauses come from the seed.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import asyncpg
import pytest

from tests.faults import poison
from tests.faults.conftest import Attack
from tests.faults.harness import (
    NOISE,
    PARTITIONS,
    PLANNED_SECONDS,
    RECOVERY_SECONDS,
    SESSION_SECONDS,
    InvalidRun,
    Member,
    Pipeline,
    until,
    wall,
)

pytestmark = [pytest.mark.faults, pytest.mark.slow]

FREEZE_SECONDS = SESSION_SECONDS + 2.0
"""Longer than the session: the group goes on without the frozen one."""


async def _recovers(
    pipeline: Pipeline, stage: str, at: float, what: str, most: float = RECOVERY_SECONDS
) -> None:
    """Wait until a stage works again after a fault, and tell how long its slowest task was silent."""
    await pipeline.works_again(stage, max(at, wall() - 0.1))
    silence = await pipeline.silence(stage, at)
    pipeline.figures.append(
        f"stage {stage} silent for {silence:.2f} s after {what} (at most {most:g})"
    )
    assert silence <= most * NOISE, f"stage {stage} was silent for {silence:.2f} s after {what}"


async def test_kill_one_worker_then_two_at_once_then_a_planned_stop(attacked: Attack) -> None:
    pipeline = await attacked("kill")
    pipeline.restart_seconds = (
        4.5,
        5.0,
    )  # After its predecessor's session, as a supervisor should.

    async def kill_one(stage: str) -> None:
        at = await pipeline.kill(pipeline.pick(stage))
        await pipeline.works_again(stage, at + SESSION_SECONDS - 0.5)
        await _recovers(pipeline, stage, at, "a kill")

    await kill_one("a")
    await kill_one("b")
    await pipeline.staffed()
    at = wall()
    await asyncio.gather(*(pipeline.kill(pipeline.pick(stage)) for stage in "ab"))
    for stage in "ab":
        await pipeline.works_again(stage, at + SESSION_SECONDS - 0.5)
        await _recovers(pipeline, stage, at, "two kills at once")
    await pipeline.staffed()
    await asyncio.sleep(0.5)
    at = await pipeline.stop_in_good_order(pipeline.pick("a"))
    await _recovers(pipeline, "a", at, "a planned stop", PLANNED_SECONDS)
    pipeline.verdict(await pipeline.finish())


async def _frozen_until_replaced(pipeline: Pipeline, member: Member, at: float) -> float:
    """Keep a frozen member frozen until the others have its tasks and the session is well over; then let it go on.

    Returns the instant when it went on.
    """
    await pipeline.others_take_over(member, at)
    await asyncio.sleep(max(0.5, at + FREEZE_SECONDS - wall()))
    thawed = await pipeline.thaw(member)
    await until(
        lambda: member.events("task_acquired", thawed) or member.events("stopped", thawed),
        30,
        f"{member.name} has come back into the group",
    )
    pipeline.proves(f"{member.name} went on after {thawed - at:.1f} s and came back into the group")
    return thawed


async def test_freeze_a_worker_and_freeze_another_inside_its_transaction(attacked: Attack) -> None:
    pipeline = await attacked("freeze")

    async def anywhere() -> None:
        member = pipeline.pick("a")
        at = await pipeline.freeze(member)
        at = await _frozen_until_replaced(pipeline, member, at)
        await _recovers(pipeline, "a", at, "the thaw", PLANNED_SECONDS)

    async def inside() -> None:
        member = await pipeline.join(
            "b", f"in_txn=stop:{pipeline.rng.randint(5, 30)}", is_kept=True
        )
        at = await pipeline.passes(member, "in_txn", "stop")
        await _sees_the_transaction_end(pipeline, at)
        at = await _frozen_until_replaced(pipeline, member, at)
        await _recovers(pipeline, "b", at, "the thaw", PLANNED_SECONDS)

    await asyncio.gather(anywhere(), inside())
    pipeline.verdict(await pipeline.finish())


async def _sees_the_transaction_end(pipeline: Pipeline, at: float) -> None:
    """The frozen process' transaction is open, holds the lease's row, and is ended by the server."""
    connection = await asyncpg.connect(pipeline.dsn, timeout=5)
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND state = 'idle in transaction' AND xact_start < to_timestamp($1) + interval '0.1 s'"
    )
    try:
        if not await connection.fetchval(query, at):
            raise InvalidRun("no transaction of the frozen process is open")
        while await connection.fetchval(query, at):
            if wall() > at + 6:
                raise AssertionError("the server lets a frozen process keep its transaction")
            await asyncio.sleep(0.05)
    finally:
        await connection.close()
    pipeline.proves(f"its transaction was open, and ended by the server after {wall() - at:.1f} s")


async def test_zombie_relays_before_in_the_middle_of_and_after_sending(attacked: Attack) -> None:
    pipeline = await attacked("zombie")

    async def zombie(stage: str, failpoint: str) -> None:
        count = pipeline.rng.randint(5, 40)
        member = await pipeline.join(stage, f"{failpoint}=stop:{count}", is_kept=True)
        at = await pipeline.passes(member, failpoint, "stop")
        await _frozen_until_replaced(pipeline, member, at)

    await asyncio.gather(
        zombie("a", "before_relay"), zombie("b", "mid_relay"), zombie("a", "after_ack")
    )
    at = wall()
    for stage in "ab":
        await pipeline.works_again(stage, at)
    pipeline.verdict(await pipeline.finish())


ROUNDS = (
    ("in_txn", "before_commit"),
    ("after_commit", "before_relay"),
    ("mid_relay", "after_ack"),
    ("before_epoch", "in_assign"),
)


async def test_kill_at_each_failpoint(attacked: Attack) -> None:
    pipeline = await attacked("failpoints")
    early = {"before_epoch", "in_assign"}

    async def dies(stage: str, failpoint: str) -> None:
        count = 1 if failpoint in early else pipeline.rng.randint(3, 30)
        member = await pipeline.join(stage, f"{failpoint}=kill:{count}")
        await pipeline.passes(member, failpoint, "kill")

    for failpoints in ROUNDS:
        stages = pipeline.rng.sample("ab", 2)
        await asyncio.gather(*(dies(s, f) for s, f in zip(stages, failpoints, strict=True)))
    at = wall()
    for stage in "ab":
        await pipeline.works_again(stage, at + SESSION_SECONDS - 0.5)
    pipeline.verdict(await pipeline.finish())


async def _steals(pipeline: Pipeline) -> tuple[Member, float]:
    """A worker frozen before it takes a lease wakes when another holds it, and takes it from the rightful owner."""
    thief = await pipeline.join("a", "before_epoch=stop")
    at = await pipeline.passes(thief, "before_epoch", "stop")
    await until(
        lambda: len(_acquired(pipeline, "a", at, thief)) == PARTITIONS,
        20,
        f"the others have all tasks while {thief.name} is frozen",
    )
    await asyncio.sleep(pipeline.rng.uniform(0.2, 1.0))
    connection = await asyncpg.connect(pipeline.dsn, timeout=5)
    try:
        thawed = await pipeline.thaw(thief)
        while not await connection.fetch(
            "SELECT task, epoch FROM pipeline_a.lease WHERE owner LIKE $1", f"%:{thief.pid}"
        ):
            if wall() > thawed + 5:
                raise InvalidRun(f"{thief.name} has taken no lease after it went on")
            await asyncio.sleep(0.005)
    finally:
        await connection.close()
    pipeline.proves(
        f"{thief.name} went on after {thawed - at:.1f} s and holds a lease {wall() - thawed:.2f} s"
        " later: its row was read back"
    )
    return thief, thawed


def _is_decided(pipeline: Pipeline, since: float) -> bool:
    return bool(pipeline.lost("fenced", since) or pipeline.count("tasks_let_go", since))


def _acquired(pipeline: Pipeline, stage: str, since: float, but: Member) -> set[int]:
    return {
        event["task"]
        for member in pipeline.of_stage(stage)
        if member is not but
        for event in member.events("task_acquired", since)
    }


async def test_a_lease_is_stolen_and_stolen_by_one_that_dies(attacked: Attack) -> None:
    pipeline = await attacked("stolen")
    _, thawed = await _steals(pipeline)
    await until(lambda: pipeline.lost("fenced", thawed), 10, "the rightful owner was fenced")
    pipeline.proves("the rightful owner was fenced")
    await _recovers(pipeline, "a", thawed, "a theft")
    for _ in range(3):
        thief, thawed = await _steals(pipeline)
        at = await pipeline.kill(thief)
        pipeline.proves(f"it was killed {at - thawed:.2f} s after it went on")
        await until(
            partial(_is_decided, pipeline, thawed),
            10,
            "the rightful owner was fenced, or the group had it let go first",
        )
        if pipeline.lost("fenced", thawed):
            break
        # It went on so slowly that the group heard of it before its lease was taken: nothing was stolen.
        pipeline.proves("nothing was stolen: the group moved on first; once more")
        await pipeline.works_again("a", at + SESSION_SECONDS)
    else:
        raise InvalidRun("the group moved on before each of three thefts")
    pipeline.proves("the rightful owner was fenced")
    await pipeline.works_again("a", at + SESSION_SECONDS)
    await _recovers(pipeline, "a", at, "the thief's death")
    pipeline.verdict(await pipeline.finish())


async def test_a_storm_of_joins_kills_and_leaves(attacked: Attack) -> None:
    pipeline = await attacked("storm")
    rng = pipeline.rng

    async def storm(stage: str) -> None:
        deeds: list[Callable[[], Awaitable[object]]] = [
            lambda: pipeline.kill(pipeline.pick(stage)),
            lambda: _joins_and_leaves(pipeline, stage),
            lambda: _joins_and_leaves(pipeline, stage),
        ]
        rng.shuffle(deeds)
        under_way = []
        for deed in deeds:
            under_way.append(asyncio.ensure_future(deed()))
            await asyncio.sleep(rng.uniform(0.5, 2.0))
        await asyncio.gather(*under_way)

    await asyncio.gather(storm("a"), storm("b"))
    await pipeline.staffed()
    at = wall()
    for stage in "ab":
        await pipeline.works_again(stage, at)
    pipeline.verdict(await pipeline.finish())


async def _joins_and_leaves(pipeline: Pipeline, stage: str) -> None:
    member = await pipeline.join(stage)
    await asyncio.sleep(pipeline.rng.uniform(0.2, 1.5))
    await pipeline.stop_in_good_order(member)


async def test_the_broker_is_killed_under_load_and_frozen(attacked: Attack) -> None:
    pipeline = await attacked("broker")
    await pipeline.kill_broker()
    await asyncio.to_thread(pipeline.servers.kafka.start)
    up = wall()
    for stage in "ab":
        await pipeline.works_again(stage, up)
        pipeline.figures.append(
            f"stage {stage} works {await pipeline.works_again(stage, up) - up:.2f} s"
            " after the broker answers"
        )
    thawed = await pipeline.freeze_server(pipeline.servers.kafka, pipeline.rng.uniform(3.0, 5.0))
    for stage in "ab":
        pipeline.figures.append(
            f"stage {stage} works {await pipeline.works_again(stage, thawed) - thawed:.2f} s"
            " after the broker goes on"
        )
    pipeline.verdict(await pipeline.finish())


async def test_postgres_is_stopped_at_once_once_with_a_worker_and_frozen(attacked: Attack) -> None:
    pipeline = await attacked("postgres")
    for seconds, victim in ((pipeline.rng.uniform(0.2, 1.0), ""), (3.0, "b")):
        crash = asyncio.ensure_future(pipeline.crash_postgres(seconds))
        if victim:
            # The group moves on while nobody can take a lease.
            await pipeline.kill(pipeline.pick(victim))
        up = await crash
        for stage in "ab":
            pipeline.figures.append(
                f"stage {stage} works {await pipeline.works_again(stage, up) - up:.2f} s"
                " after PostgreSQL is back"
            )
    thawed = await pipeline.freeze_server(pipeline.servers.postgres, pipeline.rng.uniform(5, 6.5))
    for stage in "ab":
        pipeline.figures.append(
            f"stage {stage} works {await pipeline.works_again(stage, thawed) - thawed:.2f} s"
            " after PostgreSQL goes on"
        )
    assert pipeline.lost("database"), "no worker has noticed that its database was away"
    pipeline.verdict(await pipeline.finish())


async def test_the_reply_to_commit_is_lost(attacked: Attack) -> None:
    pipeline = await attacked("lost-reply", failpoints="commit_ack=raise:40")
    first_shift = list(pipeline.members.values())
    for member in first_shift:
        await pipeline.passes(member, "commit_ack", "raise")
    joiners = [await pipeline.join(s, "commit_ack=raise:20", is_kept=True) for s in "ab"]
    for member in joiners:
        await pipeline.passes(member, "commit_ack", "raise")
    at = wall()
    for stage in "ab":
        await pipeline.works_again(stage, at)
    assert pipeline.lost("database") >= len(first_shift) + len(joiners)
    pipeline.verdict(await pipeline.finish())


NEIGHBOUR_SECONDS = 2.0
"""How long poison may hold up those who share its partition."""


async def test_poison_is_parked_and_its_neighbours_go_on(attacked: Attack) -> None:
    pipeline = await attacked("poison")
    rng = pipeline.rng
    at = wall()
    await _poisons(pipeline, [*poison.INBOUND_KINDS, *poison.ODD_KINDS, "380 kB key"], 2)
    await asyncio.sleep(1.0)
    for _ in range(3):
        await pipeline.driver.send_undecodable(poison.inbound(rng, "garbage"), b"\xff\xfe\xfd")
        await asyncio.sleep(rng.uniform(0.1, 0.5))
    for kind in poison.STRANGER_KINDS:
        await pipeline.driver.send_poison(poison.stranger(rng, kind))
    stranger = poison.stranger(rng, "a stranger in our stream")
    await pipeline.driver.send_undecodable(stranger, b"\xff\xfe\xfd")
    for stage in "ab":
        await pipeline.works_again(stage, wall())
        silence = await pipeline.silence(stage, at)
        pipeline.figures.append(f"stage {stage}: neighbours waited {silence:.2f} s at most")
        assert silence <= NEIGHBOUR_SECONDS * NOISE
    pipeline.verdict(await pipeline.finish())
    for said in ("handler_failed", "batch_refused", "poll_undecodable"):
        assert pipeline.count(said) > 0, f"nothing was ever {said}: the poison has not worked"
    assert pipeline.lost("handler_failed") == 0, "a record that fails has cost a task its lease"


async def _poisons(pipeline: Pipeline, kinds: list[str], times: int) -> None:
    """Have the driver send each kind some times, shuffled among its inputs, and wait until it has."""
    waiting = kinds * times
    pipeline.rng.shuffle(waiting)

    def surprise(n: int, key: str) -> poison.Poison | poison.Odd | None:
        if n % 20 or not waiting:
            return None
        kind = waiting.pop()
        if kind in poison.ODD_KINDS:
            return poison.ODD_KINDS[kind](n, key, pipeline.prefix)
        if kind == "380 kB key":
            return poison.large_key(pipeline.rng)
        return poison.inbound(pipeline.rng, kind)

    pipeline.driver.surprise = surprise
    await until(lambda: not waiting, 60, "the driver has sent its poison")
    pipeline.proves(f"{len(kinds) * times} poisonous records of {len(kinds)} kinds were sent")


async def test_a_mix_of_all_with_poison_in_it(attacked: Attack) -> None:
    pipeline = await attacked("mix")
    rng = pipeline.rng
    kinds = [*poison.INBOUND_KINDS, *poison.ODD_KINDS]

    def surprise(n: int, key: str) -> poison.Poison | poison.Odd | None:
        if n % 100:
            return None
        kind = rng.choice(kinds)
        if kind in poison.ODD_KINDS:
            return poison.ODD_KINDS[kind](n, key, pipeline.prefix)
        return poison.inbound(rng, kind)

    frozen: set[str] = set()

    async def victim(stage: str) -> Member:
        """A member that nothing else is being done to."""
        while (member := pipeline.pick(stage)).slot in frozen or not member.has_work:
            await asyncio.sleep(0.1)
        return member

    async def kills(stage: str) -> None:
        await pipeline.kill(await victim(stage))

    async def freezes(stage: str) -> None:
        member = await victim(stage)
        frozen.add(member.slot)
        await pipeline.freeze(member)
        await asyncio.sleep(rng.uniform(0.5, FREEZE_SECONDS))
        await pipeline.thaw(member)
        frozen.discard(member.slot)

    async def dies_at_a_failpoint() -> None:
        failpoint = rng.choice([name for pair in ROUNDS[:3] for name in pair])
        member = await pipeline.join(rng.choice("ab"), f"{failpoint}=kill:{rng.randint(1, 20)}")
        await pipeline.passes(member, failpoint, "kill")

    pipeline.driver.surprise = surprise
    pipeline.restart_seconds = (0.0, 3.0)
    deeds: list[Callable[[], Awaitable[object]]] = [
        lambda: kills("a"),
        lambda: kills("b"),
        lambda: freezes("a"),
        lambda: freezes("b"),
        dies_at_a_failpoint,
        dies_at_a_failpoint,
        lambda: pipeline.crash_postgres(rng.uniform(0.2, 1.5)),
        lambda: pipeline.freeze_server(pipeline.servers.kafka, rng.uniform(1, 3)),
        lambda: _joins_and_leaves(pipeline, rng.choice("ab")),
    ]
    rng.shuffle(deeds)
    under_way = []
    for deed in deeds:
        under_way.append(asyncio.ensure_future(deed()))
        await asyncio.sleep(rng.uniform(0.3, 2.5))
    await asyncio.gather(*under_way)
    at = wall()
    for stage in "ab":
        await pipeline.works_again(stage, at)
    pipeline.verdict(await pipeline.finish())
