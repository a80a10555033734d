"""The corpus in `tests/fixtures/ingest/email`: each mail becomes what the file beside it says."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from services.ingest.adapters import email
from services.ingest.adapters.channel import Delivery, ParseError

FOLDER = Path(__file__).resolve().parents[2] / "fixtures" / "ingest" / "email"
MAILS = sorted(FOLDER.glob("*.eml"))
NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
OWN = frozenset({"support@lantern-oak.example", "help@lantern-oak.example"})


def test_the_corpus_is_there_in_pairs() -> None:
    assert len(MAILS) >= 40
    told = {path.name.removesuffix(".expected.json") for path in FOLDER.glob("*.expected.json")}
    assert told == {path.stem for path in MAILS}


@pytest.mark.parametrize("path", MAILS, ids=lambda path: path.stem)
def test_a_mail_becomes_what_stands_beside_it(path: Path) -> None:
    expected = json.loads(path.with_name(f"{path.stem}.expected.json").read_text("utf-8"))
    delivery = Delivery(
        "email",
        "support",
        path.read_bytes(),
        NOW,
        own_addresses=OWN,
        trusted_servers=frozenset(expected.get("trusted", ())),
    )
    if "error" in expected:
        with pytest.raises(ParseError) as refused:
            email.parse(delivery)
        assert refused.value.problem == expected["error"]
        return
    parsed = email.parse(delivery)
    if "ignored" in expected:
        assert (parsed.messages, parsed.ignored) == ((), expected["ignored"])
        return
    (message,) = parsed.messages
    assert parsed.verified is expected.get("verified", False)
    got = json.loads(message.model_dump_json())
    _compare(got, expected["message"])


def _compare(got: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Compare what the pair names; of `fields` those that it names, or that there are none."""
    if "vendor_message_id_ends" in wanted:
        assert got["vendor_message_id"].endswith(wanted.pop("vendor_message_id_ends"))
    if wanted.get("fields"):
        got["fields"] = {name: got["fields"].get(name) for name in wanted["fields"]}
    if "attachments" in wanted:
        told = [[one["name"], one["media_type"], one["size"]] for one in got["attachments"]]
        for mine, theirs in zip(told, wanted["attachments"], strict=False):
            if theirs[2] is None:
                theirs[2] = mine[2]
        got["attachments"] = told
    assert {name: got[name] for name in wanted} == wanted
