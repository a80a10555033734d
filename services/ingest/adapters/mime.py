"""The structure of a mail: header fields, parts, transfer encodings (RFC 5322, 2045 to 2049, 2231), under limits.

Written for mail as it is and not as it should be: unterminated parts, missing boundaries, broken folding and raw 8-bit
headers are read as far as they go. Bytes, parts and depth are bounded before any of it is looked at, and no step takes
more than one pass over the bytes it is given, at most once a level.
"""

import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

from services.ingest.adapters import charsets
from services.ingest.core.normalise import clean_value
from services.ingest.core.state import ParseError

MAIL_BYTES_MAX: Final = 50 * 1024 * 1024
HEADER_BYTES_MAX: Final = 256 * 1024
"""Bytes of one header block; the longest seen in real mail are a tenth of it."""
HEADER_FIELDS_MAX: Final = 1_000
PARTS_MAX: Final = 200
DEPTH_MAX: Final = 20
TEXT_BYTES_MAX: Final = 3_000_000
"""Bytes of a text part that are decoded; more than is kept of any text, in any encoding."""

_NOT_BASE64: Final = bytes(
    sorted(
        set(range(256)) - set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
    )
)

_FIELD: Final = re.compile(rb"^([\x21-\x39\x3b-\x7e]+)[ \t]*:(.*)$", re.DOTALL)
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
_HEADER_END: Final = re.compile(rb"(?:\A|\r\n|\n|\r(?!\n))(?:\r\n|\n|\r(?!\n))")
_PARAMETER: Final = re.compile(r';\s*([^\s=;"]+)\s*=\s*("(?:[^"\\]|\\.)*+"?|[^;]*)', re.DOTALL)
_WORD: Final = re.compile(r"=\?([^?\s*]+)(?:\*[^?\s]*)?\?([BbQq])\?([^?]*)\?=")
_BETWEEN_WORDS: Final = re.compile(r"(\?=)[ \t\r\n]+(?==\?[^?\s]+\?[BbQq]\?)")
_QUOTED_PAIR: Final = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Part:
    """A node of the tree: its header fields (names in lower case, values as decoded bytes), and body or children."""

    fields: tuple[tuple[str, str], ...]
    body: bytes
    media_type: str
    parameters: dict[str, str]
    children: tuple["Part", ...] = ()

    def first(self, name: str) -> str:
        """Return the first field of that name, unfolded and otherwise raw; empty where there is none."""
        return next((value for field, value in self.fields if field == name), "")

    def all(self, name: str) -> list[str]:
        """Return all fields of that name, in order."""
        return [value for field, value in self.fields if field == name]

    @property
    def disposition(self) -> str:
        """`attachment`, `inline`, or empty."""
        return self.first("content-disposition").partition(";")[0].strip().lower()

    @property
    def filename(self) -> str:
        """The name its sender gave the file; empty where there is none."""
        given = parameters_of(self.first("content-disposition")).get(
            "filename"
        ) or self.parameters.get("name", "")
        return clean_value(decode_words(given), 255)

    def leaves(self) -> Iterator["Part"]:
        """Return the parts that have no parts, in order."""
        if not self.children:
            yield self
        for child in self.children:
            yield from child.leaves()

    def payload(self) -> bytes:
        """Return the body with its transfer encoding undone, as far as it can be."""
        return decode_transfer(self.body, self.first("content-transfer-encoding"))

    def text(self) -> str:
        """Return the body as text."""
        encoding = self.first("content-transfer-encoding")
        data = decode_transfer(self.body[:TEXT_BYTES_MAX], encoding)
        return charsets.decode(data, self.parameters.get("charset"))


def decode_transfer(body: bytes, encoding: str) -> bytes:
    """Undo base64 or quoted-printable; junk within is skipped, other encodings are left as they are."""
    name = encoding.partition(";")[0].strip().lower()
    if name == "base64":
        kept = body.translate(None, _NOT_BASE64)
        kept = kept[: len(kept) - 1] if len(kept) % 4 == 1 else kept
        try:
            return binascii.a2b_base64(kept + b"=" * (-len(kept) % 4))
        except binascii.Error:
            return body
    if name == "quoted-printable":
        return binascii.a2b_qp(body)
    return body


def split_header(raw: bytes) -> tuple[bytes, bytes]:
    """Return header block and body, which the first empty line parts.

    Raises:
        ParseError: the header block is too long.
    """
    end = _HEADER_END.search(raw)
    header, body = (raw, b"") if end is None else (raw[: end.start()], raw[end.end() :])
    if len(header) > HEADER_BYTES_MAX:
        raise ParseError(
            "header_too_large", f"its header has more than {HEADER_BYTES_MAX} bytes", "header"
        )
    return header, body


def read_fields(header: bytes) -> tuple[tuple[str, str], ...]:
    """Return the fields of a header block, unfolded; lines that are no field are skipped."""
    lines: list[bytes] = []
    for line in _LINE_END.split(header):
        if line[:1] in (b" ", b"\t") and lines:
            lines[-1] += b" " + line.strip()
        elif line:
            if len(lines) >= HEADER_FIELDS_MAX:
                raise ParseError(
                    "header_too_large", f"it has more than {HEADER_FIELDS_MAX} fields", "header"
                )
            lines.append(line)
    fields = []
    for line in lines:
        found = _FIELD.match(line)
        if found is not None:
            value = charsets.decode(found.group(2).strip(), None)
            fields.append((found.group(1).decode("ascii").lower(), value))
    return tuple(fields)


def parameters_of(value: str) -> dict[str, str]:
    """Return a field's parameters, with continuations and character sets of RFC 2231 resolved."""
    plain: dict[str, str] = {}
    pieces: dict[str, dict[int, tuple[bool, str]]] = {}
    for name, raw in _PARAMETER.findall(value[:20_000]):
        text = raw.strip()
        if text.startswith('"'):
            text = _QUOTED_PAIR.sub(r"\1", text[1:].removesuffix('"'))
        base, star, rest = name.lower().partition("*")
        if not star:
            plain.setdefault(base, text)
            continue
        number = rest.rstrip("*")
        index = int(number) if number.isascii() and number.isdigit() and len(number) <= 3 else 0
        pieces.setdefault(base, {})[index] = (rest == "" or rest.endswith("*"), text)
    for base, found in pieces.items():
        charset = None
        raw_bytes = b""
        for index in sorted(found):
            is_encoded, text = found[index]
            if is_encoded and not raw_bytes and text.count("'") >= 2:
                charset, _, text = text.split("'", 2)
            raw_bytes += unquote_to_bytes(text) if is_encoded else text.encode("utf-8", "replace")
        plain[base] = charsets.decode(raw_bytes, charset)
    return plain


def decode_words(value: str) -> str:
    """Return a header value with its encoded words (RFC 2047) decoded.

    Reads them where they may not stand too: within quotes, with spaces inside, with wrong padding, and with a character
    cut in two between words of one character set.
    """
    if "=?" not in value:
        return value
    joined = _BETWEEN_WORDS.sub(r"\1", value)
    made: list[str] = []
    pending = b""
    pending_charset = ""
    end = 0
    for word in _WORD.finditer(joined):
        charset, encoding, text = word.group(1).lower(), word.group(2).lower(), word.group(3)
        raw = text.encode("utf-8", "replace")
        data = (
            decode_transfer(raw, "base64")
            if encoding == "b"
            else binascii.a2b_qp(raw.replace(b" ", b"_"), header=True)
        )
        if word.start() > end or charset != pending_charset:
            made.append(charsets.decode(pending, pending_charset))
            made.append(joined[end : word.start()])
            pending, pending_charset = b"", charset
        pending += data
        end = word.end()
    made.append(charsets.decode(pending, pending_charset))
    made.append(joined[end:])
    return "".join(made)


class _Budget:
    def __init__(self) -> None:
        self.parts = 0

    def spend(self) -> None:
        self.parts += 1
        if self.parts > PARTS_MAX:
            raise ParseError("too_many_parts", f"it has more than {PARTS_MAX} parts", "body")


def _split_parts(body: bytes, boundary: bytes) -> list[bytes]:
    delimiter = re.compile(
        rb"(?:\A|\r\n|\n|\r)--" + re.escape(boundary) + rb"(--)?[ \t]*(?=\r\n|\n|\r|\Z)"
    )
    parts: list[bytes] = []
    start: int | None = None
    for found in delimiter.finditer(body):
        if start is not None:
            parts.append(body[start : found.start()])
            if len(parts) > PARTS_MAX:
                raise ParseError("too_many_parts", f"it has more than {PARTS_MAX} parts", "body")
        start = None if found.group(1) else found.end()
        if found.group(1):
            break
    if start is not None:
        parts.append(body[start:])
    return [part.removeprefix(b"\r").removeprefix(b"\n") for part in parts]


def _read(raw: bytes, depth: int, budget: _Budget, *, default: str = "text/plain") -> Part:
    budget.spend()
    if depth > DEPTH_MAX:
        raise ParseError(
            "nested_too_deep", f"its parts are nested more than {DEPTH_MAX} deep", "body"
        )
    header, body = split_header(raw)
    fields = read_fields(header)
    declared = next((value for name, value in fields if name == "content-type"), "")
    media_type = declared.partition(";")[0].strip().lower()
    if not re.fullmatch(r"[a-z0-9!#$&^_.+-]{1,100}/[a-z0-9!#$&^_.+-]{1,100}", media_type):
        media_type = default if not declared else "text/plain"
    parameters = parameters_of(declared)
    children: tuple[Part, ...] = ()
    boundary = parameters.get("boundary", "").rstrip()
    if media_type.startswith("multipart/") and boundary:
        inner = "message/rfc822" if media_type == "multipart/digest" else "text/plain"
        children = tuple(
            _read(piece, depth + 1, budget, default=inner)
            for piece in _split_parts(body, boundary.encode("utf-8", "replace"))
        )
    if media_type.startswith("multipart/") and not children:
        media_type = "text/plain"  # Announced as parts and has none: show what there is.
    return Part(fields, b"" if children else body, media_type, parameters, children)


def read(raw: bytes) -> Part:
    """Read a mail.

    Raises:
        ParseError: it is too large, too deep, has too many parts, or has no header at all.
    """
    if len(raw) > MAIL_BYTES_MAX:
        raise ParseError("too_large", f"it has more than {MAIL_BYTES_MAX} bytes", "body")
    if raw.startswith((b"From ", b">From ")):
        raw = raw.partition(b"\n")[2]  # The envelope line of an mbox file.
    return _read(raw.lstrip(b"\r\n"), 0, _Budget())
