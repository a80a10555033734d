"""The sample day: each mail and form becomes what `samples/manifest.yaml` says of it."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from schemas.inbound import InboundReceived
from services.ingest import adapters
from services.ingest.adapters.channel import Delivery, ParseError
from services.ingest.core.decide import Rules, decide
from services.ingest.core.state import Directory

SAMPLES = Path(__file__).resolve().parents[3] / "samples"
ENTRIES: list[dict[str, Any]] = yaml.safe_load(
    (SAMPLES / "manifest.yaml").read_text(encoding="utf-8")
)["samples"]
EVENING = datetime(2026, 11, 24, 16, 0, tzinfo=UTC)
OWN = frozenset({"support@lantern-oak.example", "help@lantern-oak.example"})
RULES = Rules(workspace="default", secret=b"k" * 32)


def delivery_of(entry: dict[str, Any]) -> Delivery:
    raw = (SAMPLES / entry["file"]).read_bytes()
    if entry["file"].startswith("mail/"):
        return Delivery("email", "support", raw, EVENING, own_addresses=OWN)
    form = json.loads(raw)
    return Delivery(
        "form",
        form["form"],
        json.dumps(form["fields"]).encode(),
        EVENING,
        headers={"content-type": "application/json"},
        input_id=form["headers"]["Idempotency-Key"],
    )


def test_each_sample_becomes_what_the_manifest_expects_in_the_language_it_says() -> None:
    directory = Directory()
    opened_by: dict[str, str] = {}
    told_by: dict[str, str] = {}
    wrong: list[str] = []
    for entry in ENTRIES:
        number = Path(entry["file"]).name[:3]
        delivery = delivery_of(entry)
        language = entry["language"]
        try:
            parsed = adapters.parse(delivery)
        except ParseError:
            became: Any = "parked"
        else:
            received = InboundReceived(
                input_id=number,
                channel=delivery.channel,
                account=delivery.account,
                received_at=EVENING,
            )
            decision = decide(directory, received, parsed, EVENING, RULES)
            if decision.events:
                (event,) = decision.events
                opener = opened_by.get(event.conversation_id)
                became = "ticket" if opener is None else {"joins": opener}
                opened_by.setdefault(event.conversation_id, number)
                told_by[event.message_id] = number
                if event.content.language != language or event.suspicion is not None:
                    wrong.append(f"{number}: {event.content.language}, {event.suspicion}")
            elif decision.ignored == "duplicate":
                (outcome,) = decision.rows
                became = {"duplicate": told_by[getattr(outcome, "message_id", "")]}
            else:
                became = {"ignored": decision.ignored}
        if became != entry["expect"]:
            wrong.append(f"{number}: {became} instead of {entry['expect']}")
    assert wrong == []


def test_the_new_text_of_each_reply_has_nothing_of_the_mail_it_answers() -> None:
    replies = [
        entry
        for entry in ENTRIES
        if isinstance(entry["expect"], dict) and "joins" in entry["expect"]
    ]
    assert len(replies) >= 8
    shortened = 0
    for entry in replies:
        (message,) = adapters.parse(delivery_of(entry)).messages
        shortened += len(message.text_new) < len(message.text)
        assert not any(line.startswith(">") for line in message.text_new.split("\n"))
        assert "@" not in message.text_new
    assert shortened >= 8


def test_the_mail_from_the_future_counts_from_its_receipt_and_the_picture_is_measured() -> None:
    by_kind = {kind: entry for entry in ENTRIES for kind in entry["kinds"]}
    (late,) = adapters.parse(delivery_of(by_kind["absurd_date"])).messages
    assert late.occurred_at == EVENING
    (pictured,) = adapters.parse(delivery_of(by_kind["attachment"])).messages
    (attachment,) = pictured.attachments
    assert (attachment.name, attachment.media_type) == ("треснувший-плафон.png", "image/png")
    assert 0 < attachment.size < 1_024
