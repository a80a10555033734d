"""Whom an announcement concerns and who has heard it, read from the services' tables; and handing its commands to the spool.

Owns that nobody is told twice: each command is handed over under a name made of the announcement and the person, which the
gateway's door takes once. Where it has forgotten the name, after some days, the notices' rows remember.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from cli.errors import CommandError

if TYPE_CHECKING:
    from chassis.spool import Spool
    from cli.announce_words import Words
    from schemas.commands import NotifyCustomer
    from services.notifier.core.announce import Announcement, Filters, Place
    from services.notifier.core.policy import OutageAudience, Policy
    from services.notifier.core.state import Contact

SLICE: Final = 250
"""Commands that are handed over at once: about one transaction of the spool."""

ADDRESSES_AT_ONCE: Final = 5_000

_HANDED: Final = """
SELECT substr(key, length($1) + 1) AS recipient, answer AS conversation_id, created_at FROM ingest.idempotency
 WHERE starts_with(key, $1)
"""
_OWNERS: Final = """
SELECT kind, address, customer_id FROM ingest.customer_address
 WHERE workspace = $1 AND is_verified AND address = ANY($2::text[])
"""
_MERGED: Final = """
SELECT customer_id, merged_into FROM ingest.customer WHERE workspace = $1 AND merged_into IS NOT NULL
"""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is announced, to whom and in whose words."""

    announcement: "Announcement"
    policy: "Policy"
    audience: "OutageAudience"
    filters: "Filters"
    words: "Words"
    people: "Sequence[Contact]"
    since: datetime | None
    until: datetime | None
    by: str
    is_urgent: bool = False


@dataclass(frozen=True, slots=True)
class Survey:
    """Whom it concerns: who is to be told now, and how many were told before. `names` has all outages that were told of."""

    places: "tuple[Place, ...]"
    already: int
    names: Mapping[str, int]


async def survey(connection: Any, asked: Asked, now: datetime) -> Survey:
    """Return whom an announcement concerns.

    `connection` finds the notifier's tables by their bare names, and those of the gateway in `ingest`.

    Raises:
        CommandError: it is over already, it was never known, or too many are concerned.
    """
    from services.notifier.audience_store import concerned, recorded
    from services.notifier.core.announce import (
        NO_RECORD,
        choose,
        person_of,
        place_on_its_way,
        place_without,
    )
    from services.notifier.store import STAGE

    about = asked.announcement
    done = await recorded(connection, about, await _handed(connection, about))
    known = NO_RECORD
    if about.occasion == "outage_known":
        await _refuse_what_is_over(connection, about)
    elif about.occasion == "outage_over":
        handed = await _handed(connection, about.as_known())
        known = await recorded(connection, about.as_known(), handed)
        first = await _first_handed_at(connection, about.as_known())
        began = min((one for one in (known.began_at, first) if one is not None), default=None)
        known = replace(known, began_at=began)
    named = frozenset(person_of(one, "") for one in asked.people)
    found = await concerned(
        connection,
        STAGE,
        about,
        asked.audience,
        now,
        asked.filters,
        known=known,
        done=done,
        named=named,
        since=known.began_at,
    )
    if about.occasion == "outage_over" and known.began_at is None:
        raise CommandError(_never_known(about, found.outages))
    places = [
        *found.places,
        *(place_without(about.workspace, one) for one in asked.people),
        *(place_on_its_way(one, key) for one, key in sorted(found.unheard_of.items())),
    ]
    same = await _same(connection, about.workspace, places)
    choice = choose(about, places, done, same, named)
    _refuse_too_many(asked, choice.places, choice.already)
    return Survey(choice.places, choice.already, found.outages)


async def _handed(connection: Any, about: "Announcement") -> dict[str, str]:
    rows = await connection.fetch(_HANDED, about.key)
    return {row["recipient"]: row["conversation_id"] for row in rows}


async def _first_handed_at(connection: Any, about: "Announcement") -> datetime | None:
    rows = await connection.fetch(_HANDED, about.key)
    return min((row["created_at"] for row in rows), default=None)


async def _refuse_what_is_over(connection: Any, about: "Announcement") -> None:
    from services.notifier.audience_store import recorded

    over = await recorded(connection, about.as_over(), await _handed(connection, about.as_over()))
    if over.statuses or over.handed:
        raise CommandError(
            f"It was told already that {about.about} is over. If it is broken again, announce it under another name."
        )


def _never_known(about: "Announcement", names: Counter[str]) -> str:
    others = ", ".join(name for name, _ in names.most_common(5))
    said = f" Told of were: {others}." if others else ""
    return f"Nobody was told that {about.about} is known, so there is nobody to tell that it is over.{said} Check --about."


def _refuse_too_many(asked: Asked, places: "Iterable[Place]", already: int) -> None:
    """Whoever heard that it is known hears that it is over, however many they are: only the others are counted then."""
    from services.notifier.core.announce import Why

    is_over = asked.announcement.occasion == "outage_over"
    count = (0 if is_over else already) + sum(1 for place in places if place.why is not Why.TOLD)
    most = asked.audience.recipients_max
    if count > most:
        raise CommandError(
            f"{count:,} people are concerned{' since' if is_over else ''}, and notify.yaml allows {most:,} (outage.recipients_max). Tell fewer of them (--tag,"
            " --queue, --cause, --channel, --audience), or raise the limit and announce it again. Nobody was told anything now."
        )


async def _same(connection: Any, workspace: str, places: "Iterable[Place]") -> dict[str, str]:
    """Return the customer of each person whose address was proved: several addresses of one customer are one person."""
    wanted = {
        _owner_key(place.person): place.person
        for place in places
        if place.is_verified and place.person
    }
    roots = {
        row["customer_id"]: row["merged_into"] for row in await connection.fetch(_MERGED, workspace)
    }
    addresses = sorted({address for _, address in wanted})
    found: dict[str, str] = {}
    for start in range(0, len(addresses), ADDRESSES_AT_ONCE):
        part = addresses[start : start + ADDRESSES_AT_ONCE]
        for row in await connection.fetch(_OWNERS, workspace, part):
            person = wanted.get((row["kind"], row["address"]))
            if person is not None:
                found[person] = f"customer:{_root(row['customer_id'], roots)}"
    return found


def _owner_key(person: str) -> tuple[str, str]:
    kind, _, address = person.partition(":")
    return kind, address


def _root(customer_id: str, roots: Mapping[str, str]) -> str:
    seen = set()
    while customer_id in roots and customer_id not in seen:
        seen.add(customer_id)
        customer_id = roots[customer_id]
    return customer_id


# ----------------------------------------------------------------------------------------- handing over


def command(asked: Asked, place: "Place") -> "NotifyCustomer":
    """Return what is asked of the notifier for one person, in their language where there are words in it."""
    from schemas import tickets
    from schemas.commands import NotifyCustomer

    about = asked.announcement
    language = language_at(asked, place)
    contact = None
    if place.contact is not None:
        contact = tickets.Contact.model_validate(
            {
                "customer_id": place.conversation_id,
                "name": place.contact.name,
                "address": place.contact.address,
                "address_kind": place.contact.address_kind,
                "channel": place.contact.channel,
                "account": place.contact.account,
                "language": place.contact.language,
                "is_verified": place.contact.is_verified,
            }
        )
    return NotifyCustomer(
        command_id=about.command_id(place.recipient),
        conversation_id=place.conversation_id,
        agent_id=asked.by,
        occasion=about.occasion,
        contact=contact,
        about=about.about,
        title=asked.words.titles.get(language, ""),
        text=asked.words.texts.get(language, ""),
        language=language,
        since=asked.since,
        until=asked.until,
        is_urgent=asked.is_urgent,
    )


def language_at(asked: Asked, place: "Place") -> str:
    """Return the language that somebody is told in."""
    from services.notifier.core.audience import language_of

    return asked.words.language_for(language_of(asked.policy, place.language))


async def hand_over(
    spool: "Spool",
    asked: Asked,
    places: "Sequence[Place]",
    now: datetime,
    progress: Callable[[int], None] = lambda _: None,
) -> int:
    """Hand one command a person to the spool, slice by slice; return how many were new to it.

    `progress` is told how many of each slice were handed over. What is cut off in the middle is gone on with by asking again:
    the spool takes each name once.
    """
    from services.ingest.adapters import intake

    fresh = 0
    for start in range(0, len(places), SLICE):
        part = places[start : start + SLICE]
        items = [
            replace(
                intake.event_item(
                    event := command(asked, place),
                    event.command_id,
                    event.conversation_id,
                    asked.announcement.workspace,
                    now,
                    idempotency=(f"{asked.announcement.key}{place.recipient}", "announced"),
                ),
                answer=place.conversation_id,
            )
            for place in part
        ]
        results = await asyncio.gather(*(spool.put(item) for item in items))
        fresh += sum(1 for result in results if result.stored)
        progress(len(part))
    return fresh
