"""What `signalbox notify announce` is told: words by language, a table of people, and every mistake said with its cure."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from cli.announce_words import (
    Words,
    check_words,
    people_of_file,
    words_of_file,
    words_of_options,
)
from cli.errors import UsageMistake
from cli.notify_preview import load
from cli.typed import instant
from services.notifier.core.policy import Policy

TEXT = "Cards are refused at the moment. Your order is kept."


@pytest.fixture(scope="module")
def policy() -> Policy:
    return load(Path(__file__).parents[3] / "policy")


def words(**given: dict[str, str]) -> Words:
    return Words(given.get("titles", {}), given.get("texts", {}), "")


def test_words_are_told_in_the_customers_language_where_there_are_some(policy: Policy) -> None:
    given = words_of_options(
        "en", "Cards", TEXT, {"en": "", "tr": "Kartlar"}, {"en": "", "tr": "Kartlar geçmiyor."}
    )
    checked = check_words(given, "outage_known", policy, as_written=False)
    assert [checked.language_for(one) for one in ("tr", "en", "ru")] == ["tr", "en", "en"]
    assert checked.titles == {"en": "Cards", "tr": "Kartlar"}


@pytest.mark.parametrize(
    ("given", "occasion", "said"),
    [
        (words(titles={"en": "Cards"}), "outage_known", "text in en is missing: give --text-en"),
        (words(texts={"en": TEXT}), "outage_known", "title in en is missing: give --title-en"),
        (words(texts={"tr": "Kart."}), "security", "text in en is missing"),
        (
            words(titles={"en": "Cards", "tr": "Kart"}, texts={"en": TEXT}),
            "outage_over",
            "text in tr is missing",
        ),
        (words(titles={"en": "a\nb"}, texts={"en": TEXT}), "outage_known", "must be one line"),
        (words(titles={"en": "x" * 301}, texts={"en": TEXT}), "outage_known", "at most 300"),
        (words(titles={"en": "C"}, texts={"en": TEXT, "fi": "Hei"}), "outage_known", "title in fi"),
        (words(titles={"en": "C"}, texts={"en": TEXT}), "security", "has a title of its own"),
    ],
)
def test_words_that_cannot_be_told_are_refused(
    policy: Policy, given: Words, occasion: str, said: str
) -> None:
    with pytest.raises(UsageMistake, match=said):
        check_words(given, occasion, policy, as_written=False)


def test_words_that_customers_would_stumble_over_are_refused_unless_they_have_to_be_so(
    policy: Policy,
) -> None:
    given = words(titles={"en": "IBAN"}, texts={"en": "It works instantly."})
    with pytest.raises(UsageMistake) as refused:
        check_words(given, "outage_known", policy, as_written=False)
    assert "title (en):1: 'IBAN' is shouted" in str(refused.value)
    assert "text (en):1: 'instantly' promises what nobody keeps" in str(refused.value)
    assert check_words(given, "outage_known", policy, as_written=True).texts == given.texts


def test_the_default_language_is_given_once() -> None:
    with pytest.raises(UsageMistake, match="--title and --title-en say the same thing twice"):
        words_of_options("en", "Cards", "", {"en": "Cards"}, {})


def test_words_of_a_file_are_by_language_or_in_the_default_one(tmp_path: Path) -> None:
    file = tmp_path / "cards.yaml"
    file.write_text("title: Cards\ntext:\n  en: Refused.\n  tr: Geçmiyor.\n", encoding="utf-8")
    found = words_of_file(file, "en")
    assert found.titles == {"en": "Cards"}
    assert found.texts == {"en": "Refused.", "tr": "Geçmiyor."}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("titel: Cards\n", "titel: only title and text"),
        ("title: {en: 5}\n", "title.en: must be text in quotes"),
        ("- a\n", "must have title and text"),
        ("title: [\n", "cards.yaml"),
    ],
)
def test_a_file_of_words_that_is_wrong_is_refused_with_its_name(
    tmp_path: Path, text: str, said: str
) -> None:
    file = tmp_path / "cards.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UsageMistake, match=said):
        words_of_file(file, "en")
    with pytest.raises(UsageMistake, match="does not exist"):
        words_of_file(tmp_path / "none.yaml", "en")


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_people_are_read_from_tables_as_spreadsheets_write_them(
    policy: Policy, tmp_path: Path, mark: str
) -> None:
    table = tmp_path / "people.csv"
    lines = ["Email,Name,Language", "ada@example.com,Ada,en-GB", "", "ADA@example.com,Ada,tr"]
    table.write_text("\r\n".join(lines).replace(",", mark), encoding="utf-8-sig")
    (ada,) = people_of_file(table, policy)
    assert (ada.address, ada.name, ada.language) == ("ada@example.com", "Ada", "en")
    assert ada.is_verified


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the first line names the columns"),
        ("name\nAda\n", "the first line names the columns"),
        ("email,order\nada@example.com,7\n", "column 'order' is not known"),
        ("email\n", "has nobody in it"),
        ("email\nada@example.com\nnot@an@address\n", "line 3: address: is no mail address"),
        ("email\nsupport@lantern-oak.example\n", "line 2: address: it is one of our own"),
        ("phone\n0532 123 45 67\n", "line 2: address: a telephone number needs its country"),
        ("phone\n+90 532 123 45 67\n", "line 2: address: notify.yaml has no way to it"),
        ("email,language\nada@example.com,fi\n", "line 2: language: 'fi' is none"),
        ("email,name\n,Ada\n", "line 2: has no address"),
    ],
)
def test_a_row_that_is_not_understood_is_refused_with_its_line_and_no_address(
    policy: Policy, tmp_path: Path, text: str, said: str
) -> None:
    table = tmp_path / "people.csv"
    table.write_text(text, encoding="utf-8")
    with pytest.raises(UsageMistake) as refused:
        people_of_file(table, policy)
    assert said in str(refused.value)
    assert "support@" not in str(refused.value)


def test_a_table_in_another_encoding_is_refused(policy: Policy, tmp_path: Path) -> None:
    table = tmp_path / "people.csv"
    table.write_bytes("email,name\nada@example.com,Şule\n".encode("cp1254"))
    with pytest.raises(UsageMistake, match="must be UTF-8"):
        people_of_file(table, policy)


def test_an_instant_needs_its_offset() -> None:
    assert instant("--since", "2026-11-24T10:40:00+03:00") == datetime(
        2026, 11, 24, 7, 40, tzinfo=UTC
    )
    assert instant("--since", "") is None
    with pytest.raises(UsageMistake, match="needs an offset"):
        instant("--since", "2026-11-24T10:40:00")
    with pytest.raises(UsageMistake, match="must be an instant"):
        instant("--since", "ten")
