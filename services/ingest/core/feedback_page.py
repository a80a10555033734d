"""The pages behind the links in notices: a survey's question, and the way out of a kind of notices.

Owns their words (English, Turkish, Russian) and their form: plain HTML that works without scripts, has nothing to fetch and
sends nothing anywhere but back to its own address, light or dark as the reader's system is.
"""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from types import MappingProxyType
from typing import Final

from schemas.feedback import COMMENT_LENGTH_MAX, SCALES, SurveyKind
from schemas.notifications import Category
from schemas.survey_words import ENDS, QUESTIONS, label, scores

_STYLE: Final = """
:root { color-scheme: light dark; --paper: #f7f5f0; --card: #fff; --ink: #1f2430; --muted: #5b6472; --line: #8a8f99;
  --blue: #1f5f8b; --on-blue: #fff; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171c; --card: #1c2027; --ink: #ecebe7; --muted: #a9b1be;
  --line: #747c89; --blue: #8cc0e8; --on-blue: #10202c; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 1.0625rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 36rem; margin: 0 auto; padding: 2rem 1rem 3rem; }
.card { background: var(--card); border-radius: .75rem; padding: 1.5rem 1.25rem; }
.brand { color: var(--muted); margin: 0 0 .75rem; }
h1 { font-size: 1.35rem; line-height: 1.3; margin: 0 0 1rem; }
p { margin: 0 0 1rem; }
fieldset { border: 0; margin: 0 0 1.25rem; padding: 0; min-width: 0; }
legend { font-size: 1.35rem; font-weight: 700; line-height: 1.3; padding: 0; margin: 0 0 1rem; }
.scores { display: flex; flex-wrap: wrap; gap: .4rem; }
.scores label { position: relative; flex: 1 0 2.75rem; min-height: 3rem; display: grid; place-items: center;
  border: 1px solid var(--line); border-radius: .5rem; font-variant-numeric: tabular-nums; cursor: pointer; }
.scores input { position: absolute; inset: 0; opacity: 0; margin: 0; cursor: pointer; }
.scores label:has(input:checked) { background: var(--blue); color: var(--on-blue); border-color: var(--blue); font-weight: 700; }
.scores label:has(input:focus-visible) { outline: 3px solid var(--blue); outline-offset: 2px; }
@supports not selector(:has(*)) { .scores input { position: static; opacity: 1; } }
.ends { display: flex; justify-content: space-between; gap: 1rem; color: var(--muted); font-size: .9rem; margin: .4rem 0 0; }
.field { display: block; margin: 0 0 1.25rem; }
textarea { display: block; width: 100%; min-height: 7rem; margin-top: .35rem; padding: .6rem; font: inherit; color: inherit;
  background: var(--paper); border: 1px solid var(--line); border-radius: .5rem; }
.check { display: flex; gap: .6rem; align-items: flex-start; margin: 0 0 1.25rem; }
.check input { width: 1.25rem; height: 1.25rem; margin: .15rem 0 0; flex: none; }
button { min-height: 3rem; padding: .6rem 1.4rem; font: inherit; font-weight: 650; color: var(--on-blue);
  background: var(--blue); border: 0; border-radius: .5rem; cursor: pointer; }
button.quiet { color: var(--ink); background: none; border: 1px solid var(--line); }
button:focus-visible, textarea:focus-visible, .check input:focus-visible { outline: 3px solid var(--blue); outline-offset: 2px; }
.small { color: var(--muted); font-size: .9rem; margin: 1.25rem 0 0; }
"""

_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

HEADERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self';"
        " base-uri 'none'; frame-ancestors 'none'",
        "Cache-Control": "no-store",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-Robots-Tag": "noindex, nofollow",
    }
)
"""What goes with every page. The address is the key, so it is kept from other sites, search engines and shared caches."""

_WORDS: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "en": {
            "comment": "What should we know? (optional)",
            "share": "Whoever works on my case may see this answer.",
            "send": "Send my answer",
            "nothing_yet": "Nothing is sent until you press the button.",
            "thanks": "Thank you",
            "thanks_text": "Your answer has arrived.",
            "sorry_text": "Your answer has arrived. We are sorry that it was not better.",
            "yours": "You answered:",
            "change": "You may change it until {until} (UTC): choose again and send.",
            "kept": "Words that you wrote before stay, unless you write others in their place.",
            "say_again": "Whether your answer may be seen, please say again below.",
            "answered": "You have answered already",
            "answered_text": "Your answer counts as you gave it. Thank you.",
            "choose": "Please choose a number first.",
            "ended": "This link has ended",
            "ended_text": "It has been too long since we asked. You can still write to us at any time.",
            "broken": "This link is not complete",
            "broken_text": "Please open it again from our message; some mail programs cut long links.",
            "later": "Please try again in a moment",
            "later_text": "We could not take it just now. Nothing was lost: go back and send it once more.",
            "wrong": "We could not read this",
            "wrong_text": "Please go back to our message and open the link again.",
            "out": "Stop these messages?",
            "out_button": "Yes, stop them",
            "out_done": "You will get no more of these messages",
            "out_undo": "That was a mistake: send them again",
            "in_done": "You will get these messages again",
            "follow_up": "Messages after a case, such as this question how it went.",
            "outage": "Messages about outages of our service.",
            "service": "Messages about the cases that you open with us. Answers of our people still reach you.",
            "security": "Messages about the safety of your account.",
        },
        "tr": {
            "comment": "Bilmemiz gereken bir şey var mı? (isteğe bağlı)",
            "share": "Talebimle ilgilenen kişi bu yanıtı görebilir.",
            "send": "Yanıtımı gönder",
            "nothing_yet": "Düğmeye basana kadar hiçbir şey gönderilmez.",
            "thanks": "Teşekkür ederiz",
            "thanks_text": "Yanıtınız bize ulaştı.",
            "sorry_text": "Yanıtınız bize ulaştı. Daha iyi olmadığı için üzgünüz.",
            "yours": "Yanıtınız:",
            "change": "{until} (UTC) tarihine kadar değiştirebilirsiniz: yeniden seçip gönderin.",
            "kept": "Daha önce yazdıklarınız, yerine başka bir şey yazmadıkça kalır.",
            "say_again": "Yanıtınızın görülüp görülemeyeceğini lütfen aşağıda yeniden belirtin.",
            "answered": "Bu soruyu zaten yanıtladınız",
            "answered_text": "Yanıtınız verdiğiniz gibi geçerlidir. Teşekkür ederiz.",
            "choose": "Lütfen önce bir sayı seçin.",
            "ended": "Bu bağlantının süresi doldu",
            "ended_text": "Sorumuzun üzerinden çok zaman geçti. Bize dilediğiniz zaman yazabilirsiniz.",
            "broken": "Bu bağlantı eksik",
            "broken_text": "Lütfen mesajımızdan yeniden açın; bazı posta programları uzun bağlantıları keser.",
            "later": "Lütfen birazdan yeniden deneyin",
            "later_text": "Şu anda alamadık. Hiçbir şey kaybolmadı: geri dönüp bir kez daha gönderin.",
            "wrong": "Bunu okuyamadık",
            "wrong_text": "Lütfen mesajımıza dönüp bağlantıyı yeniden açın.",
            "out": "Bu mesajlar durdurulsun mu?",
            "out_button": "Evet, durdurun",
            "out_done": "Bu mesajları artık almayacaksınız",
            "out_undo": "Yanlışlıkla oldu: yeniden gönderin",
            "in_done": "Bu mesajları yeniden alacaksınız",
            "follow_up": "Bir talepten sonra gelen mesajlar, örneğin nasıl geçtiğine dair bu soru.",
            "outage": "Hizmet kesintileriyle ilgili mesajlar.",
            "service": "Bize ilettiğiniz taleplerle ilgili mesajlar. Çalışanlarımızın yanıtları size yine ulaşır.",
            "security": "Hesabınızın güvenliğiyle ilgili mesajlar.",
        },
        "ru": {
            "comment": "Что нам следует знать? (необязательно)",
            "share": "Сотрудник, который занимается моим обращением, может видеть этот ответ.",
            "send": "Отправить ответ",
            "nothing_yet": "Ничего не отправляется, пока вы не нажмёте кнопку.",
            "thanks": "Спасибо",
            "thanks_text": "Ваш ответ получен.",
            "sorry_text": "Ваш ответ получен. Нам жаль, что не вышло лучше.",
            "yours": "Ваш ответ:",
            "change": "Его можно изменить до {until} (UTC): выберите ещё раз и отправьте.",
            "kept": "То, что вы написали раньше, сохранится, если вы не напишете другое.",
            "say_again": "Можно ли показывать ваш ответ, отметьте, пожалуйста, ещё раз ниже.",
            "answered": "Вы уже ответили",
            "answered_text": "Ваш ответ учтён так, как вы его дали. Спасибо.",
            "choose": "Сначала выберите число, пожалуйста.",
            "ended": "Срок действия ссылки истёк",
            "ended_text": "С нашего вопроса прошло слишком много времени. Вы можете написать нам в любое время.",
            "broken": "Ссылка неполная",
            "broken_text": "Откройте её ещё раз из нашего сообщения: некоторые почтовые программы обрезают длинные ссылки.",
            "later": "Попробуйте ещё раз чуть позже",
            "later_text": "Сейчас принять не удалось. Ничего не потеряно: вернитесь и отправьте ещё раз.",
            "wrong": "Не удалось прочитать",
            "wrong_text": "Вернитесь к нашему сообщению и откройте ссылку ещё раз.",
            "out": "Больше не присылать такие сообщения?",
            "out_button": "Да, не присылать",
            "out_done": "Такие сообщения больше не придут",
            "out_undo": "Это ошибка: присылайте снова",
            "in_done": "Такие сообщения снова будут приходить",
            "follow_up": "Сообщения после обращения, например этот вопрос о том, как всё прошло.",
            "outage": "Сообщения о сбоях в работе сервиса.",
            "service": "Сообщения об обращениях, которые вы открываете. Ответы наших сотрудников по-прежнему приходят.",
            "security": "Сообщения о безопасности вашей учётной записи.",
        },
    }
)


@dataclass(frozen=True, slots=True)
class Frame:
    """What all pages of one request share: the reader's language and the shop's name (empty: none is shown)."""

    language: str
    brand: str

    def say(self, name: str) -> str:
        """Return words of the page's language, safe in HTML."""
        return escape(_words(self.language)[name])

    def page(self, title: str, inside: str) -> str:
        """Return the whole document; `title` and `inside` are HTML."""
        brand = f"<p class=brand>{escape(self.brand)}</p>\n" if self.brand else ""
        language = self.language if self.language in _WORDS else "en"
        return (
            f'<!doctype html>\n<html lang="{language}">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n"
            f"<body>\n<main>\n{brand}<div class=card>\n{inside}\n</div>\n</main>\n</body>\n</html>\n"
        )


def _words(language: str) -> Mapping[str, str]:
    return _WORDS.get(language, _WORDS["en"])


def _spoken(language: str) -> str:
    return language if language in QUESTIONS else "en"


def question(
    frame: Frame, kind: SurveyKind, score: int | None, note: str = "", comment: str = ""
) -> str:
    """Return the question with its form, `score` chosen beforehand; `note` is HTML above it."""
    asked = escape(QUESTIONS[_spoken(frame.language)][kind])
    return frame.page(asked, f"{note}{_form(frame, kind, score, asked, comment)}")


def _form(
    frame: Frame,
    kind: SurveyKind,
    score: int | None,
    asked: str,
    comment: str = "",
    *,
    may_share: bool = False,
) -> str:
    ticked = " checked" if may_share else ""
    least, most = (escape(words) for words in ENDS[_spoken(frame.language)][kind])
    choices = "".join(
        f'<label><input type=radio name=score value={one} required aria-label="'
        f'{escape(label(kind, one, frame.language))}"{" checked" if one == score else ""}>{one}</label>'
        for one in scores(kind)
    )
    return (
        f"<form method=post>\n<fieldset><legend>{asked}</legend>\n<div class=scores>{choices}</div>\n"
        f"<p class=ends><span>{least}</span><span>{most}</span></p></fieldset>\n"
        f"<label class=field>{frame.say('comment')}"
        f"<textarea name=comment maxlength={COMMENT_LENGTH_MAX}>\n{escape(comment)}</textarea></label>\n"
        f"<label class=check><input type=checkbox name=share value=yes{ticked}><span>{frame.say('share')}</span></label>\n"
        f"<button>{frame.say('send')}</button>\n</form>\n<p class=small>{frame.say('nothing_yet')}</p>"
    )


def choose_first(frame: Frame, kind: SurveyKind, comment: str) -> str:
    """Return the question again, for somebody who sent no number; their comment stays."""
    note = f"<p role=alert><strong>{frame.say('choose')}</strong></p>\n"
    return question(frame, kind, None, note, comment)


def thanks(
    frame: Frame,
    kind: SurveyKind,
    score: int,
    until: str,
    comment: str = "",
    *,
    may_share: bool = False,
) -> str:
    """Return the page after an answer; `until` says up to when it may be changed (empty: no more).

    `comment` and `may_share` are what was just sent: whoever only moves the score sends them again.
    """
    is_low = SCALES[kind].level(score) == "low"
    inside = f"<h1>{frame.say('thanks')}</h1>\n<p>{frame.say('sorry_text' if is_low else 'thanks_text')}</p>\n"
    asked = escape(QUESTIONS[_spoken(frame.language)][kind])
    form = _form(frame, kind, score, asked, comment, may_share=may_share)
    return frame.page(frame.say("thanks"), inside + _change(frame, kind, score, until, form))


def answered(frame: Frame, kind: SurveyKind, score: int, chosen: int | None, until: str) -> str:
    """Return the page of a survey that was answered with `score`; `chosen` is what the link stands for.

    The form has neither the words nor the consent of before, since whoever has the link is not surely who wrote them.
    """
    if not until:
        inside = f"<h1>{frame.say('answered')}</h1>\n<p>{frame.say('answered_text')}</p>"
        return frame.page(frame.say("answered"), inside)
    inside = f"<h1>{frame.say('answered')}</h1>\n"
    asked = escape(QUESTIONS[_spoken(frame.language)][kind])
    form = _form(frame, kind, score if chosen is None else chosen, asked)
    form = f"<p>{frame.say('say_again')}</p>\n{form}"
    return frame.page(frame.say("answered"), inside + _change(frame, kind, score, until, form))


def _change(frame: Frame, kind: SurveyKind, score: int, until: str, form: str) -> str:
    yours = f"<p>{frame.say('yours')} <strong>{escape(label(kind, score, frame.language))}</strong></p>\n"
    if not until:
        return yours
    may = escape(_words(frame.language)["change"].format(until=until))
    return f"{yours}<p>{may} {frame.say('kept')}</p>\n{form}"


def stop(frame: Frame, category: Category) -> str:
    """Return the page with one button that ends a kind of notices."""
    return frame.page(
        frame.say("out"),
        f"<h1>{frame.say('out')}</h1>\n<p>{frame.say(category)}</p>\n"
        f"<form method=post><button name=wish value=out>{frame.say('out_button')}</button></form>",
    )


def stopped(frame: Frame, category: Category) -> str:
    """Return the page after that, with the way back."""
    return frame.page(
        frame.say("out_done"),
        f"<h1>{frame.say('out_done')}</h1>\n<p>{frame.say(category)}</p>\n<form method=post>"
        f"<button class=quiet name=wish value=in>{frame.say('out_undo')}</button></form>",
    )


def wanted(frame: Frame, category: Category) -> str:
    """Return the page after somebody came back, with the way out."""
    return frame.page(
        frame.say("in_done"),
        f"<h1>{frame.say('in_done')}</h1>\n<p>{frame.say(category)}</p>\n<form method=post>"
        f"<button class=quiet name=wish value=out>{frame.say('out_button')}</button></form>",
    )


def plain(frame: Frame, what: str) -> str:
    """Return a page that only says something: `ended`, `broken`, `later` or `wrong`."""
    return frame.page(
        frame.say(what), f"<h1>{frame.say(what)}</h1>\n<p>{frame.say(f'{what}_text')}</p>"
    )


def language_of(accepted: str) -> str:
    """Return the first language of an `Accept-Language` header that the pages know; English otherwise."""
    for part in accepted[:200].split(","):
        primary = part.partition(";")[0].strip().partition("-")[0].lower()
        if primary in _WORDS:
            return primary
    return "en"
