"""The page of `signalbox templates preview`: every notice for a sample ticket, as a customer sees it; what is said of each topic; and
the beginnings of answers that agents are offered.

One HTML file without anything from elsewhere. Each mail stands in a frame of its own that may do nothing (`sandbox`), so a
template cannot reach the page. The page's only script draws the frames of what is opened: hundreds of documents at once keep a browser
busy for many seconds, and the attribute that would put them off does not hold for documents that stand in the page. Whether a frame is light or dark is not left to the browser: the mail's own
rule for dark mode is switched on or off in the copy that is shown.
"""

import base64
import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html import escape
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from babel import Locale
from babel.dates import format_date, format_time, get_timezone_gmt

if TYPE_CHECKING:
    from services.notifier.core.policy import NotifyFile
    from services.notifier.core.render import Facts, Moment, Templates, Words

_NOW: Final = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
"""The sample ticket's day, a Tuesday: the same page for the same templates."""

_SAYS: Final = {
    "en": {
        "name": "Ada Lovelace",
        "subject": "Re: My lamp never arrived",
        "agent": "Deniz",
        "answer": "Hello Ada,\n\nYour lamp left our house this morning. It should reach you on Friday.\n\nThank you for waiting.",
        "question": "Which address should the lamp go to?\nIs somebody there in the afternoon?",
        "note": "Somebody signed in to your account from a new place on Monday at 22:10.",
        "article": "Where is my parcel?",
        "summary": "How to follow a parcel, and when to worry.",
        "outage": "Payments by card",
        "outage_text": "Some cards are refused at the moment. Nothing is charged twice.",
        "survey": "How satisfied are you with our help?",
        "choices": "Very satisfied|Satisfied|Neither|Dissatisfied|Very dissatisfied",
        "digest": "Your lamp is on its way.|Your refund has been sent.|Your question is with a colleague.",
    },
    "tr": {
        "name": "Ayşe Hanım",
        "subject": "Re: Lambam hâlâ gelmedi",
        "agent": "Deniz",
        "answer": "Merhaba Ayşe Hanım,\n\nLambanız bu sabah yola çıktı. Cuma günü elinizde olmalı.\n\nBeklediğiniz için teşekkür ederim.",
        "question": "Lambayı hangi adrese gönderelim?\nÖğleden sonra evde biri olur mu?",
        "note": "Pazartesi günü saat 22:10’da hesabınıza yeni bir yerden girildi.",
        "article": "Paketim nerede?",
        "summary": "Bir paket nasıl izlenir, ne zaman yazmak gerekir.",
        "outage": "Kartla ödeme",
        "outage_text": "Şu anda bazı kartlar kabul edilmiyor. Hiçbir tutar iki kez alınmıyor.",
        "survey": "Yardımımızdan ne kadar memnunsunuz?",
        "choices": "Çok memnunum|Memnunum|Kararsızım|Memnun değilim|Hiç memnun değilim",
        "digest": "Lambanız yola çıktı.|İadeniz gönderildi.|Sorunuz bir arkadaşımızda.",
    },
    "ru": {
        "name": "Анна Сергеевна Иванова",
        "subject": "Re: Лампа так и не пришла",
        "agent": "Дениз",
        "answer": "Здравствуйте, Анна Сергеевна!\n\nВаша лампа сегодня утром отправлена. Она должна прийти в пятницу.\n\nСпасибо, что подождали.",
        "question": "По какому адресу отправить лампу?\nБудет ли кто-нибудь дома после обеда?",
        "note": "В понедельник в 22:10 в вашу учётную запись вошли из нового места.",
        "article": "Где моя посылка?",
        "summary": "Как следить за посылкой и когда нам написать.",
        "outage": "Оплата картой",
        "outage_text": "Сейчас некоторые карты не принимаются. Дважды деньги не списываются.",
        "survey": "Как мы вам помогли?",
        "choices": "Отлично|Хорошо|Так себе|Плохо|Очень плохо",
        "digest": "Лампа отправлена.|Возврат отправлен.|Ваш вопрос у нашего коллеги.",
    },
}

_STYLE: Final = """
:root { color-scheme: light dark; --paper: #fbfaf7; --ink: #1f2933; --quiet: #52606d; --line: #d5d0c5; --mark: #1d5c4d; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #14181c; --ink: #e8e6e1; --quiet: #b3bcc4; --line: #3a434b; --mark: #8fd9c4; }
}
body { margin: 0 auto; max-width: 1240px; padding: 24px; background: var(--paper); color: var(--ink);
  font: 16px/1.5 -apple-system, BlinkMacSystemFont, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
a { color: var(--mark); }
nav { columns: 4 160px; margin: 0 0 32px; }
nav a { display: block; }
section { border-top: 1px solid var(--line); padding: 16px 0; }
h2 { margin: 0 0 8px; }
h3 { margin: 16px 0 4px; font-size: 16px; }
p.quiet { margin: 0; color: var(--quiet); }
.frames { display: flex; flex-wrap: wrap; gap: 16px; align-items: flex-start; }
figure { margin: 0; max-width: 100%; }
figcaption { color: var(--quiet); font-size: 13px; }
iframe { border: 1px solid var(--line); max-width: 100%; height: 640px; display: block; }
iframe.desk { width: 760px; } iframe.phone { width: 390px; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; border: 1px solid var(--line); padding: 12px; max-width: 72ch; font-size: 14px; }
summary { cursor: pointer; }
"""


_SCRIPT: Final = """
const fill = (details) => {
  const kept = details.querySelector("template");
  if (!kept) return;
  for (const frame of kept.content.querySelectorAll("iframe")) frame.srcdoc = details.dataset[frame.dataset.scheme];
  kept.replaceWith(kept.content);
};
document.querySelectorAll("details[open]").forEach(fill);
document.addEventListener("toggle", (event) => { if (event.target.open) fill(event.target); }, true);
"""


MORE: Final = ("topics", "starters")
"""The sections of the page that are no occasions."""


def page(templates: "Templates", file: "NotifyFile", languages: tuple[str, ...]) -> str:
    """Return the page: each occasion in each of `languages`, then the words for each topic, and the beginnings of answers."""
    from services.notifier.core.render import OCCASIONS

    rows = [_occasion(templates, file, one, languages) for one in OCCASIONS]
    rows += [_topics(templates, file, languages), _starters(templates, file, languages)]
    links = "".join(f'<a href="#{one}">{one}</a>' for one in (*OCCASIONS, *MORE))
    digest = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<title>What customers are told</title><style>{_STYLE}</style></head><body>"
        "<h1>What customers are told</h1>"
        f"<p>Every notice for one sample ticket, in {escape(', '.join(languages))}. Nothing here was sent to anybody.</p>"
        f"<nav>{links}</nav>\n" + "\n".join(rows) + f"<script>{_SCRIPT}</script></body></html>\n"
    )


def sample(language: str, file: "NotifyFile", occasion: str = "") -> "Facts":
    """Return the sample ticket's facts in `language`: the first words of each are the same in every language."""
    from services.notifier.core.facts import (
        ArticleFacts,
        ChoiceFacts,
        DigestItem,
        Facts,
        OutageFacts,
        SlotFacts,
        SurveyFacts,
        Wait,
    )
    from services.notifier.core.render import format_instant

    says = _SAYS.get(language, _SAYS["en"])
    spoken = file.languages[language]
    locale, zone = Locale.parse(spoken.locale), ZoneInfo(file.timezone)
    at = _Days(locale, zone)
    sender = file.senders[file.default_sender]
    slots = (SlotFacts(at(1, 10), at(1, 10, 30)), SlotFacts(at(2, 14), at(2, 14, 30)))
    facts = Facts(
        language=language,
        name=says["name"],
        brand=sender.from_name,
        signature=spoken.signature,
        reference="SB-4K7TQ2M",
        subject=says["subject"],
        received_at=format_instant(_NOW, locale, zone),
        agent_name=says["agent"],
        answer=says["answer"],
        promise=Wait(until=at(1, 12)),
        topic="lost_order",
        zone=get_timezone_gmt(_NOW.astimezone(zone), locale=locale),
        question=says["question"],
        reason="waiting_on_others",
        promised=at(0, 16),
        callback=slots[0],
        outage=OutageFacts(says["outage"], says["outage_text"], at(0, 9, 30), at(0, 18)),
        survey=SurveyFacts(
            "csat",
            says["survey"],
            tuple(
                ChoiceFacts(label, f"https://support.example/s/{5 - n}")
                for n, label in enumerate(says["choices"].split("|"))
            ),
            "https://support.example/s",
        ),
        digest=tuple(
            DigestItem(f"SB-4K7TQ2{letter}", text)
            for letter, text in zip("MNP", says["digest"].split("|"), strict=True)
        ),
        articles=(ArticleFacts(says["article"], "https://help.example/parcel", says["summary"]),),
    )
    match occasion:
        case "after_hours":
            return replace(facts, opens=at(1, 9), slots=slots, articles=())
        case "received" | "voicemail" | "next_issue":
            return facts
        case "callback_missed":
            return replace(facts, slots=slots)
        case "security":
            return replace(facts, note=says["note"])
        case "survey" | "check_in" | "outage_known" | "outage_over":
            return replace(facts, unsubscribe_url="https://support.example/stop/1")
        case _:
            return facts


class _Days:
    """Moments round the sample's day, as a reader of the locale writes them."""

    def __init__(self, locale: Locale, zone: ZoneInfo) -> None:
        self._locale, self._zone = locale, zone

    def __call__(self, days: int, hour: int, minute: int = 0) -> "Moment":
        from services.notifier.core.facts import Moment

        local = _NOW.astimezone(self._zone) + timedelta(days=days)
        local = local.replace(hour=hour, minute=minute)
        return Moment(
            day={0: "today", 1: "tomorrow"}.get(days, "weekday"),
            weekday=local.weekday(),
            date=format_date(local.date(), format="long", locale=self._locale),
            time=format_time(local, format="short", tzinfo=self._zone, locale=self._locale),
            hour=f"{hour:02}",
            minute=f"{minute:02}",
            is_noon=(hour, minute) == (12, 0),
        )


def coloured(html: str, scheme: str) -> str:
    """Return a mail as it looks in `light` or `dark`, whatever the browser is set to."""
    rule = "all" if scheme == "dark" else "not all"
    return (
        html.replace("(prefers-color-scheme: dark)", rule)
        .replace('content="light dark"', f'content="{scheme}"')
        .replace("color-scheme: light dark;", f"color-scheme: {scheme};")
    )


def _occasion(
    templates: "Templates", file: "NotifyFile", occasion: str, languages: tuple[str, ...]
) -> str:
    from services.notifier.core.render import OCCASIONS

    parts = [f'<section id="{occasion}"><h2>{occasion}</h2>']
    for language in languages:
        words = templates.render(occasion, sample(language, file, occasion))
        is_open = (occasion, language) == (OCCASIONS[0], languages[0])
        parts.append(_language(occasion, language, words, is_open=is_open))
    return "".join((*parts, "</section>"))


def _topics(templates: "Templates", file: "NotifyFile", languages: tuple[str, ...]) -> str:
    """The first answer about each topic, and below it what the other notices say of the topic and of no other."""
    from services.notifier.core.render import OCCASIONS, TOPICS

    parts = ['<section id="topics"><h2>received, by topic</h2>']
    for language in languages:
        for topic in TOPICS:
            facts = replace(sample(language, file, "received"), topic=topic)
            others = []
            for occasion in OCCASIONS:
                known = replace(sample(language, file, occasion), topic=topic)
                said = templates.render(occasion, known).text
                bare = templates.render(occasion, replace(known, topic="")).text
                own = [line for line in said.split("\n") if line not in bare.split("\n")]
                if occasion != "received" and own:
                    lines = escape("\n".join(own))
                    others.append(f"<h3>{occasion}</h3><pre>{lines}</pre>")
            words = templates.render("received", facts)
            parts.append(_language("received", language, words, title=topic, more="".join(others)))
    return "".join((*parts, "</section>"))


def _starters(templates: "Templates", file: "NotifyFile", languages: tuple[str, ...]) -> str:
    """The beginnings of answers, which nobody gets before a person has finished them."""
    from services.notifier.core.render import TOPICS

    parts = [
        '<section id="starters"><h2>starters</h2>',
        '<p class="quiet">Beginnings of answers, for agents; what stands in [brackets] is theirs to say.</p>',
    ]
    for language in languages:
        facts = sample(language, file)
        parts.append(f"<details><summary><b>{language}</b></summary>")
        parts += [
            f"<h3>{topic}</h3><pre>{escape(templates.starter(topic, facts))}</pre>"
            for topic in (*TOPICS, "closing")
        ]
        parts.append("</details>")
    return "".join((*parts, "</section>"))


def _language(
    occasion: str,
    language: str,
    words: "Words",
    *,
    is_open: bool = False,
    title: str = "",
    more: str = "",
) -> str:
    """One notice in one language. All but the first are folded up: a browser draws what is opened.

    `title` stands in place of its subject, `more` below it.
    """
    frames = "".join(
        f"<figure><figcaption>{kind}, {scheme}</figcaption>"
        f'<iframe class="{kind}" sandbox="" data-scheme="{scheme}" title="{occasion} in {language}, {kind}, {scheme}">'
        "</iframe></figure>"
        for kind in ("desk", "phone")
        for scheme in ("light", "dark")
    )
    copies = "".join(
        f' data-{scheme}="{escape(coloured(words.html, scheme))}"' for scheme in ("light", "dark")
    )
    public = f"<h3>In public</h3><pre>{escape(words.public)}</pre>" if words.public else ""
    return (
        f"<details{' open' if is_open else ''}{copies}><summary><b>{language}</b> · {escape(title or words.subject)}</summary>"
        f'<div class="frames"><template>{frames}</template></div>'
        f"<h3>Text</h3><pre>{escape(words.text)}</pre>"
        f'<h3>Chat and SMS</h3><p class="quiet">{len(words.short)} characters</p><pre>{escape(words.short)}</pre>'
        f"{public}{more}</details>"
    )
