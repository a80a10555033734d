"""An installation's file: found again, private, and each service given what is its own."""

import stat
from pathlib import Path

import pytest

from cli import installation
from cli.errors import CommandError
from cli.installation import Installation
from cli.places import ROOT

PLATFORM = {"SIGNALBOX_KAFKA": "127.0.0.1:1", "SIGNALBOX_DATABASE_URL": "postgresql://x@h/d"}


def make(data_dir: Path) -> Installation:
    return installation.create("up", data_dir, PLATFORM, ROOT / "policy")


def test_it_is_found_again_as_it_was(tmp_path: Path) -> None:
    made = make(tmp_path)
    made.save()
    assert Installation.load(tmp_path / "up") == made
    assert Installation.load(tmp_path / "demo") is None


def test_its_files_hold_keys_and_are_for_their_owner_only(tmp_path: Path) -> None:
    make(tmp_path).save()
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "up").glob("*.json")}
    assert modes == {0o600}


def test_the_key_of_reply_tokens_stays_the_same_over_runs(tmp_path: Path) -> None:
    first, second = make(tmp_path), make(tmp_path)
    secret = "SIGNALBOX_TOKEN_SECRET"
    assert first.environment[secret] == second.environment[secret]
    assert len(first.environment[secret]) >= 32


def test_the_gateways_keys_go_to_ingest_alone(tmp_path: Path) -> None:
    made = make(tmp_path)
    for service in ("router", "sla", "notifier"):
        assert made.console_key not in made.service_environment(service).values()
    assert made.console_key in made.service_environment("ingest").values()


def test_the_notifier_sends_to_the_local_mailbox_and_ingest_listens_elsewhere(
    tmp_path: Path,
) -> None:
    made = make(tmp_path)
    assert made.service_environment("notifier")["SIGNALBOX_SMTP_PORT"] == str(made.mailbox_port)
    assert made.service_environment("ingest")["SIGNALBOX_SMTP_LISTEN_PORT"] == str(made.smtp_port)
    assert made.smtp_port != made.mailbox_port


def test_a_policy_folder_that_is_not_there_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="SIGNALBOX_POLICY"):
        installation.create("up", tmp_path, PLATFORM, tmp_path / "nowhere")


def test_one_whose_keeper_is_gone_does_not_count_as_running(tmp_path: Path) -> None:
    made = make(tmp_path)
    made.keeper = {"pid": 2**22 + 1, "started_at": 0.0}
    made.save()
    assert installation.running(tmp_path) == []
