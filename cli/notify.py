"""`signalbox notify …`: what customers were told and why not, what they would be told, and sending it again.

Looking reads the services' tables. Having a notice sent again does not write them: it hands a command to the spool, and the
notifier decides it among the events it concerns. The one table that is written is that of dead addresses.
"""

import asyncio
import json as json_module
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, cast

import typer

from cli.database import connected, fetch, spooling
from cli.errors import CommandError, UsageMistake
from cli.typed import instant, user

if TYPE_CHECKING:
    from cli.notify_preview import Asked
    from cli.notify_story import Found, PolicyText
    from schemas.commands import ResendNotice
    from schemas.notifications import Occasion
    from services.ingest.settings import IngestSettings

app = typer.Typer(
    help="What customers were told, and why not; what they would be told; sending it again.",
    no_args_is_help=True,
)
suppressed_app = typer.Typer(
    help="Addresses that nothing is sent to, because it came back.", no_args_is_help=True
)
app.add_typer(suppressed_app, name="suppressed")

WAIT_SECONDS: Final = 15.0
_LOOK_SECONDS: Final = 0.1
LIST_MAX: Final = 500

_LIST: Final = """
SELECT n.notice_id, n.ticket_id, t.reference, n.occasion, n.status, n.delivery, n.reason, n.provider, n.account, n.attempts,
       coalesce(n.settled_at, n.deferred_until, n.requested_at) AS at
  FROM notifier.notice n LEFT JOIN router.ticket t USING (ticket_id)
 WHERE coalesce(n.settled_at, n.requested_at, n.deferred_until) > $1
   AND (n.status = ANY($2::text[]) OR ('bounced' = ANY($2::text[]) AND n.delivery = 'bounced'))
 ORDER BY at, n.notice_id LIMIT $3
"""
_NOTICE: Final = (
    "SELECT * FROM notifier.notice WHERE notice_id LIKE replace($1, '%', '') || '%' LIMIT 2"
)
_ANSWER: Final = """
SELECT data FROM router.ticket_event WHERE ticket_id = $1 AND type = 'ticket.answered.v1' AND at <= $3
   AND ($2 = '' OR data::jsonb ->> 'command_id' = $2) ORDER BY version DESC LIMIT 1
"""
_DECIDED: Final = "SELECT outcome, reason FROM notifier.notice_resend WHERE command_id = $1"
_DEAD: Final = """
SELECT recipient_hash, reason, at, until FROM notifier.undeliverable
 WHERE until IS NULL OR until > clock_timestamp() ORDER BY at DESC LIMIT $1
"""
_CLEAR: Final = """
DELETE FROM notifier.undeliverable
 WHERE recipient_hash = ANY($1::text[]) OR (length($2) >= 8 AND recipient_hash LIKE $2 || '%')
RETURNING recipient_hash
"""

_POLICY = typer.Option(
    "--policy", help="The policy folder; SIGNALBOX_POLICY or ./policy if left out."
)
_JSON = typer.Option("--json", help="Print JSON and nothing else.")
_RECIPIENT = typer.Option(
    "--show-recipient", help="Also addresses, and what servers said with them in it."
)
STATUSES: Final = ("unknown", "failed", "bounced", "deferred", "suppressed", "dry_run", "sent")


@app.callback()
def _group() -> None:
    """What customers were told, and why not; what they would be told; sending it again."""


# ------------------------------------------------------------------------------------------------- why


@app.command()
def why(
    ticket: Annotated[
        str,
        typer.Argument(
            metavar="REFERENCE|ID",
            help="SB-…, a ticket's id or its beginning, a conversation's id, or a notice's.",
        ),
    ],
    folder: Annotated[Path | None, _POLICY] = None,
    as_json: Annotated[bool, _JSON] = False,
    show_recipient: Annotated[bool, _RECIPIENT] = False,
) -> None:
    """Tell of each notice of a ticket: what brought it about, what became of it and why, and what is still to come."""
    from cli import notify_story
    from cli.environment import common

    own = common()
    policy = _policy_text(folder)
    stories = asyncio.run(_read(own.dsn, ticket))
    for found in stories:
        notices = notify_story.told(found, policy, own.workspace, show_recipient=show_recipient)
        ahead = notify_story.coming(found)
        if as_json:
            typer.echo(
                json_module.dumps(
                    {
                        "ticket_id": found.ticket_id,
                        "reference": found.reference,
                        "conversation_id": found.conversation_id,
                        "notices": notices,
                        "coming": ahead,
                    },
                    default=_plain,
                    ensure_ascii=False,
                )
            )
        else:
            _print_story(found, notices, ahead)


async def _read(dsn: str, ticket: str) -> "list[Found]":
    from cli.notify_story import read

    async with connected(dsn) as connection:
        return await read(connection, ticket)


def _policy_text(folder: Path | None) -> "PolicyText":
    from cli.notify_story import PolicyText
    from cli.places import policy_folder

    try:
        return PolicyText(((folder or policy_folder()) / "notify.yaml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, CommandError):
        return PolicyText()  # The reasons are told without their lines.


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    raise TypeError(f"{type(value).__name__} has no JSON form here")


def _print_story(
    found: "Found", notices: list[dict[str, Any]], ahead: list[dict[str, Any]]
) -> None:
    from rich.console import Console
    from rich.markup import escape

    from cli.story import utc

    console = Console(highlight=False)
    name = found.reference or found.ticket_id
    console.print(f"[bold]{escape(name)}[/bold]  ticket {found.ticket_id}")
    if not notices:
        console.print("Its customer was told nothing, and nothing was held back.")
    if notices:
        table = _table("asked for", "occasion", "became", "by", "in words")
        for one in notices:
            asked = one["requested_at"] or one["settled_at"] or one["deferred_until"]
            became = one["status"].replace("_", " ") + (
                f", {one['delivery']}" if one["delivery"] else ""
            )
            way = "/".join(part for part in (one["provider"], one["account"]) if part)
            style = _style(one)
            table.add_row(
                utc(asked),
                escape(one["occasion"]),
                f"[{style}]{escape(became)}[/{style}]" if style else escape(became),
                escape(way or "–"),
                escape("\n".join(words_of(one))),
            )
        console.print(table)
    if ahead:
        table = _table("still to come", "occasion", "in words")
        for line in ahead:
            at = "now" if line["at"] is None else utc(line["at"])
            table.add_row(at, escape(line["occasion"]), escape(line["what"]))
        console.print(table)
    elif found.state is None:
        console.print("The notifier remembers nothing of this conversation any more.")


def _style(one: Mapping[str, Any]) -> str:
    if one["status"] in ("failed", "unknown") or one["delivery"] == "bounced":
        return "bold red"
    return {"sent": "green", "suppressed": "yellow", "dry_run": "yellow"}.get(one["status"], "")


def words_of(one: Mapping[str, Any]) -> list[str]:
    """Return what there is to say of a notice beyond its name and status, a line each."""
    from cli.story import short, utc

    lines = [f"because {one['because']}"]
    if one["why"]:
        lines.append(one["why"])
    elif one["reason"]:
        lines.append(short(one["reason"], 200))
    if one["superseded_by"]:
        lines.append(f"made stale by {one['superseded_by']}")
    if one["policy"]:
        lines.append(one["policy"])
    if one["deferred_until"] is not None:
        lines.append(f"asked again at {utc(one['deferred_until'])}")
    if one["settled_at"] is not None and one["requested_at"] is not None:
        tries = f" after {one['attempts']} attempts" if one["attempts"] > 1 else ""
        lines.append(f"ended {utc(one['settled_at'])}{tries}")
    if one["message_id"]:
        lines.append(f"its name there: {short(one['message_id'], 120)}")
    if one["articles"]:
        lines.append(f"names {', '.join(one['articles'])}")
    if one["address_is_dead"]:
        lines.append(f"nothing is sent to its address {one['address_is_dead']}")
    for asked in one["resends"]:
        refused = f", refused: {asked['reason']}" if asked["outcome"] == "refused" else ""
        lines.append(f"{asked['agent_id']} wanted it sent again at {utc(asked['at'])}{refused}")
    if one.get("recipient"):
        lines.append(f"to {one['recipient']}")
    if one["person"]:
        lines.append(f"→ {one['person']}")
    lines.append(f"notice {one['notice_id']}")
    return lines


def _table(*columns: str) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold")
    return table


@app.command("list")
def list_notices(
    status: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Which ones, of {', '.join(STATUSES)}; may be given more than once. Left out: what a person is needed for."
        ),
    ] = None,
    days: Annotated[float, typer.Option(min=0.01, help="How far back.")] = 3,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """List notices by what became of them, the oldest first: those that need a person, unless others are asked for."""
    from cli.environment import common
    from cli.notify_story import without_addresses
    from cli.story import local_time, short

    wanted = list(status or ("unknown", "failed", "bounced"))
    for one in wanted:
        if one not in STATUSES:
            raise UsageMistake(f"--status {one}: must be one of {', '.join(STATUSES)}.")
    since = datetime.now(UTC) - timedelta(days=days)
    rows = asyncio.run(fetch(common().dsn, _LIST, since, wanted, LIST_MAX))
    for row in rows:
        said = {**dict(row), "reason": without_addresses(row["reason"] or "")}
        if as_json:
            typer.echo(json_module.dumps(said, default=_plain, ensure_ascii=False))
            continue
        became = said["delivery"] if said["delivery"] == "bounced" else said["status"]
        reason = f": {short(said['reason'], 90)}" if said["reason"] else ""
        typer.echo(
            f"{said['notice_id'][:8]}  {local_time(said['at'], with_date=True)}  {said['reference'] or said['ticket_id'][:8]:12}"
            f" {said['occasion']:16} {became:10} {said['provider'] or '–'}{reason}"
        )
    if not rows and not as_json:
        typer.echo("None.")


# --------------------------------------------------------------------------------------------- preview


@app.command()
def preview(
    occasion: Annotated[
        str, typer.Option(help="received, answered, delayed … (docs/notices.md has them all)")
    ],
    ticket: Annotated[
        str | None,
        typer.Argument(metavar="[REFERENCE|ID]", help="A ticket; with --sample, none."),
    ] = None,
    is_sample: Annotated[
        bool, typer.Option("--sample", help="For a made-up customer; needs no database.")
    ] = False,
    language: Annotated[str, typer.Option(help="In this language; left out: the customer's.")] = "",
    channel: Annotated[
        str, typer.Option(help="As if they had written on this channel; left out: theirs (email).")
    ] = "",
    now: Annotated[
        str, typer.Option(help="The instant, RFC 3339 with an offset; the present one if left out.")
    ] = "",
    folder: Annotated[Path | None, _POLICY] = None,
    as_json: Annotated[bool, _JSON] = False,
    show_recipient: Annotated[bool, _RECIPIENT] = False,
) -> None:
    """Show what a notice would say now, and how it would go or why not, by the policy in the folder. Nothing is sent or written."""
    from cli import notify_preview
    from cli.places import policy_folder
    from services.notifier.core.render import OCCASIONS

    if occasion not in OCCASIONS:
        raise UsageMistake(f"--occasion {occasion}: must be one of {', '.join(OCCASIONS)}.")
    if is_sample == (ticket is not None):
        raise UsageMistake("Name a ticket, or give --sample.")
    where = folder or policy_folder()
    policy, at = notify_preview.load(where), instant("--now", now) or datetime.now(UTC)
    if ticket is None:
        asked = notify_preview.sample(policy, where, "default", channel or "email", language, at)
    else:
        asked = asyncio.run(_asked(ticket, policy))
    shown = notify_preview.show(
        policy,
        where,
        asked,
        cast("Occasion", occasion),
        language,
        channel if ticket is not None else "",
        at,
    )
    lines = notify_preview.way_lines(
        policy, shown, _policy_text(folder).line, show_recipient=show_recipient or is_sample
    )
    lines = [line for line in lines if line]
    words = shown.words
    if as_json:
        typer.echo(
            json_module.dumps(
                {
                    "occasion": shown.cause.occasion,
                    "language": shown.language,
                    "way": type(shown.way).__name__.lower(),
                    "in_words": lines,
                    "subject": words.subject,
                    "text": words.text,
                    "short": words.short,
                    "public": words.public,
                },
                ensure_ascii=False,
            )
        )
        return
    typer.echo(f"{shown.cause.occasion}, in {shown.language}")
    for line in lines:
        typer.echo(f"  {line}")
    for title, text in (
        ("subject", words.subject),
        ("text", words.text),
        ("short", words.short),
        ("in public", words.public),
    ):
        if text.strip():
            typer.echo(f"\n--- {title}\n{text.strip()}")


async def _asked(ticket: str, policy: Any) -> "Asked":
    from cli.environment import common
    from cli.notify_preview import Asked
    from cli.notify_story import read
    from services.notifier.consent_store import ConsentStore
    from services.notifier.core.plan import recipients

    own = common()
    async with connected(own.dsn) as connection:
        found = await read(connection, ticket)
        state = found[-1].state
        if state is None or state.contact is None:
            raise CommandError(
                f"The notifier remembers nothing of {ticket} any more: its tickets are closed, or its customer was erased."
            )
        await connection.execute("SET search_path TO notifier")
        names = recipients(policy, state.contact, state.thread, state.answers)
        known = await ConsentStore(own.workspace).load(connection, policy, names)
    return Asked(found[-1].conversation_id, found[-1].ticket_id, state, known)


# ---------------------------------------------------------------------------------------------- resend


@app.command()
def resend(
    notice: Annotated[
        str, typer.Argument(metavar="NOTICE", help="A notice's id, or its beginning.")
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    by: Annotated[str, typer.Option(help="Who decides it; left out: who you are here.")] = "",
    folder: Annotated[Path | None, _POLICY] = None,
) -> None:
    """Have a notice sent again that failed, bounced, or of which nobody knows whether it arrived. You answer for a second copy."""
    from cli import notify_story
    from cli.environment import common

    own = common()
    row = asyncio.run(_one(own.dsn, notice))
    (found, *_) = asyncio.run(_read(own.dsn, row["notice_id"]))
    shown = [
        one
        for one in notify_story.told(found, _policy_text(folder), own.workspace)
        if one["notice_id"] == row["notice_id"]
    ]
    _print_story(found, shown, [])
    refused = refusal(row)
    if refused:
        raise CommandError(refused)
    typer.echo(warning(row))
    if not yes:
        typer.confirm("Send it again?", abort=True)
    command = asyncio.run(_command(own.dsn, found, row, by))
    asyncio.run(_send(_gateway_settings(), command))


def refusal(row: Mapping[str, Any]) -> str:
    """Return why a notice is not sent again, as far as its row says it; empty where it may be."""
    if row["status"] in ("failed", "unknown") or row["delivery"] == "bounced":
        return ""
    why = {
        "sent": "It was sent, and nothing says that it was lost.",
        "requested": "It is still under way; see `signalbox notify why`.",
        "deferred": "It has not been sent yet, and is told by itself when its time comes.",
        "dry_run": "It was rehearsed in a dry run; what was rehearsed is not sent later.",
        "suppressed": "A rule held it back, and nobody overrules that from here; write to the customer yourself.",
    }
    return why.get(row["status"], f"It is {row['status']}.")


def warning(row: Mapping[str, Any]) -> str:
    """Return what whoever has it sent again should know."""
    from services.notifier.adapters import PROVIDERS

    provider = PROVIDERS.get(row["provider"])
    if row["status"] != "unknown":
        return "It did not arrive. Its words are made anew, as of now."
    if provider is not None and provider.traits.is_keyed:
        return (
            f"It may have arrived. The same message goes again under the same key, and {row['provider']} drops it if it still"
            " knows the key; vendors forget keys after hours."
        )
    return (
        f"It may have arrived, and {row['provider'] or 'its provider'} cannot tell a repeat: the customer may get it twice."
        " Whoever has it sent again answers for that."
    )


async def _one(dsn: str, notice: str) -> Any:
    wanted = notice.replace("_", "").strip()
    rows = await fetch(dsn, _NOTICE, wanted) if wanted else []
    if not rows:
        raise CommandError(f"There is no notice {notice}; see `signalbox notify list`.")
    if len(rows) > 1:
        raise CommandError(f"{notice} names several notices; give more of the id.")
    return rows[0]


async def _command(dsn: str, found: "Found", row: Any, by: str) -> "ResendNotice":
    """Return what is asked of the notifier; with an agent's answer come its words, which the notifier keeps no longer."""
    from uuid import uuid4

    from schemas.commands import ResendNotice
    from schemas.tickets import TicketAnswered

    said: dict[str, Any] = {}
    if row["occasion"] == "answered":
        known = found.state.notices.get(row["notice_id"]) if found.state is not None else None
        cause = getattr(known, "cause_id", "") or ""
        asked_at = row["requested_at"] or row["settled_at"]
        rows = await fetch(dsn, _ANSWER, row["ticket_id"], cause, asked_at)
        if rows:
            answer = TicketAnswered.model_validate_json(rows[0]["data"])
            said = {
                "text": answer.text,
                "language": answer.language,
                "agent_name": answer.agent_name[:200],
            }
    return ResendNotice(
        command_id=str(uuid4()),
        conversation_id=row["conversation_id"],
        ticket_id=row["ticket_id"],
        agent_id=user(by),
        notice_id=row["notice_id"],
        occasion=row["occasion"],
        **said,
    )


def _gateway_settings() -> "IngestSettings":
    from cli.environment import settings
    from services.ingest.settings import IngestSettings

    return settings(IngestSettings)


async def _send(own: "IngestSettings", command: "ResendNotice") -> None:
    """Hand the command to the spool, and wait for what comes of it."""
    async with spooling(own, "signalbox notify") as (spool, _):
        await put(spool, own.workspace, command)
        found = await _decision(own.dsn, command.command_id)
    if found is None:
        typer.echo(
            "It is taken in, and decided when the notifier runs; `signalbox notify why` tells."
        )
    elif found["outcome"] == "refused":
        raise CommandError(f"It is not sent again: {found['reason']}.")
    else:
        typer.echo("It is on its way again; `signalbox notify why` tells what becomes of it.")


async def put(spool: Any, workspace: str, command: "ResendNotice") -> None:
    """Store the command as the gateway stores those of agents."""
    from chassis.clock import SystemClock
    from services.ingest.adapters import intake

    await spool.put(
        intake.event_item(
            command,
            command.command_id,
            command.conversation_id,
            workspace,
            SystemClock().now(),
        )
    )


async def _decision(dsn: str, command_id: str) -> Any:
    from chassis.clock import monotonic

    until = monotonic() + WAIT_SECONDS
    while monotonic() < until:
        rows = await fetch(dsn, _DECIDED, command_id)
        if rows:
            return rows[0]
        await asyncio.sleep(_LOOK_SECONDS)
    return None


# ------------------------------------------------------------------------------------------ dead addresses


@suppressed_app.command("list")
def list_suppressed(
    limit: Annotated[int, typer.Option(min=1, help="So many at most, the newest first.")] = 100,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """List dead addresses, by their name in the tables: why nothing is sent to each, since when, and until when."""
    from cli.environment import common
    from cli.notify_story import without_addresses
    from cli.story import local_time, short

    rows = asyncio.run(fetch(common().dsn, _DEAD, limit))
    for row in rows:
        said = {**dict(row), "reason": without_addresses(row["reason"])}
        if as_json:
            typer.echo(json_module.dumps(said, default=_plain, ensure_ascii=False))
            continue
        until = "for good" if said["until"] is None else f"until {local_time(said['until'], True)}"
        typer.echo(
            f"{said['recipient_hash'][:13]}  since {local_time(said['at'], True)}, {until}"
            f"  {short(said['reason'], 100)}"
        )
    if not rows and not as_json:
        typer.echo("None.")


@suppressed_app.command("clear")
def clear(
    address: Annotated[
        str,
        typer.Argument(
            metavar="ADDRESS|NAME",
            help="The address itself, or its name in the list or its beginning.",
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Have an address tried again from the next notice on, because it works now."""
    from cli.environment import common
    from services.notifier.adapters import PROVIDERS
    from services.notifier.core.audience import recipient_key
    from services.notifier.core.known import dead_name

    own = common()
    if not yes:
        typer.confirm(
            "Write to it again? Whoever mails dead addresses is soon taken for a spammer.",
            abort=True,
        )
    key = recipient_key(own.workspace, address.strip())
    # By each provider an address is dead for itself, but for mail.
    names = [dead_name(provider, key) for provider in ("smtp", *PROVIDERS)]
    prefix = address.strip().replace("%", "").replace("_", "")
    count = asyncio.run(_clear(own.dsn, names, prefix))
    if not count:
        raise CommandError(
            "No address of that name is held back; `signalbox notify suppressed list` has them all."
        )
    typer.echo("It is written to again from the next notice on.")


async def _clear(dsn: str, names: list[str], prefix: str) -> int:
    async with connected(dsn) as connection, connection.transaction():
        rows = await connection.fetch(_CLEAR, names, prefix)
        if len([row for row in rows if row["recipient_hash"] not in names]) > 1:
            raise CommandError("That names several addresses; give more of the name.")
        return len(rows)
