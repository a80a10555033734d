"""What a template says as text, taken apart into blocks: paragraphs, lists, buttons and quotations.

Templates write text. The text part of a notice is that text; the HTML part is the same blocks in one layout. So both say the
same, and no template but the layout ever writes a tag. Blocks that text has no sign for are put between control characters,
which no fact can hold: facts are cleaned of them first.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from services.notifier.core.text import clean_line, clean_text

LINK_LENGTH_MAX: Final = 2_000
PREHEADER_LENGTH_MAX: Final = 110
"""What mail programs show after a subject, at most; what is longer would be cut anywhere."""

_BEGIN, _BETWEEN, _END = "\x02", "\x1f", "\x03"
_MARK: Final = re.compile(
    f"{_BEGIN}([BQ]){_BETWEEN}([^{_BEGIN}{_END}{_BETWEEN}]*)(?:{_BETWEEN}([^{_BEGIN}{_END}{_BETWEEN}]*))?{_END}"
)
_QUOTE: Final = re.compile(f"({_BEGIN}Q{_BETWEEN}[^{_BEGIN}{_END}]*{_END})")
_PARAGRAPHS: Final = re.compile(r"\n[ \t]*\n+")
_BLANK_LINES: Final = re.compile(r"\n{3,}")
_LINK: Final = re.compile(r"https?://[A-Za-z0-9\[][^\s<>\"'\\^`{|}]*")


@dataclass(frozen=True, slots=True)
class Link:
    """A label and where it leads, `https` or `http`."""

    label: str
    url: str


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of a notice. `text`: a paragraph of `lines`; `list`: one item a line; `quote`: words of a person; `buttons`: `links`."""

    kind: Literal["text", "list", "quote", "buttons"]
    lines: tuple[str, ...] = ()
    links: tuple[Link, ...] = ()


def clean_link(url: str) -> str:
    """Return `url` if a mail may link to it, else an empty string: no `javascript:`, no blanks, no quotes, ASCII only."""
    line = url.strip()
    is_link = len(line) <= LINK_LENGTH_MAX and line.isascii() and _LINK.fullmatch(line) is not None
    return line if is_link else ""


def button(label: str, url: str) -> str:
    """Mark a link that stands alone: a button in HTML, `label: address` in text. Without an address it is its label."""
    link = clean_link(str(url))
    if not link:
        return clean_line(str(label))
    return f"{_BEGIN}B{_BETWEEN}{clean_line(str(label))}{_BETWEEN}{link}{_END}"


def quote(text: str) -> str:
    """Mark what a person wrote for this notice, so that it is set apart."""
    words = clean_text(str(text))
    return f"{_BEGIN}Q{_BETWEEN}{words}{_END}" if words.strip() else ""


def as_text(raw: str, limit: int) -> str:
    """Return what a template said as plain text of at most `limit` characters, without blank lines in a row."""
    plain = _MARK.sub(_plain, raw)
    return _BLANK_LINES.sub("\n\n", clean_text(plain, limit))


def blocks_of(raw: str) -> tuple[Block, ...]:
    """Return the blocks of what a template said, in order."""
    return tuple(_blocks(raw))


def preheader_of(blocks: tuple[Block, ...]) -> str:
    """Return the beginning of the first paragraph without its links, cut between two words."""
    for block in blocks:
        if block.kind in {"text", "quote"}:
            said = [line for line in block.lines if "://" not in line]
            line = clean_line(" ".join(said), PREHEADER_LENGTH_MAX * 2)
            if len(line) <= PREHEADER_LENGTH_MAX:
                return line
            return line[:PREHEADER_LENGTH_MAX].rpartition(" ")[0].rstrip(",;:–") + " …"
    return ""


def _plain(found: re.Match[str]) -> str:
    kind, first, second = found.groups()
    if kind != "B" or not second:
        return first
    return (
        f"{first} {second}" if first.endswith(("?", "!", ".", ":", "…")) else f"{first}: {second}"
    )


def _blocks(raw: str) -> Iterator[Block]:
    for piece in _QUOTE.split(raw):
        quoted = _MARK.fullmatch(piece)
        if quoted is not None and quoted[1] == "Q":
            for paragraph in _PARAGRAPHS.split(clean_text(quoted[2])):
                yield Block("quote", tuple(paragraph.split("\n")))
            continue
        for paragraph in _PARAGRAPHS.split(piece):
            yield from _paragraph(tuple(line for line in paragraph.strip("\n").split("\n")))


def _paragraph(lines: tuple[str, ...]) -> Iterator[Block]:
    if not any(line.strip() for line in lines):
        return
    marks = [_MARK.fullmatch(line.strip()) for line in lines]
    links = tuple(
        Link(mark[2], mark[3]) for mark in marks if mark is not None and mark[1] == "B" and mark[3]
    )
    if len(links) == len(lines):
        yield Block("buttons", links=links)
        return
    clean = tuple(clean_text(_MARK.sub(_plain, line)) for line in lines)
    if all(line.startswith("- ") for line in clean):
        yield Block("list", tuple(line[2:] for line in clean))
        return
    yield Block("text", clean)
