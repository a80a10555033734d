"""What the writer added this time, and which language it is in."""

import pytest

from services.ingest.core import language
from services.ingest.core.normalise import clean_text, clean_value, new_text

NEW = "It came, thank you!\n\nAda"


@pytest.mark.parametrize(
    "tail",
    [
        "On Tue, 24 Nov 2026 at 08:04, Shop <support@shop.example> wrote:\n> old\n> older",
        "On Tue, 24 Nov 2026 at 08:04, A Shop With A Very Long Name Indeed\n<support@shop.example> wrote:\n\n> old",
        "On 24 Nov 2026, at 08:04, Shop <support@shop.example> wrote:\n\nold without marks",
        "24 Kas 2026 Sal, 08:04 tarihinde Shop <support@shop.example> şunu yazdı:\n\n> eski",
        "Shop <support@shop.example>, 24 Kas 2026 Sal, 08:04 tarihinde şöyle yazdı:\n> eski",
        "вт, 24 нояб. 2026 г. в 08:04, Shop <support@shop.example>:\n\n> старое",
        "24 нояб. 2026 г., в 08:04, Shop <support@shop.example> написал(а):\n\n> старое",
        '24.11.2026, 09:03, "Shop" <support@shop.example>:\n> старое',
        "Вторник, 24 ноября 2026, 8:15 +03:00 от Shop <support@shop.example>:\n \nстарое без знаков",
        "-----Original Message-----\nFrom: Shop\nSent: Tuesday\nTo: Ada\nSubject: x\n\nold",
        "________________________________\nFrom: Shop <support@shop.example>\nSent: Tuesday\nTo: Ada\nSubject: x\n\nold",
        "________________________________\nKimden: Shop <support@shop.example>\nGönderildi: Salı\nKime: Ada\nKonu: x\n\neski",
        "От: Shop <support@shop.example>\nОтправлено: вторник\nКому: Ada\nТема: x\n\nстарое",
        "*From:* Shop <support@shop.example>\n*Sent:* Tuesday\n*To:* Ada\n*Subject:* x\n\nold",
        "-- \nAda Lovelace\nCountess",
        "Sent from my iPhone",
        "iPhone'umdan gönderildi",
        "Отправлено с iPhone",
        "Отправлено из мобильной Почты Mail.ru",
        "Get Outlook for iOS",
        "Sent from my iPhone\n\nOn 24 Nov 2026, at 08:04, Shop <support@shop.example> wrote:\n\n> old",
    ],
)
def test_quotes_and_signatures_are_left_out(tail: str) -> None:
    assert new_text(f"{NEW}\n\n{tail}") == NEW


def test_answers_between_the_quotes_are_kept() -> None:
    text = "On Tue, 24 Nov 2026, Shop <s@shop.example> wrote:\n> Which lamp?\nThe brass one.\n> When?\nFriday."
    assert new_text(text) == "The brass one.\nFriday."


def test_an_answer_below_the_quote_is_kept() -> None:
    assert (
        new_text("On Tue, 24 Nov 2026, Shop <s@shop.example> wrote:\n> old\n\nNew words.")
        == "New words."
    )


@pytest.mark.parametrize(
    "text",
    [
        "---------- Forwarded message ---------\nFrom: Bank <b@bank.example>\nDate: today\nSubject: x\nTo: me\n\nyour refund",
        "> all of it is quoted",
        "He wrote: I am on it.\nAnd on Monday we go on.",
        "Order:\nFrom: Berlin\nTo be delivered on Monday",
        "a -- b\nand more text",
        "Price list:\n1. lamp: 10",
    ],
)
def test_a_mail_without_anything_new_or_without_any_quote_is_kept_whole(text: str) -> None:
    assert new_text(text) == text


def test_text_loses_what_no_database_or_terminal_should_see() -> None:
    assert clean_text("a\x00b\x1b[31mc\r\nd\re\u2028f\ud800\x9b") == "ab[31mc\nd\ne\nf\ufffd"
    assert clean_value(" a\r\n b\x00\tc\u2029d ") == "a b c d"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Where is my order? It has not arrived yet.", "en"),
        ("I want my money back", "en"),
        ("Thank you!", "en"),
        ("Siparişim nerede? Hâlâ gelmedi.", "tr"),
        ("siparisim hala gelmedi, ne zaman gelir", "tr"),
        ("merhaba sifremi degistiremiyorum yardim eder misiniz", "tr"),
        ("Где мой заказ?", "ru"),
        ("здраствуйте когда придёт", "ru"),
        ("спасибо 👍", "ru"),
        ('Hello, the courier said "olur, sorun değil", is that so?', "en"),
        ("👍👍👍", None),
        ("", None),
        ("12345 LO-10482", None),
        ("ok", None),
        ("Де моє замовлення? Воно ще не прийшло, їхній кур'єр не відповідає", None),
        ("Wo ist meine Bestellung geblieben", None),
        ("https://example.com/the/and/of ada@example.com", None),
    ],
)
def test_a_sentence_shows_its_language_and_too_little_shows_none(
    text: str, code: str | None
) -> None:
    assert language.detect(text) == code
