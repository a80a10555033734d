"""`signalbox notify preview --sample`: each notice as a customer gets it who gets that notice."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.main import app
from services.notifier.core.render import OCCASIONS

EXAMPLE = Path(__file__).parents[3] / "policy"


def previewed(*arguments: str, folder: Path = EXAMPLE) -> Any:
    command = ["notify", "preview", "--sample", "--json", "--policy", str(folder), *arguments]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.exception
    return json.loads(result.output)


@pytest.mark.parametrize("occasion", OCCASIONS)
def test_what_is_asked_for_is_what_is_shown(occasion: str) -> None:
    shown = previewed("--occasion", occasion)
    assert shown["occasion"] == occasion
    assert not [line for line in shown["in_words"] if "this customer gets" in line]


@pytest.mark.parametrize("now", ["2026-11-24T08:00:00Z", "2026-11-24T22:30:00Z"])
def test_after_hours_says_when_we_open_and_that_we_can_call(now: str) -> None:
    shown = previewed("--occasion", "after_hours", "--language", "en", "--now", now)
    assert "open again tomorrow at 09:00" in shown["text"]
    assert "- tomorrow, 10:00–10:30" in shown["text"]
    assert "We expect to answer you tomorrow by noon." in shown["text"]
    assert "Reply with your number and a time." in shown["short"]


@pytest.mark.parametrize(
    ("asked", "channel", "shown", "why"),
    [
        ("voicemail", "whatsapp", "received", "voicemail is for those who call"),
        ("received", "twilio_voice", "voicemail", "received is for those who write, while we"),
        ("after_hours", "voip", "voicemail", "after_hours is for those who write while we are"),
    ],
)
def test_where_another_notice_fits_it_is_shown_and_said_why(
    asked: str, channel: str, shown: str, why: str
) -> None:
    found = previewed("--occasion", asked, "--channel", channel)
    assert found["occasion"] == shown
    assert found["in_words"][0].startswith(f"this customer gets {shown}: {why}")


def test_where_a_notice_is_off_the_one_in_its_place_is_shown_and_said_why(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(EXAMPLE, tmp_path / "policy"))
    file = folder / "notify.yaml"
    source = file.read_text(encoding="utf-8")
    assert "  after_hours: true " in source
    file.write_text(source.replace("after_hours: true", "after_hours: false"), encoding="utf-8")
    found = previewed("--occasion", "after_hours", folder=folder)
    assert found["occasion"] == "received"
    assert found["in_words"][0] == "this customer gets received: after_hours is off in notify.yaml"
