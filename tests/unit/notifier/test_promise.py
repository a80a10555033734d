"""What the acknowledgement says about time: waited for a little, said in three languages, and only while it is true.

Tuesday, 24 November 2026; the example policy writes times for Istanbul (UTC+3). The stories begin at 08:00 UTC, 11:00 there.
"""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from babel import Locale

from schemas.tickets import ConversationErased
from services.notifier.core.known import Told
from services.notifier.core.promise import said
from services.notifier.core.state import Promise, Slot
from tests.unit.notifier.conftest import FOLLOW_UP, Story

LANGUAGES = ("en", "tr", "ru")


def within(minutes: int, opened: str = "2026-11-24T08:00:00Z") -> dict[str, Any]:
    """A promise that is said as a length."""
    by = datetime.fromisoformat(opened) + timedelta(minutes=minutes)
    wording = {"kind": "within", "minutes": minutes, "day": "today", "time": f"{by:%H:%M}"}
    return {"by": by, "seconds": minutes * 60.0, "wording": wording, "kept_share": 0.93}


def by(instant: str, **more: Any) -> dict[str, Any]:
    """A promise that is said as a time; the words are made anew, for the reader's zone."""
    wording = {"kind": "by", "minutes": None, "day": "today", "time": "00:00"}
    return {"by": instant, "seconds": 3600.0, "wording": wording, "kept_share": 0.93, **more}


def line(story: Story, *needles: str) -> str:
    """The only line of the mail handed over last in which one of the words stands."""
    (found,) = [one for one in story.mail.text.splitlines() if any(word in one for word in needles)]
    return str(found)


# -------------------------------------------------------------------------------------- the waiting


def test_the_acknowledgement_waits_for_what_can_be_promised(patient: Story) -> None:
    patient.opened("08:00").then()
    assert (patient.last.sends, patient.held_until) == ((), _at("08:00:05"))
    patient.promised("08:00:01", **within(20)).then(("received", "requested"))
    assert "within 20 minutes" in patient.mail.text
    assert patient.held_until is None
    patient.delivered("08:00:02").then(("received", "sent"))


def test_nobody_waits_longer_than_the_policy_says(patient: Story) -> None:
    patient.opened("08:00").waited("08:00:04.999").then()
    patient.waited("08:00:05").then(("received", "requested"))
    assert "We expect" not in patient.mail.text


def test_where_nothing_is_known_the_notice_goes_at_once_and_claims_nothing(patient: Story) -> None:
    patient.opened("08:00").promised("08:00:01").then(("received", "requested"))
    for word in ("expect", "within", "closed", "instantly", "Times are"):
        assert word not in patient.mail.text


def test_a_promise_that_comes_twice_or_late_is_no_second_notice(patient: Story) -> None:
    patient.opened("08:00").promised("08:00:01", **within(20))
    patient.promised("08:00:02", **within(20)).then()
    assert patient.last.ignored == "promise_late"
    patient.waited("08:00:05").then()
    assert len(patient.sends) == 1


def test_a_promise_that_comes_after_the_wait_changes_nothing(patient: Story) -> None:
    patient.opened("08:00").waited("08:00:05").promised("08:00:06", **within(20)).then()
    assert (patient.last.ignored, len(patient.sends)) == ("promise_late", 1)


def test_a_promise_that_is_heard_of_before_its_ticket_is_said_with_it(patient: Story) -> None:
    patient.promised("08:00", **within(20)).then()
    patient.opened("08:00").then(("received", "requested"))
    assert "within 20 minutes" in patient.mail.text
    assert patient.state.promises == {}


def test_promises_for_tickets_that_never_come_do_not_pile_up(patient: Story) -> None:
    for number in range(30):
        patient.promised(f"08:00:{number:02}", ticket_id=f"t-{number}", **within(20))
    assert len(patient.state.promises) == 20
    assert "t-29" in patient.state.promises
    assert "t-9" not in patient.state.promises


def test_each_ticket_of_a_conversation_has_its_own_promise(patient: Story) -> None:
    patient.opened("08:00").waited("08:00:05").closed("09:00")
    patient.opened("10:00", ticket_id=FOLLOW_UP, message_id="m2")
    patient.promised("10:00:01", **within(20)).then()
    patient.promised("10:00:01", ticket_id=FOLLOW_UP, **within(45, "2026-11-24T10:00:00Z")).then(
        ("received", "requested")
    )
    assert "within 45 minutes" in patient.mail.text


def test_an_opening_that_comes_twice_waits_once(patient: Story) -> None:
    patient.opened("08:00").opened("08:00:03").then()
    assert patient.last.ignored == "already_told"
    assert patient.held_until == _at("08:00:05")


def test_an_answer_before_the_acknowledgement_makes_it_needless(patient: Story) -> None:
    patient.opened("08:00").answered("08:00:02")
    patient.then(("received", "suppressed", "superseded"), ("answered", "requested"))
    patient.promised("08:00:03", **within(20)).then()
    patient.waited("08:00:05").then()
    assert len(patient.sends) == 1


def test_a_case_that_goes_up_as_it_is_opened_is_still_one_mail(patient: Story) -> None:
    patient.opened("08:00").escalated("08:00").then()
    assert patient.last.ignored == "told_with_the_opening"
    patient.promised("08:00:01", **within(20)).then(("received", "requested"))


def test_whoever_is_not_told_anyway_is_not_waited_for(patient: Story) -> None:
    patient.opened("08:00", contact={"channel": "chat", "address_kind": "none"})
    patient.then(("received", "suppressed", "channel_unsupported"))
    assert patient.held_until is None


def test_caps_count_when_the_notice_is_written_not_when_it_was_held_back(
    patient: Story,
) -> None:
    patient.opened("08:00")
    key = patient.known.key("ada@example.com")
    patient.known.told[key] = [Told(_at("08:00:01"), "service")] * 4
    patient.waited("08:00:05").then(("received", "suppressed", "unverified_limit"))


def test_an_erased_customer_is_not_acknowledged(patient: Story) -> None:
    event = ConversationErased.model_validate(ConversationErased.EXAMPLE)
    patient.opened("08:00").when(event, "08:00:01")
    patient.then(("received", "suppressed", "customer_erased"))
    patient.waited("08:00:05").then()
    assert patient.sends == []


# ---------------------------------------------------------------------------------------- the words

WORDS = {
    "within a length": (
        within(20),
        "We expect to answer you within 20 minutes.",
        "Size 20 dakika içinde yanıt vereceğimizi öngörüyoruz.",
        "Мы рассчитываем ответить вам в течение 20 минут.",
    ),
    "within an hour": (
        within(60),
        "We expect to answer you within an hour.",
        "Size 1 saat içinde yanıt vereceğimizi öngörüyoruz.",
        "Мы рассчитываем ответить вам в течение часа.",
    ),
    "within hours": (
        within(90),
        "We expect to answer you within 1 hour and 30 minutes.",
        "Size 1 saat 30 dakika içinde yanıt vereceğimizi öngörüyoruz.",
        "Мы рассчитываем ответить вам в течение 1 часа 30 минут.",
    ),
    "within an odd number": (
        within(21),
        "We expect to answer you within 21 minutes.",
        "Size 21 dakika içinde yanıt vereceğimizi öngörüyoruz.",
        "Мы рассчитываем ответить вам в течение 21 минуты.",
    ),
    "four hours": (
        within(240),
        "We expect to answer you within 4 hours.",
        "Size 4 saat içinde yanıt vereceğimizi öngörüyoruz.",
        "Мы рассчитываем ответить вам в течение 4 часов.",
    ),
    "today": (
        by("2026-11-24T13:00:00Z"),
        "We expect to answer you today by 16:00.",
        "Size bugün saat 16:00’ya kadar yanıt vereceğimizi öngörüyoruz.",
        "Мы рассчитываем ответить вам сегодня до 16:00.",
    ),
    "tomorrow noon": (
        by("2026-11-25T09:00:00Z"),
        "We expect to answer you tomorrow by noon.",
        "Size yarın öğlene kadar yanıt vereceğimizi öngörüyoruz.",
        "Мы рассчитываем ответить вам завтра до полудня.",
    ),
    "the end of a day": (
        by("2026-11-25T21:00:00Z"),
        "We expect to answer you tomorrow by the end of the day.",
        "Size yarın gece yarısına kadar yanıt vereceğimizi öngörüyoruz.",
        "Мы рассчитываем ответить вам завтра до конца дня.",
    ),
    "a weekday": (
        by("2026-11-27T07:30:00Z"),
        "We expect to answer you on Friday by 10:30.",
        "Size cuma günü saat 10:30’a kadar yanıt vereceğimizi öngörüyoruz.",
        "Мы рассчитываем ответить вам в пятницу до 10:30.",
    ),
    "the next Tuesday": (
        by("2026-12-01T07:00:00Z"),
        "We expect to answer you on 1 December 2026 by 10:00.",
        "Size 1 Aralık 2026 tarihinde saat 10:00’a kadar yanıt vereceğimizi öngörüyoruz.",
        "Мы рассчитываем ответить вам 1 декабря 2026 г. до 10:00.",
    ),
}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("case", list(WORDS))
def test_a_promise_is_said_as_people_of_the_language_say_it(
    patient: Story, case: str, language: str
) -> None:
    promise, *expected = WORDS[case]
    sentence = expected[LANGUAGES.index(language)]
    patient.opened("08:00", contact={"language": language}).promised("08:00", **promise)
    assert line(patient, "expect", "öngörüyoruz", "рассчитываем") == sentence
    assert f"<p>{sentence}</p>" in patient.mail.html


CLOSED = {
    "is_after_hours": True,
    "opens_at": "2026-11-30T06:00:00Z",
    "callback_slots": [
        {"from": "2026-11-30T06:00:00Z", "to": "2026-11-30T06:30:00Z"},
        {"from": "2026-12-01T07:00:00Z", "to": "2026-12-01T07:30:00Z"},
    ],
}
AFTER_HOURS = {
    "en": """
We are closed at the moment and open again on Monday at 09:00.

We expect to answer you on Monday by noon.

If you would rather be called, reply with your telephone number and one of these times:

- on Monday, 09:00–09:30
- on Tuesday, 10:00–10:30

Times are in GMT+03:00.

Received: 28 November 2026, 11:00 GMT+03:00
""",
    "tr": """
Şu anda kapalıyız; pazartesi günü saat 09:00’da açılıyoruz.

Size pazartesi günü öğlene kadar yanıt vereceğimizi öngörüyoruz.

Telefonla aranmak isterseniz bu e-postayı, telefon numaranızı ve şu zamanlardan birini yazarak yanıtlayın:

- pazartesi günü, 09:00–09:30
- salı günü, 10:00–10:30

Saatler GMT+03:00 saat dilimine göredir.

Alındığı zaman: 28 Kasım 2026, 11:00 GMT+03:00
""",
    "ru": """
Сейчас мы не работаем и откроемся в понедельник в 09:00.

Мы рассчитываем ответить вам в понедельник до полудня.

Если вам удобнее, чтобы мы позвонили, ответьте на это письмо, указав номер телефона и одно из этих окон:

- в понедельник, 09:00–09:30
- во вторник, 10:00–10:30

Время указано по GMT+03:00.

Получено: 28 ноября 2026 г., 11:00 GMT+03:00
""",
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_after_hours_the_notice_says_when_we_open_and_offers_times_for_a_call(
    story_with: Any, language: str
) -> None:
    saturday = SaturdayStory(story_with(promise_wait=timedelta(seconds=5)).policy)
    saturday.opened(
        "08:00", contact={"language": language}, occurred_at="2026-11-28T08:00:00Z"
    ).promised("08:00", **CLOSED, **by("2026-11-30T09:00:00Z"))
    assert AFTER_HOURS[language].strip() in saturday.mail.text
    for slot in ("09:00–09:30</li>", "10:00–10:30</li>"):
        assert slot in saturday.mail.html


class SaturdayStory(Story):
    """A story of Saturday, 28 November."""

    day_offset = timedelta(days=4)


@pytest.mark.parametrize(
    ("hour", "minute", "dative", "locative"),
    [
        (9, 0, "09:00’a", "09:00’da"), (10, 0, "10:00’a", "10:00’da"), (11, 0, "11:00’e", "11:00’de"),
        (13, 0, "13:00’e", "13:00’te"), (14, 0, "14:00’e", "14:00’te"), (15, 0, "15:00’e", "15:00’te"),
        (16, 0, "16:00’ya", "16:00’da"), (17, 0, "17:00’ye", "17:00’de"), (18, 0, "18:00’e", "18:00’de"),
        (19, 0, "19:00’a", "19:00’da"), (20, 0, "20:00’ye", "20:00’de"), (22, 0, "22:00’ye", "22:00’de"),
        (15, 10, "15:10’a", "15:10’da"), (15, 20, "15:20’ye", "15:20’de"), (15, 30, "15:30’a", "15:30’da"),
        (15, 40, "15:40’a", "15:40’ta"), (15, 50, "15:50’ye", "15:50’de"), (15, 45, "15:45’e", "15:45’te"),
    ],
)  # fmt: skip
def test_turkish_endings_follow_the_number_that_is_read_last(
    patient: Story, hour: int, minute: int, dative: str, locative: str
) -> None:
    at = datetime(2026, 11, 25, hour - 3, minute, tzinfo=UTC)
    patient.opened("08:00", contact={"language": "tr"})
    patient.promised("08:00", **by(at.isoformat()), is_after_hours=True, opens_at=at)
    assert f"yarın saat {dative} kadar" in patient.mail.text
    assert f"yarın saat {locative} açılıyoruz" in patient.mail.text


# ----------------------------------------------------------------------------------- only what holds


def _at(clock: str) -> datetime:
    return datetime.fromisoformat(f"2026-11-24T{clock}+00:00")


def _promise(**changes: Any) -> Promise:
    known: dict[str, Any] = {
        "at": _at("08:00"),
        "by": _at("10:00"),
        "minutes": 120,
        "opens_at": None,
        "slots": (),
    }
    return Promise(**(known | changes))


@pytest.mark.parametrize(("clock", "is_said"), [("09:00", True), ("09:00:00.001", False)])
def test_of_a_promise_of_which_more_than_half_is_over_nothing_is_said(
    patient: Story, clock: str, is_said: bool
) -> None:
    times = said(_promise(), _at(clock), Locale.parse("en_GB"), patient.policy.zone)
    assert (times.promise is not None) == is_said


def test_an_opening_that_is_over_and_calls_that_have_begun_are_not_offered(patient: Story) -> None:
    promise = _promise(
        by=None,
        opens_at=_at("08:30"),
        slots=(Slot(_at("08:30"), _at("09:00")), Slot(_at("09:30"), _at("10:00"))),
    )
    locale, zone = Locale.parse("en_GB"), patient.policy.zone
    early = said(promise, _at("08:29"), locale, zone)
    assert early.opens is not None
    assert (early.opens.time, len(early.slots), early.zone) == ("11:30", 2, "GMT+03:00")
    late = said(promise, _at("08:30"), locale, zone)
    assert (late.opens, len(late.slots)) == (None, 1)
    over = said(promise, _at("09:30"), locale, zone)
    assert over == said(None, _at("09:30"), locale, zone)


def test_a_length_needs_no_zone_and_a_time_names_it(patient: Story) -> None:
    patient.opened("08:00").promised("08:00", **within(20))
    assert "Times are" not in patient.mail.text


BERLIN = ZoneInfo("Europe/Berlin")


def _over_the_clock_change(
    opens: str, until: str | None = None, slots: tuple[Slot, ...] = ()
) -> str:
    """The zone named on Saturday evening before the clocks go back on Sunday, 25 October 2026."""
    now = datetime(2026, 10, 24, 18, tzinfo=UTC)
    by_then = None if until is None else datetime.fromisoformat(until)
    promise = Promise(now, by_then, None, datetime.fromisoformat(opens), slots)
    return said(promise, now, Locale.parse("en_GB"), BERLIN).zone


def test_the_offset_named_is_that_of_the_times_that_are_said() -> None:
    """09:00 on Monday is UTC+1: whoever reads UTC+2 beside it comes an hour early."""
    assert _over_the_clock_change("2026-10-26T09:00+01:00", "2026-10-26T10:00+01:00") == "GMT+01:00"
    assert _over_the_clock_change("2026-10-24T22:00+02:00") == "GMT+02:00"


def test_where_no_offset_is_true_of_all_times_the_zone_is_named() -> None:
    slot = Slot(
        datetime.fromisoformat("2026-10-25T09:00+01:00"),
        datetime.fromisoformat("2026-10-25T09:30+01:00"),
    )
    zone = _over_the_clock_change("2026-10-25T00:30+02:00", slots=(slot,))
    assert zone == "Central European Time"
