"""What the product makes of the sample day, line by line, kept in files: a change shows as a diff one can read.

`make golden` rewrites them (`SIGNALBOX_GOLDEN=write`).
"""

import json
import os
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from chassis.policy import load
from cli.template_page import sample
from cli.templates import read
from services.ingest.adapters import email, form
from services.ingest.adapters.channel import Delivery, ParseError
from services.ingest.core.state import Parsed
from services.notifier.core.render import OCCASIONS, compile_templates
from services.router.core.policy.rules import facts, first_match
from services.router.handlers import POLICY as ROUTER_POLICY

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
RECEIVED_AT = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
IS_WRITING = os.environ.get("SIGNALBOX_GOLDEN") == "write"


def agree(name: str, lines: Iterable[str]) -> None:
    """Compare with the golden file, or write it."""
    text = "".join(f"{line}\n" for line in lines)
    path = HERE / name
    if IS_WRITING:
        path.write_text(text, encoding="utf-8")
    assert path.exists(), f"{name} is missing: run `make golden` and read what it writes"
    assert text == path.read_text(encoding="utf-8"), f"{name} differs: run `make golden` and read the diff"


def samples() -> list[dict[str, Any]]:
    """Return the manifest's entries, in their order."""
    manifest = yaml.safe_load((ROOT / "samples" / "manifest.yaml").read_text(encoding="utf-8"))
    return list(manifest["samples"])


def parsed(sample: dict[str, Any]) -> Parsed | str:
    """Read a sample as its channel does; the reason where it cannot be read."""
    path = ROOT / "samples" / sample["file"]
    try:
        if path.suffix == ".eml":
            return email.parse(Delivery(
                "email", "support", path.read_bytes(), RECEIVED_AT, input_id=path.stem,
                own_addresses=frozenset({"support@lantern-oak.example", "help@lantern-oak.example"}),
            ))
        fields = json.loads(path.read_text(encoding="utf-8"))
        body = json.dumps(fields["fields"], ensure_ascii=False).encode()
        return form.parse(Delivery(
            "form", fields["form"], body, RECEIVED_AT, input_id=path.stem,
            headers={"content-type": "application/json"},
        ))
    except ParseError as error:
        return str(error)


def test_each_sample_is_read_as_before() -> None:
    lines = []
    for sample in samples():
        outcome = parsed(sample)
        shown: dict[str, Any] = {"file": sample["file"]}
        if isinstance(outcome, str):
            shown["refused"] = outcome
        elif outcome.ignored is not None:
            shown["ignored"] = outcome.ignored
        else:
            shown["messages"] = [message.model_dump(mode="json") for message in outcome.messages]
        lines.append(json.dumps(shown, ensure_ascii=False, sort_keys=True, indent=1))
    agree("samples_read.jsonl", lines)


def test_each_sample_goes_to_the_queue_it_went_to_before() -> None:
    policy = load(ROOT / "policy", ROUTER_POLICY)
    lines = []
    for sample in samples():
        outcome = parsed(sample)
        for message in outcome.messages if isinstance(outcome, Parsed) else ():
            rule = first_match(policy.rules, facts(
                channel=message.channel, account=message.account, language=message.language, kind=message.kind,
                is_verified=False, is_automatic=message.is_automatic, subject=message.subject, text=message.text_new,
            ))
            lines.append(f"{sample['file']:50} {message.language or '-':3} {rule.queue:10} {rule.priority}  {rule.name}")
    agree("samples_routed.txt", lines)


@pytest.mark.parametrize("language", ["en", "tr", "ru"])
def test_each_notice_reads_as_before(language: str) -> None:
    file, sources = read(ROOT / "policy")
    templates = compile_templates(sources, tuple(file.languages))
    lines = []
    for occasion in OCCASIONS:
        words = templates.render(occasion, sample(language, file, occasion))
        lines += [f"=== {occasion}", f"Subject: {words.subject}", "", words.text.rstrip(), ""]
        lines += [f"Short: {words.short}", ""]
        lines += [f"Public: {words.public}", ""] if words.public else []
    agree(f"notices_{language}.txt", lines)
