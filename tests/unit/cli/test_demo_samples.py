"""What the demo makes of the manifest: every file is read, mails happen today, duplicates stay equal to the byte."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from cli.demo.samples import Sample, digest, form_of, load, mail_of
from cli.errors import CommandError
from cli.places import samples_folder

NOW = datetime(2027, 3, 1, 9, 30, tzinfo=UTC)


def by_number() -> dict[str, Sample]:
    return {sample.number: sample for sample in load(samples_folder())}


def test_every_sample_has_a_fate_and_those_that_point_somewhere_point_to_a_sample() -> None:
    samples = by_number()
    assert len(samples) >= 60
    assert samples["015"].repeats == "001"
    assert samples["030"].repeats == "029"
    assert samples["018"].joins == "001"
    assert samples["007"].about == "spam"
    assert samples["058"].fate == "parked"
    assert samples["002"].action == "escalate"
    assert set(samples["002"].facts) >= {"problem", "tried", "impact"}


def test_a_mail_is_dated_when_it_is_sent_and_otherwise_left_alone() -> None:
    sample = by_number()["001"]
    sent = mail_of(sample, NOW).body.split(b"\r\n")
    written = sample.raw.split(b"\r\n")
    changed = [(a, b) for a, b in zip(written, sent, strict=True) if a != b]
    assert [new for _, new in changed] == [b"Date: Mon, 01 Mar 2027 09:30:00 +0000"]
    assert all(old.startswith(b"Date:") for old, _ in changed)


def test_an_absurd_date_stays_absurd() -> None:
    sample = by_number()["036"]
    assert b"2062" in mail_of(sample, NOW).body


def test_duplicates_that_are_equal_to_the_byte_stay_so() -> None:
    samples = by_number()
    for first, second in (("001", "015"), ("035", "038")):
        assert mail_of(samples[first], NOW).body == mail_of(samples[second], NOW).body


def test_what_is_no_mail_is_sent_as_it_is() -> None:
    sample = by_number()["058"]
    mail = mail_of(sample, NOW)
    assert b"\x00" in mail.body
    assert b"Date:" not in mail.body
    assert mail.recipients == ("support@lantern-oak.example",)


def test_a_reply_names_our_mail_last_among_its_references_as_mail_programs_do() -> None:
    mail = mail_of(by_number()["018"], NOW, "<sb.answer@lantern-oak.example>")
    head = mail.body.partition(b"\r\n\r\n")[0]
    references = head[head.index(b"References:") :].split(b"\r\n")
    assert references[1] == b" <sb.answer@lantern-oak.example>"
    in_reply_to = next(line for line in head.split(b"\r\n") if line.startswith(b"In-Reply-To:"))
    assert b"sb.answer" not in in_reply_to


def test_a_reply_with_references_alone_stays_one() -> None:
    assert b"sb.answer" not in mail_of(by_number()["056"], NOW, "<sb.answer@x.example>").body


def test_the_envelope_comes_from_the_headers() -> None:
    mail = mail_of(by_number()["056"], NOW)
    assert mail.sender == "ismail.gokce@posta.example"
    assert mail.recipients == ("support@lantern-oak.example",)


def test_a_form_is_posted_with_its_key_and_its_headers() -> None:
    samples = by_number()
    form = form_of(samples["030"])
    assert form.path == "/v1/forms/contact"
    assert form.headers["Idempotency-Key"] == form_of(samples["029"]).headers["Idempotency-Key"]
    assert form.body == form_of(samples["029"]).body


def test_line_ends_do_not_change_what_a_body_is_called() -> None:
    assert digest(b"a\nb\r\n") == digest(b"a\r\nb") != digest(b"ab")


@pytest.mark.parametrize(
    ("manifest", "told"),
    [
        (
            "samples: [{file: mail/001-a.eml, what: x, language: en, expect: maybe}]",
            "expect: 'maybe'",
        ),
        ("samples: [{file: mail/001-a.eml, language: en, expect: ticket}]", "what"),
        (
            "samples: [{file: mail/009-gone.eml, what: x, language: en, expect: ticket}]",
            "cannot be read",
        ),
        (
            "samples: [{file: mail/001-a.eml, what: x, language: en, expect: {joins: '007'}}]",
            "there is no sample 007",
        ),
        ("nothing: here", "cannot be read"),
    ],
)
def test_a_mistake_in_the_manifest_is_named(tmp_path: Path, manifest: str, told: str) -> None:
    (tmp_path / "mail").mkdir()
    (tmp_path / "mail" / "001-a.eml").write_bytes(b"From: a@b.example\r\n\r\nx\r\n")
    (tmp_path / "manifest.yaml").write_text(manifest, encoding="utf-8")
    with pytest.raises(CommandError, match=told):
        load(tmp_path)
