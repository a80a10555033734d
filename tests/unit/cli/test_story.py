"""Every event can be told in one line, and none shows control characters of a stranger's."""

from datetime import UTC, datetime, timedelta

import pytest

from cli.story import short, span, style_of, tell, until
from schemas.registry import REGISTRY

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)


# Other tests of the session register types of their own.
OURS = sorted(name for name, kind in REGISTRY.items() if kind.__module__.startswith("schemas."))


@pytest.mark.parametrize("name", OURS)
def test_every_type_has_its_line(name: str) -> None:
    kind = REGISTRY[name]
    line = tell(kind.model_validate(kind.EXAMPLE))
    assert line != name, "it has no line of its own"
    assert "\n" not in line
    assert isinstance(style_of(kind.model_validate(kind.EXAMPLE)), str)


def test_a_text_from_outside_cannot_move_the_cursor() -> None:
    assert short("a\x1b[2Jb\r\nc\x07") == "a [2Jb c"
    assert short("x" * 100, 10) == "x" * 9 + "…"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (89, "89 s"),
        (90, "2 min"),
        (5399, "90 min"),
        (5400, "1 h 30 min"),
        (7200, "2 h"),
        (259_200, "3 days"),
    ],
)
def test_spans_are_said_as_people_say_them(seconds: float, said: str) -> None:
    assert span(seconds) == said


def test_what_is_past_is_said_to_be() -> None:
    assert until(NOW + timedelta(seconds=30), NOW) == "in 30 s"
    assert until(NOW - timedelta(minutes=5), NOW) == "5 min ago"
