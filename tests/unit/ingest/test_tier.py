"""What the company says of a customer: a person of ours says it, messages carry it, and it follows who is one with whom."""

from typing import Any

import pytest

from schemas.customers import CustomerDescribed
from services.ingest.core.customers import CHANNEL, METHOD, encode_command, read_command
from services.ingest.core.state import IdentityCommand, MergeRow, Parsed, ParseError
from tests.unit.ingest.test_identity import World, customer_of, mail, message_of


def reason(decision: Any) -> str:
    return str(decision.ignored)


def told(world: World, who: str, tier: str) -> str:
    command = IdentityCommand("tier", "ada", who, tier=tier)
    return reason(world._decide("identity", Parsed(command=command)))


def tier_of(world: World, address: str) -> str | None:
    context = message_of(world.says(mail(address))).context
    return context.tier if context is not None else None


def test_a_tier_travels_with_every_message_of_the_customer_until_it_is_taken_away() -> None:
    world = World()
    who = customer_of(world.says(mail("ada@example.com")))
    assert tier_of(world, "ada@example.com") is None
    assert told(world, who, "gold") == "customer_tier_set"
    assert tier_of(world, "ada@example.com") == "gold"
    assert tier_of(world, "bo@example.com") is None
    assert told(world, who, "") == "customer_tier_removed"
    assert tier_of(world, "ada@example.com") is None


def test_whoever_is_one_with_a_customer_is_of_their_tier_and_stays_so_when_parted() -> None:
    world = World()
    one = customer_of(world.says(mail("ada@example.com")))
    other = customer_of(world.says(mail("ada@work.example")))
    assert told(world, one, "gold") == "customer_tier_set"
    merged = world.decides("merge", one, other)
    assert tier_of(world, "ada@work.example") == "gold"
    assert told(world, other, "silver") == "customer_tier_set"
    assert tier_of(world, "ada@example.com") == "silver"
    merge_id = next(row.merge_id for row in merged.rows if type(row).__name__ == "MergeRow")
    world.decides("undo", merge_id=merge_id)
    assert tier_of(world, "ada@example.com") == tier_of(world, "ada@work.example") == "silver"


def test_nobody_who_is_not_known_has_a_tier_and_the_forgotten_have_none() -> None:
    world = World()
    assert told(world, "nobody", "gold") == "refused_unknown_customer"
    who = customer_of(world.says(mail("ada@example.com")))
    told(world, who, "gold")
    world.decides("erase", who)
    assert tier_of(world, "ada@example.com") is None


@pytest.mark.parametrize("tier", ["x" * 101, " gold", "go\nld"])
def test_a_tier_is_a_word(tier: str) -> None:
    assert (CHANNEL, METHOD) == ("identity", "COMMAND")
    with pytest.raises(ParseError, match="tier: must be"):
        read_command(encode_command(IdentityCommand("tier", "ada", "c1", tier=tier)))
    good = IdentityCommand("tier", "ada", "c1", tier="gold")
    assert read_command(encode_command(good)) == good


# ------------------------------------------------------------------------- contracts, and who is told


def says(world: World, who: str, **words: str) -> Any:
    ((what, word),) = words.items()
    command = IdentityCommand(what, "ada", who, **words)  # type: ignore[arg-type]
    decision = world._decide("identity", Parsed(command=command))
    assert reason(decision) == f"customer_{what}_{'set' if word else 'removed'}"
    return decision


def descriptions(decision: Any) -> list[CustomerDescribed]:
    return [event for event in decision.events if isinstance(event, CustomerDescribed)]


def test_a_contract_travels_with_every_message_like_a_tier() -> None:
    world = World()
    who = customer_of(world.says(mail("ada@example.com")))
    says(world, who, contract="premium")
    context = message_of(world.says(mail("ada@example.com"))).context
    assert context is not None
    assert (context.tier, context.contract) == (None, "premium")
    says(world, who, contract="")
    context = message_of(world.says(mail("ada@example.com"))).context
    assert context is None or context.contract is None


def test_every_conversation_of_a_customer_hears_what_is_said_of_them_now() -> None:
    world = World()
    first, second = world.says(mail("ada@example.com")), world.says(mail("ada@example.com"))
    who = customer_of(first)
    conversations = {message_of(one).conversation_id for one in (first, second)}
    says(world, who, tier="gold")
    told = descriptions(says(world, who, contract="premium"))
    assert {event.conversation_id for event in told} == conversations
    assert {(e.customer_id, e.tier, e.contract, e.by) for e in told} == {
        (who, "gold", "premium", "ada")
    }
    assert all(who in event.members for event in told)


def test_saying_the_same_again_tells_nobody() -> None:
    world = World()
    who = customer_of(world.says(mail("ada@example.com")))
    assert descriptions(says(world, who, tier="gold"))
    assert descriptions(says(world, who, tier="gold")) == []


def test_a_merge_tells_those_for_whom_something_else_holds_now_and_its_end_does_too() -> None:
    """Ada is gold, her other address nothing: once they are one, the other's conversations are gold, and stay so no longer."""
    world = World()
    first = world.says(mail("ada@example.com"))
    second = world.says(mail("ada@work.example"))
    one, other = customer_of(first), customer_of(second)
    says(world, one, tier="gold")
    merged = world.decides("merge", one, other)
    (told,) = descriptions(merged)
    assert told.conversation_id == message_of(second).conversation_id
    assert (told.customer_id, told.tier, set(told.members)) == (one, "gold", {one, other})
    merge_id = next(row.merge_id for row in merged.rows if isinstance(row, MergeRow))
    (parted,) = descriptions(world.decides("undo", merge_id=merge_id))
    assert (parted.conversation_id, parted.customer_id, parted.tier) == (
        message_of(second).conversation_id,
        other,
        None,
    )
