"""Mail as it really comes: every odd shape is read, and none of it can do harm."""

import base64
import time
from datetime import UTC, datetime

import pytest

from schemas import reply_token
from services.ingest import adapters
from services.ingest.adapters import addresses, charsets, email, mime
from services.ingest.adapters.channel import Delivery, Parsed, ParseError
from services.ingest.adapters.email import sender_address

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
OWN = frozenset({"support@lantern-oak.example", "help@lantern-oak.example"})
CONVERSATION = "b1c9f1c2-55a0-5a0e-9d1e-7c6d6a0f7f01"


def read(
    raw: bytes, *, envelope_from: str | None = None, trusted: frozenset[str] = frozenset()
) -> Parsed:
    return adapters.parse(
        Delivery(
            "email",
            "support",
            raw,
            NOW,
            own_addresses=OWN,
            envelope_from=envelope_from,
            trusted_servers=trusted,
        )
    )


def mail(headers: str = "", body: str | bytes = "Where is my lamp?", **kwargs: str) -> bytes:
    fields = {
        "From": "Ada <ada@example.com>",
        "To": "support@lantern-oak.example",
        "Subject": "My lamp",
        "Date": "Tue, 24 Nov 2026 08:00:00 +0000",
        "Message-ID": "<1@example.com>",
    } | {name.replace("_", "-"): value for name, value in kwargs.items()}
    top = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value)
    tail = body if isinstance(body, bytes) else body.encode()
    return (top + headers).encode("utf-8", "surrogateescape") + b"\r\n" + tail


def only(raw: bytes, **kwargs: object):  # type: ignore[no-untyped-def]
    (message,) = read(raw, **kwargs).messages  # type: ignore[arg-type]
    return message


# ------------------------------------------------------------------------------- character sets


@pytest.mark.parametrize(
    ("text", "encoding", "declared"),
    [
        ("Masanın köşesi kırık geldi, şikâyetim var", "cp1254", "windows-1254"),
        ("Masanın köşesi kırık geldi, şikâyetim var", "cp1254", "iso-8859-9"),
        ("Masanın köşesi kırık geldi, şikâyetim var", "cp1254", "iso-8859-1"),
        ("Masanın köşesi kırık geldi, şikâyetim var", "cp1254", ""),
        ("Masanın köşesi kırık geldi, şikâyetim var", "utf-8", "iso-8859-9"),
        ("Здравствуйте, где мой заказ? Жду уже неделю", "cp1251", "windows-1251"),
        ("Здравствуйте, где мой заказ? Жду уже неделю", "koi8-r", "KOI8-R"),
        ("Здравствуйте, где мой заказ? Жду уже неделю", "cp1251", "koi8-r"),
        ("Здравствуйте, где мой заказ? Жду уже неделю", "koi8-r", "windows-1251"),
        ("Здравствуйте, где мой заказ? Жду уже неделю", "cp1251", "us-ascii"),
        ("Здравствуйте, где мой заказ? Жду уже неделю", "koi8-r", "no-such-charset"),
        ("Здравствуйте, где мой заказ? Жду уже неделю", "utf-8", "windows-1251"),
        ("Здравствуйте, где мой заказ? Жду уже неделю", "cp1251", "utf-8"),
        ("Grüße aus Köln, schöne Lampe", "cp1252", "iso-8859-1"),
        ("注文した商品が届きません", "iso-2022-jp", "ISO-2022-JP"),
        ("我的台灯还没有到", "gb18030", "gb2312"),
        ("quite plain", "ascii", "utf-7"),
    ],
)
def test_text_is_read_whatever_its_charset_says(text: str, encoding: str, declared: str) -> None:
    kind = f"text/plain; charset={declared}" if declared else "text/plain"
    assert only(mail(body=text.encode(encoding), Content_Type=kind)).text == text


@pytest.mark.parametrize("declared", ["utf-16", "utf-32", "utf-8", "iso-2022-jp", None])
@pytest.mark.parametrize("data", [b"", b"\xef\xbb\xbf", b"\xff\xfe", b"\x00", b"\x1b"])
def test_nothing_but_a_mark_is_no_text_worth_failing_for(data: bytes, declared: str | None) -> None:
    assert len(charsets.decode(data, declared)) <= 1


@pytest.mark.parametrize(
    ("text", "encoding", "declared"),
    [
        ("Kargo gelmedi", "utf-16", "utf-16"),
        ("Заказ не пришёл", "utf-16-be", "utf-16"),
        ("Заказ не пришёл", "utf-16-le", "utf-16le"),
        ("Kargo gelmedi", "utf-16-le", ""),
        ("Köşe kırık, kargo", "utf-8", "utf-16"),
        ("我的台灯还没有到，请帮忙", "utf-8", "gb2312"),
        ("注文した商品", "iso-2022-jp", ""),
        ("Де моє замовлення? Не прийшло", "koi8-u", "koi8-u"),
        ("Де моє замовлення? Не прийшло", "cp1251", "koi8-u"),
    ],
)
def test_wide_and_many_byte_sets_are_read_under_wrong_names_too(
    text: str, encoding: str, declared: str
) -> None:
    assert charsets.decode(text.encode(encoding), declared) == text


def test_utf7_is_not_decoded() -> None:
    assert charsets.codec_of("utf-7") is None
    assert (
        only(mail(body="+ADw-b+AD4-", Content_Type="text/plain; charset=utf-7")).text
        == "+ADw-b+AD4-"
    )


@pytest.mark.parametrize(
    "declared", ["base64", "rot13", "zlib", "idna", "unicode_escape", "undefined", "x" * 500]
)
def test_codecs_that_are_no_charsets_are_not_used(declared: str) -> None:
    assert charsets.decode("köşe".encode(), declared) == "köşe"


# ---------------------------------------------------------------------------------- encoded words


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("=?utf-8?b?0JfQsNC60LDQtw==?=", "Заказ"),
        ("=?utf-8?B?0JfQsNC60LDQtw?=", "Заказ"),
        ("=?UTF-8?Q?K=C3=B6=C5=9Fe?=", "Köşe"),
        ("=?utf-8?q?K=C3?= =?utf-8?q?=B6=C5?=\r\n =?utf-8?q?=9Fe?=", "Köşe"),
        ("=?utf-8?q?two words with spaces?=", "two words with spaces"),
        ('"=?utf-8?q?K=C3=B6=C5=9Fe?="', '"Köşe"'),
        ("Re:=?utf-8?q?K=C3=B6=C5=9Fe?=!", "Re:Köşe!"),
        ("=?utf-8*tr?q?K=C3=B6=C5=9Fe?=", "Köşe"),
        ("=?windows-1254?q?K=F6=FEe?= =?koi8-r?b?+sHLwdo=?=", "KöşeЗаказ"),
        ("=?no-such?q?abc?=", "abc"),
        ("=?utf-8?q?unfinished", "=?utf-8?q?unfinished"),
        ("=?utf-8?x?abc?=", "=?utf-8?x?abc?="),
    ],
)
def test_encoded_words_are_read_in_every_wrong_form(value: str, shown: str) -> None:
    assert mime.decode_words(value) == shown


def test_raw_8_bit_headers_are_read() -> None:
    assert only(mail(Subject="Köşe kırık")).subject == "Köşe kırık"
    raw = (
        b"From: ada@example.com\r\nSubject: "
        + "Заказ не пришёл вовремя".encode("cp1251")
        + b"\r\n\r\nx"
    )
    assert only(raw).subject == "Заказ не пришёл вовремя"


@pytest.mark.parametrize(
    "inside", ["=0A", "=0D", "=0D=0A", "=00", "=1B", "=7F", "=C2=85", "=E2=80=A8", "=E2=80=A9"]
)
def test_no_header_value_can_carry_a_line_break_or_control_character(inside: str) -> None:
    subject = only(mail(Subject=f"=?utf-8?q?hi{inside}Bcc:_victim@example.com?=")).subject
    assert subject == "hi Bcc: victim@example.com"


def test_a_header_value_ends_at_998_characters() -> None:
    assert len(only(mail(Subject="a" * 5_000)).subject) == 998


# -------------------------------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    ("field", "name", "address"),
    [
        ("Ada <ada@example.com>", "Ada", "ada@example.com"),
        ("ada@example.com", "", "ada@example.com"),
        ("<ada@example.com>", "", "ada@example.com"),
        ('"Lovelace, Ada" <ada@example.com>', "Lovelace, Ada", "ada@example.com"),
        ("ada@example.com (Ada)", "Ada", "ada@example.com"),
        ("=?utf-8?q?=C5=9Eule?= <sule@example.com>", "Şule", "sule@example.com"),
        ("Şule <şule@köşe.example>", "Şule", "şule@köşe.example"),
        ('"ada@example.com" <bob@evil.example>', "ada@example.com", "bob@evil.example"),
        (
            "=?utf-8?q?<ada=40example.com>?= <bob@evil.example>",
            "<ada@example.com>",
            "bob@evil.example",
        ),
    ],
)
def test_an_address_is_read_with_its_name(field: str, name: str, address: str) -> None:
    assert addresses.read(field) == [(name, address)]


@pytest.mark.parametrize(
    "field",
    [
        "alice@example.org)bob@evil.example",
        "alice@example.org<bob@evil.example>x",
        "a@b@c.example",
        "alice@example.org]bob",
        "alice @example.org",
        "alice@",
        "@example.org",
        "<>",
        "undisclosed-recipients:;",
        "a" * 65 + "@example.org",
        "a@" + "b" * 260,
        "<alice@example.org",
        "",
    ],
)
def test_what_readers_could_read_differently_names_nobody(field: str) -> None:
    assert addresses.read(field) == []


def test_a_list_is_split_outside_quotes_and_groups_are_opened() -> None:
    field = '"Doe, J" <j@example.com>, team: a@example.com, b@example.com;, c@example.com'
    assert [found.address for found in addresses.read(field)] == [
        "j@example.com", "a@example.com", "b@example.com", "c@example.com",
    ]  # fmt: skip


def test_a_mail_without_a_readable_from_is_kept_under_its_return_path() -> None:
    raw = b"Subject: x\r\nReturn-Path: <ada@example.com>\r\n\r\nhello"
    assert only(raw).sender.address == "ada@example.com"
    nobody = only(b"Subject: x\r\nFrom: somebody\r\n\r\nhello").sender
    assert (nobody.name, nobody.address, nobody.kind) == ("somebody", "", "none")


def test_the_key_of_a_mail_is_its_sender_even_if_the_rest_cannot_be_read() -> None:
    assert sender_address(mail(From="Ada <ADA@Example.com>")) == "ada@example.com"
    assert sender_address(b"\x00\xff junk", "bob@example.com") == "bob@example.com"
    assert sender_address(b"", None) == ""


# ---------------------------------------------------------------------------------- ids and dates


def test_a_mail_without_message_id_gets_one_from_what_does_not_change_on_the_way() -> None:
    first = only(mail(headers="Received: from a\r\n", Message_ID=""))
    again = only(mail(headers="Received: from b\r\nX-Id: 7\r\n", Message_ID=""))
    other = only(mail(Message_ID="", body="Something else"))
    assert first.vendor_message_id == again.vendor_message_id != other.vendor_message_id
    assert first.vendor_message_id.endswith("@no-message-id.invalid>")


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("<a@b.example>", "<a@b.example>"),
        ("a@b.example", "<a@b.example>"),
        ("< a@b.example >", "<a@b.example>"),
        ("<a@b.example> (comment)", "<a@b.example>"),
        ("no-at-sign", "<no-at-sign>"),
    ],
)
def test_a_broken_message_id_is_taken_as_far_as_it_goes(given: str, kept: str) -> None:
    assert only(mail(Message_ID=given)).vendor_message_id == kept


def test_of_two_message_ids_the_first_counts_and_an_endless_one_is_shortened() -> None:
    doubled = mail(headers="Message-ID: <2@example.com>\r\n")
    assert only(doubled).vendor_message_id == "<1@example.com>"
    long_one = only(mail(Message_ID="<" + "a" * 900 + "@example.com>")).vendor_message_id
    other = only(mail(Message_ID="<" + "a" * 901 + "@example.com>")).vendor_message_id
    assert len(long_one) <= 200
    assert long_one != other


@pytest.mark.parametrize(
    ("given", "at"),
    [
        ("Tue, 24 Nov 2026 11:00:00 +0300", datetime(2026, 11, 24, 8, 0, tzinfo=UTC)),
        ("24 Nov 2026 08:00:00", datetime(2026, 11, 24, 8, 0, tzinfo=UTC)),
        ("Wed, 25 Nov 2026 12:00:00 +0000", datetime(2026, 11, 25, 12, 0, tzinfo=UTC)),
        ("Wed, 25 Nov 2026 12:00:01 +0000", NOW),
        ("Sun, 01 Jan 1995 00:00:00 +0000", datetime(1995, 1, 1, tzinfo=UTC)),
        ("Sat, 31 Dec 1994 23:59:59 +0000", NOW),
        ("Thu, 1 Jan 1970 00:00:00 +0000", NOW),
        ("Tue, 99 Foo 2026 99:00:00 +9999", NOW),
        ("24 Nov 2026 08:00:00 +999999", NOW),
        ("yesterday", NOW),
        ("", NOW),
    ],
)
def test_an_absurd_date_gives_way_to_the_time_of_receipt(given: str, at: datetime) -> None:
    assert only(mail(Date=given)).occurred_at == at


# ------------------------------------------------------------------------------------------ parts


def multipart(kind: str, *parts: str, end: str = "--b--\r\n") -> bytes:
    body = "".join(f"--b\r\n{part}\r\n" for part in parts) + end
    return mail(body=body, Content_Type=f'multipart/{kind}; boundary="b"')


def test_the_plain_text_of_an_alternative_is_taken_and_the_html_cleaned() -> None:
    message = only(
        multipart(
            "alternative",
            "Content-Type: text/plain\r\n\r\nHello",
            "Content-Type: text/html\r\n\r\n<p onclick=x()>Hello <script>alert(1)</script><b>you</b>"
            '<a href="javascript:x">l</a><img src="http://t.example/p"></p>',
        )
    )
    assert message.text == "Hello"
    assert message.html == '<p>Hello <b>you</b><a rel="noopener noreferrer nofollow">l</a></p>'


@pytest.mark.parametrize("kind", ["text/plain", "text/html", "text/html; charset=utf-16"])
def test_no_zero_byte_comes_through_to_a_database_that_refuses_it(kind: str) -> None:
    message = only(
        multipart(
            "mixed",
            "Content-Type: text/html\r\n\r\n<p>One\x00two\x00</p>",
            f"Content-Type: {kind}\r\n\r\n<b>th\x00ree\x00</b>",
        )
    )
    assert "\x00" not in message.model_dump_json()
    assert "\\u0000" not in message.model_dump_json()


def test_the_id_of_a_returned_mail_holds_no_control_character() -> None:
    raw = multipart("report", *BOUNCE).replace(
        b"<ours@lantern-oak.example>", b"<ou\x00rs@lantern-oak.example>"
    )
    assert "\\u0000" not in only(raw).model_dump_json()


def test_html_alone_becomes_text_with_its_lines_lists_and_quotes() -> None:
    message = only(
        mail(
            Content_Type="text/html",
            body="<style>x{}</style><p>One &amp; two</p><ul><li>a</li><li>b</li></ul>last<br>line"
            "<blockquote><p>old</p></blockquote>",
        )
    )
    assert message.text == "One & two\n\n- a\n- b\n\nlast\nline\n\n> old"
    assert message.text_new == "One & two\n\n- a\n- b\n\nlast\nline"


def test_attachments_are_named_and_measured_and_stay_out_of_the_text() -> None:
    message = only(
        multipart(
            "mixed",
            "Content-Type: text/plain\r\n\r\nSee the picture",
            "Content-Type: image/png; name*=utf-8''%C5%9F.png\r\nContent-Transfer-Encoding: base64\r\n\r\nQUJD",
            "Content-Type: text/plain\r\nContent-Disposition: attachment; filename*0=long; filename*1=.txt\r\n\r\nsecret",
            "Content-Type: application/pdf\r\nContent-Disposition: attachment; "
            'filename="=?utf-8?b?xZ8=?=.pdf"\r\n\r\nx',
        )
    )
    assert message.text == "See the picture"
    assert [(a.name, a.media_type, a.size) for a in message.attachments] == [
        ("ş.png", "image/png", 3),
        ("long.txt", "text/plain", 6),
        ("ş.pdf", "application/pdf", 1),
    ]


@pytest.mark.parametrize("width", [57, 60])
@pytest.mark.parametrize("cut", [0, 1, 2, 3])
def test_a_large_file_is_decoded_in_pieces_to_the_same_bytes(width: int, cut: int) -> None:
    data = bytes(range(256)) * 6_000
    encoded = base64.b64encode(data)[: -cut or None]
    lines = b"\r\n".join(encoded[at : at + width] for at in range(0, len(encoded), width))
    assert len(lines) > mime.MEASURED_AT_A_TIME
    raw = multipart(
        "mixed",
        "Content-Type: image/png; name=a.png\r\nContent-Transfer-Encoding: base64\r\n\r\nHERE",
    )
    (file,) = email.attached(raw.replace(b"HERE", lines))
    kept = file.data()
    assert (len(kept), data.startswith(kept)) == (file.size, True)
    assert len(data) - len(kept) <= 3


@pytest.mark.parametrize(
    "raw",
    [
        multipart("mixed", "Content-Type: text/plain\r\n\r\nWhere is my lamp?", end=""),
        mail(Content_Type="multipart/mixed"),
        mail(Content_Type="multipart/mixed; boundary=never-used"),
        mail(Content_Type="nonsense"),
        mail(Content_Type="text/plain; charset"),
        b"\r\n\r\n" + mail(),
        b"From ada@example.com Tue Nov 24 08:00:00 2026\n" + mail().replace(b"\r\n", b"\n"),
        mail().replace(b"\r\n", b"\r"),
    ],
)
def test_broken_structure_still_shows_the_text(raw: bytes) -> None:
    assert only(raw).text == "Where is my lamp?"


def test_folded_and_broken_header_lines_are_read_as_far_as_they_go() -> None:
    raw = b"Subject: one\r\n\ttwo\r\n three\r\nthis is no header\r\nFrom: ada@example.com\r\n\r\nx"
    message = only(raw)
    assert (message.subject, message.sender.address) == ("one two three", "ada@example.com")


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"", "no_header"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "no_header"),
        (bytes(range(256)) * 40, "no_header"),
        (b"X-Only: this\r\n\r\nx", "no_header"),
        (b"From: a@b.example\r\nX: " + b"a" * 300_000 + b"\r\n\r\nx", "header_too_large"),
        (b"From: a@b.example\r\n" + b"X: a\r\n" * 1_001 + b"\r\nx", "header_too_large"),
        (multipart("mixed", *(["\r\nx"] * 201)), "too_many_parts"),
        (
            b"".join(b"From: a@b.example\r\nContent-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(30)),
            "nested_too_deep",
        ),
    ],
)  # fmt: skip
def test_what_is_no_mail_or_breaks_a_limit_is_refused_by_name(raw: bytes, problem: str) -> None:
    with pytest.raises(ParseError) as refused:
        read(raw)
    assert refused.value.problem == problem


def test_two_hundred_parts_are_allowed() -> None:
    assert only(multipart("mixed", *(["\r\nx"] * 199))).text.count("x") == 199


@pytest.mark.parametrize(
    "body",
    [
        "<div>" * 100_000, "<b>" * 100_000, "<" * 400_000, "&" * 400_000, "<!--" * 100_000,
        "<a " + " ".join(f"a{n}=1" for n in range(50_000)) + ">x</a>", "<table>" * 50_000, "\n".join(["> " * 200] * 500),
        "On " + "a " * 200 + "\n" + "On x 12:34 from a@b wrote" * 2_000,
        "-" * 400_000, "<script>" * 30_000, "<a " * 30_000 + ">", "</div>" * 29_000, "=?a?q?" * 60_000,
    ],
    ids=range(14),
)  # fmt: skip
def test_mail_made_to_be_slow_is_read_within_a_second(body: str) -> None:
    for kind in ("text/html", "text/plain"):
        began = time.process_time()
        read(mail(body=body, Content_Type=kind, From="mailer-daemon@mx.example"))
        assert time.process_time() - began < 1.0


def test_a_huge_text_is_cut_so_that_its_event_fits() -> None:
    message = only(mail(body="🪔" * 300_000))
    assert len(message.model_dump_json().encode()) < 800_000
    assert message.text.startswith("🪔" * 20_000)


# ------------------------------------------------------------------------------- machines that write


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ("Auto-Submitted: auto-replied\r\n", "auto_submitted"),
        ("Auto-Submitted: auto-generated (vacation)\r\n", "auto_submitted"),
        ("Return-Path: <>\r\n", "null_return_path"),
        ("List-Id: <news.example.com>\r\n", "list"),
        ("List-Unsubscribe: <mailto:x@example.com>\r\n", "list"),
        ("Precedence: bulk\r\n", "precedence"),
        ("Precedence: Auto_Reply\r\n", "precedence"),
        ("X-Autoreply: yes\r\n", "vendor_header"),
        ("X-Autorespond: x\r\n", "vendor_header"),
        ("X-Auto-Response-Suppress: All\r\n", None),
        ("Auto-Submitted: no\r\n", None),
        ("Auto-Submitted: no\r\nPrecedence: bulk\r\n", None),
        ("X-Autoreply: no\r\n", None),
        ("List-Id: Support <support.lantern-oak.example>\r\nPrecedence: list\r\n", None),
        ("", None),
    ],
)
def test_automatic_mail_is_known_by_its_headers(headers: str, reason: str | None) -> None:
    message = only(mail(headers=headers))
    assert (message.is_automatic, message.automatic_reason) == (reason is not None, reason)


@pytest.mark.parametrize(
    "subject",
    [
        "Automatic reply: Your parcel", "Out of Office", "Out of office: back on Monday", "Auto: hello", "Autoreply",
        "Otomatik yanıt: Siparişiniz", "OTOMATİK YANIT", "Ofis dışında: Zeynep", "Автоответ: Re: заказ",
        "Автоматический ответ: отпуск",
    ],
)  # fmt: skip
def test_vacation_subjects_are_known_in_three_languages(subject: str) -> None:
    message = only(mail(Subject=subject))
    assert (message.kind, message.automatic_reason) == ("auto_reply", "subject")


@pytest.mark.parametrize(
    "subject",
    [
        "Re: Automatic reply: Your parcel",
        "Out of office lamps",
        "Automation of orders",
        "Я в отпускном настроении",
    ],
)
def test_a_persons_subject_is_no_vacation(subject: str) -> None:
    assert not only(mail(Subject=subject)).is_automatic


def test_an_empty_envelope_sender_is_a_null_return_path() -> None:
    assert only(mail(), envelope_from="").automatic_reason == "null_return_path"
    assert only(mail(), envelope_from="ada@example.com").automatic_reason is None


def test_spam_is_ignored_by_its_flag() -> None:
    assert read(mail(headers="X-Spam-Flag: YES\r\n")).ignored == "spam"
    assert read(mail(headers="X-Spam-Flag: NO\r\n")).ignored is None


def test_our_own_mail_coming_back_is_a_loop() -> None:
    token = reply_token.make(b"k" * 32, "default", CONVERSATION, "ada@example.com", NOW)
    assert read(mail(From="Shop <support@lantern-oak.example>")).ignored == "loop"
    assert read(mail(From="Shop <Support+sb.x@Lantern-Oak.example>")).ignored == "loop"
    assert read(mail(headers="X-Loop: help@lantern-oak.example\r\n")).ignored == "loop"
    assert read(mail(Message_ID=f"<sb.{token}.1@lantern-oak.example>")).ignored == "loop"
    assert (
        read(mail(headers=f"In-Reply-To: <sb.{token}.1@lantern-oak.example>\r\n")).ignored is None
    )


BOUNCE = (
    "Content-Type: text/plain\r\n\r\nIt failed.",
    "Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.example\r\n\r\n"
    "Final-Recipient: rfc822; ada@example.com\r\nAction: failed\r\nStatus: 5.1.1\r\n",
    "Content-Type: message/rfc822\r\n\r\nFrom: support@lantern-oak.example\r\nMessage-ID: <ours@lantern-oak.example>\r\n\r\nhi",
)


def test_a_delivery_report_names_recipient_status_and_our_mail() -> None:
    raw = multipart("report", *BOUNCE).replace(
        b'boundary="b"', b'boundary="b"; report-type=delivery-status'
    )
    raw = raw.replace(b"Ada <ada@example.com>", b"MAILER-DAEMON@mx.example", 1)
    message = only(raw)
    assert (message.kind, message.is_automatic) == ("bounce", True)
    assert message.bounce is not None
    assert (message.bounce.recipient, message.bounce.status) == ("ada@example.com", "5.1.1")
    assert message.in_reply_to == "<ours@lantern-oak.example>"


def test_a_free_form_bounce_is_known_by_its_daemon() -> None:
    raw = mail(
        headers="Return-Path: <>\r\n",
        From="Mail Delivery System <mailer-daemon@mx.example>",
        Subject="Undelivered Mail Returned to Sender",
        body="<ada@example.com>: 550 5.7.1 refused\r\n\r\n> Message-ID: <ours@lantern-oak.example>\r\n",
    )
    message = only(raw)
    assert message.bounce is not None
    assert (message.bounce.recipient, message.bounce.status) == ("ada@example.com", "5.7.1")
    assert message.in_reply_to == "<ours@lantern-oak.example>"


# ---------------------------------------------------------------------------------------- verified


def results(server: str, said: str) -> str:
    return f"Authentication-Results: {server}; {said}\r\n"


@pytest.mark.parametrize(
    ("headers", "verified"),
    [
        (results("mx1.shop.example", "dmarc=pass header.from=example.com"), True),
        (results("mx1.shop.example", "dmarc=fail header.from=example.com"), False),
        (results("mx1.shop.example", "dmarc=pass header.from=evil.example"), False),
        (results("evil.example", "dmarc=pass header.from=example.com"), False),
        (
            results("mx1.shop.example", "dmarc=fail header.from=example.com")
            + results("mx1.shop.example", "dmarc=pass header.from=example.com"),
            False,
        ),
        ("", False),
    ],
)
def test_a_sender_is_verified_only_by_a_server_we_trust(headers: str, verified: bool) -> None:
    parsed = read(mail(headers=headers), trusted=frozenset({"mx1.shop.example"}))
    assert parsed.verified is verified
    assert read(mail(headers=headers)).verified is False
