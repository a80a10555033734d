"""`signalbox policy check`: the example is in order, and mistakes within and across files are named."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from cli.places import ROOT
from cli.policy import examine

EXAMPLE = ROOT / "policy"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(EXAMPLE, tmp_path / "policy"))


def change(folder: Path, name: str, old: str, new: str) -> None:
    text = (folder / name).read_text(encoding="utf-8")
    assert old in text
    (folder / name).write_text(text.replace(old, new, 1), encoding="utf-8")


def test_the_example_is_in_order_and_a_sample_message_finds_its_way() -> None:
    result = CliRunner().invoke(
        app, ["policy", "check", str(EXAMPLE), "--subject", "webhook fails"]
    )
    assert result.exit_code == 0, result.output
    assert "in order" in result.output
    assert "technical desk" in result.output
    assert "first response in" in result.output


def test_an_unknown_key_is_named_with_file_path_and_what_is_allowed(folder: Path) -> None:
    change(folder, "routing.yaml", "  max_declines: 3", "  max_decline: 3")
    result = CliRunner().invoke(app, ["policy", "check", str(folder)])
    assert result.exit_code == 1
    assert "error: routing.yaml: offers.max_decline: 3: unknown key" in result.output
    assert "max_declines" in result.output


def test_a_rule_that_names_no_sla_policy_is_found_across_files(folder: Path) -> None:
    change(folder, "routing.yaml", "sla_policy: urgent", "sla_policy: gold")
    _, findings = examine(folder)
    told = [str(one) for one in findings if one.level == "error"]
    assert told == [
        "error: routing.yaml: rules.0.then.sla_policy: 'gold': no such policy in sla.yaml; known: standard, urgent"
    ]


def test_a_language_without_templates_is_a_warning(folder: Path) -> None:
    change(folder, "routing.yaml", "languages: [en, tr, ru]", "languages: [en, tr, ru, de]")
    _, findings = examine(folder)
    assert any(one.level == "warning" and "is de" in one.message for one in findings)


def test_a_domain_that_does_not_exist_is_found_across_files(folder: Path) -> None:
    change(folder, "channels.yaml", "domain: main", "domain: nowhere")
    _, findings = examine(folder)
    assert any(one.file == "channels.yaml" and one.level == "error" for one in findings)


def test_a_sender_for_an_account_that_does_not_exist_is_a_warning(folder: Path) -> None:
    change(folder, "notify.yaml", "accounts: [support, contact]", "accounts: [support, contract]")
    _, findings = examine(folder)
    assert any("'contract'" in one.message and one.level == "warning" for one in findings)


def _with_account(folder: Path, name: str, provider: str, settings: str) -> list[str]:
    """What is found once notices have an account, and customers write to a Zendesk called `desk`."""
    desk = "channels:\n  desk: {channel: zendesk, secret: env:ZENDESK_SECRET}\n"
    change(folder, "channels.yaml", "channels: {}\n", desk)
    account = f"accounts:\n  {name}: {{provider: {provider}, {settings}}}\n"
    change(folder, "notify.yaml", "accounts: {}\n", account)
    return [str(one) for one in examine(folder)[1] if one.file == "notify.yaml"]


ZENDESK = 'url: "https://x.zendesk.com", client_id: s, client_secret: env:S, author_id: "7"'


def test_an_account_answers_the_channel_that_customers_write_to_under_its_name(
    folder: Path,
) -> None:
    assert _with_account(folder, "desk", "zendesk", ZENDESK) == []


def test_an_account_that_answers_another_channel_is_found_across_files(folder: Path) -> None:
    from services.notifier.adapters.slack import PROVIDER

    settings = ", ".join(f'{key}: "{value}"' for key, value in PROVIDER.settings.EXAMPLE.items())
    assert _with_account(folder, "desk", "slack", settings) == [
        "error: notify.yaml: accounts.desk.provider: 'slack': answers slack, and channels.yaml has zendesk under this name"
    ]


def test_an_account_that_nobody_writes_to_is_a_warning_with_the_nearest(folder: Path) -> None:
    assert _with_account(folder, "dsk", "zendesk", ZENDESK) == [
        "warning: notify.yaml: accounts.dsk: no such account in channels.yaml, and it is no fall_back, so nobody is"
        " answered by it. Is 'desk' meant?"
    ]


def test_an_article_for_a_cause_that_does_not_exist_is_a_warning(folder: Path) -> None:
    change(folder, "notify.yaml", "  refund_due: refund\n", "  refund_du: refund\n")
    change(folder, "notify.yaml", "  damaged:\n", "  damagd:\n")
    told = [str(one) for one in examine(folder)[1]]
    assert any(
        "notify.yaml: next_issue: 'damagd' does not stand in causes.yaml" in one for one in told
    )
    assert any(
        "notify.yaml: topics: 'refund_du' does not stand in causes.yaml" in one for one in told
    )


def test_a_broken_file_does_not_hide_mistakes_in_the_others(folder: Path) -> None:
    (folder / "sla.yaml").write_text("policies: [", encoding="utf-8")
    change(folder, "notify.yaml", "default_sender: support", "default_sender: nobody")
    _, findings = examine(folder)
    assert {one.file for one in findings if one.level == "error"} >= {"sla.yaml", "notify.yaml"}


def test_the_causes_are_printed_for_people_and_for_other_tools() -> None:
    shown = CliRunner().invoke(app, ["policy", "causes", str(EXAMPLE)])
    assert shown.exit_code == 0
    assert "lost_parcel (delivery)  service  en: The parcel is lost" in shown.output
    told = CliRunner().invoke(app, ["policy", "causes", str(EXAMPLE), "--json"])
    lines = [json.loads(line) for line in told.output.splitlines()]
    assert {"name": "api_down", "parent": "api", "desk": "technical"}.items() <= lines[-4].items()


def test_a_folder_without_causes_says_that_any_tag_goes(folder: Path) -> None:
    (folder / "causes.yaml").unlink()
    found = CliRunner().invoke(app, ["policy", "causes", str(folder)])
    assert found.exit_code != 0


@pytest.mark.parametrize(
    ("old", "new", "path"),
    [
        ("channel: [webchat]", "channel: [webchatt]", "rules.8.when"),
        ("  webchat: 20", "  webchatt: 20", "costs"),
    ],
)
def test_a_channel_that_no_adapter_has_is_a_warning_that_names_the_nearest(
    folder: Path, old: str, new: str, path: str
) -> None:
    change(folder, "routing.yaml", old, new)
    _, findings = examine(folder)
    told = [one for one in findings if one.path == path]
    assert [one.level for one in told] == ["warning"]
    assert "Is 'webchat' meant?" in told[0].message


def test_a_name_that_is_nearly_right_is_asked_about(folder: Path) -> None:
    change(folder, "routing.yaml", "payments: {level: 3}", "paiments: {level: 3}")
    result = CliRunner().invoke(app, ["policy", "check", str(folder)])
    assert result.exit_code == 1
    assert "Is 'payments' meant?" in result.output


def test_a_sample_says_what_is_asked_later_and_what_must_be_missing() -> None:
    result = CliRunner().invoke(
        app, ["policy", "check", str(EXAMPLE), "--subject", "webhook fails"]
    )
    assert "language en, api 7, not trainee" in result.output
    assert "after 50% of the time left or after 1800 s: api 4" in result.output


def test_an_sla_rule_that_no_ticket_comes_to_is_a_warning(folder: Path) -> None:
    rule = "rules:\n  - when: {}\n    policy: standard\n"
    change(folder, "sla.yaml", "rules:\n", rule)
    _, findings = examine(folder)
    found = [one for one in findings if one.file == "sla.yaml"]
    assert [(one.level, one.path) for one in found] == [("warning", "rules.1")]


def test_a_queue_of_a_tier_that_does_not_exist_is_found_across_files(folder: Path) -> None:
    change(folder, "sla.yaml", "front_line: [service]", "front_line: [servce]")
    _, findings = examine(folder)
    found = [str(one) for one in findings if one.level == "error"]
    assert found == [
        "error: sla.yaml: tiers.front_line: 'servce': no such queue in routing.yaml; known: leads, service, technical"
    ]


def test_a_dry_run_is_said_loudly(folder: Path) -> None:
    assert not any("DRY RUN" in str(one) for one in examine(folder)[1])
    change(folder, "notify.yaml", "delivery: live\n", "delivery: dry_run\n")
    (told,) = (str(one) for one in examine(folder)[1] if "DRY RUN" in one.message)
    assert told.startswith("warning: notify.yaml: delivery: DRY RUN: customers are told nothing")
