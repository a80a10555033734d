"""Keys that are kept as digests: found by their secret alone, expired, bound, and never shown again."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from chassis.auth import NotAllowed, NotProved
from chassis.auth_keys import KeyRing, StoredKey, digest_of, new_key

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)


def ring(*keys: StoredKey) -> KeyRing:
    made = KeyRing()
    made.load(keys)
    return made


def test_a_key_is_256_random_bits_of_which_only_a_digest_is_kept() -> None:
    key_id, shown, digest = new_key()
    prefix, told_id, secret = shown.split("_")
    assert (prefix, told_id) == ("sbk", key_id)
    assert len(bytes.fromhex(secret)) == 32
    assert digest == digest_of(secret.encode())
    assert new_key()[1] != shown


def test_a_key_is_found_by_its_secret_and_says_who_shows_it() -> None:
    key_id, shown, digest = new_key()
    caller = ring(StoredKey(key_id, "helpdesk", digest, ("ingest",))).find(shown.encode(), NOW)
    assert (caller.kind, caller.name, caller.subject) == ("key", "helpdesk", f"helpdesk/{key_id}")
    caller.check("messages")
    with pytest.raises(NotAllowed, match="lacks the scope agents"):
        caller.check("agents")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda shown: shown[:-1] + ("0" if shown[-1] != "0" else "1"),
        lambda shown: shown[:-1],
        lambda shown: shown + "0",
        lambda shown: shown.upper(),
        lambda shown: shown.replace("sbk_", "sbk_0", 1),
        lambda shown: "sbk_" + "0" * 12 + shown[16:],
        lambda _: "sbk_",
        lambda _: "sbk_" + "0" * 12 + "_" + "0" * 64,
        lambda _: "sbk_\x00\xff",
    ],
)
def test_any_other_secret_is_not_known(spoil: Callable[[str], str]) -> None:
    key_id, shown, digest = new_key()
    keys = ring(StoredKey(key_id, "helpdesk", digest, ("ingest",)))
    with pytest.raises(NotProved, match="not known"):
        keys.find(spoil(shown).encode("utf-8"), NOW)
    assert keys.take_used() == {}


def test_a_key_ends_at_its_instant_and_not_a_second_before() -> None:
    key_id, shown, digest = new_key()
    keys = ring(StoredKey(key_id, "helpdesk", digest, ("ingest",), expires_at=NOW))
    keys.find(shown.encode(), NOW - timedelta(seconds=1))
    with pytest.raises(NotProved, match="has expired") as refused:
        keys.find(shown.encode(), NOW)
    assert refused.value.is_stale


def test_a_key_that_is_not_among_those_in_force_any_more_opens_nothing() -> None:
    key_id, shown, digest = new_key()
    keys = ring(StoredKey(key_id, "helpdesk", digest, ("ingest",)))
    keys.find(shown.encode(), NOW)
    keys.load([])
    with pytest.raises(NotProved, match="not known"):
        keys.find(shown.encode(), NOW)


def test_when_a_key_was_last_used_is_told_once() -> None:
    key_id, shown, digest = new_key()
    keys = ring(StoredKey(key_id, "helpdesk", digest, ("ingest",)))
    keys.find(shown.encode(), NOW)
    keys.find(shown.encode(), NOW + timedelta(seconds=5))
    assert keys.take_used() == {key_id: NOW + timedelta(seconds=5)}
    assert keys.take_used() == {}


def test_a_key_that_is_bound_to_an_agent_speaks_as_nobody_else() -> None:
    key_id, shown, digest = new_key()
    bound = StoredKey(key_id, "desk", digest, ("agent",), agent_id="ada")
    caller = ring(bound).find(shown.encode(), NOW)
    caller.check_agent("ada")
    with pytest.raises(NotAllowed, match="nobody but yourself"):
        caller.check_agent("bob")
