"""Every reason has words and, where the policy decides it, a line there that exists."""

from pathlib import Path

import pytest

from cli.notify_story import PolicyText, without_addresses
from services.notifier.core.explain import why_deferred, why_suppressed
from services.notifier.core.notify_file import NotifyFile
from services.notifier.core.reason import Suppression

TEXT = PolicyText(
    (Path(__file__).parents[3] / "policy" / "notify.yaml").read_text(encoding="utf-8")
)


@pytest.mark.parametrize("reason", list(Suppression))
def test_every_reason_is_told_in_words(reason: Suppression) -> None:
    why = why_suppressed(reason.value, "survey")
    assert " " in why.words
    assert "{" not in why.path
    if why.path:
        assert why.path.split(".")[0] in NotifyFile.model_fields


@pytest.mark.parametrize("reason", ["quiet_hours", "digest", "account_trouble"])
def test_every_delay_is_told_in_words_with_its_line(reason: str) -> None:
    why = why_deferred(reason)
    assert " " in why.words
    assert TEXT.line(why.path).startswith("notify.yaml:")


def test_a_reason_of_another_release_stands_as_it_is() -> None:
    assert why_suppressed("moon_phase", "survey") == ("moon_phase", "")
    assert why_deferred("moon_phase").words == "moon_phase"


def test_a_line_of_the_policy_is_found_with_its_value() -> None:
    line = TEXT.line("caps.categories.follow_up")
    number = int(line.split(":")[1].split(" ")[0])
    assert TEXT.text.splitlines()[number - 1].strip().startswith("follow_up:")
    assert TEXT.line("default_language").endswith("default_language: en")


def test_what_the_file_leaves_out_is_said_to_be_built_in() -> None:
    assert PolicyText("senders: {}\n").line("caps.automatic_between_human") == (
        "notify.yaml caps.automatic_between_human (left out: the built-in value counts)"
    )
    assert PolicyText().line("caps") == ""
    assert TEXT.line("") == ""


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("550 5.1.1 <ada@example.com>: unknown", "550 5.1.1 <(address)>: unknown"),
        ("+90 532 123 45 67 is no mobile number", "(address) is no mobile number"),
        ("421 4.7.0 try again in 300 seconds", "421 4.7.0 try again in 300 seconds"),
    ],
)
def test_a_servers_words_are_shown_without_addresses(said: str, shown: str) -> None:
    assert without_addresses(said) == shown
