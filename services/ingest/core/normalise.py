"""From what arrived to what can be read: clean values, text out of HTML, and the words written this time.

Everything here takes text that somebody else wrote and may have written with intent. All of it is linear in its input
and bounded: lines longer than `LINE_LOOKED_AT_MAX` are compared by their beginning only.
"""

import re
import unicodedata
from collections.abc import Sequence
from html.parser import HTMLParser
from typing import Final

HEADER_LENGTH_MAX: Final = 998
"""Characters of a header value kept (RFC 5322, 2.1.1: the longest line)."""

TEXT_LENGTH_MAX: Final = 100_000
"""Characters of a message's text kept; the raw delivery keeps all."""

LINE_LOOKED_AT_MAX: Final = 400

_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_TEXT_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_SURROGATES = re.compile("[\ud800-\udfff]")


def clean_value(value: str, length: int = HEADER_LENGTH_MAX) -> str:
    """Return a one-line value that can stand in a header: no control characters, no line separators, bounded."""
    shown = _SURROGATES.sub("\ufffd", _CONTROLS.sub(" ", value[: length * 4]))
    return " ".join(shown.split())[:length]


def clean_text(text: str, length: int = TEXT_LENGTH_MAX) -> str:
    """Return a text of lines: line feeds only, no control characters but tab, no lone surrogates, bounded."""
    lines = text[: length * 2].replace("\r\n", "\n").replace("\r", "\n")
    lines = lines.replace("\u2028", "\n").replace("\u2029", "\n\n").replace("\x0c", "\n")
    shown = _SURROGATES.sub("\ufffd", _TEXT_CONTROLS.sub("", lines))
    return shown.strip("\n").rstrip()[:length]


# ------------------------------------------------------------------------------------ HTML → text

_BLOCKS = frozenset({
    "address", "article", "aside", "blockquote", "center", "dd", "div", "dl", "dt", "fieldset", "figure", "footer",
    "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "li", "main", "nav", "ol", "p", "pre", "section",
    "table", "tbody", "tfoot", "thead", "tr", "ul",
})  # fmt: skip
_SPACED = frozenset({"p", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "table", "blockquote"})
_SILENT = frozenset({"script", "style", "head", "title", "template", "noscript"})
QUOTE_DEPTH_MAX: Final = 10


class _TextMaker(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.lines: list[str] = []
        self._line: list[str] = []
        self._quotes = 0
        self._silent = 0
        self._pre = 0
        self._depth = 0
        self._blank = False

    def _break(self, blank: bool = False) -> None:
        text = "".join(self._line)
        text = text.rstrip() if self._pre else " ".join(text.split())
        self._line = []
        depth = min(self._quotes, QUOTE_DEPTH_MAX)
        if text:
            if self._blank and self.lines:
                self.lines.append(("> " * min(depth, self._depth)).rstrip())
            self.lines.append("> " * depth + text)
            self._depth, self._blank = depth, False
        self._blank = self._blank or blank

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del attrs
        if tag in _SILENT:
            self._silent += 1
        elif tag == "br":
            text = "".join(self._line)
            self._break()
            if not text.strip():
                self._break(blank=True)
        elif tag in {"td", "th"}:
            self._line.append(" ")
        elif tag in _BLOCKS:
            self._break(blank=tag in _SPACED)
            if tag == "blockquote":
                self._quotes += 1
            elif tag == "pre":
                self._pre += 1
            elif tag == "li":
                self._line.append("- ")

    def handle_endtag(self, tag: str) -> None:
        if tag in _SILENT:
            self._silent = max(0, self._silent - 1)
        elif tag in _BLOCKS:
            self._break(blank=tag in _SPACED)
            if tag == "blockquote":
                self._quotes = max(0, self._quotes - 1)
            elif tag == "pre":
                self._pre = max(0, self._pre - 1)

    def handle_data(self, data: str) -> None:
        if self._silent:
            return
        if self._pre:
            first, *rest = data.split("\n")
            self._line.append(first)
            for line in rest:
                self._break()
                self._line.append(line)
        else:
            self._line.append(data)

    def finish(self) -> str:
        """Return the text read so far."""
        self.close()
        self._break()
        return "\n".join(self.lines)


def html_to_text(html: str) -> str:
    """Return the text of HTML that an HTML5 parser has already made well-formed; quotes become `> ` lines."""
    maker = _TextMaker()
    maker.feed(html)
    return clean_text(re.sub(r"\n{3,}", "\n\n", maker.finish()))


# ---------------------------------------------------------------------------- the words of this time

_WEEKDAY_RU = (
    r"(?:пн|вт|ср|чт|пт|сб|вс|понедельник|вторник|среда|четверг|пятница|суббота|воскресенье)"
)
_ATTRIBUTIONS: Final = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        # Gmail, Apple Mail, Thunderbird: On … wrote:
        r"^(?:on|am|le|el)\b.{6,300}\b(?:wrote|schrieb|écrit|escribió)\b.{0,120}:$",
        r"^.{3,200}<[^<>@\s]+@[^<>\s]+>\s*(?:wrote|schrieb|a écrit)\s*:$",
        # tr: … tarihinde … şunu yazdı:
        r"^.{4,300}\b(?:şunları|şunu|şöyle)\s+yazdı\s*:$",
        r"^.{4,300}\btarihinde\b.{0,200}\b(?:yazdı|yazmış)\s*:$",
        # ru: Gmail (вт, 24 нояб. 2026 г. в 08:04, …:), Apple (… написал(а):)
        r"^.{4,300}\b(?:написал|написала|написал\(а\)|пишет)\s*:$",
        rf"^{_WEEKDAY_RU}\.?,\s+\d{{1,2}}\b.{{4,200}}<[^<>\s]+@[^<>\s]+>\s*:$",
        # Mail.ru: Вторник, 24 ноября 2026, 8:15 +03:00 от Игорь <…>:
        r"^.{4,120}\d{1,2}:\d{2}.{0,40}\b(?:от|from)\b.{1,200}<?[^<>\s]+@[^<>\s]+>?\s*:$",
        # Yandex: 24.11.2026, 09:03, "Name" <…>:
        r"^\d{1,2}[./]\d{1,2}[./]\d{2,4},?\s+(?:в\s+)?\d{1,2}:\d{2}(?::\d{2})?,?\s.{1,200}<?[^<>\s]+@[^<>\s]+>?\s*:$",
    )
)
_SEPARATORS: Final = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"^\s*-{2,}\s*(?:original message|original appointment|reply message)\s*-{2,}\s*$",
        r"^\s*-{2,}\s*(?:исходное сообщение|оригинальное сообщение|первоначальное сообщение)\s*-{2,}\s*$",
        r"^\s*-{2,}\s*(?:özgün ileti|orijinal ileti|orijinal mesaj|özgün mesaj)\s*-{2,}\s*$",
        r"^\s*-{2,}\s*(?:ursprüngliche nachricht|message d'origine|mensaje original)\s*-{2,}\s*$",
        r"^\s*-{4,}\s*(?:forwarded message|пересылаемое сообщение|iletilen ileti|yönlendirilen mesaj)\s*-*\s*$",
        r"^\s*(?:begin forwarded message|начало переадресованного сообщения|iletilen ileti başlangıcı)\s*:\s*$",
    )
)
_HEADER_FIRST: Final = re.compile(
    r"^\s*\*?(?:from|от|кому|kimden|gönderen|von|de)\s*:\*?\s*\S", re.IGNORECASE
)
_HEADER_NEXT: Final = re.compile(
    r"^\s*\*?(?:sent|date|to|subject|cc|отправлено|дата|кому|тема|копия|gönderildi|gönderilme|gönderme tarihi|tarih|kime"
    r"|konu|bilgi|gesendet|an|betreff|envoyé|à|objet|enviado|para|asunto)\s*:\*?",
    re.IGNORECASE,
)
_MOBILE: Final = re.compile(
    r"^\s*(?:sent from (?:my |yahoo|outlook|mail for|proton|samsung)|get outlook for|sent via|"
    r"отправлено с (?:моего )?|отправлено из |отправлено через |"
    r"\S*(?:'|’)?[uüıi]?m?(?:dan|den|tan|ten) gönderildi|.{0,40} (?:üzerinden|uygulamasından) gönderildi|"
    r"yahoo mail|android için outlook)",
    re.IGNORECASE,
)
_SIGNATURE_LINES_MAX: Final = 15


def _is_attribution(lines: Sequence[str], index: int) -> int:
    """Return how many lines from `index` are an attribution (`On … wrote:`), which clients break over up to three."""
    joined = ""
    for count in range(1, 4):
        if index + count > len(lines):
            return 0
        line = lines[index + count - 1].strip()
        if not line or line.startswith(">"):
            return 0
        joined = f"{joined} {line}".strip()
        if len(joined) > LINE_LOOKED_AT_MAX:
            return 0
        if joined.endswith(":") and any(pattern.match(joined) for pattern in _ATTRIBUTIONS):
            return count
    return 0


def _is_header_block(lines: Sequence[str], index: int) -> bool:
    if not _HEADER_FIRST.match(lines[index][:LINE_LOOKED_AT_MAX]):
        return False
    following = [line for line in lines[index + 1 : index + 6] if line.strip()]
    return sum(bool(_HEADER_NEXT.match(line[:LINE_LOOKED_AT_MAX])) for line in following) >= 2


def _quoted_follows(lines: Sequence[str], index: int) -> bool:
    for line in lines[index : index + 4]:
        if line.strip():
            return line.lstrip().startswith(">")
    return False


def _without_quotes(lines: Sequence[str]) -> list[str]:
    kept: list[str] = []
    index = 0
    while index < len(lines):
        line = lines[index]
        has_said = any(one.strip() for one in kept)
        if line.lstrip().startswith(">"):
            index += 1
            continue
        count = _is_attribution(lines, index)
        if count:
            if not _quoted_follows(lines, index + count) and has_said:
                return kept
            index += count
            continue
        looked_at = line[:LINE_LOOKED_AT_MAX]
        is_cut = any(pattern.match(looked_at) for pattern in _SEPARATORS)
        if is_cut and not has_said:
            return list(lines)  # A bare forward: what it carries is the message.
        if has_said and (is_cut or _is_header_block(lines, index)):
            while kept and re.fullmatch(r"\s*[_\-]*\s*", kept[-1][:LINE_LOOKED_AT_MAX]):
                kept.pop()
            return kept
        kept.append(line)
        index += 1
    return kept


def _without_signature(lines: list[str]) -> list[str]:
    for index, line in enumerate(lines):
        is_delimiter = line == "-- " or (
            line.rstrip() == "--" and len(lines) - index <= _SIGNATURE_LINES_MAX
        )
        if is_delimiter and any(one.strip() for one in lines[:index]):
            lines = lines[:index]
            break
    while lines and (
        not lines[-1].strip()
        or (_MOBILE.match(lines[-1][:LINE_LOOKED_AT_MAX]) and len(lines[-1]) <= 120)
    ):
        lines = lines[:-1]
    return lines


def new_text(text: str) -> str:
    """Return what the writer added this time: without quoted mail, attributions and signatures.

    Knows the ways of Gmail, Outlook, Apple Mail, Yandex and Mail.ru in English, Turkish and Russian. Answers between the
    quotes are kept. A mail that holds nothing else (a bare forward) is returned whole.
    """
    lines = text.split("\n")
    kept = _without_signature(_without_quotes(lines))
    found = re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip("\n").rstrip()
    return found if found.strip() else text.strip()


_FOLDED: Final = str.maketrans("ıçğöşü", "icgosu")


def fold(text: str) -> str:
    """Return a text in the form in which markers are compared: NFKC, lower case, Turkish letters without their marks."""
    return unicodedata.normalize("NFKC", text).replace("İ", "i").lower().translate(_FOLDED)
