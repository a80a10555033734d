"""The structure of a mail: header fields, parts, transfer encodings (RFC 5322, 2045 to 2049, 2231), under limits.

Written for mail as it is and not as it should be: unterminated parts, missing boundaries, broken folding and raw 8-bit
headers are read as far as they go. Bytes, parts and depth are bounded before any of it is looked at, and no step takes
more than one pass over the bytes it is given, at most once a level. A part is a window on the mail's bytes: nothing is
copied until a part's content is asked for, so a mail of 50 MB costs its own size and that of one attachment at a time.
"""

import binascii
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
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
MEASURED_AT_A_TIME: Final = 1024 * 1024
META_LOOKED_AT: Final = 2_048

_NOT_BASE64: Final = bytes(
    sorted(
        set(range(256)) - set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
    )
)

_FIELD: Final = re.compile(rb"([\x21-\x39\x3b-\x7e]+)[ \t]*:")
_MEDIA_TYPE: Final = re.compile(r"[a-z0-9!#$&^_.+-]{1,100}/[a-z0-9!#$&^_.+-]{1,100}")
_HEADER_END: Final = re.compile(rb"(?:\A|\r\n|\n|\r(?!\n))(?:\r\n|\n|\r(?!\n))")
_PARAMETER: Final = re.compile(r';\s*([^\s=;"]+)\s*=\s*("(?:[^"\\]|\\.)*+"?|[^;]*)', re.DOTALL)
# The text ends at the first `?=`; a question mark within is against the rules, and common. Where another word begins
# before it has ended, it is no word.
_WORD: Final = re.compile(
    r"=\?([^?\s*]+)(?:\*[^?\s]*)?\?([BbQq])\?((?:[^?=]|\?(?!=)|=(?!\?[^=]))*+)\?="
)
_BETWEEN_WORDS: Final = re.compile(r"(\?=)[ \t\r\n]+(?==\?[^?\s]+\?[BbQq]\?)")
_QUOTED_PAIR: Final = re.compile(r"\\(.)", re.DOTALL)
_LINE_ENDS: Final = re.compile(rb"[\r\n]*+")
_FIRST_DELIMITER: Final = re.compile(
    rb"(?:\A|\n)--([^\r\n]{1,200}?)[ \t]*\r?\n(?=[Cc]ontent-)", re.DOTALL
)
_META_CHARSET: Final = re.compile(
    rb"<meta[^>]{0,200}charset\s*=\s*[\"']?\s*([A-Za-z0-9_:.-]{2,40})", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Part:
    """A node of the tree: its header fields (names in lower case, values as decoded bytes), and body or children.

    The body is what stands in `raw` from `start` to `end`.
    """

    fields: tuple[tuple[str, str], ...]
    raw: bytes = field(repr=False)
    start: int
    end: int
    media_type: str
    parameters: dict[str, str]
    children: tuple["Part", ...] = ()
    _index: dict[str, list[str]] = field(default_factory=dict, repr=False, compare=False)

    def first(self, name: str) -> str:
        """Return the first field of that name, unfolded and otherwise raw; empty where there is none."""
        found = self._index.get(name)
        return found[0] if found else ""

    def all(self, name: str) -> list[str]:
        """Return all fields of that name, in order."""
        return self._index.get(name, [])

    @property
    def body(self) -> bytes:
        """The body as it stands, still encoded for its transfer; empty where there are parts."""
        return self.raw[self.start : self.end]

    @property
    def disposition(self) -> str:
        """`attachment`, `inline`, or empty."""
        return self.first("content-disposition").partition(";")[0].strip().lower()

    @property
    def filename(self) -> str:
        """The name its sender gave the file, without folders; empty where there is none."""
        disposition = self.first("content-disposition")
        given = parameters_of(disposition).get("filename", "") if disposition else ""
        given = given or self.parameters.get("name", "")
        if not given:
            return ""
        shown = clean_value(decode_words(given), 255)
        return shown.replace("\\", "/").rstrip("/").rpartition("/")[2] or shown

    def leaves(self) -> Iterator["Part"]:
        """Return the parts that have no parts, in order."""
        if not self.children:
            yield self
        for child in self.children:
            yield from child.leaves()

    def payload(self) -> bytes:
        """Return the body with its transfer encoding undone, as far as it can be."""
        is_large = self.end - self.start > MEASURED_AT_A_TIME
        if is_large and _encoding_of(self.first("content-transfer-encoding")) == "base64":
            decoded = _base64_in_pieces(self.raw, self.start, self.end)
            if decoded is not None:
                return decoded
        return decode_transfer(self.body, self.first("content-transfer-encoding"))

    def head(self, limit: int) -> bytes:
        """Return the beginning of the payload, out of `limit` bytes as they stand."""
        window = self.raw[self.start : min(self.end, self.start + limit)]
        return decode_transfer(window, self.first("content-transfer-encoding"))

    def size(self) -> int:
        """Return how many bytes `payload` has, without holding them where that can be told."""
        name = _encoding_of(self.first("content-transfer-encoding"))
        if name == "base64":
            kept = spaces = 0
            for at in range(self.start, self.end, MEASURED_AT_A_TIME):
                piece = self.raw[at : min(at + MEASURED_AT_A_TIME, self.end)]
                kept += len(piece.translate(None, _NOT_BASE64))
                spaces += piece.count(b" ")
            if not _is_plain_after_all(spaces, self.end - self.start):
                return kept * 3 // 4
        elif name not in _ENCODED:
            return self.end - self.start
        return len(self.payload())

    def text(self) -> str:
        """Return the body as text."""
        encoding = self.first("content-transfer-encoding")
        data = decode_transfer(
            self.raw[self.start : min(self.end, self.start + TEXT_BYTES_MAX)], encoding
        )
        declared = self.parameters.get("charset")
        if not declared and self.media_type == "text/html":
            found = _META_CHARSET.search(data[:META_LOOKED_AT])
            declared = found.group(1).decode("ascii") if found is not None else None
        return charsets.decode(data, declared)


_ENCODED: Final = frozenset({"base64", "quoted-printable", "x-uuencode", "uuencode", "x-uue"})


def _encoding_of(value: str) -> str:
    return value.partition(";")[0].strip().lower() if value else ""


def _is_plain_after_all(spaces: int, length: int) -> bool:
    """Whether what calls itself base64 is plain text: words have spaces between them."""
    return spaces * 20 > length


def decode_transfer(body: bytes, encoding: str) -> bytes:
    """Undo base64, quoted-printable or uuencode; junk within is skipped, other encodings are left as they are."""
    name = _encoding_of(encoding)
    if name == "base64":
        if _is_plain_after_all(body.count(b" "), len(body)):
            return body
        kept = body.translate(None, _NOT_BASE64)
        kept = kept[: len(kept) - 1] if len(kept) % 4 == 1 else kept
        try:
            return binascii.a2b_base64(kept + b"=" * (-len(kept) % 4))
        except binascii.Error:
            return body
    if name == "quoted-printable":
        return binascii.a2b_qp(body)
    if name in _ENCODED:
        return _uudecoded(body)
    return body


def _base64_in_pieces(raw: bytes, start: int, end: int) -> bytes | None:
    """Return a large base64 body decoded, holding one copy of it and not four; None where it is plain text."""
    if _is_plain_after_all(raw.count(b" ", start, end), end - start):
        return None
    made = io.BytesIO()
    left = b""
    for at in range(start, end, MEASURED_AT_A_TIME):
        kept = left + raw[at : min(at + MEASURED_AT_A_TIME, end)].translate(None, _NOT_BASE64)
        whole = len(kept) - len(kept) % 4
        made.write(binascii.a2b_base64(kept[:whole]))
        left = kept[whole:]
    if len(left) > 1:
        made.write(binascii.a2b_base64(left + b"=" * (-len(left) % 4)))
    return made.getvalue()


def _uudecoded(body: bytes) -> bytes:
    made: list[bytes] = []
    has_begun = False
    for line in body.splitlines():
        if not has_begun:
            has_begun = line.startswith(b"begin ")
        elif line.startswith(b"end"):
            break
        elif line:
            try:
                made.append(binascii.a2b_uu(line))
            except binascii.Error:
                # Some encoders count wrongly; what the length byte announces is what there is.
                announced = ((line[0] - 32) & 63) * 4 + 5
                try:
                    made.append(binascii.a2b_uu(line[: announced // 3]))
                except binascii.Error:
                    continue
    return b"".join(made) if has_begun else body


def _header_bounds(raw: bytes, start: int, end: int) -> tuple[int, int]:
    """Return where the header block ends and where the body begins; both `end` where there is no empty line."""
    limit = min(end, start + HEADER_BYTES_MAX + 8)
    crlf = raw.find(b"\r\n\r\n", start, limit)
    head = raw[start : crlf + 4 if crlf >= 0 else limit]
    if not head.startswith((b"\r", b"\n")):
        feeds, returns = head.count(b"\n"), head.count(b"\r")
        if crlf >= 0 and feeds == returns == head.count(b"\r\n"):
            found_at, width = crlf - start, 4
        elif not returns:
            found_at, width = head.find(b"\n\n"), 2
        else:
            found_at, width = -1, 0
        if found_at >= 0 and found_at <= HEADER_BYTES_MAX:
            return start + found_at, start + found_at + width
    found = _HEADER_END.search(head)
    if found is not None and found.start() <= HEADER_BYTES_MAX:
        return start + found.start(), start + found.end()
    if end - start > HEADER_BYTES_MAX:
        raise ParseError(
            "header_too_large", f"its header has more than {HEADER_BYTES_MAX} bytes", "header"
        )
    return end, end


def split_header(raw: bytes) -> tuple[bytes, bytes]:
    """Return header block and body, which the first empty line parts.

    Raises:
        ParseError: the header block is too long.
    """
    header_end, body_start = _header_bounds(raw, 0, len(raw))
    return raw[:header_end], raw[body_start:]


def header_of(raw: bytes) -> bytes:
    """Return the header block of a mail, without what may stand before it.

    Raises:
        ParseError: the header block is too long.
    """
    start = _first_byte(raw, 0)
    return raw[start : _header_bounds(raw, start, len(raw))[0]]


def read_fields(header: bytes) -> tuple[tuple[str, str], ...]:
    """Return the fields of a header block, unfolded; lines that are no field are skipped."""
    lines: list[bytes] = []
    for line in header.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"):
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
            value = line[found.end() :].strip()
            shown = value.decode("ascii") if value.isascii() else charsets.decode(value, None)
            fields.append((found.group(1).decode("ascii").lower(), shown))
    return tuple(fields)


def parameters_of(value: str) -> dict[str, str]:
    """Return a field's parameters, with continuations and character sets of RFC 2231 resolved."""
    plain: dict[str, str] = {}
    if ";" not in value:
        return plain
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

    Reads them where they may not stand too: within quotes, with spaces or question marks inside, with wrong padding, with
    a character cut in two between words of one character set, and encoded a second time.
    """
    once = _words_decoded(value)
    return _words_decoded(once) if once != value and "=?" in once else once


def _words_decoded(value: str) -> str:
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


def _delimiters(
    raw: bytes, start: int, end: int, boundary: bytes
) -> Iterator[tuple[int, int, bool]]:
    """Return where each delimiter line begins (its line end before it included), where it ends, whether it is the last."""
    wanted = b"--" + boundary
    at = raw.find(wanted, start, end)
    while at >= 0:
        after = at + len(wanted)
        is_last = raw.startswith(b"--", after, end)
        stop = after + 2 if is_last else after
        while stop < end and raw[stop] in b" \t":
            stop += 1
        begins_line = at == start or raw[at - 1] in b"\r\n"
        ends_line = stop >= end or raw[stop] in b"\r\n"
        if begins_line and ends_line:
            line_start = at
            if line_start > start and raw[line_start - 1] in b"\n":
                line_start -= 1
            if line_start > start and raw[line_start - 1] in b"\r":
                line_start -= 1
            if raw[stop : min(stop + 2, end)] == b"\r\n":
                stop += 2
            elif stop < end:
                stop += 1
            yield line_start, stop, is_last
            if is_last:
                return
        at = raw.find(wanted, max(stop, after) if begins_line and ends_line else after, end)


def _split_parts(raw: bytes, start: int, end: int, boundary: bytes) -> list[tuple[int, int]]:
    parts: list[tuple[int, int]] = []
    opened: int | None = None
    for line_start, stop, is_last in _delimiters(raw, start, end, boundary):
        if opened is not None:
            parts.append((opened, max(opened, line_start)))
            if len(parts) > PARTS_MAX:
                raise ParseError("too_many_parts", f"it has more than {PARTS_MAX} parts", "body")
        opened = None if is_last else stop
    if opened is not None:
        parts.append((opened, end))
    return parts


def _windows(raw: bytes, start: int, end: int, parameters: dict[str, str]) -> list[tuple[int, int]]:
    """Return the parts of a multipart body: by its boundary, else by what looks like one."""
    boundary = parameters.get("boundary", "").rstrip()
    if boundary:
        found = _split_parts(raw, start, end, boundary.encode("utf-8", "replace"))
        if found:
            return found
    looks_like = _FIRST_DELIMITER.search(raw[start : min(end, start + 10_000)])
    return _split_parts(raw, start, end, looks_like.group(1)) if looks_like is not None else []


def _read(
    raw: bytes, start: int, end: int, depth: int, budget: _Budget, *, default: str = "text/plain"
) -> Part:
    budget.spend()
    if depth > DEPTH_MAX:
        raise ParseError(
            "nested_too_deep", f"its parts are nested more than {DEPTH_MAX} deep", "body"
        )
    header_end, body_start = _header_bounds(raw, start, end)
    fields = read_fields(raw[start:header_end])
    if depth and not fields:
        body_start = body_start if header_end == start else start  # A part without any header.
    index: dict[str, list[str]] = {}
    for name, value in fields:
        index.setdefault(name, []).append(value)
    declared = index["content-type"][0] if "content-type" in index else ""
    media_type = declared.partition(";")[0].strip().lower()
    if not _MEDIA_TYPE.fullmatch(media_type):
        media_type = default if not declared else "text/plain"
    parameters = parameters_of(declared)
    children: tuple[Part, ...] = ()
    if media_type.startswith("multipart/"):
        inner = "message/rfc822" if media_type == "multipart/digest" else "text/plain"
        children = tuple(
            _read(raw, first, last, depth + 1, budget, default=inner)
            for first, last in _windows(raw, body_start, end, parameters)
        )
        if not children:
            media_type = "text/plain"  # Announced as parts and has none: show what there is.
    body_end = body_start if children else end
    return Part(fields, raw, body_start, body_end, media_type, parameters, children, index)


def read(raw: bytes) -> Part:
    """Read a mail.

    Raises:
        ParseError: it is too large, too deep, has too many parts, or has no header at all.
    """
    if len(raw) > MAIL_BYTES_MAX:
        raise ParseError("too_large", f"it has more than {MAIL_BYTES_MAX} bytes", "body")
    start = _first_byte(raw, 0)
    if raw.startswith((b"From ", b">From "), start):
        after = raw.find(b"\n", start)  # The envelope line of an mbox file.
        start = _first_byte(raw, after + 1 if after >= 0 else len(raw))
    return _read(raw, start, len(raw), 0, _Budget())


def _first_byte(raw: bytes, at: int) -> int:
    found = _LINE_ENDS.match(raw, at)
    return found.end() if found is not None else at
