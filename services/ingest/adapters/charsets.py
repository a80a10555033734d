"""Bytes → text, whatever the mail says about its character set.

A declaration is believed where the bytes bear it out. Text that is valid UTF-8 beyond ASCII is UTF-8: no text in a
single-byte set looks so by chance. Otherwise the declared set is tried, and where it is missing, unknown or gives
nonsense, the choice is made by how often each alphabet's common letters turn up. Names and supersets follow the WHATWG
Encoding Standard (Latin-1 is read as windows-1252, ISO-8859-9 as windows-1254). UTF-16 is known by its mark or its
zeros, ISO-2022 by its escapes. UTF-7 is refused, which means never decoded: it hides markup.
"""

import codecs
import re
from typing import Final

SAMPLE_BYTES: Final = 20_000
HIGH_BYTES_SCORED: Final = 1_000
"""Bytes beyond ASCII by which a Cyrillic set is told from another: more of them say the same."""

_NAMES: Final = {
    "ascii": "ascii", "us-ascii": "ascii", "ansi_x3.4-1968": "ascii", "iso646-us": "ascii",
    "iso-8859-1": "cp1252", "latin1": "cp1252", "latin-1": "cp1252", "iso8859-1": "cp1252", "iso_8859-1": "cp1252",
    "iso-8859-9": "cp1254", "latin5": "cp1254", "iso8859-9": "cp1254", "iso_8859-9": "cp1254", "tr": "cp1254",
    "cp-1251": "cp1251", "win-1251": "cp1251", "windows1251": "cp1251", "x-cp1251": "cp1251", "win1251": "cp1251",
    "cp-1254": "cp1254", "win-1254": "cp1254", "windows1254": "cp1254", "x-cp1254": "cp1254",
    "koi8r": "koi8-r", "koi8": "koi8-r", "koi-8": "koi8-r", "koi8-ru": "koi8-u",
    "utf8": "utf-8", "utf-8mb4": "utf-8", "unicode-1-1-utf-8": "utf-8", "utf_8": "utf-8", "utf-8 ": "utf-8",
    "gb2312": "gb18030", "gbk": "gb18030", "ks_c_5601-1987": "cp949", "euc-kr": "cp949", "shift_jis": "cp932",
    "iso-8859-8-i": "iso-8859-8", "tis-620": "cp874",
}  # fmt: skip
_SINGLE_BYTE: Final = re.compile(r"^(?:cp12\d\d|iso-?8859|iso8859|koi8|cp8\d\d|mac)")
# Python's codecs of other kinds (base64, unicode_escape, undefined …) are no character sets.
_CHARSETS: Final = re.compile(
    r"^(?:ascii|utf-(?:8|16|32)(?:-[bl]e)?|iso(?:8859|2022)|cp\d|koi8|mac-|big5|gb|euc|shift|hz$|johab|tis|kz1048|ptcp154)"
)
_WESTERN: Final = frozenset({"cp1252", "ascii"})
_CYRILLIC: Final = ("cp1251", "koi8-r", "iso8859-5", "cp866")
_COMMON: Final = frozenset("оеаинтсрвлкмдпуяыі")
_TURKISH_BYTES: Final = re.compile(rb"[\xd0\xdd\xde\xf0\xfd\xfe]")
_ASCII: Final = bytes(range(128))
_NO_LETTERS: Final = bytes(set(range(128)) - set(range(65, 91)) - set(range(97, 123)))


def codec_of(declared: str | None) -> str | None:
    """Return Python's codec for a declared character set; None where there is none that we take."""
    name = (declared or "").strip().strip("'\"").lower().replace("_", "-")
    if not name or not name.isascii() or len(name) > 40:
        return None
    name = _NAMES.get(name, name)
    if "utf-7" in name or "utf7" in name:
        return None
    try:
        info = codecs.lookup(name)
    except (LookupError, ValueError):
        return None
    return info.name if _CHARSETS.match(info.name) else None


_CODE_PAGES: Final = {
    65001: "utf-8",
    20127: "ascii",
    20866: "koi8-r",
    21866: "koi8-u",
    28599: "iso-8859-9",
}


def of_code_page(number: int) -> str:
    """Return the name of a Windows code page, as `decode` takes it."""
    return _CODE_PAGES.get(number, f"cp{number}")


def _cyrillic_score(text: str) -> float:
    """Return how much letters beyond ASCII look like Russian or Ukrainian: up to 1, below 0 for capitals in mid-word."""
    letters = sum(map(str.isalpha, text))
    if not letters:
        return 0.0
    common = sum(map(text.count, _COMMON))
    capitals = sum(map(str.isupper, text))
    return (common - 0.5 * capitals) / letters


def _high_count(data: bytes) -> int:
    return len(data.translate(None, _ASCII))


def _beyond_ascii(data: bytes) -> bytes:
    return data[:SAMPLE_BYTES].translate(None, _ASCII)[:HIGH_BYTES_SCORED]


def _best_cyrillic(high: bytes) -> str:
    return max(_CYRILLIC, key=lambda name: _cyrillic_score(high.decode(name, "replace")))


def guess(data: bytes) -> str:
    """Return the likeliest single-byte set of bytes that are no UTF-8: Cyrillic by density, Turkish by its letters."""
    sample = data[:SAMPLE_BYTES]
    high = _beyond_ascii(data)
    if _high_count(sample) > 0.4 * len(sample.translate(None, _NO_LETTERS)):
        best = _best_cyrillic(high)
        if _cyrillic_score(high.decode(best, "replace")) > 0.3:
            return best
    return "cp1254" if _TURKISH_BYTES.search(sample) else "cp1252"


def _chosen_single(data: bytes, codec: str | None) -> str:
    """Return the set of bytes that are no UTF-8, where a single-byte set (or none, or UTF-8) was declared."""
    sample = data[:SAMPLE_BYTES]
    if codec == "utf-8":
        # A cut character or two in much good text is damage, not another set.
        damaged = data.decode("utf-8", "replace").count("\ufffd")
        if damaged * 8 < min(_high_count(sample), len(data)):
            return "utf-8"
    if codec is None or codec == "utf-8" or codec in _WESTERN:
        return guess(data)
    if codec in _CYRILLIC_CHECKED:
        high = _beyond_ascii(data)
        declared_score = _cyrillic_score(high.decode(codec, "replace"))
        if declared_score < _PLAINLY_CYRILLIC:
            best = _best_cyrillic(high)
            if _cyrillic_score(high.decode(best, "replace")) > declared_score + 0.4:
                return best
    return codec


_PLAINLY_CYRILLIC: Final = 0.5
_CYRILLIC_CHECKED: Final = frozenset({"cp1251", "koi8-r", "koi8-u"})
MULTIBYTE_UTF8_MIN: Final = 9
"""Bytes beyond ASCII from which on valid UTF-8 is no chance, even where a set of East Asia is declared."""


def _utf16_of(data: bytes, declared: str) -> str | None:
    """Return the byte order of text that is UTF-16, by mark, by declaration, or by its zeros; None for other text."""
    if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)) and declared.startswith(
        "utf-32"
    ):
        return None
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) and len(data) % 2 == 0:
        return "utf-16"
    sample = data[:SAMPLE_BYTES]
    # The high byte of Latin and Cyrillic is 0 or 4; the low byte hardly ever is.
    even = sum(byte in (0, 4) for byte in sample[0::2])
    odd = sum(byte in (0, 4) for byte in sample[1::2])
    if declared.startswith("utf-16"):
        if min(data) > 8 and _is_utf8(data):
            return None  # Converted on the way, and the label kept.
        if declared.endswith(("le", "be")):
            return declared.replace("_", "-")
        return "utf-16-le" if odd > even else "utf-16-be"
    if (
        b"\x00" in sample
        and max(even, odd) * 5 > len(sample) * 2
        and min(even, odd) * 10 < len(sample)
    ):
        return "utf-16-le" if odd > even else "utf-16-be"
    return None


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _iso2022(data: bytes, codec: str | None) -> str:
    names = [codec] if codec is not None and codec.startswith(("iso2022", "hz")) else []
    text = ""
    for name in (*names, "iso2022_jp", "iso2022_jp_ext", "iso2022_jp_3"):
        text = data.decode(name, "replace")
        if "\ufffd" not in text:
            return text
    return data.decode(names[0] if names else "iso2022_jp", "replace")


def decode(data: bytes, declared: str | None) -> str:
    """Return `data` as text; never raises, what cannot be read becomes U+FFFD."""
    data = data.removeprefix(codecs.BOM_UTF8)
    if not data:
        return ""
    name = (declared or "").strip().strip("'\"").lower()
    is_wide = "utf-16" in name or "utf-32" in name
    if (
        data.isascii()
        and not is_wide
        and b"\x1b" not in data
        and b"\x00" not in data
        and b"~{" not in data
    ):
        return data.decode("ascii")
    if is_wide or b"\x00" in data or data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        wide = _utf16_of(data, name)
        if wide is not None:
            return data.decode(wide, "replace").removeprefix("\ufeff")
    codec = codec_of(declared)
    if data.isascii():
        if codec is not None and codec.startswith("utf-32"):
            return data.decode(codec, "replace")
        is_shifting = b"\x1b$" in data or (
            codec is not None and codec.startswith(("iso2022", "hz"))
        )
        return _iso2022(data, codec) if is_shifting else data.decode("ascii")
    is_single = codec is not None and _SINGLE_BYTE.match(codec.replace("_", "-")) is not None
    if codec is None or codec in _WESTERN or codec == "utf-8" or is_single:
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            return data.decode(_chosen_single(data, codec), "replace")
    return _multibyte(data, codec)


def _multibyte(data: bytes, codec: str) -> str:
    """Return text declared to be of a multi-byte set: UTF-8 under a wrong name is common there too."""
    try:
        utf8 = data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode(codec, "replace")
    declared = data.decode(codec, "replace")
    is_utf8 = "\ufffd" in declared or _high_count(data[:SAMPLE_BYTES]) >= MULTIBYTE_UTF8_MIN
    return utf8 if is_utf8 else declared
