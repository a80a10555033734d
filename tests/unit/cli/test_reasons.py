"""How `signalbox ticket show --decisions` tells of everybody in a large domain."""

from cli.reasons import SHOWN_MAX, lines


def test_whom_the_moment_kept_away_is_named_and_whom_the_roster_did_is_counted() -> None:
    static: dict[str, tuple[str, ...]] = {
        "ada": (),
        "bo": ("queue",),
        "cy": ("queue",),
        "di": ("language",),
    }
    rules = static | {"ada": ("absent", "capacity")}
    assert lines(rules, static) == [
        "  ada: absent, capacity",
        "  2 × queue",
        "  1 × language",
    ]


def test_too_many_to_name_are_counted_by_their_rules() -> None:
    names = [f"a{n:04}" for n in range(SHOWN_MAX + 3)]
    said = lines(dict.fromkeys(names, ("absent",)), dict.fromkeys(names, ()))
    assert len(said) == SHOWN_MAX + 1
    assert said[-1] == "  3 × absent"
