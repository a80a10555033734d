"""`python -m bench.evidence_routing`: what the production matcher does to waits, against theory, as a report with plots.

Without `--write` the report is printed; with it, it is written to `docs/evidence/routing.md`, its plots beside it. The exit
code is 1 where a promise is not kept.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Final, NamedTuple

from bench import evidence_studies as studies
from bench.evidence_studies import Evidence, Job
from bench.queueing import Estimate

PAGE: Final = Path("docs/evidence/routing.md")
PLOTS: Final = Path("docs/evidence/routing")
COMMAND: Final = "python -m bench.evidence_routing"


class Promise(NamedTuple):
    """Something the report shows, and whether it came out. `is_known` where the report itself says why it does not."""

    test: str
    says: str
    is_kept: bool
    is_known: bool = False

    @property
    def verdict(self) -> str:
        """The word for the table."""
        if self.is_kept:
            return "yes"
        return "no, see there" if self.is_known else "**no**"


def promises(evidence: Evidence) -> Iterator[Promise]:
    """Yield what is promised, with the figures of this run."""
    yield from _erlang_promises(evidence)
    yield from _skill_promises(evidence)
    yield from _spill_promises(evidence)
    for load in sorted({found.load for found in evidence.drains}):
        free, *kept = [found for found in evidence.drains if found.load == load]
        best = min(kept, key=lambda found: found.voice[0])
        yield Promise(
            "R10",
            f"at load {load:g} keeping one agent free cuts the mean wait of calls from {free.voice[0]:,.0f} to"
            f" {best.voice[0]:,.0f} s, and every ticket is served",
            best.voice[0] < 0.75 * free.voice[0] and not any(found.unserved for found in kept),
        )
    for found in evidence.agings:
        n = len(found.low)
        if found.is_aging:
            says = f"with promotion none of {n} low tickets waited above its bound"
            yield Promise("R11", says, found.above_bound == 0)
        else:
            says = f"strict priority fails the same test: {found.above_bound} of {n} did"
            yield Promise("R11", says, found.above_bound > 0)
    fits = [one.by_expert for one in evidence.relaxations]
    waits = [one.wait for one in evidence.relaxations]
    yield Promise(
        "R2",
        "the longer a level is insisted on, the more tickets get it and the longer they wait",
        fits == sorted(fits) and waits == sorted(waits),
    )
    of = {one.strategy: one for one in evidence.choices}
    yield Promise(
        "R1",
        "`best_skilled` gives the highest levels, `thrift` the shortest wait for the rare skill",
        of["best_skilled"].level == max(one.level for one in of.values())
        and of["thrift"].rare_wait == min(one.rare_wait for one in of.values()),
    )


def _erlang_promises(evidence: Evidence) -> Iterator[Promise]:
    for case in evidence.erlang:
        who = f"{case.erlangs:g} erlang, {case.n_agents} agents"
        yield Promise(
            "R21",
            f"{who}: each of {case.n:,} callers is served at the very microsecond of the textbook's recursion",
            case.differing == 0,
        )
        yield Promise(
            "R21",
            f"{who}: the exact mean wait, {case.exact_wait:.2f} s, lies in the engine's interval, and the recursion's long"
            " run is within 5 % of it",
            case.wait.holds(case.exact_wait)
            and abs(case.long_wait.mean / case.exact_wait - 1) <= 0.05,
        )


def _skill_promises(evidence: Evidence) -> Iterator[Promise]:
    silo = evidence.skills[1].to_all
    n = evidence.skills[6].n
    yield Promise(
        "R22",
        f"with 1, 2, 3 and 6 skills each of {n:,} tickets gets the agent and the microsecond of a model written apart",
        all(found.differing == 0 for found in evidence.skills.values()),
    )
    yield Promise(
        "R22",
        f"one skill waits {silo.mean:.1f} times as long as all six, at least 8",
        silo.mean >= 8,
    )
    two = evidence.skills_long[2][1]
    yield Promise(
        "R22",
        f"two skills wait {two.mean:.3f} ± {two.half:.3f} times as long as all six (the model's long run), at most 1.15",
        two.mean <= 1.15,
        is_known=True,
    )


def _spill_promises(evidence: Evidence) -> Iterator[Promise]:
    for found in evidence.spills:
        if found.name == "greedy":
            yield Promise(
                "R20",
                f"greedy: class 2 grows to {found.two_max:,} in {found.until:,.0f} units",
                found.two_end > found.until / 20,
            )
        elif found.name == "from 10":
            yield Promise(
                "R20",
                f"by threshold it never passes {found.two_max:,} in {found.until:,.0f} units",
                found.two_max < 1_000,
            )
    compared = [found for found in evidence.spills if found.differing is not None]
    yield Promise(
        "R20",
        "every ticket of every plain threshold gets the server and the instant of the reference model",
        all(found.differing == 0 for found in compared),
    )


# ----------------------------------------------------------------------------------------------- text


def _pm(estimate: Estimate, digits: int = 2) -> str:
    return f"{estimate.mean:,.{digits}f} ± {estimate.half:,.{digits}f}"


def _table(head: Sequence[str], rows: Iterator[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def _picture(name: str, says: str) -> Iterator[str]:
    yield f"![{says}](routing/{name}.svg)"
    yield ""


_HEAD: Final = """# Evidence: what the matcher does to waits

For whoever doubts that the engine routes as well as theory allows, and for whoever changes it. Every figure comes from the
production code of `services/router/core` (`assign.decide`, event by event, with its own timers and its records), on a
simulated floor (`bench/floor.py`): only arrivals and handling times are drawn, from the seed {seed}. Offers are taken at
once. Nothing depends on the machine: the same commit gives the same numbers.

`{command} --write` made this page and its plots; `--only PART` prints one part. Smaller versions of all parts run as
tests (`tests/unit/router/test_evidence.py`). ± is half of a 95 % confidence interval from 20 batches of the run, the first
tenth of which is left out; waits of one run depend on each other, so intervals are wide where queues are long.
"""


def _erlang(evidence: Evidence) -> Iterator[str]:
    yield "## R21: one queue waits as Erlang says"
    yield ""
    yield (
        "Poisson arrivals, exponential handling times, equal agents, first come first served. For this model the exact answer"
        " is known (Erlang's C formula). It is held against the engine in three ways: the engine's own run; the instant of"
        " service of **each** caller against the textbook's recursion over the same arrivals (Kiefer and Wolfowitz, a dozen"
        " lines that know nothing of the engine); and that recursion over a run so long that chance hardly counts. The second"
        " is the strict one: a mean can be right by luck, a hundred thousand instants cannot."
    )
    yield ""
    head = ("", *(f"{c.erlangs:g} erlang, {c.n_agents} agents" for c in evidence.erlang))

    def rows() -> Iterator[Sequence[str]]:
        cases = evidence.erlang
        yield ("handling time", *(f"{c.handling:g} s" for c in cases))
        yield ("callers", *(f"{c.n:,}" for c in cases))
        yield ("mean wait, exact", *(f"**{c.exact_wait:.2f} s**" for c in cases))
        yield ("mean wait, engine", *(f"**{_pm(c.wait)} s**" for c in cases))
        yield ("share that waits, exact", *(f"{c.exact_waiting:.4f}" for c in cases))
        yield ("share that waits, engine", *(_pm(c.waiting, 4) for c in cases))
        yield ("within 20 s, exact", *(f"{c.exact_in_time:.4f}" for c in cases))
        yield ("within 20 s, engine", *(_pm(c.in_time, 4) for c in cases))
        yield (
            "callers served at another instant than the reference's",
            *(f"{c.differing}" for c in cases),
        )
        yield (
            "reference alone, mean wait",
            *(f"{_pm(c.long_wait)} s over {c.long_n:,} callers" for c in cases),
        )

    yield from _table(head, rows())
    yield from _picture(
        "erlang", "Mean waits of the engine and of the reference beside the exact value"
    )


def _ratio(evidence: Evidence) -> str:
    two = evidence.skills_long[2][1]
    rules = ", ".join(
        f"{name} {found.mean:.3f} ± {found.half:.3f}"
        for name, found in evidence.skills_rules.items()
    )
    return (
        "**What was expected and what is.** One skill is more than eight times worse than six, three are nearly as good as six, as"
        " the literature says. For two skills at most 1.15 times the wait of six was expected, after one run of 400,000 tickets"
        f" that gave 43.7 against 40.2 s (1.09). The model says {two.mean:.3f} ± {two.half:.3f} in the long run, and the engine does"
        " at every single ticket what the model does. So the matcher does what its rule says, and the rule does not reach 1.15 at"
        " this load: a run of that length knows a mean to a few seconds, which is as much as the effect, unless both runs share"
        f" their arrivals as they do here. In the model, two skills against six over the same 400,000 tickets: {rules}. The last"
        " sends each ticket to whoever leaves the most idle agents for every skill, and serves the longest queue first; the"
        " engine has no strategy that looks that far."
    )


def _skills(evidence: Evidence) -> Iterator[str]:
    silo, every = studies.wallace_whitt_exact()
    yield "## R22: two skills are nearly as good as six"
    yield ""
    yield (
        "Wallace and Whitt (2005): where handling times are equal, two well chosen skills an agent do almost what all skills do."
        f" Six types of {studies.WW_ERLANGS} erlang each, {studies.EACH} agents whose first skill each is, handling time"
        f" {studies.WW_HANDLING:g} s; the further skills of the agents of one type are spread evenly over the other types. In the"
        " engine: one queue, a requirement of one skill a type, level 10 in the first skill and 5 in the others, strategy"
        " `best_skilled`, so that an idle specialist goes first and the longest idle among equals; a freed agent takes the"
        " oldest ticket they can. The same arrivals and handling times for each row, so ratios are sharper than means."
    )
    yield ""

    def rows(found: Mapping[int, studies.Skills], *, with_places: bool) -> Iterator[Sequence[str]]:
        for n_skills, one in found.items():
            row = [
                str(n_skills),
                f"{_pm(one.wait, 1)} s",
                f"{one.to_all.mean:.3f} ± {one.to_all.half:.3f}",
            ]
            if with_places:
                row.append(f"{one.turned_away.mean * 100:.2f} ± {one.turned_away.half * 100:.2f} %")
            else:
                row.append(str(one.differing))
                row += [f"{_pm(estimate, 2)}" for estimate in evidence.skills_long[n_skills]]
                row.append({1: f"{silo:.1f} s", 6: f"{every:.2f} s"}.get(n_skills, "–"))
            yield row

    head = (
        "skills", "mean wait", "times that of six", "unlike the model", "model's long run, s",
        "times that of six", "exact mean",
    )  # fmt: skip
    yield f"{evidence.skills[6].n:,} tickets, any number may wait:"
    yield ""
    yield from _table(head, rows(evidence.skills, with_places=False))
    yield _ratio(evidence)
    yield ""
    bounded = studies.wallace_whitt_exact_with_places(studies.PLACES)
    yield (
        f"{evidence.skills_with_places[6].n:,} tickets, of whom {studies.PLACES} may wait in all; whoever finds them taken leaves at"
        " once. The engine itself never turns anybody away: here the floor withdraws such a ticket at the instant it came."
        f" Exact for six skills: {bounded.wait:.1f} s and {bounded.turned_away * 100:.2f} %."
    )
    yield ""
    bounded_head = ("skills", "mean wait of those served", "times that of six", "turned away")
    yield from _table(bounded_head, rows(evidence.skills_with_places, with_places=True))
    yield from _picture("skills", "Mean waits with 1, 2, 3 and 6 skills an agent")


def _spill(evidence: Evidence) -> Iterator[str]:
    yield "## R20: helping out by threshold keeps both queues bounded, greed does not"
    yield ""
    yield (
        "The N-design (Garnett and Mandelbaum 2000; Harrison 1998; Bell and Williams 2001): server one serves class 1 only, at"
        " rate 1; server two serves class 1 at half that rate or class 2 at rate 1. Arrivals are 1.3 and 0.4 times the load"
        f" {studies.N_LOAD:g}. Class 1 is the higher class, in the engine priority 1 against 2. The capacity suffices if server two"
        " helps little, and does not if it helps whenever it can."
    )
    yield ""
    yield (
        "**Which model this is.** The literature's chain is preemptive: server two drops class 2 in the middle of a service. The"
        " engine never takes away what somebody has begun, so what is simulated here is the non-preemptive model: a server"
        " finishes, then takes what the policy says. `greedy` is an agent who serves both queues; `from k` is an agent of queue"
        " two that is lent to queue one while k or more wait there (`lending: {open_at: k, close_at: k - 1}`). In both"
        " models greed lets class 2 grow without end and a threshold does not. The engine's run is compared, ticket by ticket, with a"
        " non-preemptive reference of forty lines; the preemptive chain, for its own sake, stands in the second table."
    )
    yield ""

    def rows() -> Iterator[Sequence[str]]:
        for one in evidence.spills:
            yield (
                one.name, f"{one.until:,.0f}", f"{one.one:.1f}", f"{one.two:,.1f}", f"{one.two_max:,}",
                f"{one.two_end:,}", "–" if one.differing is None else str(one.differing),
            )  # fmt: skip

    head = (
        "policy", "units of time", "class 1 waiting, mean", "class 2 waiting, mean", "most", "at the end",
        "tickets unlike the reference's",
    )  # fmt: skip
    yield from _table(head, rows())
    yield (
        "`from 10 to 5` closes later than it opens (hysteresis); `lender guarded` lends nobody from when 20 of the lender's own wait"
        " until 10 do (R23). The preemptive chain over the same stretch, numbers waiting **or in service**:"
    )
    yield ""

    def chain() -> Iterator[Sequence[str]]:
        for threshold, found in evidence.markov.items():
            yield (
                f"from {threshold}",
                f"{found.one:.1f}",
                f"{found.two:,.1f}",
                f"{found.two_max:,}",
            )

    yield from _table(("threshold", "class 1, mean", "class 2, mean", "class 2, most"), chain())
    yield from _picture(
        "spill", "Class 2 over time, greedy and by threshold; class 1 against class 2 by policy"
    )


def _drain(evidence: Evidence) -> Iterator[str]:
    yield "## R10: a call finds an empty agent only if one is kept free for it"
    yield ""
    yield (
        f"{studies.DRAIN_AGENTS} agents with a budget of 100; a call costs 100 ({studies.VOICE_HANDLING:g} s), a chat 20"
        f" ({studies.CHAT_HANDLING:g} s); half of the load each, one priority, strategy `least_loaded`. Nobody with a single chat can"
        " take a call, so without a rule calls wait until an agent happens to be empty. With `drain` one agent at a time takes"
        " nothing new once a call has waited so long. Seconds: mean / 95th percentile / longest. Draining without limit, which"
        " makes chat diverge, is not in the engine and so not in the table."
    )
    yield ""

    def waits(found: tuple[float, float, float]) -> str:
        return " / ".join(f"{value:,.0f}" for value in found)

    def rows() -> Iterator[Sequence[str]]:
        for one in evidence.drains:
            yield (
                f"{one.load:g}",
                one.name,
                waits(one.voice),
                waits(one.chat),
                f"{one.n:,}",
                str(one.unserved),
            )

    head = ("load", "who is kept free", "calls", "chats", "tickets", "never served")
    yield from _table(head, rows())
    yield from _picture("drain", "Waits of calls and chats by load and rule")


def _aging(evidence: Evidence) -> Iterator[str]:
    yield "## R11: with promotion nobody starves"
    yield ""
    yield (
        f"{studies.AGING_AGENTS} agents, {studies.AGING_WORK} s a ticket. Urgent tickets (target 15 min) come at 105 % of what the floor"
        " can do for six hours, then at 60 %; low ones (target 24 h) at 3 % beside. Promotion after"
        f" {studies.AGING_AFTER} s *replaces* priority and target. The bound of a low ticket: the age of promotion, plus everything"
        " that waits at that instant at the floor's speed, plus the ticket in hand. What comes later goes behind."
    )
    yield ""

    def rows() -> Iterator[Sequence[str]]:
        for one in evidence.agings:
            waits = [ticket.wait for ticket in one.low]
            yield (
                "promotion" if one.is_aging else "strict priority", str(len(waits)),
                f"{sum(waits) / len(waits):,.0f} s", f"{max(waits):,.0f} s", str(one.above_bound),
                f"{one.urgent_wait:,.0f} s",
            )  # fmt: skip

    head = ("order", "low tickets", "mean wait", "longest", "above the bound", "urgent, mean wait")
    yield from _table(head, rows())
    yield from _picture("aging", "Wait of each low ticket by when it came, and its bound")


def _relaxation(evidence: Evidence) -> Iterator[str]:
    yield "## R2: what patience costs and buys"
    yield ""
    yield (
        f"{studies.EXPERTS} agents of level 9 and {studies.GENERALISTS} of level 4 in one skill, handling time"
        f" {studies.RELAX_HANDLING:g} s, load 0.8. One ticket in three asks for level 8, and for level 3 once it has waited so long; the"
        " others ask for level 3. Strategy `thrift`. A step of 0 s asks for nothing more from the beginning; without a step the"
        " ticket waits for an expert. Reading: choose the wait you can bear, see how often customers get who they need."
    )
    yield ""

    def rows() -> Iterator[Sequence[str]]:
        for one in evidence.relaxations:
            yield (
                "never" if one.after is None else f"{one.after:g} s", f"{one.wait:,.0f} s", f"{one.p90:,.0f} s",
                f"{one.by_expert * 100:.1f} %", f"{one.other_wait:,.0f} s",
            )  # fmt: skip

    head = (
        "less is asked after", "mean wait", "90th percentile", "got the level first asked",
        "other tickets, mean wait",
    )  # fmt: skip
    yield from _table(head, rows())
    yield from _picture("relaxation", "Wait against the share that got the level first asked")


def _choice(evidence: Evidence) -> Iterator[str]:
    yield "## R1: what each strategy is good for"
    yield ""
    yield (
        "Twelve agents with room for two tickets each, handling time 300 s, load 0.8. Nine have the common skill at levels 2 to"
        " 10; three have it at 6 and the rare one, which one ticket in five asks for, at 3, 6 and 9. `spread` is the most that one"
        " agent did over what they did on average."
    )
    yield ""

    def rows() -> Iterator[Sequence[str]]:
        for one in evidence.choices:
            yield (
                f"`{one.strategy}`", f"{one.level:.2f}", f"{one.common_wait:.1f} s", f"{one.rare_wait:.1f} s",
                f"{one.spread:.2f}",
            )  # fmt: skip

    head = (
        "strategy",
        "mean level of who got it",
        "wait, common skill",
        "wait, rare skill",
        "spread",
    )
    yield from _table(head, rows())
    yield from _picture("choice", "Level, wait for the rare skill and spread of work by strategy")


SECTIONS: Final[Mapping[str, Callable[[Evidence], Iterator[str]]]] = {
    "erlang": _erlang,
    "skills": _skills,
    "spill": _spill,
    "drain": _drain,
    "aging": _aging,
    "relaxation": _relaxation,
    "choice": _choice,
}

_PARTS: Final = {
    "erlang": ("erlang",),
    "skills": ("skills", "skills_with_places", "skills_long", "skills_rules"),
    "spill": ("spills", "markov"),
    "drain": ("drains",),
    "aging": ("agings",),
    "relaxation": ("relaxations",),
    "choice": ("choices",),
}
"""Section → the parts of the evidence that it shows."""


def page(evidence: Evidence) -> str:
    """Return the whole report."""
    lines = [_HEAD.format(seed=studies.SEED, command=COMMAND), "## In short", ""]
    kept = [(one.test, one.says, one.verdict) for one in promises(evidence)]
    lines += _table(("test", "what this run shows", "kept"), iter(kept))
    for name, section in SECTIONS.items():
        lines += section(evidence)
        lines += [f"Made by `{COMMAND} --only {name}`, seed {studies.SEED}.", ""]
    return "\n".join(lines).rstrip() + "\n"


# ------------------------------------------------------------------------------------------------ run


def _call(job: Job) -> object:
    _, function, arguments = job
    return function(*arguments)


def collect(
    wanted: Sequence[str], scale: float, processes: int, say: Callable[[str], None]
) -> Evidence:
    """Run the studies of some sections on so many processes; `scale` makes them smaller."""
    parts = {part for name in wanted for part in _PARTS[name]}
    todo = [job for job in studies.jobs(scale) if job[0] in parts]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(_call, job) for job in todo]
        results: list[tuple[Job, object]] = []
        for job, future in zip(todo, futures, strict=True):
            results.append((job, future.result()))
            say(f"{len(results)}/{len(todo)} {job[0]} {', '.join(map(str, job[2]))[:60]}")
    return studies.gather(results)


def _write(evidence: Evidence) -> None:
    from bench.evidence_plots import PLOTS as DRAWN  # The library is slow to import.

    PLOTS.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page(evidence), encoding="utf-8")
    for name, draw in DRAWN.items():
        (PLOTS / f"{name}.svg").write_text(draw(evidence), encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Run what was asked for; return 1 where a promise is not kept."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE} and its plots")
    parser.add_argument("--only", choices=tuple(SECTIONS), help="run one part and print it")
    parser.add_argument("--scale", type=float, default=1.0, help="smaller runs, for a quick look")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    told = parser.parse_args(argv)
    if told.write and (told.only is not None or told.scale != 1.0):
        parser.error("--write writes the whole report: leave out --only and --scale")

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    if told.only is not None:
        evidence = collect((told.only,), told.scale, told.processes, say)
        print("\n".join(SECTIONS[told.only](evidence)))
        return 0
    evidence = collect(tuple(SECTIONS), told.scale, told.processes, say)
    if told.write:
        _write(evidence)
    else:
        print(page(evidence))
    broken = [one for one in promises(evidence) if not one.is_kept and not one.is_known]
    for one in broken:
        say(f"not kept: {one.test}: {one.says}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
