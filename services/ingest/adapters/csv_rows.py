"""Messages out of tables: `signalbox import csv FILE`, for what an older system hands over.

The first line names the columns, in any order and case: `email`, `phone` or `sender_id` (one is needed), `name`, `subject`,
`text` (needed), `id`, `occurred_at` (ISO 8601, or seconds since 1970), `language`, `thread`, `in_reply_to`, `kind`. Other
columns become `fields`. An account may rename columns (`columns: {text: Body}`), for tables nobody wants to edit. Commas,
semicolons and tabs are told apart; quotes, line ends within quotes, and a UTF-8 or UTF-16 byte order mark are read. Text
that is not UTF-8 is taken as Windows-1252, what spreadsheets write, unless the account names a `charset`.

Nothing proves who wrote a row: it counts as unverified. A row without an `id` is named by what it says, so the same file
imported twice changes nothing.
"""

import csv
import hashlib
import io
from typing import Annotated, Final, get_args

from pydantic import Field, StringConstraints

from schemas.messages import MessageContent, MessageKind, Sender
from services.ingest.adapters import addresses
from services.ingest.adapters.channel import (
    Capability,
    Channel,
    ChannelSettings,
    Delivery,
    Parsed,
    ParseError,
    settings_of,
)
from services.ingest.adapters.reading import content, identifier
from services.ingest.core.normalise import clean_value

ROWS_MAX: Final = 1_000
"""Rows of one delivery; a longer table comes as several."""
CELL_LENGTH_MAX: Final = 100_000
COLUMNS_MAX: Final = 100
KNOWN: Final = (
    "email", "phone", "sender_id", "name", "subject", "text", "id", "occurred_at", "language", "thread",
    "in_reply_to", "kind",
)  # fmt: skip
DELIMITERS: Final = (",", ";", "\t")


class Settings(ChannelSettings):
    """`columns` names the table's own column for each of ours; `charset` is its encoding where it is not UTF-8."""

    columns: dict[
        Annotated[str, StringConstraints(pattern=rf"^(?:{'|'.join(KNOWN)})$")],
        Annotated[str, StringConstraints(min_length=1, max_length=100)],
    ] = Field(default_factory=dict)
    charset: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,40}$")] = ""


def text_of_table(body: bytes, charset: str = "") -> str:
    """Return a table's text.

    Raises:
        ParseError: it is not in the encoding that was named, or holds a NUL.
    """
    names = [charset] if charset else []
    if body.startswith((b"\xff\xfe", b"\xfe\xff")):
        names.append("utf-16")
    names += ["utf-8-sig", "windows-1252"]
    for name in names:
        try:
            text = body.decode(name)
        except (UnicodeDecodeError, LookupError):
            if name == charset:
                raise ParseError("invalid_encoding", f"body: is not {charset}", "charset") from None
            continue
        if "\x00" in text:
            break
        return text
    raise ParseError("invalid_encoding", "body: is no text", "body")


def columns_of(header: list[str], renamed: dict[str, str]) -> dict[str, int]:
    """Return where each of our columns stands, by the names of the first line.

    Raises:
        ParseError: there are too many, one stands twice, or none says who wrote or what.
    """
    if len(header) > COLUMNS_MAX:
        raise ParseError("invalid_field", f"header: has more than {COLUMNS_MAX} columns", "header")
    names = [" ".join(name.split()).lower() for name in header]
    found: dict[str, int] = {}
    for known in KNOWN:
        wanted = " ".join(renamed.get(known, known).split()).lower()
        if names.count(wanted) > 1:
            raise ParseError("invalid_field", f"{known}: stands twice in the header", known)
        if wanted in names:
            found[known] = names.index(wanted)
    if "text" not in found:
        raise ParseError("invalid_field", "text: the header has no such column", "text")
    if not {"email", "phone", "sender_id"} & set(found):
        raise ParseError(
            "invalid_field", "email: the header has none of email, phone and sender_id", "email"
        )
    return found


def delimiter_of(first_line: str) -> str:
    """Return what parts the columns: the one of comma, semicolon and tab that stands most often in the first line."""
    return max(DELIMITERS, key=first_line.count)


def parse(delivery: Delivery) -> Parsed:
    """Read a table; every row is a message.

    Raises:
        ParseError: the table or one of its rows is wrong; the row's number (2 is the first after the header) is said.
    """
    settings = settings_of(delivery, Settings)
    text = text_of_table(delivery.body, settings.charset)
    first_line = text.partition("\n")[0]
    if len(first_line) > CELL_LENGTH_MAX:
        raise ParseError("invalid_field", "header: is too long", "header")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter_of(first_line))
    messages: list[MessageContent] = []
    columns: dict[str, int] | None = None
    header: list[str] = []
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if columns is None:
                header, columns = cells, columns_of(cells, settings.columns)
                continue
            if len(messages) >= ROWS_MAX:
                raise ParseError("too_large", f"body: has more than {ROWS_MAX} rows", "body")
            messages.append(_row(delivery, header, columns, cells, reader.line_num))
    except csv.Error:
        raise ParseError("invalid_csv", f"line {reader.line_num}: is no row", "body") from None
    if columns is None:
        return Parsed(ignored="empty")
    return Parsed(tuple(messages), ignored=None if messages else "empty", verified=False)


def _row(
    delivery: Delivery, header: list[str], columns: dict[str, int], cells: list[str], line: int
) -> MessageContent:
    def cell(name: str) -> str:
        index = columns.get(name)
        return cells[index].strip() if index is not None and index < len(cells) else ""

    text = cell("text")
    if not text:
        raise ParseError("invalid_field", f"line {line}: text: is empty", "text")
    if len(text) > CELL_LENGTH_MAX:
        raise ParseError("invalid_field", f"line {line}: text: is too long", "text")
    kind = cell("kind") or "message"
    if kind not in get_args(MessageKind):
        raise ParseError("invalid_field", f"line {line}: kind: is none of the known kinds", "kind")
    name = (
        cell("id") or hashlib.sha256("\x1f".join(cells).encode("utf-8", "replace")).hexdigest()[:32]
    )
    others = {
        header[index]: value
        for index, value in enumerate(cells)
        if index < len(header) and index not in columns.values() and header[index].strip()
    }
    return content(
        delivery,
        identifier(name, f"line {line}: id"),
        _sender(cell("email"), cell("phone"), cell("sender_id"), cell("name"), line),
        text,
        occurred_at=cell("occurred_at") or None,
        subject=cell("subject"),
        text_new=text,
        declared_language=cell("language"),
        thread=cell("thread") or None,
        in_reply_to=cell("in_reply_to") or None,
        kind=kind,
        fields=others,
    )


def _sender(email: str, phone: str, sender_id: str, name: str, line: int) -> Sender:
    if email:
        if not addresses.is_address(email):
            raise ParseError(
                "invalid_field", f"line {line}: email: is not one mail address", "email"
            )
        return Sender(name=name, address=email, kind="email")
    if phone:
        return Sender(name=name, address=clean_value(phone, 40), kind="phone")
    if sender_id:
        return Sender(
            name=name, address=identifier(sender_id, f"line {line}: sender_id"), kind="vendor_id"
        )
    raise ParseError(
        "invalid_field", f"line {line}: email: the row says nobody who wrote it", "email"
    )


CHANNEL = Channel(
    name="csv",
    parse=parse,
    settings=Settings,
    media_types=frozenset({"text/csv"}),
    capability=Capability(can_reply=True, proof="none: an operator imports it"),
)
