"""`signalbox templates`: what is found, what is shown, and what is refused."""

import base64
import hashlib
import re
import shutil
from html import escape
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli import policy as policy_command
from cli.errors import CommandError, UsageMistake
from cli.main import app
from cli.template_page import MORE, coloured
from services.notifier.core.render import OCCASIONS, TOPICS

EXAMPLE = Path(__file__).parents[3] / "policy"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the example policy."""
    return Path(shutil.copytree(EXAMPLE, tmp_path / "policy"))


def change(folder: Path, path: str, old: str, new: str) -> None:
    file = folder / "templates" / path
    source = file.read_text(encoding="utf-8")
    assert old in source
    file.write_text(source.replace(old, new, 1), encoding="utf-8")


def test_the_example_is_in_order(folder: Path) -> None:
    result = CliRunner().invoke(app, ["templates", "lint", "--policy", str(folder)])
    assert result.exit_code == 0
    assert result.output == f"{folder}/templates: in order.\n"


def test_lint_prints_what_it_finds_and_fails(folder: Path) -> None:
    change(folder, "en/solved.j2", "We believe that", "Unfortunately, we believe that")
    result = CliRunner().invoke(app, ["templates", "lint", "--policy", str(folder)])
    assert result.exit_code == 1
    first, last = result.output.splitlines()
    assert first == (
        "error: templates/en/solved.j2:4: gloom: 'Unfortunately' opens with bad news; say first what we can do"
    )
    assert last.endswith("1 errors, 0 warnings.")


def test_policy_check_counts_the_errors_of_lint_and_leaves_its_warnings(folder: Path) -> None:
    change(
        folder, "en/solved.j2", "We believe that", "We believe that your ticket is gone, and that"
    )
    change(folder, "tr/received.j2", "Alındığı zaman: {{ received_at }}", "")
    result = CliRunner().invoke(app, ["policy", "check", str(folder)])
    assert result.exit_code == 1
    assert result.output.splitlines() == [
        "error: templates/en/solved.j2: line 4: jargon: 'ticket' is our jargon; say it as a friend would",
        f"{folder}: 1 errors, 0 warnings.",
    ]


def test_a_template_that_cannot_be_used_is_refused_by_policy_check_with_file_and_line(
    folder: Path,
) -> None:
    change(folder, "ru/solved.j2", "Мы считаем", "{{ nmae }} Мы считаем")
    _, findings = policy_command.examine(folder)
    (one,) = [finding for finding in findings if finding.level == "error"]
    assert (one.file, one.path) == ("templates/ru/solved.j2", "line 4")
    assert one.message.startswith("'nmae': unknown variable")


def test_preview_is_one_page_with_every_notice(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    command = [
        "templates",
        "preview",
        "--policy",
        str(folder),
        "--language",
        "tr",
        "--out",
        str(out),
    ]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0
    page = out.read_text(encoding="utf-8")
    assert page.count("<section") == len(OCCASIONS) + len(MORE)
    mails = len(OCCASIONS) + len(TOPICS)
    assert page.count("<iframe") == page.count('sandbox=""') == 4 * mails
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in page
    assert not re.search(r'(?:src|href)="https?:', page)
    assert "Merhaba Ayşe Hanım," in page


def test_preview_shows_all_that_the_templates_can_say(folder: Path, tmp_path: Path) -> None:
    """Each wording of `topics.j2` and `starters.j2`, in each language: also those of no sample ticket."""
    out = tmp_path / "page.html"
    command = ["templates", "preview", "--policy", str(folder), "--out", str(out)]
    assert CliRunner().invoke(app, command).exit_code == 0
    page = out.read_text(encoding="utf-8")
    for language in ("en", "tr", "ru"):
        for name in ("topics", "starters"):
            source = (folder / "templates" / language / f"{name}.j2").read_text(encoding="utf-8")
            dictionaries = re.findall(r"\{% set \w+ = \{(.*?)\} %\}", source, re.DOTALL)
            wordings = re.findall(r'"([^"\n]{20,})"', "".join(dictionaries))
            assert len(wordings) >= len(TOPICS) * 2
            assert [one for one in wordings if escape(one) not in page] == []


def test_preview_of_a_language_that_is_not_there_is_refused(folder: Path) -> None:
    command = ["templates", "preview", "--policy", str(folder), "--language", "de"]
    result = CliRunner().invoke(app, command)
    assert isinstance(result.exception, UsageMistake)
    assert str(result.exception) == "--language de: notify.yaml has en, ru, tr."


def test_preview_of_templates_that_cannot_be_used_says_why(folder: Path) -> None:
    change(folder, "en/solved.j2", "We believe", "{{ nmae }} We believe")
    result = CliRunner().invoke(app, ["templates", "preview", "--policy", str(folder)])
    assert isinstance(result.exception, CommandError)
    assert "templates/en/solved.j2: line 4: 'nmae': unknown variable" in str(result.exception)


def test_an_agent_gets_the_beginning_of_an_answer(folder: Path) -> None:
    command = ["templates", "starter", "refund", "--name", "LOVELACE, ADA", "--policy", str(folder)]
    result = CliRunner().invoke(app, command)
    assert result.output.startswith(
        "Hello Ada,\n\nI understand that you would like your money back"
    )
    unknown = CliRunner().invoke(app, ["templates", "starter", "weather", "--policy", str(folder)])
    assert "the topics are lost_order, damaged_parcel" in str(unknown.exception)


def test_a_mail_is_light_or_dark_whatever_the_browser_is_set_to() -> None:
    html = '<meta content="light dark">@media (prefers-color-scheme: dark) {}:root { color-scheme: light dark; }'
    assert (
        coloured(html, "dark") == '<meta content="dark">@media all {}:root { color-scheme: dark; }'
    )
    assert (
        coloured(html, "light")
        == '<meta content="light">@media not all {}:root { color-scheme: light; }'
    )
