"""What surveys say, against figures worked out by hand, and the weights against a world whose truth is known."""

import random
import uuid
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import pytest

from cli.feedback import _COLUMNS, closing, interval, row_of
from schemas.feedback import SurveyKind
from services.notifier.core import feedback
from services.notifier.core.feedback import Answer, Figures, Share, Survey, net, wilson
from services.notifier.core.policy import SurveyPolicy
from services.notifier.core.survey import choose

SINCE = datetime(2026, 11, 1, tzinfo=UTC)
UNTIL = datetime(2026, 12, 1, tzinfo=UTC)


def survey(score: int | None, kind: SurveyKind = "csat", **changes: Any) -> Survey:
    answer = changes.pop("answer", None)
    if score is not None and answer is None:
        answer = Answer(score, is_late=False, is_changed=False, has_comment=False)
    facts: dict[str, Any] = {
        "kind": kind,
        "channel": "email",
        "queue": "service",
        "language": "en",
        "outcome": "at_once",
        "cause": "",
        "day": "2026-11-24",
        "probability": 1.0,
        "asked_at": SINCE,
        **changes,
    }
    return Survey(**facts, answer=answer)


def bounds(share: Share | None) -> list[float]:
    """The interval of a share, to four places."""
    assert share is not None
    return [round(share.least, 4), round(share.most, 4)]


def total(surveys: list[Survey]) -> Figures:
    (one,) = feedback.report(surveys, SINCE, UNTIL, "UTC", "queue").totals
    return one


def test_the_interval_of_a_share_is_wilsons() -> None:
    """Newcombe 1998 (Statistics in Medicine 17:857) has 15 of 148 as 0.0624 to 0.1605 by this method."""
    assert bounds(wilson(15, 148)) == [0.0624, 0.1605]
    assert bounds(wilson(0, 10)) == [0.0, 0.2775]
    assert bounds(wilson(10, 10)) == [0.7225, 1.0]
    assert wilson(0, 0) is None


def test_the_nps_is_promoters_less_detractors_with_its_own_interval() -> None:
    """50 promoters and 20 detractors of 100: by hand 0.30, from 0.140 to 0.442."""
    found = net(50, 20, 100)
    assert found is not None
    assert found.value == pytest.approx(0.3)
    assert bounds(found) == [pytest.approx(0.1397, abs=2e-4), pytest.approx(0.4418, abs=2e-4)]
    assert net(0, 0, 0) is None
    alone = net(1, 0, 1)
    assert alone is not None
    assert -1 <= alone.least <= alone.value == 1.0 == alone.most


def test_the_distribution_and_the_share_of_low_ones_are_told_not_only_an_average() -> None:
    """Two worlds with the same mean of 3: everybody says 3, or half are furious and half delighted."""
    calm = total([survey(3) for _ in range(10)])
    torn = total([survey(1) for _ in range(5)] + [survey(5) for _ in range(5)])
    assert calm.mean == torn.mean == 3.0
    assert calm.low is not None
    assert torn.low is not None
    assert (calm.low.value, torn.low.value) == (0.0, 0.5)
    assert torn.scores == {1: 5, 2: 0, 3: 0, 4: 0, 5: 5}
    assert calm.scores[3] == 10


def test_the_median_is_a_score_that_somebody_gave() -> None:
    assert total([survey(1), survey(2), survey(4), survey(5)]).median == 2
    assert total([survey(None)]).median is None


def test_who_was_asked_and_silent_counts_for_the_response_rate() -> None:
    found = total([survey(5), survey(None), survey(None), survey(None)])
    assert (found.asked, found.answered) == (4, 1)
    assert found.response is not None
    assert found.response.value == 0.25
    assert found.is_few


def test_late_answers_and_changed_minds_are_counted_and_said() -> None:
    late = Answer(1, is_late=True, is_changed=True, has_comment=True)
    found = total([survey(None, answer=late), survey(5)])
    assert (found.late, found.changed, found.commented, found.answered) == (1, 1, 1, 2)


def test_each_level_of_the_nps_has_its_place() -> None:
    found = total([survey(score, "nps") for score in range(11)])
    assert found.levels == {"low": 7, "middle": 2, "high": 2}
    assert found.nps is not None
    assert found.nps.value == pytest.approx((2 - 7) / 11)


def test_weights_make_up_for_the_draw_and_for_silence() -> None:
    """By hand: mail weighs 2 an answer (half answered), chat 4 (half drawn, half answered); (1·2 + 4·4) / (5·2 + 5·4) = 0.6."""
    mail = [survey(score) for score in (1, 5, 5, 5, 5)] + [survey(None)] * 5
    chat = [survey(s, channel="webchat", probability=0.5) for s in (1, 1, 1, 1, 5)]
    chat += [survey(None, channel="webchat", probability=0.5)] * 5
    found = total(mail + chat)
    assert found.low is not None
    assert found.low.value == 0.5
    assert found.weighted_low is not None
    assert found.weighted_low.value == pytest.approx(0.6)
    assert found.weighted_low.of == pytest.approx(9.0)
    assert found.unweighted == 0


def test_a_group_with_few_answers_takes_the_rate_of_its_channel() -> None:
    """By hand: service 5 of 9 (weight 1.8), billing 1 of 1, too few, so 6 of 10 (weight 1/0.6): 1.6667 / (1.6667 + 9) = 0.15625."""
    surveys = [survey(5)] * 5 + [survey(None)] * 4 + [survey(1, queue="billing")]
    found = total(surveys).weighted_low
    assert found is not None
    assert found.value == pytest.approx(0.15625)


def test_an_answer_whose_chance_is_not_known_has_no_weight_and_is_told() -> None:
    found = total([survey(1, probability=None), survey(5)])
    assert found.unweighted == 1
    assert found.weighted_low is not None
    assert found.weighted_low.value == 0.0


def test_groups_that_answer_less_are_named_and_chance_is_not() -> None:
    surveys = [survey(5, language="en") for _ in range(60)] + [survey(None, language="en")] * 40
    surveys += [survey(5, language="tr") for _ in range(10)] + [survey(None, language="tr")] * 90
    surveys += [survey(5, language="ru"), survey(None, language="ru")]
    found = feedback.report(surveys, SINCE, UNTIL, "UTC", "queue").slants
    verdicts = {one.group: one.verdict for one in found if one.dimension == "language"}
    assert verdicts == {"en": "more", "tr": "less", "ru": "as_all"}
    assert {one.dimension for one in found} == {"language"}


def test_where_all_answer_alike_few_reports_name_any_group() -> None:
    """30 queues with one rate, 100 asked in each: at most one report in twenty may name one, and small groups no more often."""
    draw = random.Random(17)
    named = 0
    for size, rate in [(100, 0.3)] * 30 + [(2, 0.05)] * 30:
        surveys = [
            survey(5 if draw.random() < rate else None, queue=f"queue {number}")
            for number in range(30)
            for _ in range(size)
        ]
        found = feedback.report(surveys, SINCE, UNTIL, "UTC", "queue").slants
        named += any(one.verdict != "as_all" for one in found)
    assert named <= 5


def test_a_large_group_is_held_against_the_others_and_not_against_itself() -> None:
    """Nine of ten are asked by mail: against all of them mail hardly differs, against the rest it does."""
    surveys = [survey(5) for _ in range(460)] + [survey(None)] * 440
    surveys += [survey(5, channel="webchat") for _ in range(30)]
    surveys += [survey(None, channel="webchat")] * 70
    found = feedback.report(surveys, SINCE, UNTIL, "UTC", "queue").slants
    assert [one.verdict for one in found if one.dimension == "channel"] == ["more", "less"]


def test_a_weighted_share_stands_with_its_interval_and_a_star_where_it_is_worth_little() -> None:
    """One answer drawn with 0.01 stands for a hundred: 41 answers are then worth two."""
    surveys = [survey(5) for _ in range(40)] + [survey(1, probability=0.01)]
    made = feedback.report(surveys, SINCE, UNTIL, "UTC", "queue")
    assert made.totals[0].weighted_low is not None
    row = dict(zip(_COLUMNS, row_of(made.totals[0]), strict=True))
    assert row["answered"] == "41"
    assert row["weighted"].endswith("%*")
    assert row["95 % of it"] == interval(made.totals[0].weighted_low)
    assert "The weighted share is worth only" in "\n".join(closing(made.totals[0]))


def test_comments_count_for_each_cause_they_name_and_unclassified_ones_are_said_last() -> None:
    def said(score: int, *causes: str) -> Survey:
        answer = Answer(score, is_late=False, is_changed=False, has_comment=True, causes=causes)
        return survey(None, answer=answer)

    surveys = [said(1, "late_by_shipper", "refund_due"), said(5, "refund_due"), said(1), said(5)]
    surveys.append(said(1))
    found = feedback.report(surveys, SINCE, UNTIL, "UTC", "queue").causes
    assert [(one.cause, one.comments, one.low) for one in found] == [
        ("refund_due", 2, 1),
        ("late_by_shipper", 1, 1),
        ("unclassified", 3, 2),
    ]


def test_lines_are_by_what_was_asked_for() -> None:
    surveys = [survey(5, queue="a"), survey(1, queue="b"), survey(9, "nps", queue="a")]
    made = feedback.report(surveys, SINCE, UNTIL, "UTC", "queue")
    assert [one.kind for one in made.totals] == ["csat", "nps"]
    assert [(name, one.kind, one.answered) for name, one in made.groups] == [
        ("a", "csat", 1),
        ("b", "csat", 1),
        ("a", "nps", 1),
    ]


def test_the_draw_takes_its_share_of_each_channel_and_the_same_tickets_again() -> None:
    policy = SurveyPolicy("csat", 0.3, MappingProxyType({"sms": 1.0, "x": 0.0}))
    chance = random.Random(5)
    tickets = [str(uuid.UUID(int=chance.getrandbits(128))) for _ in range(4_000)]
    drawn = [one for one in tickets if choose(policy, one, "email") is not None]
    assert len(drawn) == pytest.approx(1_200, abs=90)  # Three standard deviations are 87.
    assert drawn == [one for one in tickets if choose(policy, one, "email") is not None]
    assert all(choose(policy, one, "sms") is not None for one in tickets)
    assert all(choose(policy, one, "x") is None for one in tickets)
    chosen = choose(policy, drawn[0], "email")
    assert chosen is not None
    assert (chosen.kind, chosen.probability) == ("csat", 0.3)
    wider = SurveyPolicy("csat", 0.5)
    assert all(choose(wider, one, "email") is not None for one in drawn)


def test_weighted_shares_hit_the_truth_where_plain_ones_miss_it() -> None:
    """Chats are asked four times as often, answer twice as often and are four times as unhappy: the plain share misleads."""
    policy = SurveyPolicy("csat", 0.2, MappingProxyType({"webchat": 0.8}))
    answers = {"email": (0.3, 0.10), "webchat": (0.6, 0.40)}
    truth = 0.7 * 0.10 + 0.3 * 0.40
    plain, weighted = [], []
    for seed in range(20):
        chance = random.Random(seed)
        surveys = []
        for _ in range(2_000):
            channel = "webchat" if chance.random() < 0.3 else "email"
            chosen = choose(policy, str(uuid.UUID(int=chance.getrandbits(128))), channel)
            speaks, low = answers[channel]
            is_heard, is_low = chance.random() < speaks, chance.random() < low
            if chosen is not None:
                score = (1 if is_low else 5) if is_heard else None
                surveys.append(survey(score, channel=channel, probability=chosen.probability))
        found = total(surveys)
        assert found.low is not None
        assert found.weighted_low is not None
        plain.append(found.low.value)
        weighted.append(found.weighted_low.value)
    assert sum(weighted) / 20 == pytest.approx(truth, abs=0.012)
    assert sum(plain) / 20 > truth + 0.08
