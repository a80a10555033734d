"""`winmail.dat`: the envelope in which Outlook and Exchange wrap a mail (TNEF), opened under limits.

Sources of the outside facts: Microsoft's open specifications MS-OXTNEF (the stream) and MS-OXCDATA (property types). Only what a reader needs is taken: the text and the
attachments. Every length is checked against what is there; a broken stream gives what came before the break.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from services.ingest.adapters import charsets, rtf
from services.ingest.core.normalise import clean_value

SIGNATURE: Final = b"\x78\x9f\x3e\x22"
MEDIA_TYPES: Final = frozenset(
    {"application/ms-tnef", "application/vnd.ms-tnef", "application/x-tnef"}
)
FILE_NAME: Final = "winmail.dat"

ATTRIBUTES_MAX: Final = 2_000
PROPERTIES_MAX: Final = 2_000
VALUES_MAX: Final = 1_000
ATTACHMENTS_MAX: Final = 100

_SUBJECT: Final = 0x8004
_BODY: Final = 0x800C
_PROPERTIES: Final = 0x9003
_CODE_PAGE: Final = 0x9007
_ATTACHMENT_BEGINS: Final = 0x9002
_ATTACHMENT_TITLE: Final = 0x8010
_ATTACHMENT_DATA: Final = 0x800F
_ATTACHMENT_PROPERTIES: Final = 0x9005

_P_SUBJECT: Final = 0x0037
_P_BODY: Final = 0x1000
_P_RTF: Final = 0x1009
_P_HTML: Final = 0x1013
_P_CODE_PAGE: Final = 0x3FDE
_P_ATTACHMENT: Final = 0x3701
_P_FILE_NAME: Final = 0x3704
_P_LONG_NAME: Final = 0x3707
_P_MEDIA_TYPE: Final = 0x370E

_FIXED: Final = {
    0x0001: 4, 0x0002: 4, 0x0003: 4, 0x0004: 4, 0x0005: 8, 0x0006: 8, 0x0007: 8, 0x000A: 4, 0x000B: 4, 0x0014: 8,
    0x0040: 8, 0x0048: 16,
}  # fmt: skip
_VARIABLE: Final = frozenset({0x000D, 0x001E, 0x001F, 0x0102})


@dataclass(frozen=True, slots=True)
class File:
    """A file that was wrapped."""

    name: str
    media_type: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Unwrapped:
    """What was inside: text, or HTML, or both, or neither, and the files."""

    subject: str
    text: str
    html: str
    files: tuple[File, ...]


def is_tnef(media_type: str, name: str) -> bool:
    """Whether a part calls itself so."""
    return media_type in MEDIA_TYPES or name.lower() == FILE_NAME


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 6
    for _ in range(ATTRIBUTES_MAX):
        if at + 9 > len(data):
            return
        name, _, length = struct.unpack_from("<HHI", data, at + 1)
        start = at + 9
        if length > len(data) - start:
            return
        yield name, data[start : start + length]
        at = start + length + 2


class _Short(Exception):
    """The stream ends where something was announced."""


class _Cursor:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, length: int) -> bytes:
        """Return the next bytes, and pass the padding behind them (to a multiple of four)."""
        taken = self._data[self._at : self._at + length]
        if len(taken) < length:
            raise _Short
        self._at += (length + 3) & ~3
        return taken

    def number(self) -> int:
        """Return the next 32-bit number."""
        return int.from_bytes(self.take(4), "little")


def _pass_name(cursor: _Cursor) -> None:
    """Pass the name of a named property; none of those is wanted."""
    cursor.take(16)
    if cursor.number() == 0:
        cursor.number()
    else:
        cursor.take(cursor.number())


def _properties(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Return the properties that are there: id, type, and the first value's bytes."""
    cursor = _Cursor(data)
    try:
        for _ in range(min(cursor.number(), PROPERTIES_MAX)):
            tag = cursor.number()
            kind, name = tag & 0xFFFF, tag >> 16
            if name >= 0x8000:
                _pass_name(cursor)
            base = kind & 0x0FFF
            if base not in _FIXED and base not in _VARIABLE:
                return
            values = cursor.number() if kind & 0x1000 or base in _VARIABLE else 1
            if values > VALUES_MAX:
                return
            for number in range(values):
                value = cursor.take(cursor.number() if base in _VARIABLE else _FIXED[base])
                if number == 0:
                    yield name, base, value
    except _Short:
        return


def _string(kind: int, value: bytes, code_page: str) -> str:
    if kind == 0x001F:
        return value.decode("utf-16-le", "replace").rstrip("\x00")
    return charsets.decode(value.rstrip(b"\x00"), code_page)


class _Reader:
    def __init__(self) -> None:
        self.code_page = "cp1252"
        self.subject = ""
        self.text = ""
        self.html = ""
        self.rtf = b""
        self.files: list[File] = []
        self._name = ""
        self._media_type = ""
        self._data: bytes | None = None

    def finish_file(self) -> None:
        """Put the attachment read so far to the others."""
        if self._data is not None and len(self.files) < ATTACHMENTS_MAX:
            name = clean_value(self._name, 255).replace("\\", "/").rpartition("/")[2]
            media_type = clean_value(self._media_type, 100).lower()
            self.files.append(
                File(
                    name,
                    media_type if "/" in media_type else "application/octet-stream",
                    self._data,
                )
            )
        self._name, self._media_type, self._data = "", "", None

    def attribute(self, name: int, value: bytes) -> None:
        """Take one attribute of the stream."""
        if name == _CODE_PAGE and len(value) >= 4:
            self.code_page = charsets.of_code_page(struct.unpack_from("<I", value)[0])
        elif name == _SUBJECT:
            self.subject = self.subject or _string(0x001E, value, self.code_page)
        elif name == _BODY:
            self.text = self.text or _string(0x001E, value, self.code_page)
        elif name == _PROPERTIES:
            for prop, kind, data in _properties(value):
                self._of_message(prop, kind, data)
        elif name == _ATTACHMENT_BEGINS:
            self.finish_file()
        elif name == _ATTACHMENT_TITLE:
            self._name = self._name or _string(0x001E, value, self.code_page)
        elif name == _ATTACHMENT_DATA:
            self._data = value
        elif name == _ATTACHMENT_PROPERTIES:
            for prop, kind, data in _properties(value):
                self._of_attachment(prop, kind, data)

    def _of_message(self, prop: int, kind: int, data: bytes) -> None:
        if prop == _P_CODE_PAGE and len(data) >= 4:
            self.code_page = charsets.of_code_page(struct.unpack_from("<I", data)[0])
        elif prop == _P_SUBJECT:
            self.subject = self.subject or _string(kind, data, self.code_page)
        elif prop == _P_BODY:
            self.text = self.text or _string(kind, data, self.code_page)
        elif prop == _P_HTML:
            self.html = self.html or _string(kind, data, self.code_page)
        elif prop == _P_RTF:
            self.rtf = self.rtf or data

    def _of_attachment(self, prop: int, kind: int, data: bytes) -> None:
        if prop == _P_LONG_NAME:
            self._name = _string(kind, data, self.code_page) or self._name
        elif prop == _P_FILE_NAME:
            self._name = self._name or _string(kind, data, self.code_page)
        elif prop == _P_MEDIA_TYPE:
            self._media_type = _string(kind, data, self.code_page)
        elif prop == _P_ATTACHMENT and self._data is None:
            # An object has its class id before its bytes.
            self._data = data[16:] if kind == 0x000D else data


def read(data: bytes) -> Unwrapped | None:
    """Return what a TNEF stream holds; None where it is none."""
    if not data.startswith(SIGNATURE):
        return None
    reader = _Reader()
    for name, value in _attributes(data):
        reader.attribute(name, value)
    reader.finish_file()
    text, html = reader.text, reader.html
    if not text.strip() and not html.strip() and reader.rtf:
        shown, is_html = rtf.text(rtf.unpacked(reader.rtf))
        text, html = ("", shown) if is_html else (shown, "")
    return Unwrapped(clean_value(reader.subject), text, html, tuple(reader.files))
