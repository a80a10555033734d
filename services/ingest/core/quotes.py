"""The words written this time: a mail without what it quotes, without attribution lines, without signatures.

Knows the ways of Gmail, Outlook (desktop, web, mobile), Apple Mail, Yandex, Mail.ru, Thunderbird, Samsung and iOS in
English, Turkish, Russian, German, French and Spanish, some of them in Italian, Portuguese and Dutch; where the language
is another one, the shape of a line (a date, a time, an address in brackets, a colon at its end) counts. Three rules stand
above all others: answers between the quotes are kept, what a person forwards is what they have to say, and the only text
is never lost.

Where the text was made of HTML, each line carries a mark of what stood around it there (`Mark`); such marks are surer
than any wording. All of it is one pass over the lines; lines longer than `LINE_LOOKED_AT_MAX` are compared by their
beginning only.
"""

import re
from collections.abc import Sequence
from enum import IntEnum
from typing import Final

LINE_LOOKED_AT_MAX: Final = 400


class Mark(IntEnum):
    """What a line stood in, by the markup of the program that wrote it."""

    OWN = 0
    QUOTE = 1
    ATTRIBUTION = 2
    """A line that only introduces a quote."""
    CUT = 3
    """From here on everything is the mail that was answered."""
    SIGNATURE = 4


_WEEKDAY_RU = (
    r"(?:пн|вт|ср|чт|пт|сб|вс|понедельник|вторник|среда|четверг|пятница|суббота|воскресенье)"
)
_WROTE = r"(?:wrote|writes|schrieb|geschrieben|écrit|ecrit|escribió|escribio|escreveu|ha scritto|schreef)"
_ATTRIBUTIONS: Final = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        # Gmail, Apple Mail, Thunderbird: On … wrote:
        rf"^(?:on|am|le|el|em|il|op)\b.{{6,300}}\b{_WROTE}\b.{{0,120}}[:：]$",
        rf"^.{{3,200}}<[^<>@\s]+@[^<>\s]+>.{{0,60}}\b{_WROTE}\b.{{0,80}}[:：]$",
        # Outlook on the web, de and fr: Name <…> schrieb am …:
        r"^.{2,200}\b(?:schrieb am|a écrit le|escribió el)\b.{6,120}[:：]$",
        # tr: … tarihinde … şunu yazdı:
        r"^.{4,300}\b(?:şunları|şunu|şöyle)\s+yazdı\s*[:：]$",
        r"^.{4,300}\btarihinde\b.{0,200}\b(?:yazdı|yazmış)\s*[:：]$",
        # ru: Gmail (вт, 24 нояб. 2026 г. в 08:04, …:), Apple (… написал(а):), Thunderbird (… пишет:)
        r"^.{4,300}\b(?:написал|написала|написал\(а\)|пишет|писал|писал\(а\))\s*[:：]$",
        rf"^{_WEEKDAY_RU}\.?,\s+\d{{1,2}}\b.{{4,200}}<[^<>\s]+@[^<>\s]+>\s*[:：]$",
        # Mail.ru: Вторник, 24 ноября 2026, 8:15 +03:00 от Игорь <…>:
        r"^.{4,120}\d{1,2}:\d{2}.{0,40}\b(?:от|from)\b.{1,200}<?[^<>\s]+@[^<>\s]+>?\s*[:：]$",
        # Yandex: 24.11.2026, 09:03, "Name" <…>:
        r"^\d{1,2}[./]\d{1,2}[./]\d{2,4},?\s+(?:в\s+)?\d{1,2}:\d{2}(?::\d{2})?,?\s.{1,200}<?[^<>\s]+@[^<>\s]+>?\s*[:：]$",
        # Any language: a year, a time, an address in brackets.
        r"^(?=.{0,300}\b(?:19|20)\d\d)(?=.{0,300}\d{1,2}[:.]\d{2}).{6,300}<[^<>@\s]+@[^<>\s]+>.{0,60}[:：]$",
    )
)
_REPLY_SEPARATOR: Final = re.compile(
    r"^\s*-{2,}\s*(?:original message|original appointment|reply message|исходное сообщение|оригинальное сообщение"
    r"|первоначальное сообщение|özgün ileti|orijinal ileti|orijinal mesaj|özgün mesaj|ursprüngliche nachricht"
    r"|originalnachricht|message d'origine|message d’origine|message original|mensaje original|messaggio originale"
    r"|mensagem original|oorspronkelijk bericht)\s*-{2,}\s*$",
    re.IGNORECASE,
)
_FORWARD_SEPARATOR: Final = re.compile(
    r"^\s*(?:-{4,}\s*(?:forwarded message|forwarded by .{1,80}|пересылаемое сообщение|пересланное сообщение"
    r"|пересылаемое письмо|iletilen ileti|iletilen mesaj|yönlendirilen mesaj|yönlendirilen ileti|weitergeleitete nachricht"
    r"|message transféré|message transmis|mensaje reenviado|messaggio inoltrato|mensagem encaminhada)\s*-*"
    r"|(?:begin forwarded message|начало переадресованного сообщения|начало пересылаемого сообщения"
    r"|iletilen ileti başlangıcı|iletilen e-posta başlangıcı|anfang der weitergeleiteten nachricht"
    r"|début du message transféré|début du message réexpédié|inicio del mensaje reenviado)\s*:)\s*$",
    re.IGNORECASE,
)
_FORWARD_SUBJECT: Final = re.compile(
    r"^\s*(?:fwd?|fw|wg|tr|rv|ilt|i̇lt|ynl|enc|пер|переслать|пересл|перенаправлено)\s*[:：]"
    r"|^\s*(?:iletildi|iletilen|пересылаемое сообщение)\s*[:：]",
    re.IGNORECASE,
)
_HEADER_FIRST: Final = re.compile(
    r"^\s*\*?(?:from|от|кому|kimden|gönderen|von|de|expéditeur|da)\s*:\*?\s*\S", re.IGNORECASE
)
_HEADER_NEXT: Final = re.compile(
    r"^\s*\*?(?:sent|date|to|subject|cc|отправлено|дата|кому|тема|копия|gönderildi|gönderilme|gönderme tarihi|tarih|kime"
    r"|konu|bilgi|gesendet|datum|an|betreff|envoyé|date d'envoi|à|destinataire|objet|enviado|enviado el|fecha|para|asunto"
    r"|inviato|a|oggetto|data|assunto)\s*:\*?",
    re.IGNORECASE,
)
_MOBILE: Final = re.compile(
    r"^\s*(?:sent from (?:my |yahoo|outlook|mail for|proton|samsung|the |a |gmail|phone|iphone|ipad|android|mail\.ru|yandex"
    r"|windows)|get outlook for|sent via|sent with |sent using |download outlook"
    r"|отправлено с |отправлено из |отправлено через |отправлено мобильн|скачать outlook|получить outlook|получите outlook"
    r"|с уважением, отправлено с "
    r"|\S*(?:'|’)?[uüıi]?m?(?:dan|den|tan|ten) gönderildi|.{0,40} (?:üzerinden|uygulamasından|tarafından|cihazımdan|"
    r"telefonumdan|tabletimden) gönderildi|(?:ios|android) için outlook|outlook'u edinin|"
    r"yahoo mail|android için outlook"
    r"|von meine[mr] .{1,40} gesendet|gesendet von |gesendet mit |diese nachricht wurde von meinem .{1,60} gesendet"
    r"|holen sie sich outlook|laden sie outlook|outlook für (?:ios|android)"
    r"|envoyé de mon |envoyé depuis |envoyé à partir |envoyé avec |obtenez outlook|obtenir outlook|télécharge[rz] outlook"
    r"|enviado desde (?:mi |el |un |mail|outlook|yahoo)|enviado con |obtener outlook|obtén outlook|descargar outlook"
    r"|enviado d[oe] meu |inviato da |verzonden vanaf )",
    re.IGNORECASE,
)
_MOBILE_LENGTH_MAX: Final = 120
_SIGNATURE_LINES_MAX: Final = 15
_HEADER_LINES_MAX: Final = 6
_RULE_LINE: Final = re.compile(r"\s*[_\-—*]*\s*")
_DIGIT: Final = re.compile(r"\d")


def is_forward(subject: str) -> bool:
    """Whether a subject says that the mail was passed on (`Fwd:`, `WG:`, `TR:`, `İLT:` …), and not answered."""
    return _FORWARD_SUBJECT.match(subject) is not None


def _is_attribution(lines: Sequence[str], index: int) -> int:
    """Return how many lines from `index` are an attribution (`On … wrote:`), which clients break over up to three."""
    joined = ""
    for count in range(1, 4):
        if index + count > len(lines):
            return 0
        line = lines[index + count - 1].strip()
        if not line or line[0] == ">":
            return 0
        joined = f"{joined} {line}" if joined else line
        if len(joined) > LINE_LOOKED_AT_MAX:
            return 0
        if joined[-1] in ":：" and any(pattern.match(joined) for pattern in _ATTRIBUTIONS):
            # "On Monday you wrote:" introduces the writer's own words as well; a date has figures.
            is_sure = _DIGIT.search(joined) is not None or _quoted_follows(lines, index + count)
            return count if is_sure else 0
    return 0


def _is_header_block(lines: Sequence[str], index: int) -> bool:
    if ":" not in lines[index][:40] or not _HEADER_FIRST.match(lines[index][:LINE_LOOKED_AT_MAX]):
        return False
    following = [line for line in lines[index + 1 : index + 8] if line.strip()][:_HEADER_LINES_MAX]
    return sum(bool(_HEADER_NEXT.match(line[:LINE_LOOKED_AT_MAX])) for line in following) >= 2


def _quoted_follows(lines: Sequence[str], index: int) -> bool:
    for line in lines[index : index + 4]:
        if line.strip():
            return line.lstrip().startswith(">")
    return False


def _without_rules(kept: list[str]) -> list[str]:
    """Drop the lines of dashes and the empty ones at the end, which part an answer from what follows it."""
    while kept and _RULE_LINE.fullmatch(kept[-1][:LINE_LOOKED_AT_MAX]):
        kept.pop()
    return kept


def _is_forward_line(line: str) -> bool:
    return line.rstrip()[-1:] in ("-", ":") and _FORWARD_SEPARATOR.match(line) is not None


def _without_quotes(lines: Sequence[str], marks: Sequence[Mark]) -> tuple[list[str], list[str]]:
    """Return the writer's lines, and what they passed on below them, which is kept as it stands."""
    kept: list[str] = []
    has_said = False
    index = 0
    while index < len(lines):
        line = lines[index]
        mark = marks[index] if marks else Mark.OWN
        if mark is Mark.QUOTE or line[:1] == ">":
            index += 1
            continue
        looked_at = line[:LINE_LOOKED_AT_MAX]
        if _is_forward_line(looked_at):
            return kept, list(lines[index:])
        stripped = looked_at.lstrip()
        if mark in (Mark.SIGNATURE, Mark.ATTRIBUTION) or stripped[:1] == ">":
            index += 1
            continue
        if not stripped:
            kept.append(line)
            index += 1
            continue
        if mark is Mark.CUT and has_said:
            return _without_rules(kept), []
        count = _is_attribution(lines, index)
        if count:
            if (
                not _quoted_follows(lines, index + count)
                and has_said
                and not _has_later(marks, index)
            ):
                return kept, []
            index += count
            continue
        is_cut = stripped[0] == "-" and _REPLY_SEPARATOR.match(looked_at) is not None
        if is_cut and not has_said:
            return list(lines), []  # Nothing but a mail passed on: what it carries is the message.
        if has_said and (is_cut or _is_header_block(lines, index)):
            return _without_rules(kept), []
        kept.append(line)
        has_said = True
        index += 1
    return kept, []


def _has_later(marks: Sequence[Mark], index: int) -> bool:
    """Whether markup tells what is quoted below: then words alone do not cut."""
    return bool(marks) and any(mark is Mark.QUOTE for mark in marks[index : index + 6])


def _without_signature(lines: list[str]) -> list[str]:
    for index, line in enumerate(lines):
        if line[:2] != "--":
            continue
        is_delimiter = line == "-- " or (
            line.rstrip() == "--" and len(lines) - index <= _SIGNATURE_LINES_MAX
        )
        if is_delimiter and any(one.strip() for one in lines[:index]):
            lines = lines[:index]
            break
    last = len(lines)
    while last and (
        not lines[last - 1].strip()
        or (len(lines[last - 1]) <= _MOBILE_LENGTH_MAX and _MOBILE.match(lines[last - 1]))
    ):
        last -= 1
    return _without_rules(lines[:last]) if last < len(lines) else lines


def new_lines(lines: Sequence[str], marks: Sequence[Mark] = (), *, is_forward: bool = False) -> str:
    """Return what the writer added this time out of the lines of a text; `marks`, where given, has one for each line.

    With `is_forward` the mail was passed on, and all of it counts. A mail that holds nothing new is returned whole.
    """
    whole = "\n".join(lines).strip()
    if is_forward:
        return whole
    said, passed_on = _without_quotes(lines, marks)
    if passed_on:
        kept = [*said, *passed_on]
    else:
        kept = _without_signature(said)
    found = _EMPTY_LINES.sub("\n\n", "\n".join(kept)).strip("\n").rstrip()
    return found if found.strip() else whole


_EMPTY_LINES: Final = re.compile(r"\n{3,}")


def new_text(text: str, *, is_forward: bool = False) -> str:
    """Return what the writer added this time: without quoted mail, attributions and signatures.

    Answers between the quotes are kept, and so is what somebody passes on. A mail that holds nothing else is returned
    whole.
    """
    return new_lines(text.split("\n"), is_forward=is_forward)
