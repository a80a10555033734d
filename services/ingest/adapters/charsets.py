"""Bytes → text, whatever the mail says about its character set.

A declaration is believed where the bytes bear it out. Text that is valid UTF-8 beyond ASCII is UTF-8: no text in a
single-byte set looks so by chance. Otherwise the declared set is tried, and where it is missing, unknown or gives
nonsense, the choice is made by how often each alphabet's common letters turn up. Names and supersets follow the WHATWG
Encoding Standard (Latin-1 is read as windows-1252, ISO-8859-9 as windows-1254). UTF-7 is refused: it hides markup.
"""

import codecs
import re
from typing import Final

SAMPLE_BYTES: Final = 20_000

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
_COMMON: Final = frozenset("оеаинтсрвлкмдпуяы")
_TURKISH_BYTES: Final = re.compile(rb"[\xd0\xdd\xde\xf0\xfd\xfe]")
_HIGH: Final = re.compile(rb"[\x80-\xff]")
_LETTER: Final = re.compile(rb"[A-Za-z\x80-\xff]")


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


def _cyrillic_score(text: str) -> float:
    letters = [letter for letter in text if letter.isalpha() and not letter.isascii()]
    if not letters:
        return 0.0
    common = sum(letter in _COMMON for letter in letters)
    capitals = sum(letter.isupper() for letter in letters)
    return (common - 0.5 * capitals) / len(letters)


def _best_cyrillic(data: bytes) -> str:
    return max(_CYRILLIC, key=lambda name: _cyrillic_score(data.decode(name, "replace")))


def guess(data: bytes) -> str:
    """Return the likeliest single-byte set of bytes that are no UTF-8: Cyrillic by density, Turkish by its letters."""
    sample = data[:SAMPLE_BYTES]
    high = len(_HIGH.findall(sample))
    if high > 0.4 * len(_LETTER.findall(sample)):
        best = _best_cyrillic(sample)
        if _cyrillic_score(sample.decode(best, "replace")) > 0.3:
            return best
    return "cp1254" if _TURKISH_BYTES.search(sample) else "cp1252"


def _chosen(data: bytes, declared: str | None) -> str:
    codec = codec_of(declared)
    is_single = codec is not None and _SINGLE_BYTE.match(codec.replace("_", "-")) is not None
    if codec is None or codec in _WESTERN or codec == "utf-8" or is_single:
        try:
            data.decode("utf-8")
        except UnicodeDecodeError:
            if codec == "utf-8":
                # A cut character or two in much good text is damage, not another set.
                damaged = data.decode("utf-8", "replace").count("\ufffd")
                high = len(_HIGH.findall(data[:SAMPLE_BYTES]))
                if damaged * 8 < min(high, len(data)):
                    return "utf-8"
        else:
            return "utf-8"
    if codec is None or codec == "utf-8" or codec in _WESTERN:
        return guess(data)
    if codec in {"cp1251", "koi8-r"}:
        sample = data[:SAMPLE_BYTES]
        best = _best_cyrillic(sample)
        declared_score = _cyrillic_score(sample.decode(codec, "replace"))
        if _cyrillic_score(sample.decode(best, "replace")) > declared_score + 0.4:
            return best
    return codec


def decode(data: bytes, declared: str | None) -> str:
    """Return `data` as text; never raises, what cannot be read becomes U+FFFD."""
    if data.isascii() and not (declared or "").lower().startswith(("iso-2022", "utf-16", "utf-32")):
        return data.decode("ascii")
    if data.startswith(codecs.BOM_UTF8):
        data = data[3:]
    return data.decode(_chosen(data, declared), "replace")
