"""The plots of the routing evidence, as SVG that is the same to the byte for the same numbers."""

from collections.abc import Callable, Mapping
from io import StringIO
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from bench.evidence_studies import Evidence, wallace_whitt_exact

BLUE, ORANGE, GREEN, RED, GREY = "#1f5f99", "#d9730d", "#2e7d4f", "#b3261e", "#6b6b6b"

_STYLE: Final[Any] = {
    "svg.hashsalt": "signalbox",  # Names inside the file do not change from run to run.
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "figure.dpi": 100,
}


def drawn(width: float, height: float, draw: Callable[[Figure], None]) -> str:
    """Return what `draw` draws, in inches, as SVG."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        out = StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    lines = (line.rstrip() for line in out.getvalue().splitlines())
    return "\n".join(lines) + "\n"


def label(axes: Axes, title: str, x: str, y: str) -> None:
    """Name a plot and its axes."""
    axes.set_title(title, fontsize=10.5, loc="left")
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def erlang(evidence: Evidence) -> str:
    """Measured and exact mean waits of R21, with 95 % confidence."""

    def draw(figure: Figure) -> None:
        for n, case in enumerate(evidence.erlang):
            axes = figure.add_subplot(1, len(evidence.erlang), n + 1)
            names = ("engine", "reference,\nlong run")
            estimates = (case.wait, case.long_wait)
            axes.errorbar(
                (0, 1),
                [estimate.mean for estimate in estimates],
                yerr=[estimate.half for estimate in estimates],
                fmt="o",
                color=BLUE,
                capsize=5,
            )
            axes.axhline(case.exact_wait, color=ORANGE, label=f"exact: {case.exact_wait:.2f} s")
            axes.set_xticks((0, 1), names)
            axes.set_xlim(-0.6, 1.6)
            axes.set_ylim(0, None)
            label(
                axes, f"{case.erlangs:g} erlang, {case.n_agents} agents", "", "mean wait, seconds"
            )
            axes.legend(loc="lower right", frameon=False)

    return drawn(7.5, 3.2, draw)


def skills(evidence: Evidence) -> str:
    """Mean waits by the number of skills, R22."""
    silo, every = wallace_whitt_exact()

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        names = [str(n) for n in evidence.skills]
        measured = [found.wait for found in evidence.skills.values()]
        places = range(len(names))
        axes.bar(
            [place - 0.2 for place in places],
            [wait.mean for wait in measured],
            0.38,
            yerr=[wait.half for wait in measured],
            color=BLUE,
            capsize=5,
            label=f"engine, {evidence.skills[6].n:,} tickets",
        )
        long = [wait for wait, _ in evidence.skills_long.values()]
        axes.bar(
            [place + 0.2 for place in places],
            [wait.mean for wait in long],
            0.38,
            yerr=[wait.half for wait in long],
            color=GREY,
            capsize=5,
            label="model, long run",
        )
        for n, value in ((0, silo), (len(names) - 1, every)):
            axes.plot((n - 0.45, n + 0.45), (value, value), color=ORANGE, linewidth=2)
        axes.plot([], [], color=ORANGE, linewidth=2, label="exact")
        for n, (wait, further) in enumerate(zip(measured, long, strict=True)):
            for place, mean in ((n - 0.2, wait.mean), (n + 0.2, further.mean)):
                axes.annotate(
                    f"{mean:.1f}",
                    (place, 11.5),
                    ha="center",
                    color="white",
                )
        axes.set_xticks(places, names)
        axes.set_yscale("log")
        axes.set_ylim(10, 1500)
        label(
            axes,
            "84 erlang of six types, 90 agents: one more skill each is nearly all that is to gain",
            "skills of each agent",
            "mean wait, seconds (logarithmic)",
        )
        axes.legend(frameon=False)

    return drawn(7.5, 3.6, draw)


def spill(evidence: Evidence) -> str:
    """Class 2 of the N-design over time, R20."""
    colours = (RED, BLUE, GREEN, ORANGE, GREY, "#7b4fa3")

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        for found in (one for one in evidence.spills if one.name in {"greedy", "from 10"}):
            colour = RED if found.name == "greedy" else BLUE
            times = [at / 1000 for at, _ in found.lengths]
            left.plot(times, [n for _, n in found.lengths], color=colour, label=found.name)
        left.legend(frameon=False)
        label(left, "Class 2 waiting, greedy and by threshold", "thousand units of time", "tickets")
        bounded = [one for one in evidence.spills if one.name != "greedy"]
        for found, colour in zip(bounded, colours[1:], strict=False):
            right.plot(found.one, found.two, marker="o", color=colour, linestyle="none")
            right.annotate(
                found.name, (found.one, found.two), xytext=(6, 4), textcoords="offset points"
            )
        right.set_xlim(0, max(found.one for found in bounded) * 1.6)
        right.set_ylim(0, max(found.two for found in bounded) * 1.25)
        label(right, "What a threshold trades", "class 1 waiting, mean", "class 2 waiting, mean")

    return drawn(9.0, 3.6, draw)


def drain(evidence: Evidence) -> str:
    """Waits of voice and chat, R10."""

    def draw(figure: Figure) -> None:
        loads = sorted({found.load for found in evidence.drains})
        for n, load in enumerate(loads):
            axes = figure.add_subplot(1, len(loads), n + 1)
            found = [one for one in evidence.drains if one.load == load]
            places = range(len(found))
            for offset, colour, channel, waits in (
                (-0.2, BLUE, "voice", [one.voice for one in found]),
                (0.2, ORANGE, "chat", [one.chat for one in found]),
            ):
                where = [place + offset for place in places]
                axes.bar(where, [mean for mean, _, _ in waits], 0.38, color=colour, label=channel)
                axes.plot(
                    where,
                    [most for _, _, most in waits],
                    marker="_",
                    markersize=14,
                    color=GREY,
                    linestyle="none",
                    label="longest" if channel == "chat" else None,
                )
            axes.set_yscale("symlog", linthresh=1)
            axes.set_xticks(places, [one.name.replace(", ", ",\n") for one in found], fontsize=8)
            label(axes, f"load {load:g}", "who is kept free for a call", "wait, seconds (mean)")
            axes.legend(frameon=False, fontsize=8, loc="upper right")
            axes.set_ylim(0, 100_000)

    return drawn(9.0, 3.8, draw)


def aging(evidence: Evidence) -> str:
    """Waits of low tickets beside a flood, R11."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for found in evidence.agings:
            colour, name = (BLUE, "promoted") if found.is_aging else (RED, "strict priority")
            came = [ticket.came / 3600 for ticket in found.low]
            axes.plot(
                came,
                [ticket.wait / 60 for ticket in found.low],
                marker="o",
                markersize=4,
                color=colour,
                label=f"{name}: wait",
            )
            if found.is_aging:
                axes.plot(
                    came,
                    [ticket.bound / 60 for ticket in found.low],
                    color=GREY,
                    linestyle="--",
                    label="promoted: bound",
                )
        label(
            axes,
            "Low tickets beside urgent ones at 105 % for six hours",
            "came, hours after the start",
            "waited, minutes",
        )
        axes.set_ylim(0, None)
        axes.legend(frameon=False)

    return drawn(7.5, 3.6, draw)


def relaxation(evidence: Evidence) -> str:
    """Wait against fit, by when less is asked."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        found = evidence.relaxations
        axes.plot(
            [one.by_expert * 100 for one in found],
            [one.wait for one in found],
            marker="o",
            color=BLUE,
            label="mean",
        )
        axes.plot(
            [one.by_expert * 100 for one in found],
            [one.p90 for one in found],
            marker="o",
            color=ORANGE,
            label="90th percentile",
        )
        for n, one in enumerate(found):
            name = "never" if one.after is None else f"{one.after:g} s"
            is_crowded = n % 2 == 0
            axes.annotate(
                name,
                (one.by_expert * 100, one.wait),
                xytext=(6, -9) if is_crowded else (-6, 6),
                textcoords="offset points",
                ha="left" if is_crowded else "right",
                fontsize=8,
            )
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_ylim(min(one.wait for one in found) / 2, None)
        axes.set_xlim(None, 106)
        label(
            axes,
            "When anybody may take it: patience buys fit",
            "taken by somebody of the level first asked, %",
            "wait of those tickets, seconds (logarithmic)",
        )
        axes.legend(frameon=False, loc="upper left")

    return drawn(7.5, 3.8, draw)


def choice(evidence: Evidence) -> str:
    """Fit, the rare skill's wait and the spread of work, by strategy."""

    def draw(figure: Figure) -> None:
        names = [one.strategy.replace("_", " ") for one in evidence.choices]
        panels = (
            ("mean level of who got it", [one.level for one in evidence.choices], BLUE),
            ("wait for the rare skill, s", [one.rare_wait for one in evidence.choices], ORANGE),
            ("busiest agent over the mean", [one.spread for one in evidence.choices], GREEN),
        )
        for n, (what, values, colour) in enumerate(panels):
            axes = figure.add_subplot(1, len(panels), n + 1)
            axes.barh(names[::-1], values[::-1], color=colour, height=0.6)
            for row, value in enumerate(values[::-1]):
                axes.annotate(
                    f"{value:.2f}" if value < 20 else f"{value:.0f}",
                    (value, row),
                    xytext=(-4, 0),
                    textcoords="offset points",
                    ha="right",
                    va="center",
                    color="white",
                )
            axes.set_xlabel(what)
            axes.grid(visible=False)
            if n:
                axes.set_yticklabels([])

    return drawn(9.0, 2.8, draw)


PLOTS: Final[Mapping[str, Callable[[Evidence], str]]] = {
    "erlang": erlang,
    "skills": skills,
    "spill": spill,
    "drain": drain,
    "aging": aging,
    "relaxation": relaxation,
    "choice": choice,
}
"""Name of the file without its ending → what draws it."""
