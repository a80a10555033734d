"""Other people's words made safe to put into a mail: no control characters, no forged lines, no endless lengths.

A header value with a line break in it is another header (CVE-2024-6923 shows how an encoded subject carries one), a
bidirectional override shows one address and means another, and a lone surrogate cannot be stored or sent.
"""

import re
import unicodedata

LINE_LENGTH_MAX = 200
NAME_LENGTH_MAX = 40
TEXT_LENGTH_MAX = 100_000

_LINE_BREAKS = re.compile("\r\n|[\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029]")
_REPLY_PREFIX = re.compile(
    r"(?:(?:re|ynt|yan|отв|ответ|на|aw|sv)\s*(?:\[\d{1,3}\])?\s*:\s*)", re.IGNORECASE
)
_NOT_A_NAME = re.compile(r"[@/\\<>{}\[\]|#%$=*&_~^\d:;!?\"。．｡]|www\.|\.\w{2}")
_CATEGORIES_REFUSED = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
_JOINERS = frozenset("\u200c\u200d")
"""Zero-width (non-)joiner: formally `Cf`, and needed to spell names and draw emoji."""


def _printable(line: str) -> str:
    if line.isprintable():  # Nearly always, and a hundred times faster.
        return line
    return "".join(
        char
        for char in line
        if char in _JOINERS or unicodedata.category(char) not in _CATEGORIES_REFUSED
    )


def clean_line(value: str, limit: int = LINE_LENGTH_MAX) -> str:
    """Return `value` as one printable line of at most `limit` characters, spaces collapsed."""
    spaced = _LINE_BREAKS.sub(" ", value[: limit * 8]).replace("\t", " ")
    line = " ".join(_printable(spaced).split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def clean_text(value: str, limit: int = TEXT_LENGTH_MAX) -> str:
    """Return `value` as printable lines ended by LF, of at most `limit` characters in all."""
    lines = _LINE_BREAKS.split(value[:limit])
    return "\n".join(
        "\t".join(_printable(cell) for cell in line.split("\t")).rstrip() for line in lines
    ).strip("\n")


def reply_subject(subject: str) -> str:
    """Return `Re: …` with the prefixes that earlier replies put before it taken off; empty stays empty."""
    rest = clean_line(subject)
    while found := _REPLY_PREFIX.match(rest):
        rest = rest[found.end() :].lstrip()
    return f"Re: {rest}" if rest else ""


def greeting_name(name: str) -> str:
    """Return the name to greet with, or an empty string where it is no name one could say aloud.

    "Lovelace, Ada" is turned round. Addresses, links, digits and slogans are no names: a form that anybody can fill
    in with anybody's address must not carry a stranger's message in our greeting.
    """
    line = clean_line(name, NAME_LENGTH_MAX * 2).strip("'\" .,-")
    last, comma, first = line.partition(",")
    if comma:
        line = f"{first.strip()} {last.strip()}".strip()
    is_name = (
        0 < len(line) <= NAME_LENGTH_MAX
        and len(line.split()) <= 4
        and "," not in line
        and not _NOT_A_NAME.search(line)
        and any(char.isalpha() for char in line)
    )
    return line if is_name else ""
