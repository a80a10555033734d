"""A report of surveys as one page of HTML: nothing to fetch, no scripts, bars as inline SVG, for screen and paper, dark or light.

Owns the page's words and pictures; every figure comes from `services.notifier.core.feedback`. Names in it are escaped.
"""

from collections.abc import Sequence
from datetime import datetime
from html import escape
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from cli.feedback import closing, interval, net_score, row_of, title
from cli.sla_page import TABLE_STYLE
from cli.sla_report import percent
from cli.sla_words import when

if TYPE_CHECKING:
    from services.notifier.core.feedback import Figures, Report, Share

_STYLE: Final = (
    """
:root { color-scheme: light dark; --paper: #fbfaf7; --card: #fff; --ink: #1f2430; --muted: #5b6472; --line: #e3e0d8;
  --low: #c8553d; --middle: #b9bcc4; --high: #2f6690; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171c; --card: #1c2027; --ink: #e8e6e1; --muted: #a2abb9;
  --line: #313742; --low: #e8836b; --middle: #5a6270; --high: #6fa8d6; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0; }
h2 { font-size: 1.05rem; margin: 0 0 .25rem; }
.when { color: var(--muted); margin: .35rem 0 1.75rem; }
section { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: 1.1rem 1.25rem 1.25rem;
  margin: 0 0 1rem; break-inside: avoid; }
section > p { color: var(--muted); font-size: .95rem; margin: 0 0 .8rem; max-width: 46rem; }
section > p strong { color: var(--ink); }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--muted); font-size: 12px; font-family: inherit; }
svg .value { fill: var(--ink); }
"""
    + TABLE_STYLE
    + """@media print { body { background: none; font-size: 12px; } main { max-width: none; padding: 0; } section { border-color: #ccc; } }
"""
)

_NAMES: Final = {
    "csat": "Satisfaction (CSAT, 1 to 5)",
    "ces": "Ease (CES, 1 to 7)",
    "nps": "Recommendation (NPS, 0 to 10)",
}
_HEAD: Final = (
    "asked", "answered", "rate", "low", "low share", "95 % interval", "weighted low", "95 % of it", "high share", "median", "NPS",
)  # fmt: skip


def page(made: "Report", queue: str, now: datetime) -> str:
    """Return the whole document."""
    zone = ZoneInfo(made.zone)
    heading = escape(title(made, queue))
    parts = [
        "<h1>What customers answered</h1>",
        f"<p class=when>{heading}, as of {escape(when(now.replace(microsecond=0), zone))}</p>",
    ]
    if not made.totals:
        parts.append("<section><p>Nobody was asked in these days.</p></section>")
    for total in made.totals:
        parts += [_question(total), _groups(made, total)]
    parts += [_slants(made), _causes(made), _foot()]
    body = "\n".join(part for part in parts if part)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>What customers answered: {heading}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _section(heading: str, text: str, inside: str) -> str:
    return f"<section>\n<h2>{heading}</h2>\n<p>{text}</p>\n{inside}\n</section>"


def _question(total: "Figures") -> str:
    said = [
        f"<strong>{total.answered}</strong> of {total.asked} who were asked have answered ({_of(total.response)})."
    ]
    if total.low is not None:
        said.append(f"<strong>{_of(total.low)}</strong> of the answers are low.")
    if total.weighted_low is not None:
        said.append(f"Weighed by who was asked and who answers: {_of(total.weighted_low)}.")
    said += [escape(line) for line in closing(total)]
    return _section(_NAMES[total.kind], " ".join(said), _bars(total) if total.answered else "")


def _of(share: "Share | None") -> str:
    return "-" if share is None else f"{percent(share.value)}, 95 % interval {interval(share)}"


def _bars(total: "Figures") -> str:
    from schemas.feedback import SCALES

    width, height, bottom = 960, 200, 26
    room, tall = width / len(total.scores), height - bottom - 22
    most = max(total.scores.values())
    shapes = []
    for place, (score, n) in enumerate(total.scores.items()):
        x, high = place * room, tall * n / most
        tip = f"{n} gave {score}, {percent(n / total.answered)}"
        level = SCALES[total.kind].level(score)
        shapes.append(
            f'<rect x="{x + room * 0.12:.1f}" y="{height - bottom - high:.1f}" width="{room * 0.76:.1f}" height="{high:.1f}"'
            f' rx="2" style="fill:var(--{level})"><title>{escape(tip)}</title></rect>'
        )
        middle = x + room / 2
        shapes.append(
            f'<text x="{middle:.1f}" y="{height - 8}" text-anchor="middle">{score}</text>'
        )
        if n:
            shapes.append(
                f'<text class="value" x="{middle:.1f}" y="{height - bottom - high - 6:.1f}" text-anchor="middle">{n}</text>'
            )
    label = (
        f"How many gave which score: {', '.join(f'{n} gave {s}' for s, n in total.scores.items())}"
    )
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">{"".join(shapes)}</svg>'


def _cells(tag: str, cells: Sequence[str]) -> str:
    return "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells)


def _table(head: Sequence[str], rows: Sequence[str], kind: str = "") -> str:
    return (
        f"<div class=scroll><table{kind}><thead><tr>{_cells('th', head)}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _groups(made: "Report", total: "Figures") -> str:
    rows = [
        f"<tr>{_cells('td', (name, *row_of(one)))}</tr>"
        for name, one in made.groups
        if one.kind == total.kind
    ]
    rows.append(f"<tr class=all>{_cells('td', ('all', *row_of(total)))}</tr>")
    return _section(
        f"{total.kind.upper()} by {made.by}",
        "A star marks figures that rest on few answers: compare intervals, not shares.",
        _table((made.by, *_HEAD), rows),
    )


def _slants(made: "Report") -> str:
    if not made.slants:
        return ""
    words = {"more": "answers more often", "less": "answers less often", "as_all": "as all"}
    rows = [
        "<tr>"
        + _cells(
            "td",
            (
                f"{one.dimension} {one.group}",
                percent(one.asked_share),
                percent(one.answered_share),
                percent(one.response.value),
                interval(one.response),
                words[one.verdict],
            ),
        )
        + "</tr>"
        for one in made.slants
    ]
    return _section(
        "Who answers, and who does not",
        "Where those who answer are others than those who were asked, plain shares speak for the former.",
        _table(("group", "of asked", "of answers", "rate", "95 % interval", ""), rows),
    )


def _causes(made: "Report") -> str:
    if not made.causes:
        return ""
    rows = [
        f"<tr>{_cells('td', (one.cause.replace('_', ' '), str(one.comments), str(one.low)))}</tr>"
        for one in made.causes
    ]
    return _section(
        "What the comments are about",
        "By the words of causes.yaml; a comment that names two causes counts for both, and unclassified ones name none.",
        _table(("cause", "comments", "with a low score"), rows),
    )


def _foot() -> str:
    return (
        "<footer><p>A survey counts in the days in which it was asked, with what was answered by now; one that did not arrive was"
        " not asked. Low: CSAT 1 and 2, CES 1 to 3, NPS 0 to 6. Intervals are of 95 %, after Wilson, for the NPS after Newcombe."
        " A weighted share has each answer count for those like it who were asked and silent; it cannot know what they would have"
        f" said. NPS is promoters less detractors, from {net_score(-1.0)} to {net_score(1.0)}.</p></footer>"
    )
