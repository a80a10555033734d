"""The one function that builds mail: header injection, line ends, encodings, the thread's ids."""

import email
import email.policy
import re
from datetime import datetime
from email.message import EmailMessage
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from services.notifier.adapters.smtp import UnsafeHeader, render
from services.notifier.core.state import Mail
from services.notifier.core.text import clean_line, clean_text

MAIL = Mail(
    from_name="Lantern & Oak",
    from_address="support@lantern-oak.example",
    to_address="ada@example.com",
    envelope_from="support+sb.token@lantern-oak.example",
    reply_to="support+sb.token@lantern-oak.example",
    subject="Re: My lamp never arrived",
    text="Hello Ada,\n.\nDeniz\n",
    html="<p>Hello Ada,</p>\n",
    language="en",
    date=datetime.fromisoformat("2026-11-24T08:00:00+00:00"),
    message_id="<sb." + "a" * 45 + "." + "0" * 32 + "@lantern-oak.example>",
    in_reply_to="<CAF1@mail.example.com>",
    references=("<CAF1@mail.example.com>",),
    headers=(("Auto-Submitted", "auto-replied"),),
)

HEADERS = {
    "date", "from", "to", "reply-to", "subject", "message-id", "in-reply-to", "references",
    "auto-submitted", "content-language", "mime-version", "content-type",
}  # fmt: skip


def _read(raw: bytes) -> EmailMessage:
    parsed = email.message_from_bytes(raw, policy=email.policy.default)
    assert isinstance(parsed, EmailMessage)
    assert not parsed.defects
    return parsed


def _content(part: Any) -> str:
    return str(part.get_content()).replace("\r\n", "\n")


def _assert_clean(raw: bytes) -> EmailMessage:
    """Line ends are CRLF and nothing else, lines are short, and no header came along."""
    assert raw.isascii()
    assert not re.search(rb"[^\r]\n|\r[^\n]", raw)
    assert max(map(len, raw.split(b"\r\n"))) <= 998
    parsed = _read(raw)
    assert {name.lower() for name in parsed} == HEADERS
    assert len(parsed.keys()) == len(HEADERS)
    return parsed


def test_a_mail_reads_back_as_it_was_meant() -> None:
    parsed = _assert_clean(render(MAIL))
    assert str(parsed["From"]) == "Lantern & Oak <support@lantern-oak.example>"
    assert parsed["To"] == "ada@example.com"
    assert parsed["Message-ID"] == MAIL.message_id
    assert parsed["Date"].datetime == MAIL.date
    assert parsed["Auto-Submitted"] == "auto-replied"
    assert parsed.get_content_type() == "multipart/alternative"
    text, html = parsed.iter_parts()
    assert _content(text) == MAIL.text
    assert html.get_content_type() == "text/html"
    assert _content(html) == MAIL.html


def test_the_same_mail_gives_the_same_bytes() -> None:
    assert render(MAIL) == render(MAIL)


def test_long_ids_are_never_turned_into_encoded_words() -> None:
    ids = tuple(f"<sb.{'a' * 45}.{number:032}@lantern-oak.example>" for number in range(12))
    raw = render(structs.replace(MAIL, references=ids))
    assert b"=?" not in raw.split(b"\r\n\r\n")[0]
    assert _read(raw)["References"].split() == list(ids)


@pytest.mark.parametrize(
    "subject",
    [
        "Re: Lambam hâlâ gelmedi, çok üzgünüm",
        "Re: Разбитый плафон " + "и ещё раз о том же " * 6,
        "Re: =?utf-8?q?hi=0ABcc=3A_eve=40example.com?=",
        "Re: 🕯️ lamp",
        "x" * 200,
    ],
)
def test_subjects_of_all_scripts_arrive(subject: str) -> None:
    parsed = _assert_clean(render(structs.replace(MAIL, subject=subject.strip())))
    assert parsed["Subject"] == subject.strip()
    assert "Bcc" not in parsed


@pytest.mark.parametrize("name", ['Lantern "Oak" \\', "Лампы & дубы", "Ünlü Işık"])
def test_display_names_of_all_scripts_arrive(name: str) -> None:
    parsed = _read(render(structs.replace(MAIL, from_name=name)))
    (address,) = parsed["From"].addresses
    assert address.display_name == name
    assert address.addr_spec == "support@lantern-oak.example"


@pytest.mark.parametrize(
    "bad", ["a\r\nBcc: eve@example.com", "a\nb", "a\rb", "a\x00b", "a\x85b", "a\u2028b"]
)
@pytest.mark.parametrize(
    "field", ["subject", "from_name", "to_address", "reply_to", "in_reply_to", "message_id"]
)
def test_a_value_that_would_break_out_of_its_header_is_refused(field: str, bad: str) -> None:
    with pytest.raises(UnsafeHeader):
        render(structs.replace(MAIL, **{field: bad}))


def test_a_word_too_long_to_fold_is_refused() -> None:
    with pytest.raises(UnsafeHeader, match="cannot be folded"):
        render(structs.replace(MAIL, subject="x" * 1000))


@settings(max_examples=100, deadline=None)
@given(subject=st.text(max_size=300), text=st.text(max_size=300), name=st.text(max_size=60))
def test_whatever_people_write_makes_one_well_formed_mail(
    subject: str, text: str, name: str
) -> None:
    mail = structs.replace(
        MAIL,
        subject=clean_line(subject),
        from_name=clean_line(name) or "x",
        text=clean_text(text) + "\n",
        html=f"<p>{clean_text(text)}</p>\n",
    )
    parsed = _assert_clean(render(mail))
    part: Any = next(iter(parsed.iter_parts()))
    assert _content(part) == mail.text


def test_an_encoded_subject_cannot_smuggle_a_header(story: Any) -> None:
    """CVE-2024-6923: an encoded word that holds a line break, decoded by a reader, sent on by a writer."""
    story.opened(
        "08:00",
        subject="hi\nBcc: eve@example.com",
        contact={"name": "Ada\nBcc: eve@x.example", "is_verified": True},
    )
    parsed = _read(render(story.mail))
    assert "Bcc" not in parsed
    assert parsed["Subject"] == "Re: hi Bcc: eve@example.com"


@pytest.mark.parametrize(
    "vendor_message_id",
    ["<a@b>\r\nBcc: eve@example.com", "<a b@c>", "a", "<" + "x" * 300 + "@example.com>", "<a@b> <c@d>", "<й@example.com>"],
)  # fmt: skip
def test_a_forged_message_id_is_not_referred_to(story: Any, vendor_message_id: str) -> None:
    story.opened("08:00", vendor_message_id=vendor_message_id)
    parsed = _read(render(story.mail))
    assert parsed["In-Reply-To"] is None
    assert parsed["References"] is None
