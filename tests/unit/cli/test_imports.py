"""`signalbox import csv`: every row is read before the first is taken in, and wrong ones are told by line."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app

CHANNELS = """
channels:
  old: {channel: csv, columns: {text: Description}}
"""
GOOD = "Email,Description\nada@example.com,Where is my lamp?\nbob@example.com,Mine is broken\n"
WRONG = GOOD + "nobody,Hello\ncleo@example.com,\n"


@pytest.fixture
def policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "policy"
    folder.mkdir()
    (folder / "channels.yaml").write_text(CHANNELS, encoding="utf-8")
    monkeypatch.setenv("SIGNALBOX_POLICY", str(folder))
    return folder


def run(tmp_path: Path, table: str, *options: str, account: str = "old") -> tuple[int, str]:
    path = tmp_path / "tickets.csv"
    path.write_text(table, encoding="utf-8")
    done = CliRunner().invoke(app, ["import", "csv", str(path), "--account", account, *options])
    told = done.output + (str(done.exception) if done.exception is not None else "")
    return done.exit_code, told


@pytest.mark.usefixtures("policy")
def test_a_good_table_is_said_to_be_good_and_nothing_is_taken_in(tmp_path: Path) -> None:
    code, said = run(tmp_path, GOOD, "--check")
    assert code == 0
    assert "2 rows are good, 0 are wrong; nothing was taken in." in said


@pytest.mark.usefixtures("policy")
def test_wrong_rows_are_told_by_line_and_column(tmp_path: Path) -> None:
    code, said = run(tmp_path, WRONG, "--check")
    assert code == 1
    assert "line 4: email: is not one mail address" in said
    assert "line 5: text: is empty" in said
    assert "2 rows are good, 2 are wrong" in said


@pytest.mark.usefixtures("policy")
def test_a_table_with_wrong_rows_is_not_taken_in_by_half(tmp_path: Path) -> None:
    code, said = run(tmp_path, WRONG)
    assert code == 1
    assert "2 of 4 rows are wrong, so none was taken in" in said


@pytest.mark.usefixtures("policy")
def test_an_account_that_is_not_there_is_told_with_the_cure(tmp_path: Path) -> None:
    code, said = run(tmp_path, GOOD, "--check", account="new")
    assert code != 0
    assert "the csv accounts of channels.yaml are old" in said


@pytest.mark.usefixtures("policy")
def test_a_table_without_a_text_is_told_so(tmp_path: Path) -> None:
    code, said = run(tmp_path, "Email,Body\na@example.com,x\n", "--check")
    assert code != 0
    assert "text: the header has no such column" in said
