"""From what arrived to what can be read: clean values, and text out of HTML. The words written this time: `quotes`.

Everything here takes text that somebody else wrote and may have written with intent. All of it is linear in its input
and bounded.
"""

import re
import unicodedata
from html import unescape
from typing import Final

from services.ingest.core.quotes import Mark, new_text

__all__ = [
    "HEADER_LENGTH_MAX",
    "QUOTE_CLASSES",
    "QUOTE_IDS",
    "TEXT_LENGTH_MAX",
    "clean_lines",
    "clean_text",
    "clean_value",
    "fold",
    "html_lines",
    "html_to_text",
    "new_text",
]

HEADER_LENGTH_MAX: Final = 998
"""Characters of a header value kept (RFC 5322, 2.1.1: the longest line)."""

TEXT_LENGTH_MAX: Final = 100_000
"""Characters of a message's text kept; the raw delivery keeps all."""

_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_TEXT_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_TO_MEND = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_SURROGATES = re.compile("[\ud800-\udfff]")


def clean_value(value: str, length: int = HEADER_LENGTH_MAX) -> str:
    """Return a one-line value that can stand in a header: no control characters, no line separators, bounded."""
    if len(value) <= length and value.isprintable() and "  " not in value:
        return value.strip()  # The only space that counts as printable is the plain one.
    shown = _SURROGATES.sub("\ufffd", _CONTROLS.sub(" ", value[: length * 4]))
    return " ".join(shown.split())[:length]


def clean_text(text: str, length: int = TEXT_LENGTH_MAX) -> str:
    """Return a text of lines: line feeds only, no control characters but tab, no lone surrogates, bounded."""
    lines = text[: length * 2]
    if _TO_MEND.search(lines) is not None:
        lines = lines.replace("\r\n", "\n").replace("\r", "\n")
        lines = lines.replace("\u2028", "\n").replace("\u2029", "\n\n").replace("\x0c", "\n")
        lines = _SURROGATES.sub("\ufffd", _TEXT_CONTROLS.sub("", lines))
    return lines.strip("\n").rstrip()[:length]


def clean_lines(lines: list[str]) -> list[str]:
    """Return lines that hold what `clean_text` leaves, as many as were given."""
    if _TO_MEND.search("\n".join(lines)) is None:
        return lines
    return [clean_text(line).replace("\n", " ") for line in lines]


# ------------------------------------------------------------------------------------ HTML → text

_BLOCKS = frozenset({
    "address", "article", "aside", "blockquote", "center", "dd", "div", "dl", "dt", "fieldset", "figure", "footer",
    "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "li", "main", "nav", "ol", "p", "pre", "section",
    "table", "tbody", "tfoot", "thead", "tr", "ul",
})  # fmt: skip
_SPACED = frozenset({"p", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "table", "blockquote"})
_SILENT = frozenset({"script", "style", "head", "title", "template", "noscript"})
_VOID = frozenset(
    {"br", "hr", "img", "meta", "link", "input", "col", "wbr", "area", "base", "source"}
)
_INLINE = frozenset({"a", "b", "em", "font", "i", "small", "span", "strong", "sub", "sup", "u"})
QUOTE_DEPTH_MAX: Final = 10
MARKED_DEPTH_MAX: Final = 50

QUOTE_CLASSES: Final = {
    "gmail_attr": Mark.ATTRIBUTION,
    "moz-cite-prefix": Mark.ATTRIBUTION,
    "yahoo_quoted": Mark.CUT,
    "protonmail_quote": Mark.QUOTE,
    "tutanota_quote": Mark.QUOTE,
    "zmail_extra": Mark.CUT,
    "OutlookMessageHeader": Mark.CUT,
    "ms-outlook-mobile-reference-message": Mark.CUT,
    "gmail_signature": Mark.SIGNATURE,
    "moz-signature": Mark.SIGNATURE,
    "protonmail_signature_block": Mark.SIGNATURE,
    "yahoo-signature": Mark.SIGNATURE,
}
"""Classes by which mail programs mark what is quoted and what is a signature, and what each says."""

QUOTE_IDS: Final = {
    "divRplyFwdMsg": Mark.CUT,
    "appendonsend": Mark.CUT,
    "mail-editor-reference-message-container": Mark.CUT,
    "OLK_SRC_BODY_SECTION": Mark.CUT,
    "replySplit": Mark.CUT,
    "reply-intro": Mark.ATTRIBUTION,
    "Signature": Mark.SIGNATURE,
    "signature": Mark.SIGNATURE,
    "ms-outlook-mobile-signature": Mark.SIGNATURE,
    "AppleMailSignature": Mark.SIGNATURE,
}
"""The same for ids."""

_MARKER: Final = re.compile(r"""\b(class|id)\s*=\s*["']?([^"'>]{1,200})""", re.IGNORECASE)
_TOKEN: Final = re.compile(
    r"<(?:!--|[!?][^>]*+>|(/?)([a-zA-Z][a-zA-Z0-9]*+)([^>]*+)>|/[^>]*+>)|([^<]++|<)"
)


def _mark_of(attributes: str) -> Mark | None:
    for kind, value in _MARKER.findall(attributes):
        if kind.lower() == "id":
            mark = QUOTE_IDS.get(value.strip())
        else:
            mark = next(
                (QUOTE_CLASSES[name] for name in value.split() if name in QUOTE_CLASSES), None
            )
        if mark is not None:
            return mark
    return None


class _TextMaker:
    """Makes lines of the tags and texts that it is told of, in order; each line with a mark."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.marks: list[Mark] = []
        self._line: list[str] = []
        self._quotes = 0
        self._pre = 0
        self._depth = 0
        self._blank = False
        self._is_cut = False
        self._open: dict[str, int] = {}
        self._marked: list[tuple[str, int, Mark]] = []

    def _mark(self) -> Mark:
        if self._is_cut:
            return Mark.CUT
        if self._quotes:
            return Mark.QUOTE
        return self._marked[-1][2] if self._marked else Mark.OWN

    def _append(self, line: str) -> None:
        self.lines.append(line)
        self.marks.append(self._mark())

    def line_break(self, *, blank: bool = False) -> None:
        """End the line; with `blank`, an empty one follows before the next text."""
        if self._line:
            text = "".join(self._line)
            text = text.rstrip() if self._pre else " ".join(text.split())
            self._line = []
            if text:
                depth = min(self._quotes, QUOTE_DEPTH_MAX)
                if self._blank and self.lines:
                    self._append(("> " * min(depth, self._depth)).rstrip())
                self._append("> " * depth + text if depth else text)
                self._depth, self._blank = depth, False
        if blank:
            self._blank = True

    def start(self, tag: str, attributes: str) -> None:
        """Take an opening tag."""
        if tag == "br":
            is_empty = not "".join(self._line).strip()
            self.line_break()
            if is_empty:
                self.line_break(blank=True)
            return
        if tag in _INLINE and not attributes and not self._marked:
            return
        if tag in ("td", "th"):
            self._line.append(" ")
            return
        if tag in _BLOCKS:
            self.line_break(blank=tag in _SPACED)
            if tag == "blockquote":
                self._quotes += 1
            elif tag == "pre":
                self._pre += 1
            elif tag == "li":
                self._line.append("- ")
        if tag not in _VOID and (attributes or self._marked):
            self._note(tag, attributes)

    def _note(self, tag: str, attributes: str) -> None:
        opened = self._open[tag] = self._open.get(tag, 0) + 1
        mark = _mark_of(attributes) if attributes else None
        if mark is not None and len(self._marked) < MARKED_DEPTH_MAX:
            self.line_break()
            if mark is Mark.CUT:
                self._is_cut = True
            else:
                self._marked.append((tag, opened, mark))

    def end(self, tag: str) -> None:
        """Take a closing tag."""
        if tag in _BLOCKS:
            self.line_break(blank=tag in _SPACED)
            if tag == "blockquote":
                self._quotes = max(0, self._quotes - 1)
            elif tag == "pre":
                self._pre = max(0, self._pre - 1)
        if self._marked:
            opened = self._open.get(tag, 0)
            if self._marked[-1][0] == tag and opened <= self._marked[-1][1]:
                self.line_break()
                self._marked.pop()
            self._open[tag] = max(0, opened - 1)

    def text(self, text: str) -> None:
        """Take text, its character references not yet resolved."""
        if "&" in text:
            text = unescape(text)
        if self._pre:
            first, *rest = text.split("\n")
            self._line.append(first)
            for line in rest:
                self.line_break()
                self._line.append(line)
        elif self._line or not text.isspace():
            self._line.append(text)


def html_lines(html: str) -> tuple[list[str], list[Mark]]:
    """Return the lines of an HTML text with their marks; quotes become `> ` lines.

    Reads HTML that an HTML5 parser has made well-formed, and any other as far as it goes. One pass, no recursion.
    """
    maker = _TextMaker()
    lowered = ""
    # Each `<` before the last `>` finds its end, so that none is looked for over and over.
    end = html.rfind(">") + 1
    at = 0
    while at < end:
        jump = -1
        for token in _TOKEN.finditer(html, at, end):
            closing, tag, attributes, text = token.groups()
            if text is not None:
                maker.text(text)
                continue
            if tag is None:
                if token.group() == "<!--":
                    shut = html.find("-->", token.end(), end)
                    jump = end if shut < 0 else shut + 3
                    break
                continue
            tag = tag.lower()
            if closing:
                maker.end(tag)
            elif tag in _SILENT:
                lowered = lowered or html.lower()
                # Lower case of a few letters is longer, so that places differ: then look in the text itself.
                source = lowered if len(lowered) == len(html) else html
                shut = source.find(f"</{tag}", token.end(), end)
                jump = end if shut < 0 else shut
                break
            else:
                maker.start(tag, attributes)
        at = jump if jump >= 0 else end
    maker.text(html[end:])
    maker.line_break()
    return maker.lines, maker.marks


def html_to_text(html: str) -> str:
    """Return the text of HTML; quotes become `> ` lines."""
    return clean_text("\n".join(html_lines(html)[0]))


_FOLDED: Final = str.maketrans("ıçğöşü", "icgosu")


def fold(text: str) -> str:
    """Return a text in the form in which markers are compared: NFKC, lower case, Turkish letters without their marks."""
    return unicodedata.normalize("NFKC", text).replace("İ", "i").lower().translate(_FOLDED)
