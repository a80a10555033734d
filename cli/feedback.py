"""`signalbox feedback …`: what customers answered when they were asked how it went, and how far that can be believed.

Owns the way from the database to the figures, and the plain forms of them; `cli.feedback_page` draws the page.
"""

import asyncio
import csv
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final
from zoneinfo import ZoneInfo

import typer

from cli.database import fetch
from cli.sla_report import Format, columns, days_of, hand_out, percent, stretch
from schemas.feedback import LATE_AFTER

if TYPE_CHECKING:
    from services.notifier.core.comments import Cause
    from services.notifier.core.feedback import Figures, Report, Share, Survey

app = typer.Typer(
    help="What customers answered when asked how it went: distribution, bias, low answers.",
    no_args_is_help=True,
)

# Who never got the question is not among those who were asked; of `unknown` ones nobody can tell, and they may answer.
_SURVEYS: Final = """
SELECT s.kind, s.channel, s.queue, s.language, s.outcome, coalesce(s.cause, '') AS cause, s.probability, s.asked_at,
       f.score, f.is_late, f.revision, f.comment
FROM notifier.survey AS s LEFT JOIN notifier.feedback AS f USING (survey_id)
WHERE s.asked_at >= $1 AND s.asked_at < $2 AND ($3 = '' OR s.queue = $3) AND ($4 = '' OR s.kind = $4)
  AND (s.status IN ('sent', 'unknown') OR f.score IS NOT NULL)
ORDER BY s.asked_at, s.survey_id
"""
_ANSWERS: Final = """
SELECT f.ticket_id, f.kind, f.score, f.comment, f.may_share, f.is_late, f.revision, f.given_at,
       coalesce(s.queue, '') AS queue, coalesce(s.channel, '') AS channel
FROM notifier.feedback AS f LEFT JOIN notifier.survey AS s USING (survey_id)
WHERE f.given_at >= $1 AND f.given_at < $2 AND ($3 = '' OR s.queue = $3) AND ($4 = '' OR f.kind = $4)
ORDER BY f.given_at DESC, f.survey_id
"""


class By(StrEnum):
    """What a report's lines are, beside the kind of question."""

    QUEUE = "queue"
    CHANNEL = "channel"
    LANGUAGE = "language"
    OUTCOME = "outcome"
    CAUSE = "cause"
    DAY = "day"


class Kind(StrEnum):
    """The questions."""

    CSAT = "csat"
    CES = "ces"
    NPS = "nps"


Since = Annotated[
    str, typer.Option("--from", metavar="DAY", help="The first day, such as 2026-11-01.")
]
Until = Annotated[str, typer.Option("--to", metavar="DAY", help="The last day, whole.")]
Queue = Annotated[str, typer.Option("--queue", help="Of this queue alone.")]
OfKind = Annotated[Kind | None, typer.Option("--kind", help="Of this question alone.")]
Zone = Annotated[str, typer.Option("--timezone", help="Whose days, such as Europe/Istanbul.")]


@app.command()
def report(
    since: Since,
    until: Until,
    queue: Queue = "",
    kind: OfKind = None,
    by: Annotated[By, typer.Option("--by", help="A line for each.")] = By.QUEUE,
    timezone: Zone = "UTC",
    form: Annotated[Format, typer.Option("--format", help="How to write it.")] = Format.TABLE,
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="FILE", help="Where to; else to the terminal."),
    ] = None,
    policy: Annotated[
        Path | None,
        typer.Option(
            "--policy", metavar="DIR", help="The policy folder; else as for every command."
        ),
    ] = None,
) -> None:
    """How low, how many answered, who did not, and what the comments are about, of the surveys asked in a stretch of days."""
    from cli import sla_words
    from cli.environment import common
    from services.notifier.core import feedback

    zone = sla_words.zone(timezone)
    begin, end = stretch(since, until, zone)
    known = _causes(policy)
    rows = asyncio.run(fetch(common().dsn, _SURVEYS, begin, end, queue, kind.value if kind else ""))
    surveys = [survey_of(row, zone, known) for row in rows]
    made = feedback.report(surveys, begin, end, zone.key, by.value)
    hand_out(written(made, form, queue, datetime.now(UTC)), output)


@app.command()
def answers(
    since: Since,
    until: Until,
    queue: Queue = "",
    kind: OfKind = None,
    low: Annotated[bool, typer.Option("--low", help="Low ones alone.")] = False,
    timezone: Zone = "UTC",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """The answers themselves, the latest first: for whoever leads the team. Some customers wanted no agent to see theirs."""
    from cli import sla_words
    from cli.environment import common

    zone = sla_words.zone(timezone)
    begin, end = stretch(since, until, zone)
    rows = asyncio.run(fetch(common().dsn, _ANSWERS, begin, end, queue, kind.value if kind else ""))
    shown = [one for one in (answer_of(row) for row in rows) if not low or one["level"] == "low"]
    for one in shown:
        typer.echo(json.dumps(one, ensure_ascii=False) if as_json else _line(one, zone))
    if not shown and not as_json:
        typer.echo("No such answer in these days.")


Known = tuple["tuple[Cause, ...]", dict[str, str]]


def _causes(folder: Path | None) -> Known:
    """Return the causes of the policy folder with how they are said, and the cause above each; none where there is no file.

    Raises:
        PolicyError: the file is wrong; names path and value.
    """
    from chassis.policy import parse, read_yaml
    from cli.places import policy_folder
    from services.notifier.core.comments import FILE, causes_of
    from services.router.core.tickets.causes import CausesModel

    path = (policy_folder() if folder is None else folder) / FILE
    if not path.exists():
        return (), {}
    model = parse(FILE, read_yaml(path), CausesModel)
    said = {
        name: [*cause.description.values(), *(w for words in cause.words.values() for w in words)]
        for name, cause in model.causes.items()
    }
    parents = {name: one.parent for name, one in model.causes.items() if one.parent is not None}
    return causes_of(said), parents


def survey_of(row: Any, zone: ZoneInfo, known: Known) -> "Survey":
    """Return a row as the figures take it, its comment classified."""
    from services.notifier.core.comments import classify
    from services.notifier.core.feedback import Answer, Survey

    answer = None
    if row["score"] is not None:
        comment = row["comment"].strip()
        answer = Answer(
            row["score"],
            row["is_late"],
            row["revision"] > 1,
            bool(comment),
            classify(comment, *known) if comment else (),
        )
    return Survey(
        kind=row["kind"],
        channel=row["channel"],
        queue=row["queue"],
        language=row["language"],
        outcome=row["outcome"],
        cause=row["cause"],
        day=row["asked_at"].astimezone(zone).date().isoformat(),
        probability=row["probability"],
        asked_at=row["asked_at"],
        answer=answer,
    )


def answer_of(row: Any) -> dict[str, Any]:
    """Return one answer as an object of plain values."""
    from schemas.feedback import SCALES
    from schemas.ids import ticket_reference

    return {
        "ticket": ticket_reference(row["ticket_id"]),
        "ticket_id": row["ticket_id"],
        "kind": row["kind"],
        "score": row["score"],
        "level": SCALES[row["kind"]].level(row["score"]),
        "comment": row["comment"],
        "may_share": row["may_share"],
        "late": row["is_late"],
        "changed": row["revision"] > 1,
        "given_at": row["given_at"].isoformat(),
        "queue": row["queue"],
        "channel": row["channel"],
    }


def _line(one: dict[str, Any], zone: ZoneInfo) -> str:
    from cli.sla_words import when
    from schemas.feedback import SCALES

    at = when(datetime.fromisoformat(one["given_at"]).replace(microsecond=0), zone)
    marks = [name for name in ("late", "changed") if one[name]]
    marks += [] if one["may_share"] else ["not for the agent"]
    tail = f" ({', '.join(marks)})" if marks else ""
    # What a customer wrote is shown on one line, without what could steer a terminal.
    comment = "".join(char if char.isprintable() else " " for char in one["comment"])
    said = f": {' '.join(comment.split())}" if comment.strip() else ""
    most = SCALES[one["kind"]].most
    return f"{at}  {one['ticket']}  {one['kind']} {one['score']}/{most}  {one['queue'] or '-'}{tail}{said}"


# ------------------------------------------------------------------------------ plain forms


def flat(figures: "Figures") -> dict[str, Any]:
    """Return figures as one level of names and numbers; shares from 0 to 1."""
    return {
        "kind": figures.kind,
        "asked": figures.asked,
        "answered": figures.answered,
        "few_answers": figures.is_few,
        **_share("response", figures.response),
        "low": figures.levels["low"],
        "middle": figures.levels["middle"],
        "high": figures.levels["high"],
        **_share("low", figures.low),
        **_share("low_weighted", figures.weighted_low),
        "answers_without_weight": figures.unweighted,
        **_share("high", figures.high),
        **_share("nps", figures.nps),
        "mean": figures.mean,
        "median": figures.median,
        "late": figures.late,
        "changed": figures.changed,
        "commented": figures.commented,
    }


def _share(name: str, share: "Share | None") -> dict[str, float | None]:
    tail = "" if name == "nps" else "_share"
    return {
        f"{name}{tail}": None if share is None else share.value,
        f"{name}{tail}_least": None if share is None else share.least,
        f"{name}{tail}_most": None if share is None else share.most,
    }


def written(made: "Report", form: Format, queue: str, now: datetime) -> str:
    """Return the report in a form, as text that ends in a line's end."""
    match form:
        case Format.CSV:
            return _csv(made)
        case Format.JSON:
            return json.dumps(as_data(made, queue, now), indent=2, ensure_ascii=False) + "\n"
        case Format.HTML:
            from cli.feedback_page import page

            return page(made, queue, now)
        case Format.TABLE:
            return "".join(f"{line}\n" for line in table(made, queue))


def as_data(made: "Report", queue: str, now: datetime) -> dict[str, Any]:
    """Return the report as an object of plain values."""
    return {
        "from": made.since.isoformat(),
        "to": made.until.isoformat(),
        "timezone": made.zone,
        "made_at": now.isoformat(),
        "queue": queue or None,
        "by": made.by,
        "totals": [{**flat(one), "scores": _scores(one)} for one in made.totals],
        "groups": [
            {made.by: name, **flat(one), "scores": _scores(one)} for name, one in made.groups
        ],
        "slants": [
            {
                "dimension": one.dimension,
                "group": one.group,
                "asked_share": one.asked_share,
                "answered_share": one.answered_share,
                **_share("response", one.response),
                "verdict": one.verdict,
            }
            for one in made.slants
        ],
        "comments_by_cause": [
            {"cause": one.cause, "comments": one.comments, "low": one.low} for one in made.causes
        ],
    }


def _scores(figures: "Figures") -> dict[str, int]:
    return {str(score): n for score, n in figures.scores.items()}


def _csv(made: "Report") -> str:
    rows = [{made.by: name, **_wide(one)} for name, one in made.groups]
    rows += [{made.by: "all", **_wide(one)} for one in made.totals]
    out = io.StringIO()
    names = list(rows[0]) if rows else [made.by, "kind", "asked", "answered"]
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _wide(figures: "Figures") -> dict[str, Any]:
    """Return figures with a column for each score that any scale has."""
    counts = {f"score_{score}": figures.scores.get(score) for score in range(11)}
    return {**flat(figures), **counts}


_COLUMNS: Final = (
    "asked",
    "answered",
    "rate",
    "low",
    "low share",
    "95 % interval",
    "weighted",
    "95 % of it",
    "high share",
    "median",
    "NPS",
)


def row_of(figures: "Figures") -> tuple[str, ...]:
    """Return a line of the table, in the order of its columns; a star marks few answers, or what is worth few."""
    few = "*" if figures.is_few and figures.answered else ""
    worth_few = "*" if _is_worth_few(figures) else ""
    return (
        str(figures.asked),
        f"{figures.answered}{few}",
        percent(_value(figures.response)),
        str(figures.levels["low"]),
        percent(_value(figures.low)),
        interval(figures.low),
        f"{percent(_value(figures.weighted_low))}{worth_few}",
        interval(figures.weighted_low),
        percent(_value(figures.high)),
        "-" if figures.median is None else str(figures.median),
        "-" if figures.nps is None else net_score(figures.nps.value),
    )


def _is_worth_few(figures: "Figures") -> bool:
    """Whether the weighted share rests on few answers: one that stands for hundreds counts for little more than itself."""
    from services.notifier.core.feedback import FEW

    return figures.weighted_low is not None and figures.weighted_low.of < FEW


def _value(share: "Share | None") -> float | None:
    return None if share is None else share.value


def interval(share: "Share | None") -> str:
    """Return the bounds of a share in percent, or a dash."""
    return "-" if share is None else f"{share.least:.0%} to {share.most:.0%}"


def net_score(value: float) -> str:
    """Return an NPS as it is said: from -100 to +100, always with its sign."""
    return f"{round(value * 100):+d}"


def title(made: "Report", queue: str) -> str:
    """Return what a report is of, in words."""
    return f"Asked {days_of(made.since, made.until, made.zone, queue)}"


def table(made: "Report", queue: str) -> list[str]:
    """Return the report as plain lines."""
    if not made.totals:
        return [title(made, queue), "", "Nobody was asked in these days."]
    lines = [title(made, queue)]
    for total in made.totals:
        rows = [(name, *row_of(one)) for name, one in made.groups if one.kind == total.kind]
        lines += ["", *columns((total.kind, *_COLUMNS), rows, ("all", *row_of(total)))]
        lines += ["", *distribution(total), *closing(total)]
    return [*lines, *_slant_lines(made), *_cause_lines(made)]


def distribution(figures: "Figures") -> Iterator[str]:
    """Yield one bar for each score."""
    most = max(figures.scores.values(), default=0)
    for score, n in figures.scores.items():
        bar = "█" * (bar_length(30 * n / most) if most else 0)
        share = percent(n / figures.answered) if figures.answered else "-"
        yield f"{score:>4}  {n:>5}  {share:>6}  {bar}".rstrip()


def bar_length(value: float) -> int:
    """Return a bar's length: at least one cell for what occurred at all."""
    return max(1, round(value)) if value > 0 else 0


def closing(figures: "Figures") -> Iterator[str]:
    """Yield what a table's columns do not hold, in sentences."""
    if figures.nps is not None:
        least, most = net_score(figures.nps.least), net_score(figures.nps.most)
        yield f"NPS {net_score(figures.nps.value)}, 95 % interval {least} to {most}."
    if figures.answered and figures.is_few:
        yield f"* Only {figures.answered} answers: too few to compare with, see the interval."
    elif figures.weighted_low is not None and _is_worth_few(figures):
        worth = figures.weighted_low.of
        yield f"* The weighted share is worth only {worth:.1f} answers: too few to compare with, see its interval."
    if figures.late:
        yield f"{figures.late} came more than {LATE_AFTER.days} days after the question; they are counted."
    if figures.changed:
        yield f"{figures.changed} changed their mind; the last word counts."
    if figures.unweighted:
        yield f"{figures.unweighted} have no known chance to be asked and are not in the weighted share."


def _slant_lines(made: "Report") -> Iterator[str]:
    leaning = [one for one in made.slants if one.verdict != "as_all"]
    if not made.slants:
        return
    yield ""
    yield "Who answers, against who was asked:"
    if not leaning:
        yield "  no group differs from the others by more than chance may explain."
    for one in leaning:
        yield (
            f"  {one.dimension} {one.group}: {percent(one.asked_share)} of the asked,"
            f" {percent(one.answered_share)} of the answers ({one.verdict} likely to answer:"
            f" {percent(one.response.value)}, {interval(one.response)})"
        )


def _cause_lines(made: "Report") -> Iterator[str]:
    if not made.causes:
        return
    yield ""
    yield "What the comments are about (by the words of causes.yaml):"
    for one in made.causes:
        yield f"  {one.cause}: {one.comments}, {one.low} of them with a low score"
