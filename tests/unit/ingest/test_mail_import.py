"""Mails out of files: each comes once, whole, in order."""

from pathlib import Path

import pytest

from services.ingest.adapters.mail_import import ImportProblem, mails

ONE = b"From: ada@example.com\r\nSubject: one\r\n\r\nhello\r\n"


def test_a_file_is_one_mail(tmp_path: Path) -> None:
    path = tmp_path / "one.eml"
    path.write_bytes(ONE)
    (mail,) = mails(path)
    assert (mail.source, mail.raw) == (str(path), ONE)


def test_an_mbox_is_split_at_its_from_lines_and_unquoted(tmp_path: Path) -> None:
    path = tmp_path / "box"
    path.write_bytes(
        b"From ada@example.com Tue Nov 24 08:00:00 2026\n"
        b"Subject: one\n\nFirst line\n>From the start\n>>From quoted\nFrom within a paragraph\n\n"
        b"From bob@example.com Tue Nov 24 09:00:00 2026\nSubject: two\n\nhi\n"
    )
    first, second = mails(path)
    assert (
        first.raw
        == b"Subject: one\n\nFirst line\nFrom the start\n>From quoted\nFrom within a paragraph\n\n"
    )
    assert (second.source, second.raw) == (f"{path}#2", b"Subject: two\n\nhi\n")


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("b.eml", "a.eml", "sub/c.eml", ".hidden", "notes.md", "manifest.yaml"):
        (tmp_path / name).write_bytes(ONE)
    assert [Path(mail.source).name for mail in mails(tmp_path)] == ["a.eml", "b.eml", "c.eml"]


def test_a_path_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ImportProblem, match="does not exist"):
        list(mails(tmp_path / "none"))
