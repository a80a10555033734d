"""Which rule a message falls under."""

from typing import Any

import pytest

from services.router.core.rules import (
    Condition,
    Facts,
    Rule,
    facts,
    first_match,
    fold,
    spaced_words,
)


def heard(**fields: Any) -> Facts:
    known: dict[str, Any] = {
        "channel": "email",
        "account": "support",
        "language": "en",
        "kind": "message",
        "is_verified": False,
        "is_automatic": False,
        "subject": "",
        "text": "",
    }
    return facts(**(known | fields))


@pytest.mark.parametrize("text", ["İADE", "iade", "IADE", "İade talebi"])
def test_the_dot_of_the_turkish_i_does_not_matter(text: str) -> None:
    assert Condition(contains=(fold("iade"),)).holds(heard(text=text))


def test_case_and_width_do_not_matter() -> None:
    assert Condition(contains=(fold("ДОСТАВ"),)).holds(heard(subject="Где доставка?"))
    assert Condition(contains=(fold("api"),)).holds(heard(subject="ＡＰＩ"))


def test_whole_words_are_not_found_inside_others() -> None:
    wanted = Condition(words=(spaced_words(fold("api")),))
    assert wanted.holds(heard(text="Your API: it fails."))
    assert not wanted.holds(heard(text="a rapid reply"))


def test_words_may_be_several_and_punctuation_between_them_does_not_matter() -> None:
    assert Condition(words=(spaced_words("sign in"),)).holds(heard(text="I cannot sign-in!"))


def test_subject_and_text_are_told_apart() -> None:
    assert not Condition(subject_contains=("lamp",)).holds(heard(text="a lamp"))
    assert not Condition(text_contains=("lamp",)).holds(heard(subject="a lamp"))
    assert not Condition(contains=("lamp\na",)).is_catch_all


@pytest.mark.parametrize(
    "condition",
    [
        Condition(channel=frozenset({"email", "form"})),
        Condition(account=frozenset({"support"})),
        Condition(language=frozenset({"en"})),
        Condition(kind=frozenset({"message"})),
        Condition(is_verified=False),
        Condition(is_automatic=False),
        Condition(),
    ],
)
def test_each_condition_holds_for_what_it_names(condition: Condition) -> None:
    assert condition.holds(heard())
    other = heard(
        channel="chat",
        account="sales",
        language="tr",
        kind="form",
        is_verified=True,
        is_automatic=True,
    )
    assert condition.holds(other) == condition.is_catch_all


def test_all_conditions_of_a_rule_must_hold() -> None:
    both = Condition(channel=frozenset({"email"}), contains=("lamp",))
    assert both.holds(heard(text="lamp"))
    assert not both.holds(heard(text="desk"))
    assert not both.holds(heard(text="lamp", channel="form"))


def test_the_first_that_matches_decides() -> None:
    rules = (
        Rule("lamps", Condition(contains=("lamp",)), "a", 1, "standard"),
        Rule("all", Condition(), "b", 3, "standard"),
    )
    assert first_match(rules, heard(text="lamp")).name == "lamps"
    assert first_match(rules, heard(text="desk")).name == "all"
    with pytest.raises(LookupError, match="no last rule"):
        first_match(rules[:1], heard(text="desk"))


@pytest.mark.parametrize(
    ("wide", "narrow", "covers"),
    [
        (Condition(), Condition(contains=("x",)), True),
        (Condition(contains=("api",)), Condition(contains=("api key",)), True),
        (Condition(contains=("api key",)), Condition(contains=("api",)), False),
        (Condition(channel=frozenset({"a", "b"})), Condition(channel=frozenset({"a"})), True),
        (Condition(channel=frozenset({"a"})), Condition(), False),
        (Condition(is_verified=True), Condition(is_verified=True, contains=("x",)), True),
        (Condition(is_verified=True), Condition(contains=("x",)), False),
    ],
)
def test_a_rule_that_takes_all_another_would_is_recognised(
    wide: Condition, narrow: Condition, covers: bool
) -> None:
    assert wide.covers(narrow) is covers


def test_a_very_long_mail_is_matched_in_no_time_and_not_to_its_end() -> None:
    assert not Condition(contains=("needle",)).holds(heard(text="a" * 1_000_000 + "needle"))
