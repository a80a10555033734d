"""The parsers of the mail channel for `bench.fuzz`, with seeds that reach into each corner of them."""

import struct
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from bench import mails
from services.ingest.adapters import addresses, charsets, email, invitations, mime, rtf, tnef
from services.ingest.adapters.channel import Delivery
from services.ingest.core import language
from services.ingest.core.normalise import clean_text, clean_value, html_lines, html_to_text
from services.ingest.core.quotes import is_forward, new_lines, new_text

NOW: Final = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
OWN: Final = frozenset({"support@lantern-oak.example"})
SERVERS: Final = frozenset({"mx0.lantern-oak.example"})

MailTarget = tuple[str, Callable[[bytes], object], tuple[bytes, ...], tuple[bytes, ...]]

MAIL_TOKENS: Final = (
    b"From: ", b"To: ", b"Subject: ", b"Date: ", b"Message-ID: ", b"References: ", b"Content-Type: ", b"Return-Path: <>",
    b"Content-Transfer-Encoding: base64\r\n", b"Content-Transfer-Encoding: quoted-printable\r\n", b"\r\n\r\n", b"\r\n",
    b"Content-Transfer-Encoding: x-uuencode\r\n\r\nbegin 644 a\r\n", b"Content-Disposition: attachment; filename*0*=",
    b"multipart/mixed; boundary=b", b"multipart/report", b"text/html", b"text/plain; charset=", b"message/rfc822",
    b"message/delivery-status", b"application/ms-tnef", b"text/calendar", b"--b", b"--b--", b"\n", b"\r", b" ", b"\t",
    b"=?utf-8?q?", b"=?koi8-r?b?", b"?=", b"=?", b"<", b">", b"@", b'"', b"(", b")", b",", b";", b":", b"=", b"%", b"\x00",
    b"\xff", b"> ", b"On 1.1.2026 10:00 a <a@b.example> wrote:", b"-- \n", b"Status: 5.1.1", b"Action: delayed", b"utf-16",
    b"<p>", b"</div>", b"<blockquote>", b"&#x110000;", b"&amp;", b"\xe2\x80\xa8", b"\x1b$B", b"<!--", b"-->", b"<script>",
    b"filename=", b"name*1*=", b"utf-8''%", b"Auto-Submitted: ", b"Authentication-Results: mx0.lantern-oak.example; dmarc=pass",
)  # fmt: skip


def _tnef_attribute(level: int, name: int, value: bytes) -> bytes:
    return (
        bytes([level])
        + struct.pack("<II", name, len(value))
        + value
        + struct.pack("<H", sum(value) & 0xFFFF)
    )


def _property(tag: int, value: bytes) -> bytes:
    return struct.pack("<III", tag, 1, len(value)) + value + b"\x00" * (-len(value) % 4)


def packed_rtf(data: bytes) -> bytes:
    """Return RTF in Outlook's compressed form, without a single back reference."""
    body = b"".join(b"\x00" + data[at : at + 8] for at in range(0, len(data), 8))
    return struct.pack("<IIII", len(body) + 12, len(data), 0x75465A4C, 0) + body


def make_tnef(
    *,
    text: str = "",
    html: str = "",
    rich: bytes = b"",
    files: tuple[tuple[str, str, bytes], ...] = (),
    code_page: int = 1254,
) -> bytes:
    """Return a TNEF stream with a text in one of three forms and files of (name, media type, bytes)."""
    properties = []
    if text:
        properties.append(_property(0x1000001F, text.encode("utf-16-le") + b"\x00\x00"))
    if html:
        properties.append(_property(0x10130102, html.encode("utf-8")))
    if rich:
        properties.append(_property(0x10090102, packed_rtf(rich)))
    properties.append(struct.pack("<II", 0x3FDE0003, 65001))
    made = tnef.SIGNATURE + b"\x01\x00"
    made += _tnef_attribute(1, 0x00069007, struct.pack("<II", code_page, 0))
    # The code page comes first: what stands behind it is in it.
    properties.insert(0, properties.pop())
    made += _tnef_attribute(
        1, 0x00069003, struct.pack("<I", len(properties)) + b"".join(properties)
    )
    for name, media_type, data in files:
        made += _tnef_attribute(2, 0x00069002, b"\x01\x00" + b"\xff" * 12)
        made += _tnef_attribute(2, 0x00018010, b"SHORT~1.DAT\x00")
        made += _tnef_attribute(2, 0x0006800F, data)
        told = [
            _property(0x3707001F, name.encode("utf-16-le") + b"\x00\x00"),
            _property(0x370E001E, media_type.encode("ascii") + b"\x00"),
        ]
        made += _tnef_attribute(2, 0x00069005, struct.pack("<I", len(told)) + b"".join(told))
    return made


RICH_HTML: Final = (
    rb"{\rtf1\ansi\ansicpg1251\fromhtml1 \deff0{\fonttbl{\f0 Arial;}}{\*\htmltag64 <p>}\htmlrtf {\htmlrtf0 "
    rb"\'cf\'f0\'e8\'e2\'e5\'f2 \u1074?{\*\htmltag72 </p>}\htmlrtf\par}\htmlrtf0}"
)
RICH_TEXT: Final = rb"{\rtf1\ansi\ansicpg1254{\fonttbl{\f0 Arial;}}\uc1 Lamba k\'fdr\'fdk\par Te\u351?ekk\'fcrler\tab\{x\}}"

TNEF_SEEDS: Final = (
    make_tnef(text="Kargo gelmedi", files=(("fatura.pdf", "application/pdf", b"%PDF-1.4"),)),
    make_tnef(html="<p>Привет</p>"),
    make_tnef(rich=RICH_HTML),
    make_tnef(rich=RICH_TEXT, files=(("a", "", b""), ("b.txt", "text/plain", b"x" * 99))),
)

CALENDAR: Final = (
    b"BEGIN:VCALENDAR\r\nMETHOD:REPLY\r\nBEGIN:VEVENT\r\nUID:7@example.com\r\nSUMMARY:Lamp fitting\\, hall\r\n"
    b"DTSTART;TZID=Europe/Istanbul:20261126T100000\r\nDTEND:20261126T110000Z\r\nLOCATION:Oak Street 1\r\n"
    b'ORGANIZER;CN="Lantern; Oak":mailto:support@lantern-oak.example\r\n'
    b"ATTENDEE;PARTSTAT=ACCEPTED;CN=Ada:MAILTO:ada@example.com\r\nDESCRIPTION:Long\\nlines\r\n  folded\r\n"
    b"BEGIN:VALARM\r\nSUMMARY:no\r\nEND:VALARM\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"
)

QUOTES: Final = tuple(
    text.encode()
    for text in (
        "It came.\n\nOn Tue, 24 Nov 2026 at 08:04, Shop <s@shop.example> wrote:\n> old\n\nBelow.\n-- \nAda",
        "Geldi.\n\nShop <s@shop.example>, 24 Kas 2026 Sal, 08:04 tarihinde şunu yazdı:\n> eski\n\niPhone'umdan gönderildi",
        "Пришло.\n\nвт, 24 нояб. 2026 г. в 08:04, Shop <s@shop.example>:\n> старое\nОтправлено с iPhone",
        "Da.\n________________________________\nVon: Shop <s@shop.example>\nGesendet: Dienstag\nAn: Ada\nBetreff: x\n\nalt",
        "See:\n---------- Forwarded message ---------\nFrom: a@b.example\nSubject: x\n\nhello",
        "-----Original Message-----\nFrom: a\nSent: b\nTo: c\n\nold",
    )
)
HTML: Final = (
    b'<div>Hi<br></div><div class="gmail_quote"><div class="gmail_attr">On 1.1.2026 wrote:</div><blockquote>old</blockquote></div>',
    b'<p>Hi</p><div id="appendonsend"></div><hr><div id="divRplyFwdMsg">From: a</div><div>old</div>',
    b"<table><tr><td>a</td><td>&nbsp;b</td></tr></table><ul><li>x<li>y</ul><pre>a\n b</pre><script>if(a<b)</script>",
    b'<div class="gmail_signature"><div>x</div></div><!-- c --><style>p{}</style><b>&#x41;&amp;&lt;</b>',
)
ADDRESSES: Final = (
    b'"Lovelace, Ada" <ada@example.com>, team: a@example.com, b@example.com;, =?utf-8?q?=C5=9Eule?= <sule@example.com>',
    b"ada@example.com (Ada (L.)), <ada@[192.0.2.1]>, undisclosed-recipients:;",
)
WORDS: Final = (
    b"=?utf-8?q?K=C3?= =?utf-8?q?=B6=C5?= =?windows-1254*tr?b?9v7l?= plain =?utf-8?B?0JfQsA?=",
    b"text/plain; charset*=utf-8''x; name*0*=iso-8859-9''%FE; name*1=b; boundary=\"a\\\"b\"",
)


def _mail_seeds() -> tuple[bytes, ...]:
    head = (
        b"Return-Path: <ada@example.com>\r\nFrom: Ada <ada@example.com>\r\nTo: support@lantern-oak.example\r\n"
        b"Subject: =?utf-8?q?K=C3=B6=C5=9Fe?=\r\nDate: Tue, 24 Nov 2026 08:00:00 +0000\r\nMessage-ID: <1@example.com>\r\n"
    )
    small = [mail[:6_000] for mail in mails.make(12)]
    bounce = (
        head
        + b"Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n--b\r\n\r\nfailed\r\n--b\r\n"
        b"Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; x\r\n\r\nFinal-Recipient: rfc822; a@b.example\r\n"
        b"Action: failed\r\nStatus: 5.1.1\r\n\r\n--b\r\nContent-Type: message/rfc822\r\n\r\nMessage-ID: <o@x>\r\n\r\nhi\r\n--b--\r\n"
    )
    free = (
        head.replace(b"Ada <ada@example.com>", b"MAILER-DAEMON@mx.example")
        + b"X-Failed-Recipients: a@b.example\r\n\r\n"
        b"This message was created automatically by mail delivery software.\r\n\r\n  a@b.example\r\n    550 5.1.1 no\r\n"
    )
    wrapped = (
        head
        + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: application/ms-tnef; name=winmail.dat"
        b"\r\n\r\n"
        + TNEF_SEEDS[2]
        + b"\r\n--b\r\nContent-Type: text/calendar; method=REPLY\r\n\r\n"
        + CALENDAR
        + b"\r\n--b--\r\n"
    )
    html = head + b"Content-Type: text/html; charset=utf-8\r\n\r\n" + b"".join(HTML)
    carried = (
        head
        + b"Content-Type: message/rfc822\r\n\r\n"
        + head
        + b"Content-Type: message/rfc822\r\n\r\n"
        + head
        + b"\r\nx"
    )
    return (*small, bounce, free, wrapped, html, carried, head + b"\r\n" + QUOTES[0])


def _delivery(raw: bytes) -> Delivery:
    return Delivery("email", "acc", raw, NOW, own_addresses=OWN, trusted_servers=SERVERS)


def _email(raw: bytes) -> None:
    """The adapter itself, without the shield that `adapters.parse` puts around mistakes of ours."""
    for message in email.parse(_delivery(raw)).messages:
        encoded = message.__pydantic_serializer__.to_json(message)
        assert len(encoded) < 900_000
        assert b"\\u0000" not in encoded
        assert not set(message.subject) & set("\r\n\x00\u2028\u2029\x85")
        assert 1 <= len(message.vendor_message_id) <= email.ID_LENGTH_MAX
        assert message.sender.address == "" or addresses.is_address(message.sender.address)
        assert message.text_new.strip() or not message.text.strip()
    email.sender_address(raw)
    for file in email.attached(raw):
        assert file.size == len(file.data())


def _mime(raw: bytes) -> None:
    for leaf in mime.read(raw).leaves():
        assert len(leaf.payload()) == leaf.size()
        clean_text(leaf.text())
        assert "\n" not in leaf.filename


def _charsets(data: bytes) -> None:
    declared, _, rest = data.partition(b"|")
    charsets.decode(rest, declared.decode("latin-1")).encode("utf-8", "replace")


def _quotes(data: bytes) -> None:
    text = clean_text(data.decode("utf-8", "replace"))
    fresh = new_text(text)
    assert bool(fresh.strip()) == bool(text.strip())
    is_forward(text[:200])
    language.detect(text)


def _html(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    lines, marks = html_lines(text)
    assert len(lines) == len(marks)
    new_lines(lines, marks)
    html_to_text(text)


def _addresses(data: bytes) -> None:
    for mailbox in addresses.read(data.decode("utf-8", "replace")):
        assert addresses.is_address(mailbox.address)
        assert not set(mailbox.name) & set("\r\n\x00")


def _words(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    assert not set(clean_value(mime.decode_words(text))) & set("\r\n\x00\u2028\x85")
    mime.parameters_of(text)


def _rtf(data: bytes) -> None:
    rtf.text(data)
    rtf.text(rtf.unpacked(data))


def _calendar(data: bytes) -> None:
    found = invitations.read(charsets.decode(data, None))
    for value in found.fields.values() if found is not None else ():
        assert "\n" not in value


CHARSET_SEEDS: Final = tuple(
    f"{name}|".encode() + text.encode(encoding)
    for text, encoding, name in (
        ("Здравствуйте, где заказ", "koi8-r", "koi8-r"),
        ("Здравствуйте, где заказ", "cp1251", "utf-8"),
        ("Köşe kırık", "cp1254", "iso-8859-9"),
        ("注文した商品", "iso-2022-jp", "iso-2022-jp"),
        ("我的台灯", "gb18030", "gb2312"),
        ("Kargo", "utf-16", "utf-16"),
        ("Заказ", "utf-16-be", "utf-16"),
        ("x", "ascii", "utf-7"),
    )
)
CHARSET_TOKENS: Final = (
    b"utf-7|", b"utf-16|", b"utf-32|", b"hz|", b"iso-2022-kr|", b"koi8-u|", b"shift_jis|", b"big5|", b"cp874|", b"|",
    b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf", b"\x1b$B", b"\x1b(B", b"\x1b$)C", b"~{", b"~}", b"\x00", b"+ADw-",
)  # fmt: skip

MAIL_TARGETS: Final[tuple[MailTarget, ...]] = (
    ("email", _email, _mail_seeds(), MAIL_TOKENS),
    ("mime", _mime, _mail_seeds(), MAIL_TOKENS),
    ("charsets", _charsets, CHARSET_SEEDS, CHARSET_TOKENS),
    ("addresses", _addresses, ADDRESSES, MAIL_TOKENS),
    ("words", _words, WORDS, MAIL_TOKENS),
    ("quotes", _quotes, QUOTES, (*MAIL_TOKENS, b"Von: x", b"\n", b"> ", b"wrote:", " yazdı:".encode(), b"2026 10:00")),
    ("html", _html, HTML, MAIL_TOKENS),
    ("tnef", tnef.read, TNEF_SEEDS, (tnef.SIGNATURE, b"\x1f\x00\x00\x10", b"\x02\x01\x09\x10", b"LZFu", b"\xff" * 4)),
    ("rtf", _rtf, (RICH_HTML, RICH_TEXT, packed_rtf(RICH_HTML)), (b"{", b"}", b"\\", b"\\u-1?", b"\\'ff", b"{\\*\\htmltag")),
    ("calendar", _calendar, (CALENDAR,), (b"BEGIN:VEVENT\r\n", b"END:VEVENT\r\n", b"\r\n ", b";", b":", b'"', b"=", b"\\n")),
)  # fmt: skip
