"""Comments are counted under causes by words that a person can read and change."""

from pathlib import Path

import pytest
import yaml

from services.notifier.core.comments import causes_of, classify

FILE = yaml.safe_load((Path(__file__).parents[3] / "policy" / "causes.yaml").read_text("utf-8"))
CAUSES = causes_of(
    {name: list(one["description"].values()) for name, one in FILE["causes"].items()}
)
PARENTS = {name: one["parent"] for name, one in FILE["causes"].items() if "parent" in one}


@pytest.mark.parametrize(
    ("comment", "causes"),
    [
        ("The carrier was late again!", ("late_by_shipper",)),
        ("You CHARGED me TWICE and nobody cares", ("charged_twice",)),
        ("kargom çok gecikti", ("late_by_shipper",)),
        ("KARGO GECİKTİ", ("late_by_shipper",)),
        ("Посылка была потеряна, и никто не ответил.", ("lost_parcel",)),
        ("Поставили четвёрку, перевозчик опаздывал", ("late_by_shipper",)),
        ("Delivery", ("delivery",)),
        ("the delivery was fine but it arrived damaged", ("delivery", "damaged")),
        ("Very friendly, thank you", ()),
        ("", ()),
        ("!!! 12345 👍", ()),
    ],
)
def test_a_comment_is_counted_under_the_causes_whose_words_it_has(
    comment: str, causes: tuple[str, ...]
) -> None:
    assert classify(comment, CAUSES, PARENTS) == causes


def test_a_category_is_left_out_where_one_of_its_causes_is_named() -> None:
    causes = causes_of({"money": ["Money"], "refund_due": ["a refund is due", "money back"]})
    assert classify("I want my money back", causes, {"refund_due": "money"}) == ("refund_due",)
    assert classify("it is only money", causes, {"refund_due": "money"}) == ("money",)


def test_a_description_of_small_words_alone_names_nothing() -> None:
    assert classify("it is what it is", causes_of({"odd": ["it is"]}), {}) == ()
