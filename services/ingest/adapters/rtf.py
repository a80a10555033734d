"""RTF as Outlook wraps it: unpacked, and made plain text or the HTML that it carries.

Sources of the outside facts: Microsoft's open specifications MS-OXRTFCP (compressed RTF) and MS-OXRTFEX (HTML carried
inside RTF). Bounded in what it unpacks and in how deep groups may stand in each other; formatting is passed over.
"""

import re
import struct
from dataclasses import dataclass, replace
from typing import Final

from services.ingest.adapters import charsets

BYTES_MAX: Final = 600_000
"""Bytes that are unpacked; the text in them is far less."""
DEPTH_MAX: Final = 200

_BEGINNING: Final = (
    b"{\\rtf1\\ansi\\mac\\deff0\\deftab720{\\fonttbl;}{\\f0\\fnil \\froman \\fswiss \\fmodern \\fscript "
    b"\\fdecor MS Sans SerifSymbolArialTimes New RomanCourier{\\colortbl\\red0\\green0\\blue0\r\n\\par "
    b"\\pard\\plain\\f0\\fs20\\b\\i\\u\\tab\\tx"
)
_STORED: Final = 0x414C454D
_PACKED: Final = 0x75465A4C
_TOKEN: Final = re.compile(
    rb"\\([a-z]{1,32})(-?\d{1,10})? ?|\\'([0-9a-fA-F]{2})|\\([^a-z])|([{}])|([^\\{}\r\n]+)",
    re.DOTALL,
)
_SILENT: Final = frozenset({
    b"fonttbl", b"colortbl", b"stylesheet", b"info", b"pict", b"object", b"header", b"footer", b"generator", b"themedata",
    b"listtable", b"listoverridetable", b"rsidtbl", b"xmlnstbl", b"datastore", b"latentstyles", b"colorschememapping",
})  # fmt: skip
_SYMBOLS: Final = {b"\\": b"\\", b"{": b"{", b"}": b"}", b"~": b" "}


def unpacked(data: bytes) -> bytes:
    """Return compressed RTF unpacked, as far as it can be and `BYTES_MAX` allows."""
    if len(data) < 16:
        return b""
    _, size, kind = struct.unpack_from("<III", data, 0)
    wanted = min(size, BYTES_MAX)
    if kind == _STORED:
        return data[16 : 16 + wanted]
    return _inflated(data, wanted) if kind == _PACKED else b""


def _inflated(data: bytes, wanted: int) -> bytes:
    window = bytearray(4096)
    window[: len(_BEGINNING)] = _BEGINNING
    write_at = len(_BEGINNING)
    made = bytearray()
    at = 16
    while at < len(data) and len(made) < wanted:
        control = data[at]
        at += 1
        for bit in range(8):
            if control & (1 << bit):
                reference = int.from_bytes(data[at : at + 2], "big")
                offset, length = reference >> 4, (reference & 0xF) + 2
                if at + 2 > len(data) or offset == write_at:
                    return bytes(made[:wanted])
                at += 2
            else:
                if at >= len(data):
                    return bytes(made[:wanted])
                window[write_at] = data[at]
                offset, length = write_at, 1
                at += 1
            for step in range(length):
                byte = window[(offset + step) & 0xFFF]
                made.append(byte)
                window[write_at] = byte
                write_at = (write_at + 1) & 0xFFF
    return bytes(made[:wanted])


@dataclass(slots=True)
class _Group:
    is_silent: bool = False
    is_markup: bool = False
    is_rtf_only: bool = False
    skip: int = 1

    @property
    def is_shown(self) -> bool:
        return not self.is_silent and not self.is_rtf_only


class _Shower:
    def __init__(self, *, is_html: bool) -> None:
        self.made: list[str] = []
        self._is_html = is_html
        self._code_page = "cp1252"
        self._pending = bytearray()
        self._groups = [_Group()]
        self._to_skip = 0
        self._is_starred = False

    def flush(self) -> None:
        """Make text of the bytes that wait."""
        if self._pending:
            self.made.append(charsets.decode(bytes(self._pending), self._code_page))
            self._pending.clear()

    def brace(self, which: bytes) -> bool:
        """Open or close a group; False where they stand too deep in each other."""
        self._is_starred = False
        if which == b"{":
            self._groups.append(replace(self._groups[-1]))
        elif len(self._groups) > 1:
            self._groups.pop()
        return len(self._groups) <= DEPTH_MAX

    def symbol(self, which: bytes) -> None:
        """Take a control symbol."""
        if which == b"*":
            self._is_starred = True
        elif self._groups[-1].is_shown:
            self._pending += _SYMBOLS.get(which, b"")

    def word(self, name: bytes, number: bytes | None) -> None:
        """Take a control word."""
        group = self._groups[-1]
        value = int(number) if number else 0
        if name == b"htmltag":
            group.is_markup, group.is_silent = True, not self._is_html
        elif name in _SILENT or self._is_starred:
            group.is_silent = True
        elif name == b"htmlrtf":
            group.is_rtf_only = self._is_html and number != b"0"
        elif name == b"ansicpg":
            self.flush()
            self._code_page = charsets.of_code_page(value)
        elif name == b"uc":
            group.skip = min(abs(value), 8)
        elif group.is_shown:
            self._shown_word(name, value, group)
        self._is_starred = False

    def _shown_word(self, name: bytes, value: int, group: _Group) -> None:
        if name == b"u":
            self.flush()
            point = value % 65_536
            self.made.append("\ufffd" if 0xD800 <= point < 0xE000 else chr(point))
            self._to_skip = group.skip
        elif name in (b"par", b"line") and not group.is_markup:
            self.flush()
            self.made.append("\n")
        elif name == b"tab":
            self._pending += b"\t"

    def data(self, data: bytes) -> None:
        """Take text; what only stands in for a character beyond the code page is passed over."""
        if self._groups[-1].is_shown:
            taken = data[self._to_skip :]
            self._to_skip = max(0, self._to_skip - len(data))
            self._pending += taken


def text(data: bytes) -> tuple[str, bool]:
    """Return the text of RTF, and whether it is HTML that was carried inside."""
    is_html = b"\\fromhtml" in data[:2_000]
    shower = _Shower(is_html=is_html)
    for found in _TOKEN.finditer(data):
        word, number, byte, symbol, brace, plain = found.groups()
        if brace is not None:
            if not shower.brace(brace):
                break
        elif word is not None:
            shower.word(word, number)
        elif symbol is not None:
            shower.symbol(symbol)
        else:
            shower.data(plain if plain is not None else bytes([int(byte, 16)]))
    shower.flush()
    return "".join(shower.made), is_html
