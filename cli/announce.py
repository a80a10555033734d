"""`signalbox notify announce`: say to everybody concerned that something is broken, that it works again, or what they have to know.

It shows first whom it concerns and why, and asks. Nothing is decided here but whom to ask for: each person's notice is the
notifier's affair, with quiet hours, caps and wishes.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from cli.database import connected, spooling
from cli.errors import CommandError, UsageMistake
from cli.typed import instant, user

if TYPE_CHECKING:
    from cli.announce_find import Asked, Survey
    from cli.announce_words import Words
    from services.notifier.core.announce import Announced, Place
    from services.notifier.core.policy import OutageAudience, Policy

OCCASIONS: "Final[dict[str, Announced]]" = {
    "known": "outage_known",
    "over": "outage_over",
    "security": "security",
}
AUDIENCES: Final = ("named", "open", "recent")

_FILTER_HELP: Final = "Only where a case has this {what}; may be given several times."


def announce(
    occasion: Annotated[
        str, typer.Argument(metavar="known|over|security", help="What has happened.")
    ],
    about: Annotated[
        str,
        typer.Option(help="Your name for it, such as payments-2026-11-24; the same for `over`."),
    ],
    title: Annotated[
        str, typer.Option(help="What does not work, in a few words of the default language.")
    ] = "",
    text: Annotated[str, typer.Option(help="What customers should know, in the same.")] = "",
    title_en: Annotated[str, typer.Option("--title-en", help="The title in English.")] = "",
    text_en: Annotated[str, typer.Option("--text-en", help="The text in English.")] = "",
    title_tr: Annotated[str, typer.Option("--title-tr", help="The title in Turkish.")] = "",
    text_tr: Annotated[str, typer.Option("--text-tr", help="The text in Turkish.")] = "",
    title_ru: Annotated[str, typer.Option("--title-ru", help="The title in Russian.")] = "",
    text_ru: Annotated[str, typer.Option("--text-ru", help="The text in Russian.")] = "",
    file: Annotated[
        Path | None,
        typer.Option(help="Title and text in YAML, each by language, instead of the options."),
    ] = None,
    since: Annotated[
        str, typer.Option(help="Since when it is broken, RFC 3339 with an offset.")
    ] = "",
    until: Annotated[
        str, typer.Option(help="Until when you expect it to be, or when it was over.")
    ] = "",
    tag: Annotated[
        list[str] | None, typer.Option(help=_FILTER_HELP.format(what="tag or cause"))
    ] = None,
    queue: Annotated[
        list[str] | None, typer.Option(help="Only cases that were opened in this queue; likewise.")
    ] = None,
    cause: Annotated[list[str] | None, typer.Option(help=_FILTER_HELP.format(what="cause"))] = None,
    channel: Annotated[
        list[str] | None, typer.Option(help="Only customers who wrote on this channel; likewise.")
    ] = None,
    audience: Annotated[
        str,
        typer.Option(
            help="named: only the people of --csv; open: who has an open case; recent: who had one lately."
            " Left out: outage.audience of notify.yaml; for security, named."
        ),
    ] = "",
    table: Annotated[
        Path | None,
        typer.Option(
            "--csv",
            help="People to tell besides, who did not complain: columns address (or email, phone), name, language.",
        ),
    ] = None,
    is_urgent: Annotated[
        bool, typer.Option("--urgent", help="Also where it is night for the customer.")
    ] = False,
    as_written: Annotated[
        bool, typer.Option("--as-written", help="Leave the words as they are, whatever is found.")
    ] = False,
    is_dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show whom it concerns, and tell nobody.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    by: Annotated[str, typer.Option(help="Who decides it; left out: who you are here.")] = "",
    folder: Annotated[
        Path | None,
        typer.Option(
            "--policy", help="The policy folder; SIGNALBOX_POLICY or ./policy if left out."
        ),
    ] = None,
) -> None:
    """Tell everybody concerned that something is broken (known) or works again (over), or a security notice. Each person once."""
    from cli import announce_words
    from cli.announce_find import Asked
    from cli.environment import common
    from cli.notify_preview import load
    from cli.places import policy_folder
    from services.notifier.core.announce import Announcement, Filters

    kind = _occasion(occasion)
    policy = load(folder or policy_folder())
    words = _words(
        policy,
        file,
        (title, text),
        {"en": title_en, "tr": title_tr, "ru": title_ru},
        {"en": text_en, "tr": text_tr, "ru": text_ru},
    )
    people = announce_words.people_of_file(table, policy) if table is not None else ()
    own = common()
    asked = Asked(
        Announcement(own.workspace, kind, _about(about)),
        policy,
        _audience(policy, kind, audience, has_people=bool(people)),
        Filters(
            frozenset(tag or ()),
            frozenset(queue or ()),
            frozenset(cause or ()),
            frozenset(channel or ()),
        ),
        announce_words.check_words(words, kind, policy, as_written=as_written),
        people,
        *_times(kind, since, until),
        user(by),
        is_urgent,
    )
    if kind in policy.occasions_off:
        raise CommandError(f"occasions.{kind} of notify.yaml is off, so nobody would be told.")
    found = asyncio.run(_survey(own.dsn, asked))
    for line in lines(asked, found):
        typer.echo(line)
    if is_dry_run or not found.places:
        typer.echo("A dry run: nobody is told." if is_dry_run else "There is nobody to tell.")
        return
    if not yes:
        typer.confirm(f"Tell {_people(len(found.places))}?", abort=True)
    asyncio.run(_tell(asked, found.places))


# ---------------------------------------------------------------------------------------- what was typed


def _occasion(given: str) -> "Announced":
    if given not in OCCASIONS:
        raise UsageMistake(f"{given}: must be one of {', '.join(OCCASIONS)}.")
    return OCCASIONS[given]


def _about(given: str) -> str:
    from cli.announce_words import ABOUT_MAX

    about = given.strip()
    if not about or not about.isprintable() or len(about) > ABOUT_MAX:
        raise UsageMistake(
            f"--about: must be a name of 1 to {ABOUT_MAX} printable characters, such as payments-2026-11-24."
        )
    return about


def _words(
    policy: "Policy",
    file: Path | None,
    plain: tuple[str, str],
    titles: dict[str, str],
    texts: dict[str, str],
) -> "Words":
    from cli.announce_words import words_of_file, words_of_options

    if file is None:
        return words_of_options(policy.default_language, *plain, titles, texts)
    if any((*plain, *titles.values(), *texts.values())):
        raise UsageMistake("Say it in --file or in options, not in both.")
    return words_of_file(file, policy.default_language)


def _audience(
    policy: "Policy", kind: "Announced", given: str, *, has_people: bool
) -> "OutageAudience":
    if given and given not in AUDIENCES:
        raise UsageMistake(f"--audience {given}: must be one of {', '.join(AUDIENCES)}.")
    # What is said about somebody's account concerns those who are named, and not whoever has a case open.
    wanted = given or ("named" if kind == "security" else policy.outage.audience)
    if wanted == "named" and not has_people and kind != "outage_over":
        raise UsageMistake("Nobody is named: give --csv with people, or --audience open or recent.")
    return replace(policy.outage, audience=wanted)  # type: ignore[arg-type]


def _times(kind: "Announced", since: str, until: str) -> tuple[datetime | None, datetime | None]:
    if kind == "security" and (since or until):
        raise UsageMistake("--since and --until are of outages; a security notice has neither.")
    begins, ends = instant("--since", since), instant("--until", until)
    now = datetime.now(UTC)
    if begins is not None and begins > now:
        raise UsageMistake(f"--since {since}: is not yet; say it when it is broken.")
    if begins is not None and ends is not None and ends <= begins:
        raise UsageMistake(f"--until {until}: must be later than --since {since}.")
    if kind == "outage_known" and ends is not None and ends <= now:
        raise UsageMistake(f"--until {until}: is over; expect a later time, or leave it out.")
    if kind == "outage_over" and ends is not None and ends > now:
        raise UsageMistake(f"--until {until}: is not yet; announce it when it is over.")
    return begins, ends


# ----------------------------------------------------------------------------------------- what is shown


def lines(asked: "Asked", found: "Survey") -> list[str]:
    """Return whom it concerns, for people: counts by channel, language and reason, and what may stand in the way."""
    from cli.announce_find import language_at
    from services.notifier.core.audience import language_of

    places = found.places
    told = [
        f"{asked.announcement.about}: {_people(len(places))} to tell"
        + (f", {_people(found.already)} told before" if found.already else "")
    ]
    told += _counted("by channel", places, lambda one: one.channel or "on their way")
    told += _counted("by language", places, lambda one: language_at(asked, one))
    told += _counted("because", places, lambda one: str(one.why))
    theirs = Counter(language_of(asked.policy, one.language) for one in places)
    for language, count in sorted(theirs.items()):
        if asked.words.language_for(language) != language:
            told.append(
                f"  {_people(count)} would read it in {language}, and hear it in {asked.words.first}:"
                f" give --text-{language}, or {language} in --file"
            )
    return told + _limits(asked, places)


def _limits(asked: "Asked", places: "Iterable[Place]") -> list[str]:
    """Return which caps of the policy would hold some of them back."""
    policy = asked.policy
    if asked.announcement.occasion == "security":
        return []
    everybody = list(places)
    unproved = sum(1 for one in everybody if not one.is_verified)
    found = []
    if unproved > policy.unverified_total_per_hour:
        found.append(
            f"  nobody has proved {unproved:,} of the addresses, and {policy.unverified_total_per_hour:,} such are told an hour"
            " (caps.unverified_total_per_hour): the others are not told"
        )
    if len(everybody) > policy.automatic_total_per_hour:
        found.append(
            f"  {policy.automatic_total_per_hour:,} notices go out an hour (caps.automatic_total_per_hour): the others are not told"
        )
    return found


def _counted(title: str, places: "Iterable[Place]", name: "Callable[[Place], str]") -> list[str]:
    counts = Counter(name(one) for one in places)
    if not counts:
        return []
    ordered = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    return [f"  {title}: " + ", ".join(f"{value} {count:,}" for value, count in ordered)]


def _people(count: int) -> str:
    return f"{count:,} {'person' if count == 1 else 'people'}"


# ------------------------------------------------------------------------------------------- what is done


async def _survey(dsn: str, asked: "Asked") -> "Survey":
    from cli.announce_find import survey

    async with connected(dsn, "notifier") as connection:
        return await survey(connection, asked, datetime.now(UTC))


async def _tell(asked: "Asked", places: "tuple[Place, ...]") -> None:
    from chassis.errors import Unavailable
    from cli.announce_find import hand_over
    from cli.environment import settings
    from services.ingest.settings import IngestSettings

    own = settings(IngestSettings)
    done = 0

    def progress(count: int) -> None:
        nonlocal done
        done += count
        typer.echo(f"{done:,} of {len(places):,}")

    try:
        async with spooling(own, "signalbox notify") as (spool, _):
            fresh = await hand_over(spool, asked, places, datetime.now(UTC), progress)
    except Unavailable as error:
        raise CommandError(
            f"{done:,} of {len(places):,} were handed over, then: {error}. Give the same command again; nobody is told twice."
        ) from None
    repeated = len(places) - fresh
    if repeated:
        typer.echo(f"{_people(repeated)} had been handed over meanwhile, and are not told twice.")
    typer.echo(
        "Handed over. The notifier tells each when quiet hours, caps and wishes allow it; `signalbox notify list` shows what"
        " was not sent, and why."
    )
