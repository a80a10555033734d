"""`signalbox customer …`: who is who, what is known of them, and forgetting them.

Looking reads the services' tables. Deciding does not write them: it hands a command to the spool, and the normaliser
decides it among the messages it concerns, so nothing is decided twice or on an old view.
"""

import asyncio
import json
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cli import customer_consent
from cli.customer_consent import Kind
from cli.database import connected, spooling
from cli.errors import CommandError, UsageMistake
from cli.typed import user

if TYPE_CHECKING:
    from services.ingest.core.state import IdentityCommand, Quality
    from services.ingest.settings import IngestSettings

app = typer.Typer(help="Customers: who is who, export, erasure.", no_args_is_help=True)

WAIT_SECONDS: Final = 15.0
_LOOK_SECONDS: Final = 0.1

RESULTS: Final[Mapping[str, str]] = {
    "customers_merged": "They are one from now on.",
    "customers_unmerged": "They are two again, and stay so until `signalbox customer link` says otherwise.",
    "customers_linked": "They may be one: it stands among the suggestions.",
    "customers_parted": "They are not the same; no evidence will merge them.",
    "customers_already_one": "They are one already.",
    "customer_tier_set": "From their next message on, rules know it; what is promised on open tickets follows it now.",
    "customer_tier_removed": "From their next message on, no rule knows of a tier; what is promised on open tickets follows now.",
    "customer_contract_set": "From their next message on, rules know it; what is promised on open tickets follows it now.",
    "customer_contract_removed": "From their next message on, no rule knows of a contract; what is promised on open tickets"
    " follows now.",
    "customer_erased": "Erased here. Router and notifier follow within seconds; docs/customers.md says what stays where.",
}
REFUSALS: Final[Mapping[str, str]] = {
    "refused_unknown_customer": "There is no such customer.",
    "refused_already_one": "They are one already; `signalbox customer undo` parts them.",
    "refused_not_the_same": "Somebody said that they are not the same; `signalbox customer link` takes that back first.",
    "refused_unknown_merge": "There is no such merge.",
    "refused_already_undone": "This merge was taken back before.",
}

_FIND: Final = """
SELECT customer_id FROM ingest.customer WHERE workspace = $1 AND customer_id = $2
 UNION
SELECT customer_id FROM ingest.customer WHERE workspace = $1 AND length($2) >= 8
   AND left(customer_id, length($2)) = lower($2)
 UNION
SELECT customer_id FROM ingest.customer_address WHERE workspace = $1 AND address = ANY($3::text[])
 LIMIT 20
"""
_FAMILY: Final = """
WITH RECURSIVE up AS (
    SELECT customer_id, merged_into FROM ingest.customer WHERE workspace = $1 AND customer_id = $2
     UNION
    SELECT c.customer_id, c.merged_into FROM up JOIN ingest.customer c
        ON c.workspace = $1 AND c.customer_id = up.merged_into
), down AS (
    SELECT customer_id FROM up WHERE merged_into IS NULL
     UNION
    SELECT c.customer_id FROM down JOIN ingest.customer c ON c.workspace = $1 AND c.merged_into = down.customer_id
)
SELECT c.customer_id, c.name, c.at, c.merged_into, c.erased_at, c.tier, c.tier_by, c.tier_at,
       c.contract, c.contract_by, c.contract_at
  FROM down JOIN ingest.customer c ON c.workspace = $1 AND c.customer_id = down.customer_id
 ORDER BY c.merged_into IS NOT NULL, c.at, c.customer_id
"""
_OF: Final[Mapping[str, str]] = {
    "addresses": """
        SELECT kind, address, customer_id, is_verified, proof, proved_at, names, at FROM ingest.customer_address
         WHERE workspace = $1 AND customer_id = ANY($2::text[]) ORDER BY at, kind, address""",
    "claims": """
        SELECT kind, address, customer_id, is_attested, channel, at FROM ingest.customer_claim
         WHERE workspace = $1 AND customer_id = ANY($2::text[]) ORDER BY at, kind, address""",
    "merges": """
        SELECT merge_id, into_id, from_id, score, evidence, by, at, undone_by, undone_at FROM ingest.customer_merge
         WHERE workspace = $1 AND (into_id = ANY($2::text[]) OR from_id = ANY($2::text[])) ORDER BY at""",
    "links": """
        SELECT low_id, high_id, status, score, evidence, by, at FROM ingest.customer_link
         WHERE workspace = $1 AND (low_id = ANY($2::text[]) OR high_id = ANY($2::text[])) ORDER BY at""",
    "interactions": """
        SELECT customer_id, message_id, conversation_id, input_id, channel, account, language, words, files, at
          FROM ingest.customer_interaction
         WHERE workspace = $1 AND customer_id = ANY($2::text[]) ORDER BY at, message_id""",
    "conversations": """
        SELECT conversation_id, kind, address, customer_id, at FROM ingest.participant
         WHERE workspace = $1 AND customer_id = ANY($2::text[]) ORDER BY at""",
    "orders": """
        SELECT channel, account, order_id, number, status, total, currency, placed_at, updated_at
          FROM ingest.customer_order o
         WHERE workspace = $1 AND addresses && (SELECT coalesce(array_agg(a.kind || ':' || a.address), '{}')
               FROM ingest.customer_address a WHERE a.workspace = $1 AND a.customer_id = ANY($2::text[]))
         ORDER BY placed_at""",
}
_CHATS: Final = """
SELECT m.session_id, m.direction, m.author, m.text, m.at FROM ingest.webchat_message m
 WHERE m.session_id IN (SELECT session_id FROM ingest.webchat_conversation WHERE conversation_id = ANY($1::text[]))
 ORDER BY m.session_id, m.n
"""
_TICKETS: Final = """
SELECT * FROM router.ticket WHERE customer_id = ANY($1::text[]) OR conversation_id = ANY($2::text[]) ORDER BY opened_at
"""
_TICKET_MESSAGES: Final = """
SELECT message_id, ticket_id, conversation_id, kind, outcome, at, text FROM router.ticket_message
 WHERE message_id = ANY($1::text[]) OR ticket_id = ANY($2::text[]) ORDER BY at
"""
_TICKET_EVENTS: Final = """
SELECT ticket_id, version, type, at, data FROM router.ticket_event WHERE ticket_id = ANY($1::text[])
 ORDER BY ticket_id, version
"""
_NOTICES: Final = """
SELECT notice_id, ticket_id, occasion, status, reason, attempts, requested_at, settled_at FROM notifier.notice
 WHERE ticket_id = ANY($1::text[]) ORDER BY coalesce(requested_at, settled_at)
"""
_SUGGESTIONS: Final = """
SELECT l.low_id, l.high_id, l.score, l.evidence, l.by, l.at, a.name AS low_name, b.name AS high_name
  FROM ingest.customer_link l
  JOIN ingest.customer a ON a.workspace = l.workspace AND a.customer_id = l.low_id
  JOIN ingest.customer b ON b.workspace = l.workspace AND b.customer_id = l.high_id
 WHERE l.workspace = $1 AND l.status = 'suggested' ORDER BY l.score DESC, l.at LIMIT $2
"""
_LATEST_MERGE: Final = """
SELECT merge_id FROM ingest.customer_merge
 WHERE workspace = $1 AND undone_at IS NULL AND (merge_id = $2 OR into_id = ANY($3::text[]) OR from_id = ANY($3::text[]))
 ORDER BY merge_id = $2 DESC, at DESC LIMIT 1
"""
_OUTCOME: Final = "SELECT reason FROM ingest.outcome WHERE input_id = $1"

Who = Annotated[
    str, typer.Argument(metavar="CUSTOMER", help="An id, its beginning, or an address.")
]
Other = Annotated[str, typer.Argument(metavar="OTHER", help="The other customer.")]
By = Annotated[str, typer.Option(help="Who decides; this machine's user if left out.")]


@app.callback()
def _group() -> None:
    """Customers: who is who, export, erasure."""


@app.command()
def show(customer: Who) -> None:
    """Show a customer: all who are one with them, their addresses and proofs, and why."""
    found = asyncio.run(_export(customer))
    for line in story(found):
        typer.echo(line)


@app.command()
def suggestions(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, the surest first.")] = 50,
) -> None:
    """List customers who may be one, with what speaks for it."""
    rows = asyncio.run(_suggestions(limit))
    for row in rows:
        names = " and ".join(name or "somebody" for name in (row["low_name"], row["high_name"]))
        typer.echo(f"{row['score']:.2f}  {row['low_id']}  {row['high_id']}  {names}")
        for piece in json.loads(row["evidence"]):
            typer.echo(f"      {piece['kind'].replace('_', ' ')}: {piece['detail']}")
    if rows:
        typer.echo("`customer merge A B` makes two one, `customer unlink A B` says they are not.")
    else:
        typer.echo("Nobody may be anybody else.")


@app.command()
def link(customer: Who, other: Other, by: By = "") -> None:
    """Say that two customers may be one. Lifts an earlier "not the same"."""
    asyncio.run(_decide_two("link", customer, other, by))


@app.command()
def unlink(customer: Who, other: Other, by: By = "") -> None:
    """Say that two customers are not the same, whatever the evidence."""
    asyncio.run(_decide_two("unlink", customer, other, by))


@app.command()
def merge(customer: Who, other: Other, by: By = "") -> None:
    """Make two customers one: OTHER leads to CUSTOMER from now on. `undo` takes it back."""
    asyncio.run(_decide_two("merge", customer, other, by))


@app.command()
def undo(
    merge_or_customer: Annotated[
        str, typer.Argument(help="A merge's id, or a customer: their latest merge.")
    ],
    by: By = "",
) -> None:
    """Take a merge back: both are as they were, and what came since stays with whoever wrote it."""
    asyncio.run(_undo(merge_or_customer, by))


@app.command()
def tier(
    customer: Who,
    name: Annotated[
        str, typer.Argument(help="The company's own word, such as gold; left out, none.")
    ] = "",
    by: By = "",
) -> None:
    """Say how important a customer is, for rules that ask (`customer: {tier: [gold]}`). Without a name it is taken away."""
    asyncio.run(_describe("tier", customer, name.strip(), by))


@app.command()
def contract(
    customer: Who,
    name: Annotated[
        str, typer.Argument(help="The company's own word, such as premium_2026; left out, none.")
    ] = "",
    by: By = "",
) -> None:
    """Say what a customer bought of the service, for rules and targets that ask. Without a name it is taken away."""
    asyncio.run(_describe("contract", customer, name.strip(), by))


@app.command()
def consent(
    customer: Who,
    kind: Annotated[Kind, typer.Argument(help="Which notices.")],
    withdraw: Annotated[
        bool,
        typer.Option("--withdraw", help="They want no more of them; left out, they want them."),
    ] = False,
    address: Annotated[
        str, typer.Option(help="Only at this address of theirs; left out, at all of them.")
    ] = "",
) -> None:
    """Record what a customer told you they want to hear of: consent, where notify.yaml asks for it, or no more of a kind."""
    asyncio.run(_consent(customer, kind, address.strip(), withdraw))


@app.command()
def export(customer: Who) -> None:
    """Print all that is kept of a customer, as one JSON document."""
    found = asyncio.run(_export(customer))
    typer.echo(json.dumps(found, ensure_ascii=False, indent=2, default=_plain))


@app.command()
def erase(
    customer: Who,
    yes: Annotated[
        bool, typer.Option("--yes", help="Say that you mean it: it cannot be taken back.")
    ] = False,
    by: By = "",
) -> None:
    """Forget a customer: name, addresses, words, files, orders, in every service. Ids and counts stay."""
    asyncio.run(_erase(customer, yes, by))


# -------------------------------------------------------------------------------------------- reading


def story(found: Mapping[str, Any]) -> list[str]:
    """Return an export as lines for people."""
    from cli.story import short, utc

    root = found["customers"][0]
    lines = [f"{root['customer_id']}  {root['name'] or '(no name)'}, since {utc(root['at'])}"]
    if root["erased_at"] is not None:
        lines.append(f"erased {utc(root['erased_at'])}")
    lines += [
        f"{what} {root[what]}, by {root[f'{what}_by']} {utc(root[f'{what}_at'])}"
        for what in ("tier", "contract")
        if root[what]
    ]
    lines += [f"one with {one['customer_id']}  {one['name']}" for one in found["customers"][1:]]
    for one in found["addresses"]:
        since = f" since {utc(one['proved_at'])}" if one["proved_at"] else ""
        lines.append(f"{one['kind']:9} {one['address']}  proof: {one['proof']}{since}")
    for one in found["claims"]:
        how = "vouched for" if one["is_attested"] else "only told"
        lines.append(f"{one['kind']:9} {one['address']}  {how} in {one['channel']}")
    for one in found["merges"]:
        undone = (
            f", undone {utc(one['undone_at'])} by {one['undone_by']}" if one["undone_at"] else ""
        )
        lines.append(
            f"merge {one['merge_id']}: {one['from_id'][:8]} into {one['into_id'][:8]}, score {one['score']:.2f},"
            f" by {one['by']} {utc(one['at'])}{undone}"
        )
        lines += [f"      {piece['kind']}: {piece['detail']}" for piece in one["evidence"]]
    lines += [
        f"{one['status']}: {one['low_id'][:8]} and {one['high_id'][:8]}, score {one['score']:.2f}"
        for one in found["links"]
        if one["status"] != "merged"
    ]
    lines += [f"order {one['number']}: {one['status']}" for one in found["orders"]]
    lines += [
        f"{utc(one['at'])}  {one['channel']:12} {short(one['words'], 90)}"
        for one in found["interactions"][-20:]
    ]
    lines += [
        f"ticket {one['reference']}: {one['status']}, {short(one['subject'], 60)}"
        for one in found["tickets"]
    ]
    return lines


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _row(row: Any) -> dict[str, Any]:
    made = dict(row)
    for name in ("evidence", "data"):
        if isinstance(made.get(name), str):
            made[name] = json.loads(made[name])
    return made


def _settings() -> "IngestSettings":
    from cli.environment import settings
    from cli.parts import settings_type
    from services.ingest.settings import IngestSettings

    found = settings(settings_type("ingest"))
    assert isinstance(found, IngestSettings)
    return found


async def find(connection: Any, own: "IngestSettings", customer: str) -> str:
    """Return the id of a customer named by id, by its beginning, or by an address in any spelling.

    Raises:
        CommandError: nobody is meant, or several are.
    """
    from services.ingest.core.identity import normalise_address

    spellings = {
        customer,
        normalise_address("email", customer),
        normalise_address("phone", customer, own.phone_region),
    }
    rows = await connection.fetch(_FIND, own.workspace, customer, sorted(spellings))
    if not rows:
        raise CommandError(f"There is no customer {customer}.")
    if len(rows) > 1:
        raise CommandError(f"{customer} names several customers; give a whole id.")
    return str(rows[0]["customer_id"])


async def _export(customer: str) -> dict[str, Any]:
    own = _settings()
    async with connected(own.dsn) as connection:
        return await read_all(connection, own, await find(connection, own, customer))


async def read_all(connection: Any, own: "IngestSettings", customer_id: str) -> dict[str, Any]:
    """Return all that the services' tables hold of a customer and of whoever is one with them, the one they lead to first."""
    family = await connection.fetch(_FAMILY, own.workspace, customer_id)
    members = [row["customer_id"] for row in family]
    found: dict[str, Any] = {"customers": [_row(row) for row in family]}
    for name, statement in _OF.items():
        rows = await connection.fetch(statement, own.workspace, members)
        found[name] = [_row(row) for row in rows]
    conversations = sorted({row["conversation_id"] for row in found["conversations"]})
    messages = [row["message_id"] for row in found["interactions"]]
    found["chats"] = [_row(row) for row in await connection.fetch(_CHATS, conversations)]
    tickets = await connection.fetch(_TICKETS, members, conversations)
    names = [row["ticket_id"] for row in tickets]
    found["tickets"] = [_row(row) for row in tickets]
    rows = await connection.fetch(_TICKET_MESSAGES, messages, names)
    found["messages"] = [_row(row) for row in rows]
    found["events"] = [_row(row) for row in await connection.fetch(_TICKET_EVENTS, names)]
    found["notices"] = [_row(row) for row in await connection.fetch(_NOTICES, names)]
    return found


async def _suggestions(limit: int) -> list[Any]:
    own = _settings()
    async with connected(own.dsn) as connection:
        return list(await connection.fetch(_SUGGESTIONS, own.workspace, limit))


# ------------------------------------------------------------------------------------------- deciding


async def _decide_two(do: Any, customer: str, other: str, by: str) -> None:
    from services.ingest.core.state import IdentityCommand

    own = _settings()
    async with connected(own.dsn) as connection:
        one = await find(connection, own, customer)
        two = await find(connection, own, other)
    if one == two:
        raise UsageMistake("Both name the same customer.")
    await _send(own, IdentityCommand(do, user(by), one, two))


async def _describe(what: "Quality", customer: str, word: str, by: str) -> None:
    from services.ingest.core.customers import WORD_MAX, is_word
    from services.ingest.core.state import IdentityCommand

    if not is_word(word):
        raise UsageMistake(f"A {what} is a word of at most {WORD_MAX} characters, such as gold.")
    own = _settings()
    async with connected(own.dsn) as connection:
        who = await find(connection, own, customer)
    said = {what: word}
    await _send(own, IdentityCommand(what, user(by), who, **said))


async def _consent(customer: str, kind: Kind, address: str, is_out: bool) -> None:
    own = _settings()
    async with connected(own.dsn) as connection:
        who = await find(connection, own, customer)
        family = await connection.fetch(_FAMILY, own.workspace, who)
    members = [row["customer_id"] for row in family]
    await customer_consent.say(own, members, kind, address, is_out=is_out)


async def _undo(named: str, by: str) -> None:
    from services.ingest.core.state import IdentityCommand

    own = _settings()
    async with connected(own.dsn) as connection:
        found = await connection.fetchval(_LATEST_MERGE, own.workspace, named, [])
        if found is None:
            who = await find(connection, own, named)
            family = await connection.fetch(_FAMILY, own.workspace, who)
            members = [row["customer_id"] for row in family]
            found = await connection.fetchval(_LATEST_MERGE, own.workspace, "", members)
    if found is None:
        raise CommandError(f"{named} was merged with nobody, or it was taken back.")
    await _send(own, IdentityCommand("undo", user(by), merge_id=found))


async def _erase(customer: str, yes: bool, by: str) -> None:
    from services.ingest.core.state import IdentityCommand

    own = _settings()
    async with connected(own.dsn) as connection:
        who = await find(connection, own, customer)
        found = await read_all(connection, own, who)
    typer.echo(
        f"{len(found['customers'])} ids, {len(found['addresses'])} addresses, {len(found['interactions'])} messages,"
        f" {len(found['orders'])} orders, {len(found['tickets'])} tickets."
    )
    if not yes:
        raise UsageMistake("Nothing was changed; add --yes to erase them for good.")
    await _send(own, IdentityCommand("erase", user(by), who))


async def _send(own: "IngestSettings", command: "IdentityCommand") -> None:
    """Hand a command to the spool, and wait for what comes of it."""
    async with spooling(own, "signalbox customer") as (spool, pool):
        input_id = await put(spool, own.workspace, command)
        result = await _result(pool, input_id)
    if result is None:
        typer.echo(
            "It is taken in, and will be decided when ingest runs; `signalbox customer show` tells."
        )
    elif result in REFUSALS:
        raise CommandError(REFUSALS[result])
    else:
        typer.echo(RESULTS.get(result, result))


async def put(spool: Any, workspace: str, command: "IdentityCommand") -> str:
    """Store a command as a delivery of the channel `identity`; return the id that its outcome will have."""
    from chassis.clock import SystemClock
    from schemas.inbound import InboundReceived
    from services.ingest.adapters import intake
    from services.ingest.core import customers

    received = InboundReceived(
        input_id=intake.new_id(),
        channel=customers.CHANNEL,
        account="people",
        method=customers.METHOD,
        received_at=SystemClock().now(),
    )
    body = customers.encode_command(command)
    # One key for all: commands are decided one after the other.
    await spool.put(intake.inbound_item(received, body, "commands", workspace))
    return received.input_id


async def _result(pool: Any, input_id: str) -> str | None:
    from chassis.clock import monotonic

    until = monotonic() + WAIT_SECONDS
    while monotonic() < until:
        async with pool.acquire() as connection:
            found = await connection.fetchval(_OUTCOME, input_id)
        if found is not None:
            return str(found)
        await asyncio.sleep(_LOOK_SECONDS)
    return None
