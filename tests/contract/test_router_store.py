"""The router's stores on a real PostgreSQL: what they write and read, and what the constraints refuse."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from chassis.ledger import open_pool
from chassis.migrate import migrate
from chassis.policy import PolicyHolder
from chassis.stage import Change, Outcome
from schemas import commands, merging, roster, routing
from services.router.core.assignment import explain
from services.router.core.assignment.domain import Domain, Lease
from services.router.core.assignment.terms import Guard, Lending, Overload
from services.router.handlers import POLICY, TicketsStage
from services.router.roster_history import static_reasons_at
from services.router.store import DomainStore, RoutingRow
from tests.unit.router.stories import Desk, at, message
from tests.unit.router.test_handlers import received

REPOSITORY = Path(__file__).parents[2]
SQL = REPOSITORY / "services" / "router" / "sql"


@pytest.fixture(scope="module")
def stage() -> TicketsStage:
    return TicketsStage(PolicyHolder(REPOSITORY / "policy", POLICY))


@pytest.fixture
async def connection(database: str) -> AsyncIterator[Any]:
    await migrate(database, "router", [SQL])
    pool = await open_pool(database, "router", 2, "test")
    try:
        async with pool.acquire() as one:
            yield one
    finally:
        await pool.close()


async def save(stage: TicketsStage, connection: Any, *outcomes: Outcome[Any]) -> None:
    """One batch, as the loop writes it."""
    rows = [(0, row) for outcome in outcomes for row in outcome.rows]
    async with connection.transaction():
        await stage.store.save(connection, [Change(0, "c1", outcomes[-1].state)], rows)


async def test_a_whole_life_in_one_batch_is_stored_and_read_as_it_was(
    stage: TicketsStage, connection: Any
) -> None:
    opened = stage.decide(
        None, received(stage, message(text="Where\x00?", text_new=""), "09:00"), at("09:00")
    )
    assert opened.state is not None
    assert opened.state.ticket is not None
    ticket_id = opened.state.ticket.ticket_id
    solve = commands.SolveTicket(
        command_id="k",
        conversation_id="c1",
        ticket_id=ticket_id,
        agent_id="ada",
        cause="late_by_shipper",
    )
    tag = commands.TagTicket(
        command_id="k2",
        conversation_id="c1",
        ticket_id=ticket_id,
        agent_id="ada",
        add=("angry", "vip"),
    )
    tagged = stage.decide(opened.state, received(stage, tag, "09:04"), at("09:04"))
    solved = stage.decide(tagged.state, received(stage, solve, "09:05"), at("09:05"))
    late = "2026-11-28T09:00:00"
    followed = stage.decide(solved.state, received(stage, message("m2"), late), at(late))
    bounced = stage.decide(
        followed.state,
        received(stage, message("m3", direction="outbound", occurred_at=at(late)), late),
        at(late),
    )
    await save(stage, connection, opened, tagged, solved, followed, bounced)

    assert (await stage.store.load(connection, 0, ["c1", "other"])) == {"c1": bounced.state}
    tickets = await connection.fetch("SELECT * FROM ticket ORDER BY number")
    assert [(t["status"], t["agent_id"], t["tags"]) for t in tickets] == [
        ("closed", "ada", ["angry", "vip"]),
        ("pending", "elsewhere", []),
    ]
    events = await connection.fetch(
        "SELECT * FROM ticket_event WHERE ticket_id = $1 ORDER BY version", ticket_id
    )
    kinds = [event["type"].split(".")[1] for event in events]
    assert kinds == ["opened", "tagged", "solved", "closed"]
    assert json.loads(events[0]["data"])["ticket_id"] == ticket_id
    messages = await connection.fetch("SELECT * FROM ticket_message ORDER BY message_id")
    assert [(m["outcome"], m["ticket_id"] is None) for m in messages] == [
        ("opened", False),
        ("followed_up", False),
        ("outbound", True),
    ]
    assert messages[0]["text"] == "Where\ufffd?"


def ordered(kind: type[commands.Command], ticket_id: str, n: int, **fields: Any) -> Any:
    known = {"command_id": f"k{n}", "conversation_id": "c1", "ticket_id": ticket_id}
    return kind.model_validate(known | {"agent_id": "ada"} | fields)


async def test_every_standing_of_a_ticket_is_stored(stage: TicketsStage, connection: Any) -> None:
    outcome = stage.decide(None, received(stage, message(), "09:00"), at("09:00"))
    assert outcome.state is not None
    assert outcome.state.ticket is not None
    ticket_id = outcome.state.ticket.ticket_id
    await save(stage, connection, outcome)
    steps: list[tuple[type[commands.Command], dict[str, Any], tuple[Any, ...]]] = [
        (
            commands.HoldTicket,
            {"reason": "x", "waiting_on": "carrier", "until": at("12:00")},
            ("on_hold", "ada", at("12:00"), None, None),
        ),
        (
            commands.DelegateTicket,
            {"to_agent_id": "bo", "task": "x"},
            ("queued", "ada", None, "ada", None),
        ),
        (commands.ReturnTicket, {"reason": "x"}, ("queued", "ada", None, None, None)),
        (commands.MarkTicketAsSpam, {"reason": "x"}, ("spam", "ada", None, None, None)),
        (commands.RestoreTicket, {}, ("queued", "ada", None, None, None)),
        (
            commands.MergeTicket,
            {"into_conversation_id": "c2", "into_ticket_id": "t2"},
            ("queued", "ada", None, None, None),
        ),
    ]
    found = "SELECT status, agent_id, until_at, owner_id, merged_into FROM ticket"
    state = outcome.state
    for n, (kind, fields, expected) in enumerate(steps):
        command = ordered(kind, ticket_id, n, **fields)
        outcome = stage.decide(state, received(stage, command, "10:00"), at("10:00"))
        await save(stage, connection, outcome)
        assert outcome.state is not None
        state = outcome.state
        assert tuple(await connection.fetchrow(found)) == expected
    answer = merging.MergeAnswered(
        conversation_id="c1",
        ticket_id=ticket_id,
        merge_id="k5",
        is_accepted=True,
        into_conversation_id="c2",
        into_ticket_id="t2",
        into_reference="SB-2M7QT4K",
    )
    outcome = stage.decide(state, received(stage, answer, "10:01"), at("10:01"))
    carried = stage.decide(
        outcome.state, received(stage, message("m2", text="Hello?"), "10:02"), at("10:02")
    )
    await save(stage, connection, outcome, carried)
    assert tuple(await connection.fetchrow(found)) == ("merged", "ada", None, None, "t2")
    assert await stage.store.load(connection, 0, ["c1"]) == {"c1": carried.state}
    moved = "SELECT ticket_id, outcome FROM ticket_message WHERE message_id = 'm2'"
    assert tuple(await connection.fetchrow(moved)) == ("t2", "carried")
    undo = ordered(commands.UnmergeTicket, ticket_id, 9)
    outcome = stage.decide(carried.state, received(stage, undo, "10:03"), at("10:03"))
    await save(stage, connection, outcome)
    assert tuple(await connection.fetchrow(found)) == ("queued", "ada", None, None, None)
    assert tuple(await connection.fetchrow(moved)) == (ticket_id, "carried")


async def test_an_erasure_takes_what_came_from_a_merged_case_out_of_the_story(
    stage: TicketsStage, connection: Any
) -> None:
    opened = stage.decide(None, received(stage, message(), "09:00"), at("09:00"))
    assert opened.state is not None
    assert opened.state.ticket is not None
    asked = merging.MergeAsked.model_validate(
        merging.MergeAsked.EXAMPLE
        | {"conversation_id": "c1", "ticket_id": opened.state.ticket.ticket_id}
        | {"from_conversation_id": "c9", "customer_id": "k1"}
    )
    absorbed = stage.decide(opened.state, received(stage, asked, "09:10"), at("09:10"))
    erased = merging.ErasureCarried.model_validate(
        merging.ErasureCarried.EXAMPLE
        | {"conversation_id": "c1", "from_conversation_id": "c9", "members": ["k9"]}
    )
    after = stage.decide(absorbed.state, received(stage, erased, "09:20"), at("09:20"))
    await save(stage, connection, opened, absorbed, after)
    facts = "SELECT data -> 'facts' FROM ticket_event WHERE type = 'ticket.absorbed.v1'"
    assert json.loads(await connection.fetchval(facts)) == {}
    assert await connection.fetchval("SELECT subject FROM ticket") != ""


async def test_what_is_no_life_of_a_ticket_is_refused(connection: Any) -> None:
    row = """
    INSERT INTO ticket (ticket_id, conversation_id, number, reference, status, queue, desk, priority, agent_id, subject,
                        customer_id, tags, opened_at, updated_at, version, until_at, merged_into)
    VALUES ('t1', 'c1', 1, 'SB-1', $1, 'service', 'service', 3, $2, '', 'k', '{}', now(), now(), 1, $3, $4)
    """
    for values, name in (
        (("on_hold", None, None, None), "has_its_agent"),
        (("queued", None, at("12:00"), None), "rests_until"),
        (("merged", "ada", None, None), "is_merged_into"),
        (("queued", "ada", None, "t2"), "is_merged_into"),
        (("merged", "ada", None, "t1"), "not_its_own_target"),
        (("sleeping", "ada", None, None), "status_check"),
    ):
        with pytest.raises(asyncpg.CheckViolationError, match=name):
            await connection.execute(row, *values)


async def store(connection: Any, domain: Domain, told: Any = ()) -> None:
    rows = [(3, RoutingRow(event, at("09:00"))) for event in told]
    async with connection.transaction():
        await DomainStore().save(connection, [Change(3, domain.name, domain)], rows)


async def load(connection: Any, task: int = 3) -> dict[str, Domain]:
    return await DomainStore().load(connection, task, ())


async def test_a_domain_is_read_as_it_was_written_step_by_step(connection: Any) -> None:
    desk = Desk().agent("ada", capacity=10).agent("bo", skills={"x": 3}, capacity=10)
    await store(connection, desk.domain)
    assert not desk.domain.is_changed()
    desk.asks("t1", "09:00").asks("t2", "09:00").asks("t3", "09:00")
    await store(connection, desk.domain, desk.everything)
    desk.declines("t1", "09:00:01").accepts("t2", "09:00:02").withdraws("t2", "09:00:03")
    # One ticket's old work ends and its new one is offered, in one batch.
    desk.asks("t1", "09:00:04", work_id="w-t1b", priority=1)
    await store(connection, desk.domain)
    loaded = await load(connection)
    assert list(loaded) == ["main"]
    assert loaded["main"].agents == desk.domain.agents
    assert loaded["main"].works == desk.domain.works
    assert loaded["main"].next_due() == desk.domain.next_due()
    assert await load(connection, 4) == {}
    told = await connection.fetch("SELECT type, data FROM routing_event ORDER BY id")
    assert [t["type"] for t in told] == [
        "routing.offered.v1",
        "routing.offered.v1",
        "routing.queued.v1",
    ]
    assert json.loads(told[0]["data"])["record"]["chosen_by"] == "longest_idle"


async def test_an_offer_leaves_what_an_agent_can_do_alone(connection: Any) -> None:
    desk = Desk().agent("ada", capacity=10).agent("bo", capacity=10)
    await store(connection, desk.domain)
    await connection.execute("""UPDATE assignment_agent SET name = 'as it was'""")
    desk.asks("t", "09:00").declines("t", "09:00:01").accepts("t", "09:00:02")
    assert (desk.domain.changed_agents, desk.domain.changed_loads) == (set(), {"ada", "bo"})
    await store(connection, desk.domain)
    read = (await load(connection))["main"].agents
    assert [agent.name for agent in read.values()] == ["as it was"] * 2
    for agent_id, agent in desk.domain.agents.items():
        agent.name = "as it was"
        assert read[agent_id] == agent
    desk.presence("ada", "away", "09:00:03")
    assert desk.domain.changed_agents == {"ada"}


async def test_agents_who_leave_and_work_that_is_forgotten_are_deleted(connection: Any) -> None:
    desk = Desk().agent("ada").asks("t", "09:00").withdraws("t", "09:00:01")
    await store(connection, desk.domain)
    desk.hears(roster.AgentRemoved(domain="main", agent_id="ada"), "09:30")
    desk.asks("u", "09:30").withdraws("u", "09:30:01")
    await store(connection, desk.domain)
    loaded = (await load(connection))["main"]
    assert loaded.agents == {}
    assert list(loaded.works) == ["w-u"]


async def test_a_lowered_capacity_can_be_stored_and_an_overload_cannot(connection: Any) -> None:
    desk = Desk().agent("ada", capacity=20).asks("t1", "09:00").asks("t2", "09:00")
    desk.agent("ada", "09:00:01", capacity=10, presence=None)
    await store(connection, desk.domain)
    agent = desk.domain.agents["ada"]
    agent.load += 1
    desk.domain.touch_agent("ada")
    with pytest.raises(asyncpg.CheckViolationError, match="not_overloaded"):
        await store(connection, desk.domain)


async def test_a_ticket_cannot_be_held_twice(connection: Any) -> None:
    desk = Desk().agent("ada").asks("t", "09:00").asks("u", "09:00")
    desk.domain.works["w-u"].ticket_id = "t"
    with pytest.raises(asyncpg.UniqueViolationError, match="one_live"):
        await store(connection, desk.domain)


async def test_a_ticket_on_its_way_to_another_domain_may_be_live_in_both(connection: Any) -> None:
    main, east = Desk().agent("ada").asks("t", "09:00"), Desk().agent("nils")
    east.domain.name = "east"
    east.asks("t", "09:01", work_id="w-t2", domain="east")
    await store(connection, main.domain)
    await store(connection, east.domain)
    loaded = await load(connection)
    assert {name: domain.live for name, domain in loaded.items()} == {
        "main": {"t": "w-t"},
        "east": {"t": "w-t2"},
    }


async def test_many_domains_and_an_empty_batch_are_no_trouble(connection: Any) -> None:
    await store(connection, Domain("quiet"))
    assert await load(connection) == {}
    offer = routing.OfferMade.model_validate(routing.OfferMade.EXAMPLE)
    await store(connection, Domain("quiet"), [offer])
    assert await connection.fetchval("SELECT count(*) FROM routing_event") == 1


async def test_duty_silence_and_who_knows_whom_are_read_as_they_were_written(
    connection: Any,
) -> None:
    terms: dict[str, Any] = {
        "heartbeat": 20.0,
        "return_assigned": 60.0,
        "overload": {"service": Overload(0, 0)},
        "guards": {"service": Guard(1, 0, 60.0, 90.0)},
    }
    desk = Desk(**terms).agent("ada", capacity=10, auto_accept=True)
    shift = roster.Shift(starts_at=at("08:00"), ends_at=at("18:00"))
    desk.agent("bo", capacity=0, shifts=(shift,), calendar="unheard-of")
    desk.beats("ada", "09:00").asks("t", "09:00", customer_id="k1")
    desk.asks("u", "09:00:01", due_at=at("09:00:30"))
    await store(connection, desk.domain)
    loaded = (await load(connection))["main"]
    assert loaded.agents == desk.domain.agents
    assert loaded.works == desk.domain.works
    assert loaded.switches == desk.domain.switches
    assert loaded.switches.at_risk == loaded.switches.overloaded == {"service"}
    assert loaded.known == desk.domain.known != {}

    desk.asks("v", "2026-12-25T09:00:00", customer_id="k2").accepts("v", "2026-12-25T09:00:01")
    await store(connection, desk.domain)
    assert (await load(connection))["main"].known == desk.domain.known


async def test_a_heartbeat_writes_nothing_but_the_first(connection: Any) -> None:
    desk = Desk(heartbeat=20.0).agent("ada")
    await store(connection, desk.domain)
    assert desk.beats("ada", "09:00").domain.is_changed()
    await store(connection, desk.domain)
    assert not desk.beats("ada", "09:00:05").domain.is_changed()


async def test_a_ticket_may_be_offered_to_several_and_held_by_one(connection: Any) -> None:
    desk = Desk(parallel={"service": 3}).agent("ada").agent("bo").agent("cy").asks("t", "09:00")
    await store(connection, desk.domain)
    loaded = (await load(connection))["main"]
    assert loaded.works == desk.domain.works
    assert [lease.agent_id for lease in loaded.works["w-t"].leases] == ["ada", "bo", "cy"]
    assert loaded.held == desk.domain.held
    desk.accepts("t", "09:00:01", agent="bo")
    await store(connection, desk.domain)
    assert (await load(connection))["main"].works == desk.domain.works


@pytest.mark.parametrize(
    ("status", "others"), [("assigned", ["bo"]), ("offered", ["ada"]), ("offered", ["bo", "bo"])]
)
async def test_an_assigned_ticket_with_others_and_one_offered_twice_to_somebody_are_refused(
    connection: Any, status: Any, others: list[str]
) -> None:
    desk = Desk().agent("ada").asks("t", "09:00")
    work = desk.domain.works["w-t"]
    work.status = status
    work.others = tuple(Lease(name, f"r-{n}") for n, name in enumerate(others))
    with pytest.raises(asyncpg.CheckViolationError, match="asks_others_while_offered"):
        await store(connection, desk.domain)


async def test_mail_under_a_call_is_stored_and_so_is_a_forced_transfer(connection: Any) -> None:
    desk = Desk(interrupted_by={"email": ("voice",)}).agent("ada", capacity=100)
    desk.asks("mail", "09:00", cost=100, channel="email").accepts("mail", "09:00:01")
    desk.asks("call", "09:00:02", cost=100, channel="voice").accepts("call", "09:00:03")
    await store(connection, desk.domain)
    forced: dict[str, Any] = {"transfer": "forced", "preferred_agent_id": "ada", "cost": 30}
    desk.asks("more", "09:00:04", channel="voice", **forced)
    await store(connection, desk.domain)
    row = await connection.fetchrow("SELECT load, ceiling, capacity FROM assignment_agent")
    assert dict(row) == {"load": 130, "ceiling": 130, "capacity": 100}
    desk.withdraws("call", "09:00:05").withdraws("more", "09:00:06")
    await store(connection, desk.domain)
    row = await connection.fetchrow("SELECT load, ceiling, capacity FROM assignment_agent")
    assert dict(row) == {"load": 100, "ceiling": 100, "capacity": 100}


async def test_a_record_with_codes_is_spelled_out_by_the_roster_of_its_time(
    connection: Any,
) -> None:
    lending = {"service": Lending(1, 0, ("technical",))}
    desk = Desk(lending=lending)
    for n in range(60):
        queues = ("technical" if n % 2 else "service",)
        skills = {"orders": n % 5} if n % 5 else {}
        desk.agent(f"a{n:02}", queues=queues, skills=skills, presence="away")
    need = {"language": "en", "skills": [{"skill": "orders", "level": 3}]}
    await store(connection, desk.domain)
    desk.asks("t", "09:00", requirement=need, excluded_agent_ids=["a04"])
    records = [e.record for e in desk.told if isinstance(e, routing.TicketQueued)]
    expected = [explain.spelled_out(desk.domain, desk.domain.works["w-t"], desk.rules.max_declines)]
    # In one batch: somebody leaves, somebody learns, somebody comes in the place of who left; and back again.
    desk.hears(roster.AgentRemoved(domain="main", agent_id="a03"), "09:01")
    desk.agent("a04", "09:02", skills={}, presence=None)
    desk.agent("b00", "09:03", skills={"orders": 9}, presence="away")
    desk.asks("u", "09:04", requirement=need)
    records += [e.record for e in desk.told if isinstance(e, routing.TicketQueued)]
    expected += [
        explain.spelled_out(desk.domain, desk.domain.works["w-u"], desk.rules.max_declines)
    ]
    await store(connection, desk.domain)
    for record, everyone in zip(records, expected, strict=True):
        assert record is not None
        assert record.codes
        static = await static_reasons_at(connection, record)
        assert static is not None
        found = explain.expand(record, static)
        assert found.keys() == everyone.keys()
        # Whom the roster itself keeps away has its rules alone: whether they were there is not recorded.
        assert {name: set(rules) <= set(everyone[name]) for name, rules in found.items()} == (
            dict.fromkeys(found, True)
        )
        assert {n: rules for n, rules in found.items() if not static.reasons[n]} == {
            n: rules for n, rules in everyone.items() if not static.reasons[n]
        }
    later = records[0].model_copy(update={"roster_version": "0" * 16})  # type: ignore[union-attr]
    assert await static_reasons_at(connection, later) is None
    small = later.model_copy(update={"roster_version": ""})
    assert await static_reasons_at(connection, small) is None


async def test_a_roster_stored_before_its_history_began_is_noted_whole_when_it_is_read(
    connection: Any,
) -> None:
    desk = Desk().agent("ada", skills={"x": 3}).agent("bo")
    await store(connection, desk.domain)
    await connection.execute("DELETE FROM assignment_roster")
    loaded = (await load(connection))["main"]
    assert [change.agent_id for change in loaded.roster_changes] == ["ada", "bo"]
    await store(connection, loaded)
    assert await connection.fetchval("SELECT count(*) FROM assignment_roster") == 2
    assert (await load(connection))["main"].roster_changes == []
