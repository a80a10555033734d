"""What a notice can say: the facts that a template knows by name, and samples of them that every template is tried with.

Owns no wording. Every value becomes clean text on its way into a template, whoever filled it in.
"""

import re
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Final

from services.notifier.core.blocks import clean_link
from services.notifier.core.names import salutation
from services.notifier.core.text import clean_line, clean_text

TOPICS: Final = ("lost_order", "damaged_parcel", "unhappy", "refund", "delay", "outage")
"""What a case can be about, where the templates have words of their own for it."""

PUBLIC_VARIABLES: Final = frozenset(
    {"language", "brand", "signature", "topic", "answer", "answer_paragraphs"}
)
"""What may stand under a review, where everybody reads it."""

NEWS_LENGTH_MAX: Final = 300
"""Characters of one piece of news in a digest."""

_TEXTS: Final = frozenset({"answer", "note", "question", "text", "summary"})
"""Fields that may have more than one line."""

_LINKS: Final = frozenset({"url", "unsubscribe_url"})
_PARAGRAPHS: Final = re.compile(r"\n[ \t]*\n+")


@dataclass(frozen=True, slots=True)
class Moment:
    """An instant in the parts that languages put together: on Friday at 09:00.

    `day` is `today`, `tomorrow`, `weekday` (one of the six days from now on) or `date`; `weekday` counts from 0, Monday.
    `date` and `time` are formatted for the reader; `hour` and `minute` are two digits each, for endings that follow how a
    time is read aloud. `is_end_of_day`: the midnight that ends the day.
    """

    day: str
    weekday: int
    date: str
    time: str
    hour: str
    minute: str
    is_noon: bool = False
    is_end_of_day: bool = False


@dataclass(frozen=True, slots=True)
class Wait:
    """How long a customer is going to wait: `until` a moment, else so many `hours` and `minutes`.

    The forms are the plural forms of CLDR that the two numbers take in the language: `one`, `few`, `many`, `other`.
    """

    hours: int = 0
    minutes: int = 0
    hours_form: str = "other"
    minutes_form: str = "other"
    until: Moment | None = None


@dataclass(frozen=True, slots=True)
class SlotFacts:
    """A time for a call. `starts` is None where only by when is known; the two may be of different days."""

    starts: Moment | None
    ends: Moment


@dataclass(frozen=True, slots=True)
class ArticleFacts:
    """An article of the help centre that may help."""

    title: str
    url: str
    summary: str = ""


@dataclass(frozen=True, slots=True)
class OutageFacts:
    """A known outage: its title and text as a person wrote them, since when, and until when it is expected to last."""

    title: str
    text: str = ""
    since: Moment | None = None
    until: Moment | None = None


@dataclass(frozen=True, slots=True)
class ChoiceFacts:
    """An answer that one link gives."""

    label: str
    url: str


@dataclass(frozen=True, slots=True)
class SurveyFacts:
    """A question after a case, `kind` one of csat, ces, nps; each choice is a signed link.

    `url` is the one link behind which it is asked, for where so many do not fit.
    """

    kind: str
    question: str
    choices: tuple[ChoiceFacts, ...] = ()
    url: str = ""


@dataclass(frozen=True, slots=True)
class DigestItem:
    """One of several news that are told together."""

    reference: str
    text: str


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a template may say. Each value is plain text, or made of it; templates know them by these names.

    `name` may be empty (nobody to greet by name), `subject` is `Re: …` or empty, `received_at` is formatted for the
    reader, `answer` is an agent's text with its `answer_paragraphs` as lines, `agent_name` may be empty. `promise` is how long
    the customer is going to wait, `opens` when we open if we are closed, `slots` are times for a call: each only where it is
    known. `zone` names the time zone where any of them says a clock time.

    `salutation` is the opening line where it is formed already; else it is formed of `name`. `topic` is one of `TOPICS` or
    empty. `question` is what we need to know. `reason` says why it takes longer: `demand`, `research`, `waiting_on_others` or
    nothing. `promised` is what had been said before. `callback` is the call that was booked or missed. `note` is what a person
    wrote for this notice. `unsubscribe_url` ends notices of this kind; `can_stop`: so does the word STOP in reply.
    """

    language: str
    name: str
    brand: str
    signature: str
    reference: str
    subject: str
    received_at: str
    agent_name: str = ""
    answer: str = ""
    promise: Wait | None = None
    opens: Moment | None = None
    slots: tuple[SlotFacts, ...] = ()
    zone: str = ""
    salutation: str = ""
    topic: str = ""
    question: str = ""
    reason: str = ""
    promised: Moment | None = None
    callback: SlotFacts | None = None
    articles: tuple[ArticleFacts, ...] = ()
    outage: OutageFacts | None = None
    survey: SurveyFacts | None = None
    note: str = ""
    unsubscribe_url: str = ""
    digest: tuple[DigestItem, ...] = ()
    can_stop: bool = False

    def context(self) -> dict[str, Any]:
        """Return the template's variables, each of them clean: no control characters, no forged lines, no odd links."""
        values = {
            field.name: _clean(field.name, getattr(self, field.name)) for field in fields(self)
        }
        if not values["salutation"]:
            values["salutation"] = salutation(self.name, self.language)
        # One line a piece of news: they are told as a list.
        values["digest"] = tuple(
            replace(item, text=clean_line(item.text, NEWS_LENGTH_MAX)) for item in values["digest"]
        )
        if values["topic"] not in TOPICS:
            values["topic"] = ""
        answer = values["answer"]
        paragraphs = _PARAGRAPHS.split(answer) if answer else []
        values["answer_paragraphs"] = tuple(tuple(part.split("\n")) for part in paragraphs)
        return values


def _clean(name: str, value: Any) -> Any:
    """Return a fact without what no mail may hold; a link that is none becomes empty."""
    if isinstance(value, str):
        if name in _LINKS:
            return clean_link(value)
        return clean_text(value) if name in _TEXTS else clean_line(value)
    if isinstance(value, tuple):
        return tuple(_clean(name, item) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(
            value,
            **{
                field.name: _clean(field.name, getattr(value, field.name))
                for field in fields(value)
            },
        )
    return value


# ------------------------------------------------------------------------------------------- samples

SAMPLE: Final = Facts(
    language="en",
    name="Ada Lovelace",
    brand="Lantern & Oak",
    signature="The team",
    reference="SB-4K7TQ2M",
    subject="Re: My lamp never arrived",
    received_at="24 November 2026, 11:00 GMT+03:00",
    agent_name="Deniz",
    answer="Your lamp left our house this morning.\nIt should reach you on Friday.\n\nThank you.",
)
BARE: Final = Facts(
    "en", "", "Lantern & Oak", "The team", "SB-4K7TQ2M", "", "24 November 2026", "", "Sent."
)
"""The least that is ever known."""

_DAYS: Final = tuple(
    Moment(day, 4, "27 November 2026", f"{hour}:{minute}", hour, minute, hour == "12", hour == "00")
    for day, hour, minute in (
        ("today", "09", "30"),
        ("tomorrow", "12", "00"),
        ("weekday", "16", "00"),
        ("date", "00", "00"),
    )
)
_WAITS: Final = (
    Wait(1, 0, "one", "other"),
    Wait(2, 30, "few", "many"),
    Wait(0, 21, "other", "one"),
    *(Wait(until=moment) for moment in _DAYS),
)


def _rich(number: int, wait: Wait) -> Facts:
    """A sample with everything in it; the topic, the reason and the moments go round with `number`."""
    moment = _DAYS[number % len(_DAYS)]
    # One of a day, one over midnight, and one of which only the end is known.
    slot = SlotFacts((moment, replace(_DAYS[0], date="26 November 2026"), None)[number % 3], moment)
    return replace(
        SAMPLE,
        promise=wait,
        opens=wait.until,
        slots=tuple(SlotFacts(one, one) for one in _DAYS),
        zone="UTC",
        topic=(*TOPICS, "")[number % 7],
        question="Which order is it about?\nAnd which lamp?",
        reason=("demand", "research", "waiting_on_others", "")[number % 4],
        promised=moment,
        callback=slot,
        articles=(
            ArticleFacts("Where is my parcel?", "https://help.example/parcel", "How to follow it."),
            ArticleFacts("Returns", "https://help.example/returns"),
        ),
        outage=OutageFacts(
            "Payments by card", "Cards are refused.", moment, moment if number % 2 else None
        ),
        survey=SurveyFacts(
            "csat",
            "How was it?",
            (ChoiceFacts("Good", "https://s.example/1"), ChoiceFacts("Bad", "https://s.example/0")),
            "https://s.example/ask",
        ),
        note="We have looked into it.\n\nYour lamp is here.",
        unsubscribe_url="https://s.example/off",
        can_stop=True,
        digest=tuple(DigestItem(f"SB-{n}", "Your lamp is on its way.") for n in range(number + 1)),
    )


SAMPLES: Final[tuple[Facts, ...]] = (
    SAMPLE,
    BARE,
    *(_rich(number, wait) for number, wait in enumerate(_WAITS)),
)
"""What each template is tried with: every way in which a time is said, every topic and reason, all of it and nothing."""

VARIABLES: Final = frozenset(SAMPLE.context())
