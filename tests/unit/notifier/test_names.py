"""A customer is greeted by name, in the form that the language asks for, or without one; never by a company or a slogan."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.notifier.core.names import address, salutation


@pytest.mark.parametrize(
    ("name", "greeting"),
    [
        ("Ada Lovelace", "Hello Ada,"),
        ("LOVELACE, ADA", "Hello Ada,"),
        ("Lovelace, Ada", "Hello Ada,"),
        ("ada", "Hello Ada,"),
        ("Mr Smith", "Hello Mr Smith,"),
        ("mr. john smith", "Hello Mr Smith,"),
        ("Dr. Ada Lovelace", "Hello Dr Lovelace,"),
        ("o'brien", "Hello O'Brien,"),
        ("jean-luc picard", "Hello Jean-Luc,"),
        ("McKenzie Scott", "Hello McKenzie,"),
        ("J.R.R. Tolkien", "Hello J.R.R. Tolkien,"),
        ("A. Lovelace", "Hello A. Lovelace,"),
        ("J. Robert Oppenheimer", "Hello Robert,"),
        ("Abdul Rahman Khan", "Hello Abdul Rahman,"),
        ("王小明", "Hello 王小明,"),
        ("Ada 🎉", "Hello Ada,"),
        ("Ada Hanım", "Hello Ada Hanım,"),
        ("Анна Сергеевна Иванова", "Hello Анна,"),
        ("🎉🎉", "Hello,"),
        ("", "Hello,"),
        ("info", "Hello,"),
        ("Lantern GmbH", "Hello,"),
        ("Guest", "Hello,"),
        ("Support Team", "Hello,"),
        ("Buy Now Cheap", "Hello,"),
        ("You won a prize", "Hello,"),
        ("www.evil.example", "Hello,"),
        ("evil.example", "Hello,"),
        ("evil。com", "Hello,"),
        ("https://evil.example", "Hello,"),
        ("{{ 7*7 }}", "Hello,"),
        ("<b>Ada</b>", "Hello,"),
        ("Ada\u202eevil", "Hello Adaevil,"),
    ],
)
def test_english(name: str, greeting: str) -> None:
    assert salutation(name, "en") == greeting


@pytest.mark.parametrize(
    ("name", "greeting"),
    [
        ("Ada Lovelace", "Merhaba Ada,"),
        ("Ada Hanım", "Merhaba Ada Hanım,"),
        ("MEHMET BEY", "Merhaba Mehmet Bey,"),
        ("Mehmet Yılmaz Bey", "Merhaba Mehmet Bey,"),
        ("Ayşe Hanımefendi", "Merhaba Ayşe Hanım,"),
        ("Bay Mehmet", "Merhaba Mehmet Bey,"),
        ("Bayan Ayşe Kaya", "Merhaba Ayşe Hanım,"),
        ("Mr. Mehmet Yılmaz", "Merhaba Mehmet Bey,"),
        ("Sayın Ada Lovelace", "Merhaba Ada,"),
        ("Mehmet Bay", "Merhaba Mehmet,"),
        ("İREM IŞIK", "Merhaba İrem,"),
        ("irem ışık", "Merhaba İrem,"),
        ("IRMAK", "Merhaba Irmak,"),
        ("Deniz", "Merhaba Deniz,"),
        ("Fener A.Ş.", "Merhaba,"),
        ("Müşteri", "Merhaba,"),
    ],
)
def test_turkish_says_bey_and_hanim_only_where_the_name_does(name: str, greeting: str) -> None:
    """Deniz is a woman's name and a man's: nobody is made one or the other by guessing."""
    assert salutation(name, "tr") == greeting


@pytest.mark.parametrize(
    ("name", "greeting"),
    [
        ("Анна Сергеевна Иванова", "Здравствуйте, Анна Сергеевна!"),
        ("Иванова Анна Сергеевна", "Здравствуйте, Анна Сергеевна!"),
        ("ИВАНОВА АННА СЕРГЕЕВНА", "Здравствуйте, Анна Сергеевна!"),
        ("Иван Петрович", "Здравствуйте, Иван Петрович!"),
        ("ИП Иванов Пётр Ильич", "Здравствуйте, Пётр Ильич!"),
        ("Иванова Анна", "Здравствуйте, Анна!"),
        ("Анна Иванова", "Здравствуйте, Анна!"),
        ("Лев Толстой", "Здравствуйте, Лев!"),
        ("Карина Марина", "Здравствуйте, Карина!"),
        ("анна", "Здравствуйте, Анна!"),
        ("Кузьмин Илья", "Здравствуйте, Илья!"),
        ("Илья Кузьмин", "Здравствуйте, Илья!"),
        ("Никитина Вера", "Здравствуйте, Вера!"),
        ("Цой Виктор", "Здравствуйте, Виктор!"),
        ("Шевчук Юрий", "Здравствуйте, Юрий!"),
        ("ФЁДОРОВ АРТЁМ", "Здравствуйте, Артём!"),
        ("Анна-Мария Кузьмина", "Здравствуйте, Анна-Мария!"),
        ("Иванова Мерьем", "Здравствуйте, Мерьем!"),
        ("Мерьем Иванова", "Здравствуйте, Мерьем!"),
        ("Шолохова", "Здравствуйте!"),
        ("Кузьмин", "Здравствуйте!"),
        ("Цой", "Здравствуйте!"),
        ("Цой Мерьем", "Здравствуйте!"),
        ("г-жа Иванова", "Здравствуйте, госпожа Иванова!"),
        ("Ada Lovelace", "Здравствуйте, Ada!"),
        ("Иванова А. С.", "Здравствуйте!"),
        ("Сергеевна", "Здравствуйте!"),
        ("ООО Ромашка", "Здравствуйте!"),
        ("Клиент", "Здравствуйте!"),
        ("Выиграли приз", "Здравствуйте!"),
    ],
)
def test_russian_says_first_name_and_patronymic(name: str, greeting: str) -> None:
    assert salutation(name, "ru") == greeting


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=120), st.sampled_from(["en", "tr", "ru", "de"]))
def test_whatever_somebody_calls_themselves_the_greeting_is_one_short_clean_line(
    name: str, language: str
) -> None:
    line = salutation(name, language)
    assert len(line) <= 70
    assert not {unicodedata.category(char) for char in line} & {"Cc", "Cs", "Co", "Zl", "Zp"}
    assert not set(line) & set("<>{}@/:\n\r\t")
    assert address(name, language) in line
