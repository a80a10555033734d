"""The evidence of docs/evidence/routing.md in small: the same studies, short enough to run with every change.

Everything is drawn from one seed, so nothing here depends on luck. Where a reference exists every single ticket is compared;
bounds on means are wide, and a matcher that orders, prefers or relaxes wrongly is far outside of them.
"""

from dataclasses import replace

import pytest

from bench import evidence_routing, queueing
from bench import evidence_studies as studies
from bench.evidence_plots import PLOTS
from bench.evidence_studies import SPILLS

FIRST_20 = SPILLS[2]


def test_the_exact_formulas_say_what_the_books_say() -> None:
    assert queueing.erlang_c(110, 100) == pytest.approx(0.2370, abs=5e-5)
    assert queueing.mean_wait(110, 100, 240) == pytest.approx(5.69, abs=0.005)
    assert queueing.service_level(110, 100, 240, 20) == pytest.approx(0.897, abs=5e-4)
    assert queueing.erlang_c(12, 10) == pytest.approx(0.4494, abs=5e-5)
    assert queueing.mean_wait(12, 10, 300) == pytest.approx(67.4, abs=0.05)
    assert studies.wallace_whitt_exact() == pytest.approx((433.4, 41.20), abs=0.05)
    # With very many places nobody is turned away, and the wait is Erlang's.
    endless = queueing.with_places(12, 2_000, 10, 300)
    assert endless.wait == pytest.approx(67.41, abs=0.01)
    assert endless.turned_away < 1e-9


@pytest.mark.parametrize(("erlangs", "n_agents", "handling"), [(10, 12, 300), (100, 110, 240)])
def test_r21_every_caller_is_served_at_the_instant_of_the_textbooks_recursion(
    erlangs: float, n_agents: int, handling: float
) -> None:
    found = studies.erlang(erlangs, n_agents, handling, n=3_000, long_n=300_000)
    assert found.differing == 0
    assert found.wait.mean > 0
    # What the recursion says in the long run is Erlang's: 300,000 callers are within a quarter.
    assert found.long_wait.mean == pytest.approx(found.exact_wait, rel=0.25)


def test_r22_two_skills_do_nearly_what_all_do_and_silos_do_not() -> None:
    found = studies.wallace_whitt(3_000)
    waits = {n_skills: one.wait.mean for n_skills, one in found.items()}
    assert waits[1] > waits[2] > waits[3] > waits[6]
    assert waits[1] > 4 * waits[2]
    assert waits[3] < 1.3 * waits[6]
    # Each ticket got the agent, and the instant, of a model written apart.
    assert [one.differing for one in found.values()] == [0, 0, 0, 0]


def test_r22_with_few_places_to_wait_silos_turn_most_away() -> None:
    found = studies.wallace_whitt(1_500, 5)
    assert found[1].turned_away.mean > found[6].turned_away.mean
    assert found[1].wait.mean > 2 * found[6].wait.mean


def test_r20_greed_lets_the_lower_class_grow_without_end_and_a_threshold_does_not() -> None:
    until = 2_000.0
    greedy = studies.n_design(studies.GREEDY, until)
    bounded = studies.n_design(SPILLS[1], until)
    assert greedy.two_end > until / 20
    assert bounded.two_max < greedy.two_max / 2
    assert bounded.two_end < 100
    # Each ticket got the server, and the instant, of a model written apart.
    assert (greedy.differing, bounded.differing) == (0, 0)


@pytest.mark.parametrize("policy", [SPILLS[0], FIRST_20], ids=lambda policy: policy.name)
def test_r20_any_threshold_is_the_reference_models(policy: studies.SpillPolicy) -> None:
    assert studies.n_design(policy, 800.0).differing == 0


def test_r23_a_guarded_lender_keeps_its_own_queue_short() -> None:
    until = 1_500.0
    free = studies.n_design(SPILLS[0], until)
    guarded = studies.n_design(SPILLS[4], until)
    assert guarded.two_max < free.two_max
    assert guarded.one > free.one


def test_r10_keeping_one_agent_free_brings_calls_through_and_holds_up_few_chats() -> None:
    free = studies.draining("nobody is kept free", 0.75, 40_000)
    kept = studies.draining("one agent, after 60 s", 0.75, 40_000)
    assert kept.voice[0] < free.voice[0] / 2
    assert kept.voice[2] < free.voice[2] / 2
    assert kept.chat[0] < 30
    assert kept.unserved == free.unserved == 0


def test_r11_no_low_ticket_waits_above_its_bound_and_under_strict_priority_many_do() -> None:
    aging, strict = studies.aging(is_aging=True), studies.aging(is_aging=False)
    assert len(aging.low) == len(strict.low) > 30
    assert aging.above_bound == 0
    assert strict.above_bound > 10
    # Somebody pays: the urgent wait longer.
    assert aging.urgent_wait > strict.urgent_wait


def test_r2_the_longer_a_level_is_insisted_on_the_more_get_it_and_the_longer_they_wait() -> None:
    found = [studies.relaxation(after, 1_000) for after in (0.0, 30.0, 240.0, None)]
    fits, waits = [one.by_expert for one in found], [one.wait for one in found]
    assert fits == sorted(fits)
    assert waits == sorted(waits)
    assert fits[-1] == 1
    assert fits[0] < 0.4


def test_r1_each_strategy_is_best_at_what_it_is_for() -> None:
    of = {strategy: studies.choosing(strategy, 1_000) for strategy in studies.CHOICES}
    assert max(of.values(), key=lambda one: one.level).strategy == "best_skilled"
    assert min(of.values(), key=lambda one: one.rare_wait).strategy == "thrift"


# ---------------------------------------------------------------------------------------- the page


@pytest.fixture(scope="module")
def evidence() -> studies.Evidence:
    spill = studies.n_design(studies.GREEDY, 200.0)
    skills = studies.wallace_whitt(400)
    return studies.Evidence(
        [studies.erlang(10, 12, 300, 400, 2_000)],
        skills,
        skills,
        studies.wallace_whitt_long(400),
        studies.wallace_whitt_rules(400),
        [spill, replace(spill, name="from 10")],
        {1: studies.n_design_as_markov(1, 200.0)},
        [studies.draining(name, 0.75, 4_000) for name in studies.DRAINS],
        [studies.aging(is_aging=True, until=7200), studies.aging(is_aging=False, until=7200)],
        [studies.relaxation(after, 200) for after in (0.0, None)],
        [studies.choosing(strategy, 200) for strategy in studies.CHOICES],
    )


def test_the_report_holds_each_section_its_plot_and_the_command_that_makes_it(
    evidence: studies.Evidence,
) -> None:
    page = evidence_routing.page(evidence)
    for name in evidence_routing.SECTIONS:
        assert f"(routing/{name}.svg)" in page
        assert f"--only {name}`, seed {studies.SEED}." in page
    # A run too short to show it does not say that it did.
    assert "**no**" in page


def test_the_committed_report_keeps_every_promise_and_has_every_plot() -> None:
    page = evidence_routing.PAGE.read_text(encoding="utf-8")
    assert "| **no** |" not in page
    assert page.count("| yes |") >= 13
    for name in evidence_routing.SECTIONS:
        plot = (evidence_routing.PLOTS / f"{name}.svg").read_text(encoding="utf-8")
        assert plot.startswith("<?xml")


def test_plots_are_the_same_to_the_byte_for_the_same_numbers(evidence: studies.Evidence) -> None:
    drawn = {name: draw(evidence) for name, draw in PLOTS.items()}
    assert drawn.keys() == evidence_routing.SECTIONS.keys()
    for name in ("spill", "choice"):
        assert PLOTS[name](evidence) == drawn[name]
