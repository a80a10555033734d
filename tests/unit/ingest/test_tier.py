"""How important a customer is: a person of ours says it, their messages carry it, and it follows who is one with whom."""

from typing import Any

import pytest

from services.ingest.core.customers import CHANNEL, METHOD, encode_command, read_command
from services.ingest.core.state import IdentityCommand, Parsed, ParseError
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
