"""`signalbox customer consent`: what a customer told an agent that they want to hear of, or do not.

Looking reads ingest's tables; the wish itself is an event like one from a link in a notice, handed to the spool, and the
notifier takes it at its word. A wish is about an address, so one goes out for each address of the customer.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import typer

from cli.database import connected, spooling
from cli.errors import CommandError

if TYPE_CHECKING:
    from services.ingest.settings import IngestSettings

_PLACES: Final = """
SELECT DISTINCT ON (p.kind, p.address, i.account) p.kind, p.address, p.conversation_id, i.channel, i.account
  FROM ingest.participant p
  LEFT JOIN ingest.customer_interaction i
    ON i.workspace = p.workspace AND i.conversation_id = p.conversation_id AND i.customer_id = ANY($2::text[])
 WHERE p.workspace = $1 AND p.customer_id = ANY($2::text[])
 ORDER BY p.kind, p.address, i.account, i.at DESC NULLS LAST, p.at DESC
"""


class Kind(StrEnum):
    """The kinds of notices that somebody can want or not; what is about security goes to everybody."""

    SERVICE = "service"
    OUTAGE = "outage"
    FOLLOW_UP = "follow_up"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a customer hears from us: `recipient` as the notifier names it, `shown` for people."""

    recipient: str
    shown: str
    conversation_id: str


def places(rows: Iterable[Mapping[str, Any]]) -> list[Place]:
    """Return where a customer can be told something, each place once.

    Mail and telephone are the same place whichever account they came by; in a chat the account is part of the name. An address
    that no notice could go to is none.
    """
    from services.notifier.core.audience import mail_address, phone_number
    from services.notifier.core.state import Contact

    found: dict[str, Place] = {}
    for row in rows:
        account, address = row["account"] or "", row["address"]
        contact = Contact("", address, row["kind"], row["channel"] or "", account, None, False)
        name = mail_address(contact) or phone_number(contact)
        if name is None and (not account or row["kind"] in ("email", "phone")):
            continue
        recipient = name or f"{account}:{address}"
        shown = name or f"{row['channel']} {address} (account {account})"
        found.setdefault(recipient.lower(), Place(recipient, shown, row["conversation_id"]))
    return list(found.values())


async def say(
    own: "IngestSettings", members: list[str], kind: Kind, address: str, *, is_out: bool
) -> None:
    """Hand over what a customer (all ids that are one with theirs) said of a kind of notices; at one address only, if one is given.

    Raises:
        CommandError: they have never written from an address that a notice could go to, or not from this one.
    """
    from chassis.clock import SystemClock
    from schemas.feedback import ContactOptedIn, ContactOptedOut
    from services.ingest.adapters import intake
    from services.ingest.core.identity import normalise_address
    from services.notifier.core.audience import recipient_key

    async with connected(own.dsn) as connection:
        known = places(await connection.fetch(_PLACES, own.workspace, members))
    spellings = {
        address.lower(),
        normalise_address("email", address).lower(),
        normalise_address("phone", address, own.phone_region).lower(),
    }
    chosen = [one for one in known if not address or one.recipient.lower() in spellings]
    if not chosen:
        have = ", ".join(place.shown for place in known)
        raise CommandError(
            f"They have not written from {address}; they have from {have}."
            if address and known
            else "They have never written from an address that a notice could go to."
        )
    told = ContactOptedOut if is_out else ContactOptedIn
    async with spooling(own, "signalbox customer") as (spool, _):
        for place in chosen:
            event = told(
                wish_id=intake.new_id(),
                conversation_id=place.conversation_id,
                recipient=recipient_key(own.workspace, place.recipient),
                category=kind.value,
                source="agent",
                occurred_at=SystemClock().now(),
            )
            await spool.put(
                intake.event_item(
                    event, event.wish_id, place.conversation_id, own.workspace, event.occurred_at
                )
            )
    wish = "no more notices" if is_out else "notices"
    for place in chosen:
        typer.echo(f"{place.shown}: {wish} of the kind {kind.value}")
    typer.echo("It counts as soon as the notifier has read it. What is said last counts.")
