"""The sample day in `samples/`: the manifest and the files say the same, and nothing real is in them."""

import json
import re
from collections import Counter
from datetime import datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
OWN_MAILBOXES = {"support@lantern-oak.example", "help@lantern-oak.example"}
IGNORED_REASONS = {"spam", "bounce_unmatched", "automatic_unmatched", "loop"}
REQUIRED_KINDS = {
    "absurd_date", "angry_review", "api_error", "attachment", "bounce", "damaged_parcel", "delivery", "duplicate",
    "emoji_line", "exchange", "invoice_address", "junk", "login_trouble", "long_angry", "loop", "lost_order",
    "mixed_language", "newsletter", "no_diacritics", "no_message_id", "out_of_office", "password_reset", "performance",
    "product_question", "refund", "second_address", "security", "spam", "thanks_reopen", "thread_reply", "typos",
    "webhook_integration", "wholesale",
}  # fmt: skip
DAY_STARTS_AT = datetime.fromisoformat("2026-11-24T08:00:00+03:00")
DAY_ENDS_AT = datetime.fromisoformat("2026-11-24T18:00:00+03:00")
# Promises of speed that a reply must not make.
RASH_WORDS = ("instantly", "anında", "мгновенно", "моментально")

Entry = dict[str, Any]


def load_entries() -> list[Entry]:
    manifest = yaml.safe_load((SAMPLES / "manifest.yaml").read_text(encoding="utf-8"))
    return cast("list[Entry]", manifest["samples"])


ENTRIES = load_entries()
BY_NUMBER: dict[str, Entry] = {Path(entry["file"]).name[:3]: entry for entry in ENTRIES}
MAILS = [e for e in ENTRIES if e["file"].startswith("mail/") and e["expect"] != "parked"]
FORMS = [e for e in ENTRIES if e["file"].startswith("forms/")]
TICKETED = [e for e in ENTRIES if e["expect"] == "ticket" or "joins" in e["expect"]]


def number(entry: Entry) -> str:
    return Path(entry["file"]).name[:3]


def target(entry: Entry, relation: str) -> str | None:
    """The number that `expect` points to by `relation` (joins, duplicate, ignored), if it does."""
    expect = entry["expect"]
    return (
        cast("str", expect[relation]) if isinstance(expect, dict) and relation in expect else None
    )


def raw(entry: Entry) -> bytes:
    return SAMPLES.joinpath(entry["file"]).read_bytes()


def parse(entry: Entry) -> EmailMessage:
    return message_from_bytes(raw(entry), policy=policy.default)


def text_of(entry: Entry) -> str:
    """All that a reader sees: the subject and text parts of a mail, the fields of a form."""
    if entry["file"].startswith("forms/"):
        return "\n".join(str(value) for value in json.loads(raw(entry))["fields"].values())
    message = parse(entry)
    texts = [str(message["Subject"]), str(message["From"])]
    texts.extend(
        part.get_content()
        for part in message.walk()
        if part.get_content_type() in ("text/plain", "text/html")
    )
    return "\n".join(texts)


def ids(entries: list[Entry]) -> list[str]:
    return [number(entry) for entry in entries]


def test_every_file_is_listed_once_in_the_order_of_its_number() -> None:
    listed = [entry["file"] for entry in ENTRIES]
    on_disk = {
        path.relative_to(SAMPLES).as_posix()
        for folder in ("mail", "forms")
        for path in (SAMPLES / folder).iterdir()
    }
    assert len(set(listed)) == len(listed)
    assert set(listed) == on_disk
    assert ids(ENTRIES) == [f"{n:03d}" for n in range(1, len(ENTRIES) + 1)]
    for file in listed:
        assert re.fullmatch(r"(mail/\d{3}-[a-z0-9-]+\.eml|forms/\d{3}-[a-z0-9-]+\.json)", file), (
            file
        )


def test_the_day_is_full_and_speaks_three_languages() -> None:
    languages = Counter(entry["language"] for entry in ENTRIES)
    assert len(ENTRIES) >= 64
    assert set(languages) == {"en", "tr", "ru", "und"}
    assert min(languages["en"], languages["tr"], languages["ru"]) >= 15
    assert len(MAILS) >= 30
    assert len(FORMS) >= 15


def test_every_required_kind_is_present_and_no_other() -> None:
    kinds = Counter(kind for entry in ENTRIES for kind in entry["kinds"])
    assert set(kinds) == REQUIRED_KINDS
    assert kinds["spam"] == 2
    assert kinds["thread_reply"] >= 3
    assert kinds["duplicate"] >= 2


@pytest.mark.parametrize("entry", ENTRIES, ids=ids(ENTRIES))
def test_each_entry_says_what_is_expected_and_what_the_agent_does(entry: Entry) -> None:
    assert set(entry) <= {"file", "what", "kinds", "language", "expect", "desk", "agent"}
    assert entry["what"].isascii()
    assert "\n" not in entry["what"]
    expect = entry["expect"]
    if isinstance(expect, dict):
        assert len(expect) == 1
        assert set(expect) <= {"joins", "duplicate", "ignored"}
        if "ignored" in expect:
            assert expect["ignored"] in IGNORED_REASONS
    else:
        assert expect in ("ticket", "parked")
    if entry not in TICKETED:
        assert "desk" not in entry
        assert "agent" not in entry
        return
    agent = entry["agent"]
    assert entry["desk"] in ("service", "technical")
    assert agent["action"] in ("answer", "solve", "escalate")
    assert set(agent) == {"action", "reply"} | (
        {"facts"} if agent["action"] == "escalate" else set()
    )
    if agent["action"] == "escalate":
        assert entry["desk"] == "service"
        assert {"problem", "tried", "impact"} <= set(agent["facts"])
        assert all(agent["facts"].values())


@pytest.mark.parametrize("entry", TICKETED, ids=ids(TICKETED))
def test_each_reply_is_short_and_in_the_customers_language(entry: Entry) -> None:
    reply = entry["agent"]["reply"]
    sentences = re.split(r"(?<=[.!?…])\s+(?=\S)", reply.strip())
    assert 2 <= len(sentences) <= 4, sentences
    cyrillic = len(re.findall(r"[а-яё]", reply.lower()))
    turkish = len(re.findall(r"[ğşıİçöü]", reply))
    written_in = "ru" if cyrillic > len(reply) / 2 else "tr" if turkish > len(reply) / 50 else "en"
    assert written_in == entry["language"]
    assert not set(RASH_WORDS) & set(re.findall(r"\w+", reply.lower()))


@pytest.mark.parametrize("entry", MAILS, ids=ids(MAILS))
def test_each_mail_parses_cleanly_with_crlf_line_ends(entry: Entry) -> None:
    data = raw(entry)
    assert re.search(rb"(?<!\r)\n|\r(?!\n)", data) is None
    # RFC 5322, 2.1.1: at most 998 characters a line, or an SMTP server may refuse the mail.
    assert max(len(line) for line in data.split(b"\r\n")) <= 998
    message = parse(entry)
    for part in message.walk():
        assert part.defects == []
        assert all(header.defects == () for header in part.values())
    text = text_of(entry)
    assert "\ufffd" not in text
    if entry["language"] == "ru":
        assert re.search(r"[а-яё]{4}", text)
    addressed = {address.addr_spec for address in message["To"].addresses}
    assert addressed <= OWN_MAILBOXES


@pytest.mark.parametrize("entry", FORMS, ids=ids(FORMS))
def test_each_form_has_the_fields_and_the_key_it_needs(entry: Entry) -> None:
    form = json.loads(raw(entry))
    assert set(form) == {"form", "fields", "headers"}
    assert form["form"] == "contact"
    fields = form["fields"]
    assert {"name", "email", "subject", "message"} <= set(fields)
    assert set(fields) <= {"name", "email", "subject", "message", "language", "order"}
    assert all(isinstance(value, str) and value for value in fields.values())
    assert fields.get("language", entry["language"]) == entry["language"]
    assert re.fullmatch(r"[0-9a-f-]{36}", form["headers"]["Idempotency-Key"])


def test_the_one_parked_sample_is_not_a_mail_at_all() -> None:
    parked = [entry for entry in ENTRIES if entry["expect"] == "parked"]
    assert [entry["kinds"] for entry in parked] == [["junk"]]
    message = parse(parked[0])
    assert message.keys() == []
    assert b"\x00" in raw(parked[0])


def test_mails_are_dated_within_the_day_and_in_order_but_for_the_absurd_one() -> None:
    previous = DAY_STARTS_AT
    for entry in MAILS:
        sent_at = parse(entry)["Date"].datetime
        if "absurd_date" in entry["kinds"]:
            assert sent_at.year == 2062
        elif not target(entry, "duplicate"):
            assert previous <= sent_at <= DAY_ENDS_AT, entry["file"]
            assert sent_at.utcoffset() == DAY_STARTS_AT.utcoffset()
            previous = sent_at


@pytest.mark.parametrize("entry", TICKETED, ids=ids(TICKETED))
def test_each_thread_reply_refers_to_an_earlier_mail_of_its_conversation(entry: Entry) -> None:
    """Only what joins may name an earlier mail: the sender is the same and the ids lead to the opener."""
    opener = target(entry, "joins")
    earlier = {
        str(parse(mail)["Message-ID"]): target(mail, "joins") or number(mail)
        for mail in MAILS
        if number(mail) < number(entry) and not target(mail, "duplicate")
    }
    if entry["file"].startswith("forms/"):
        assert opener is None
        return
    message = parse(entry)
    named = f"{message['In-Reply-To'] or ''} {message['References'] or ''}".split()
    if opener is None:
        assert named == []
        return
    assert BY_NUMBER[opener]["expect"] == "ticket"
    assert named
    assert {earlier[message_id] for message_id in named} == {opener}
    assert (
        message["From"].addresses[0].addr_spec
        == parse(BY_NUMBER[opener])["From"].addresses[0].addr_spec
    )


def test_replies_come_with_references_only_and_with_in_reply_to_only() -> None:
    shapes = {
        ("In-Reply-To" in parse(entry), "References" in parse(entry))
        for entry in MAILS
        if target(entry, "joins")
    }
    assert shapes == {(True, True), (True, False), (False, True)}


def test_each_duplicate_carries_the_name_of_its_original() -> None:
    """A mail keeps its Message-ID (or, without one, every byte); a form its Idempotency-Key and fields."""
    duplicates = [
        (entry, original) for entry in ENTRIES if (original := target(entry, "duplicate"))
    ]
    assert {entry["file"].split("/")[0] for entry, _ in duplicates} == {"mail", "forms"}
    for entry, original in duplicates:
        first = BY_NUMBER[original]
        assert original < number(entry)
        assert first["expect"] == "ticket"
        if entry in FORMS:
            assert json.loads(raw(entry)) == json.loads(raw(first))
        elif parse(entry)["Message-ID"] is None:
            assert raw(entry) == raw(first)
        else:
            assert parse(entry)["Message-ID"] == parse(first)["Message-ID"]
            assert parse(entry).get_payload() == parse(first).get_payload()


def test_message_ids_and_idempotency_keys_are_used_once_apart_from_duplicates() -> None:
    originals = [entry for entry in ENTRIES if not target(entry, "duplicate")]
    message_ids = [parse(entry)["Message-ID"] for entry in originals if entry in MAILS]
    keys = [
        json.loads(raw(entry))["headers"]["Idempotency-Key"]
        for entry in originals
        if entry in FORMS
    ]
    assert Counter(message_ids)[None] == 1
    assert len(set(message_ids)) == len(message_ids)
    assert len(set(keys)) == len(keys)


def test_each_ignored_mail_shows_its_reason_and_no_ticketed_mail_does() -> None:
    for entry in MAILS:
        message = parse(entry)
        is_spam = message.get("X-Spam-Flag") == "YES"
        is_bounce = message.get_content_type() == "multipart/report"
        is_own = message["From"].addresses[0].addr_spec in OWN_MAILBOXES
        is_automatic = "List-Id" in message or message.get("Auto-Submitted", "no").startswith(
            "auto-"
        )
        reason = (
            "spam" if is_spam
            else "bounce_unmatched" if is_bounce
            else "loop" if is_own
            else "automatic_unmatched" if is_automatic
            else None
        )  # fmt: skip
        assert reason == target(entry, "ignored"), entry["file"]


def test_the_bounce_is_a_delivery_report_that_names_recipient_and_status() -> None:
    (bounce,) = [parse(entry) for entry in MAILS if "bounce" in entry["kinds"]]
    assert bounce.get_param("report-type") == "delivery-status"
    assert bounce["Return-Path"] == "<>"
    parts = {part.get_content_type(): part for part in bounce.iter_parts()}
    _, recipient = cast("list[EmailMessage]", parts["message/delivery-status"].get_payload())
    assert recipient["Action"] == "failed"
    assert recipient["Status"] == "5.1.1"


def test_mails_use_old_and_new_character_sets_and_transfer_encodings() -> None:
    seen: set[tuple[str, str]] = set()
    shapes: set[str] = set()
    for entry in MAILS:
        for part in parse(entry).walk():
            shapes.add(part.get_content_type())
            if charset := part.get_content_charset():
                seen.add((charset, str(part.get("Content-Transfer-Encoding", "7bit"))))
    assert {charset for charset, _ in seen} == {
        "us-ascii", "utf-8", "windows-1254", "iso-8859-9", "windows-1251", "koi8-r",
    }  # fmt: skip
    assert {encoding for _, encoding in seen} == {"7bit", "8bit", "base64", "quoted-printable"}
    assert {"multipart/alternative", "multipart/mixed", "image/png", "text/html"} <= shapes


def test_the_attachment_is_a_small_real_picture_with_a_cyrillic_name() -> None:
    (entry,) = [entry for entry in MAILS if "attachment" in entry["kinds"]]
    (attachment,) = list(parse(entry).iter_attachments())
    content = cast("bytes", attachment.get_content())
    assert attachment.get_filename() == "треснувший-плафон.png"
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert content.endswith(b"IEND\xaeB`\x82")
    assert len(content) < 1024


@pytest.mark.parametrize("entry", MAILS + FORMS, ids=ids(MAILS + FORMS))
def test_only_reserved_domains_and_addresses_are_named(entry: Entry) -> None:
    """RFC 2606 and 6761 reserve `.example` and example.com; RFC 5737 reserves 192.0.2.0/24."""
    # Quoted-printable breaks a line anywhere, inside a domain too.
    text = raw(entry).replace(b"=\r\n", b"").decode("latin-1") + text_of(entry)
    domains = set(re.findall(r"(?:@|https?://)([A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+)", text))
    assert [d for d in domains if not re.search(r"(\.example|^example\.com)$", d)] == []
    for address in re.findall(r"\b\d{1,3}(?:\.\d{1,3}){3}\b", text):
        assert address.startswith("192.0.2."), address
