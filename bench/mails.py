"""A seeded heap of mails as support mailboxes get them, 5 to 50 kB each: the same seed, the same bytes.

All people, shops and words are made up. The shares follow what a shop's mailbox looks like: mostly answers with HTML
and quotes, some plain text, some in old character sets, some with a picture, a few newsletters, bounces and absences.
"""

import base64
import quopri
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Final

SEED: Final = 20_261_124
BYTES: Final = (5_000, 50_000)
"""Smallest and largest mail, in bytes."""


def _words(text: str) -> list[str]:
    return text.split()


_FIRST: Final = datetime(2026, 11, 2, 6, 0, tzinfo=UTC)
_WORDS: Final = {
    "en": _words(
        "the lamp order parcel came broken still waiting please help refund invoice when will it arrive thank you for "
        "your answer we have not received anything since last week and our address is right could you look again"
    ),
    "tr": _words(
        "sipariş kargo hâlâ gelmedi lütfen yardım iade fatura ne zaman gelir teşekkürler cevabınız için geçen haftadan "
        "beri bekliyorum ürün kırık çıktı adresim doğru bir daha bakar mısınız çünkü çok acil şimdi"
    ),
    "ru": _words(
        "заказ посылка ещё не пришла пожалуйста помогите возврат счёт когда придёт спасибо за ответ мы ждём с прошлой "
        "недели лампа разбита адрес правильный посмотрите ещё раз очень срочно сейчас"
    ),
    "de": _words(
        "die Bestellung Lampe Paket ist noch nicht angekommen bitte helfen Sie Rückgabe Rechnung wann kommt es danke für "
        "Ihre Antwort wir warten seit letzter Woche und die Adresse stimmt können Sie noch einmal schauen"
    ),
}
_CHARSETS: Final = {
    "en": ("us-ascii", "utf-8", "iso-8859-1"),
    "tr": ("utf-8", "utf-8", "windows-1254", "iso-8859-9"),
    "ru": ("utf-8", "utf-8", "windows-1251", "koi8-r"),
    "de": ("utf-8", "iso-8859-1"),
}
_ATTRIBUTIONS: Final = {
    "en": "On Tue, 24 Nov 2026 at 08:04, Lantern Oak <support@lantern-oak.example> wrote:",
    "tr": "Lantern Oak <support@lantern-oak.example>, 24 Kas 2026 Sal, 08:04 tarihinde şunu yazdı:",
    "ru": "вт, 24 нояб. 2026 г. в 08:04, Lantern Oak <support@lantern-oak.example>:",
    "de": "Am Di., 24. Nov. 2026 um 08:04 Uhr schrieb Lantern Oak <support@lantern-oak.example>:",
}
_PEOPLE: Final = (
    ("Ada Lovelace", "ada"), ("Şule Yılmaz", "sule"), ("Игорь Петров", "igor"), ("Jörg Weiß", "joerg"),
    ("Zoë Martin", "zoe"), ("Mehmet Çelik", "mehmet"), ("Анна Смирнова", "anna"), ("Olu Ade", "olu"),
)  # fmt: skip


def _sentences(random: Random, language: str, characters: int) -> str:
    made: list[str] = []
    length = 0
    while length < characters:
        words = random.choices(_WORDS[language], k=random.randint(6, 16))
        sentence = f"{' '.join(words).capitalize()}."
        made.append(sentence)
        length += len(sentence) + 1
    return " ".join(made)


def _wrapped(text: str, width: int = 76) -> list[str]:
    lines: list[str] = []
    line = ""
    for word in text.split():
        if len(line) + len(word) + 1 > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return [*lines, line]


def _encoded(text: str, charset: str, random: Random) -> tuple[str, bytes]:
    data = text.encode("cp1252" if charset in ("us-ascii", "iso-8859-1") else charset, "replace")
    if random.random() < 0.5:
        return "base64", base64.encodebytes(data).replace(b"\n", b"\r\n")
    return "quoted-printable", quopri.encodestring(data).replace(b"\n", b"\r\n")


def _part(text: str, subtype: str, charset: str, random: Random) -> bytes:
    encoding, body = _encoded(text, charset, random)
    head = f"Content-Type: text/{subtype}; charset={charset}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
    return head.encode() + body


def _plain(random: Random, language: str, size: int) -> str:
    fresh = "\n".join(_wrapped(_sentences(random, language, min(1_200, size // 4))))
    quoted = "\n".join(f"> {line}" for line in _wrapped(_sentences(random, language, size)))
    return f"{fresh}\n\n{_ATTRIBUTIONS[language]}\n{quoted}\n"


def _html(random: Random, language: str, size: int) -> str:
    fresh = _sentences(random, language, min(1_200, size // 6))
    paragraphs: list[str] = []
    length = 0
    while length < size:
        text = _sentences(random, language, random.randint(120, 400))
        paragraph = (
            f'<p class="MsoNormal" style="margin:0cm;font-size:11pt;font-family:Calibri,sans-serif"><span lang="EN-US"'
            f' style="color:#1F497D">{text}</span><o:p></o:p></p>'
        )
        paragraphs.append(paragraph)
        length += len(paragraph)
    attribution = _ATTRIBUTIONS[language].replace("<", "&lt;").replace(">", "&gt;")
    return (
        '<html><head><meta http-equiv="Content-Type" content="text/html"><style>p{margin:0}</style></head><body>'
        f'<div dir="ltr">{fresh}</div><br><div class="gmail_quote"><div dir="ltr" class="gmail_attr">{attribution}<br>'
        '</div><blockquote class="gmail_quote" style="margin:0px 0px 0px 0.8ex;border-left:1px solid rgb(204,204,204)">'
        f"{''.join(paragraphs)}</blockquote></div></body></html>"
    )


def _newsletter(random: Random, language: str, size: int) -> str:
    cells: list[str] = []
    length = 0
    while length < size:
        text = _sentences(random, language, 60)
        cell = (
            '<tr><td style="padding:8px;border:0" width="300" align="left" valign="top"><a href="https://shop.example/p/'
            f'{random.randrange(10**6)}?utm_source=news"><img src="https://shop.example/i/{random.randrange(10**6)}.jpg"'
            f' width="280" alt="lamp"></a><br><b>{text}</b>&nbsp;&euro;{random.randrange(10, 99)}</td></tr>'
        )
        cells.append(cell)
        length += len(cell)
    return f'<html><body><table width="600" cellpadding="0">{"".join(cells)}</table></body></html>'


def _word(text: str, charset: str = "utf-8") -> str:
    return f"=?{charset}?b?{base64.b64encode(text.encode(charset)).decode()}?="


def _head(random: Random, number: int, language: str, extra: str = "") -> bytes:
    name, local = random.choice(_PEOPLE)
    at = _FIRST + timedelta(seconds=number * 97)
    received = "".join(
        f"Received: from relay{hop}.example.net (relay{hop}.example.net [192.0.2.{random.randrange(1, 250)}])\r\n"
        f"\tby mx{hop}.lantern-oak.example (Postfix) with ESMTPS id {random.getrandbits(48):012X}\r\n"
        f"\tfor <support@lantern-oak.example>; {at:%a, %d %b %Y %H:%M:%S} +0000 (UTC)\r\n"
        for hop in range(random.randint(2, 5))
    )
    signature = base64.b64encode(random.randbytes(256)).decode()
    return (
        f"Return-Path: <{local}@example.com>\r\n{received}"
        "Authentication-Results: mx0.lantern-oak.example; dkim=pass header.d=example.com; spf=pass\r\n"
        "\tsmtp.mailfrom=example.com; dmarc=pass header.from=example.com\r\n"
        "DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.com; s=s1;\r\n"
        f"\th=from:to:subject:date:message-id; bh=abc=;\r\n\tb={signature[:70]}\r\n\t {signature[70:140]}\r\n"
        f"From: {_word(name)} <{local}{number % 997}@example.com>\r\nTo: Lantern Oak <support@lantern-oak.example>\r\n"
        f"Subject: {_word('Re: ' + _sentences(random, language, 20)[:40])}\r\nDate: {at:%a, %d %b %Y %H:%M:%S} +0000\r\n"
        f"Message-ID: <{number}.{random.getrandbits(40):x}@example.com>\r\n"
        f"In-Reply-To: <t{number}@lantern-oak.example>\r\nReferences: <a{number}@lantern-oak.example>\r\n"
        f" <t{number}@lantern-oak.example>\r\nMIME-Version: 1.0\r\n{extra}"
    ).encode()


def _multipart(kind: str, boundary: str, parts: list[bytes]) -> bytes:
    delimiter = f"--{boundary}".encode()
    return (
        f'Content-Type: multipart/{kind}; boundary="{boundary}"\r\n\r\n'.encode()
        + b"".join(delimiter + b"\r\n" + part + b"\r\n" for part in parts)
        + delimiter
        + b"--\r\n"
    )


Maker = Callable[[Random, str, str, int], bytes]


def _as_plain(random: Random, language: str, charset: str, size: int) -> bytes:
    return _part(_plain(random, language, size), "plain", charset, random)


def _as_html(random: Random, language: str, charset: str, size: int) -> bytes:
    return _part(_html(random, language, size), "html", charset, random)


def _as_both(random: Random, language: str, charset: str, size: int) -> bytes:
    plain = _part(_plain(random, language, size // 4), "plain", charset, random)
    html = _part(_html(random, language, size // 2), "html", charset, random)
    return _multipart("alternative", f"alt_{random.getrandbits(48):x}", [plain, html])


def _as_letter_with_picture(random: Random, language: str, charset: str, size: int) -> bytes:
    text = _part(_plain(random, language, 1_500), "plain", charset, random)
    picture = base64.encodebytes(random.randbytes(size // 2)).replace(b"\n", b"\r\n")
    name = _word("kırık lamba.jpg")
    head = (
        f'Content-Type: image/jpeg; name="{name}"\r\nContent-Disposition: attachment; filename="{name}"\r\n'
        "Content-Transfer-Encoding: base64\r\n\r\n"
    )
    return _multipart("mixed", f"mix_{random.getrandbits(48):x}", [text, head.encode() + picture])


def _as_newsletter(random: Random, language: str, charset: str, size: int) -> bytes:
    return _part(_newsletter(random, language, size), "html", charset, random)


def _as_bounce(random: Random, language: str, charset: str, size: int) -> bytes:
    report = (
        b"Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.example.net\r\n\r\n"
        b"Final-Recipient: rfc822; nobody@example.com\r\nAction: failed\r\nStatus: 5.1.1\r\n"
    )
    copy = b"Content-Type: message/rfc822\r\n\r\nMessage-ID: <t1@lantern-oak.example>\r\n\r\n"
    text = b"Content-Type: text/plain\r\n\r\nIt could not be delivered.\r\n"
    parts = [text, report, copy + _as_plain(random, language, charset, size)]
    return _multipart("report; report-type=delivery-status", "rep_1", parts)


_KINDS: Final[tuple[tuple[Maker, int], ...]] = (
    (_as_both, 42), (_as_plain, 18), (_as_html, 20), (_as_letter_with_picture, 10), (_as_newsletter, 7), (_as_bounce, 3),
)  # fmt: skip


def make(count: int, seed: int = SEED) -> Iterator[bytes]:
    """Return `count` mails."""
    random = Random(seed)
    makers = [maker for maker, _ in _KINDS]
    weights = [weight for _, weight in _KINDS]
    for number in range(count):
        language = random.choices(tuple(_WORDS), (40, 25, 25, 10))[0]
        charset = random.choice(_CHARSETS[language])
        (maker,) = random.choices(makers, weights)
        # Most mail is short: the middle of the sizes is near the lower end.
        size = int(BYTES[0] * (BYTES[1] / BYTES[0]) ** random.random())
        mail = _head(random, number, language) + maker(random, language, charset, size // 2)
        while len(mail) < BYTES[0]:
            mail += b"\r\n"
        yield mail[: BYTES[1]]
