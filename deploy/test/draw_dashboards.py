"""Pictures of the dashboards without Grafana: the same panels, in the same grid, drawn as SVG from what Prometheus answered.

`page` is pure; `draw` has a Chromium take its picture. What Grafana adds (tables in legends, hovering, themes) is not here.
"""

import html
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from playwright.sync_api import sync_playwright

from deploy.grafana.panels import HEIGHT, Board, Panel, Query
from deploy.test.prometheus_stand import Answers, StandError

BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS: Final = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"]
WIDTH: Final = 1500
COLUMN: Final = (WIDTH - 32) / 24
UNIT: Final = 26
LINES_MAX: Final = 9
"""So many lines a panel names; more would hide the picture."""

COLOURS: Final = (
    "#3b7ea1", "#c2571a", "#4f8f3a", "#8a5ba6", "#b8860b", "#b03a5b", "#2f8f83", "#6b6f76", "#9a7b4f",
)  # fmt: skip
STATES: Final = {"green": "#2e7d32", "orange": "#c77700", "red": "#c62828"}

_STYLE: Final = """
body{margin:0;padding:16px;width:1468px;background:#f4f5f5;color:#1f2329;font:13px/1.35 system-ui,'DejaVu Sans',sans-serif}
h1{font-size:19px;margin:0 0 2px}p.about{margin:0 0 10px;color:#555b63}h2{font-size:14px;margin:12px 0 6px;color:#3c4249}
.row{display:flex;flex-wrap:wrap;gap:8px}.panel{background:#fff;border:1px solid #dcdfe3;border-radius:3px;box-sizing:border-box;
padding:7px 9px;overflow:hidden;display:flex;flex-direction:column}.panel h3{font-size:12.5px;font-weight:600;margin:0 0 3px}
.figure{font-size:30px;font-weight:600;margin:auto;text-align:center}.none{margin:auto;color:#858b93;text-align:center;padding:0 24px}
.legend{display:flex;flex-wrap:wrap;gap:1px 12px;font-size:11px;color:#3c4249;max-height:45px;overflow:hidden}
.legend i{display:inline-block;width:9px;height:3px;margin:0 4px 3px 0;vertical-align:middle}.legend b{font-weight:600}
table{border-collapse:collapse;font-size:12px;width:100%}td,th{text-align:left;padding:2px 8px;border-bottom:1px solid #e6e8eb}
.bar{display:grid;grid-template-columns:90px 1fr 60px;gap:8px;align-items:center;margin:3px 0}.bar span{background:#e9ecef}
.bar span i{display:block;height:15px}svg{flex:1;width:100%}text{font-size:10px;fill:#6b7178}
"""


def spoken(value: float, unit: str) -> str:
    """Return a value as a person reads it, in a panel's unit."""
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    if unit == "s":
        for least, size, name in ((86_400, 86_400, "d"), (3600, 3600, "h"), (60, 60, "min")):
            if abs(value) >= least * 2:
                return f"{value / size:.3g} {name}"
        return f"{value:.3g} s" if abs(value) >= 1 or value == 0 else f"{value * 1000:.3g} ms"
    suffix = {"reqps": " /s", "ops": " /s"}.get(unit, "")
    return (f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}") + suffix


def named(query: Query, labels: Mapping[str, str]) -> str:
    """Return a line's name, as the legend's pattern says."""
    if query.legend:
        return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), query.legend)
    return " ".join(value for name, value in labels.items() if name != "__name__") or "value"


def page(
    board: Board,
    answers: Mapping[str, Mapping[Query, Sequence[Answers]]],
    span: tuple[float, float],
) -> str:
    """Return the board as a page."""
    until = datetime.fromtimestamp(span[1], UTC)
    parts = [
        f"<!doctype html><meta charset=utf-8><style>{_STYLE}</style><h1>{html.escape(board.title)}</h1>",
        f"<p class=about>{html.escape(board.description)} {span[1] - span[0]:.0f} seconds of a demo, {until:%Y-%m-%d}.</p>",
    ]
    for row in board.rows:
        parts.append(f"<h2>{html.escape(row.title)}</h2><div class=row>")
        parts += [_panel(panel, answers[panel.title], span) for panel in row.panels]
        parts.append("</div>")
    return "".join(parts)


def _panel(
    panel: Panel, answers: Mapping[Query, Sequence[Answers]], span: tuple[float, float]
) -> str:
    lines = [
        (named(query, series.labels), series)
        for query in panel.queries
        for series in answers[query]
    ]
    width = panel.width * COLUMN - 8
    height = HEIGHT[panel.kind] * UNIT
    body = "".join(_body(panel, lines, span, width))
    return (
        f"<div class=panel style='width:{width:.0f}px;height:{height}px'>"
        f"<h3>{html.escape(panel.title)}</h3>{body}</div>"
    )


def _body(
    panel: Panel,
    lines: list[tuple[str, Answers]],
    span: tuple[float, float],
    width: float,
) -> Iterator[str]:
    if not lines:
        yield f"<div class=none>{html.escape(panel.quiet or 'no data')}</div>"
        return
    match panel.kind:
        case "figure":
            value = lines[0][1].points[-1][1]
            yield f"<div class=figure style='color:{_state(panel, value)}'>{spoken(value, panel.unit)}</div>"
        case "table":
            yield from _table(lines)
        case "bars":
            yield from _bars(panel, lines)
        case "lines" | "stacked":
            yield from _chart(panel, lines, span, width)


def _state(panel: Panel, value: float) -> str:
    if panel.bad is not None and value >= panel.bad:
        return STATES["red"]
    return STATES["orange"] if panel.warn is not None and value >= panel.warn else STATES["green"]


def _table(lines: list[tuple[str, Answers]]) -> Iterator[str]:
    columns = sorted({name for _, series in lines for name in series.labels})
    yield "<table><tr>" + "".join(f"<th>{html.escape(name)}</th>" for name in columns) + "</tr>"
    for _, series in lines:
        cells = (html.escape(series.labels.get(name, "")) for name in columns)
        yield "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
    yield "</table>"


def _bars(panel: Panel, lines: list[tuple[str, Answers]]) -> Iterator[str]:
    most = max(abs(series.points[-1][1]) for _, series in lines) or 1
    for name, series in lines:
        value = series.points[-1][1]
        colour = STATES["green" if value > 0 else "red"]
        share = min(100.0, abs(value) / most * 100)
        yield (
            f"<div class=bar>{html.escape(name)}<span><i style='width:{share:.0f}%;background:{colour}'></i></span>"
            f"{spoken(value, panel.unit)}</div>"
        )


def _chart(
    panel: Panel,
    lines: list[tuple[str, Answers]],
    span: tuple[float, float],
    width: float,
) -> Iterator[str]:
    wide, high, left, foot = width - 20, HEIGHT[panel.kind] * UNIT - 95, 56, 16
    shown = sorted(lines, key=lambda line: -max(value for _, value in line[1].points))[:LINES_MAX]
    finite = [
        [(at, value) for at, value in series.points if abs(value) != float("inf")]
        for _, series in shown
    ]
    if panel.kind == "stacked":
        finite = _stack(finite)
    values = [value for points in finite for _, value in points]
    top, low = max([*values, 0.0]) * 1.08 or 1.0, min([*values, 0.0])
    begin, end = span

    def x(at: float) -> float:
        return left + (at - begin) / (end - begin) * (wide - left - 4)

    def y(value: float) -> float:
        return 6 + (1 - (value - low) / (top - low)) * (high - foot - 6)

    yield f"<svg viewBox='0 0 {wide:.0f} {high:.0f}'>"
    for share in (0.0, 0.5, 1.0):
        value = low + (top - low) * share / 1.08
        yield (
            f"<line x1={left} x2={wide:.0f} y1={y(value):.1f} y2={y(value):.1f} stroke='#e3e6e9'/>"
            f"<text x={left - 5} y={y(value) + 3:.1f} text-anchor=end>{spoken(value, panel.unit)}</text>"
        )
    for share in (0.0, 0.5, 1.0):
        at = begin + (end - begin) * share
        anchor = {0.0: "start", 0.5: "middle", 1.0: "end"}[share]
        yield f"<text x={x(at):.0f} y={high - 2:.0f} text-anchor={anchor}>{datetime.fromtimestamp(at, UTC):%H:%M:%S}</text>"
    for number, points in enumerate(finite):
        if not points:
            continue
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in points)
        yield f"<polyline points='{path}' fill=none stroke='{colour}' stroke-width=1.6 />"
        if panel.kind == "stacked":
            floor = f"{x(points[-1][0]):.1f},{y(0):.1f} {x(points[0][0]):.1f},{y(0):.1f}"
            yield f"<polygon points='{path} {floor}' fill='{colour}' opacity=.13 />"
    yield "</svg><div class=legend>"
    for number, (name, series) in enumerate(shown):
        colour = COLOURS[number % len(COLOURS)]
        last = spoken(series.points[-1][1], panel.unit)
        yield f"<span><i style='background:{colour}'></i>{html.escape(name)} <b>{last}</b></span>"
    if len(lines) > len(shown):
        yield f"<span>and {len(lines) - len(shown)} more</span>"
    yield "</div>"


def _stack(lines: list[list[tuple[float, float]]]) -> list[list[tuple[float, float]]]:
    """Return each line on top of those before it."""
    below: dict[float, float] = {}
    found = []
    for points in lines:
        raised = []
        for at, value in points:
            below[at] = below.get(at, 0.0) + value
            raised.append((at, below[at]))
        found.append(raised)
    return found


def draw(
    board: Board,
    answers: Mapping[str, Mapping[Query, Sequence[Answers]]],
    span: tuple[float, float],
    path: Path,
) -> None:
    """Have a Chromium draw the board into a PNG. Raises `StandError` where there is none."""
    named_browser = os.environ.get("SIGNALBOX_CHROMIUM")
    executable = named_browser or next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        raise StandError("No Chromium is installed: `make browser` installs Debian's.")
    path.parent.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        shown = browser.new_page(viewport={"width": WIDTH, "height": 800})
        shown.set_content(page(board, answers, span))
        shown.screenshot(path=str(path), full_page=True)
        browser.close()
