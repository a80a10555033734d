"""The normaliser's glue: bodies fetched, deliveries read, one directory for the batch, poison parked."""

import base64
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from obstore.store import LocalStore

from chassis.errors import InvalidEvent
from chassis.ledger import DATABASE_ERRORS
from chassis.policy import PolicyHolder
from chassis.stage import Received
from schemas.envelope import Envelope
from schemas.inbound import InboundReceived
from services.ingest.adapters.attachments import AttachmentStore, Limits, StoreAway
from services.ingest.core.state import Directory, Questions
from services.ingest.handlers import POLICY, NormaliserStage
from services.ingest.settings import IngestSettings

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
EXAMPLE = Path(__file__).resolve().parents[3] / "policy"
MAIL = b"From: ada@example.com\r\nSubject: Lamp\r\nMessage-ID: <1@example.com>\r\n\r\nWhere is my lamp?"


class Tables:
    """The store's reading side, in memory."""

    def __init__(self) -> None:
        self.bodies: dict[str, bytes] = {}
        self.asked: list[Questions] = []

    async def blobs(self, connection: Any, refs: Iterable[str]) -> dict[str, bytes]:
        return {ref: self.bodies[ref] for ref in refs if ref in self.bodies}

    async def directory(self, connection: Any, asked: Questions, since: datetime) -> Directory:
        self.asked.append(asked)
        return Directory()


@pytest.fixture
def stage() -> NormaliserStage:
    settings = IngestSettings(kafka="k:1", database_url="postgresql://x", token_secret="k" * 32)  # type: ignore[arg-type]
    made = NormaliserStage(PolicyHolder(EXAMPLE, POLICY), settings)
    made.store = Tables()  # type: ignore[assignment]
    return made


def inbound(input_id: str, body: bytes = MAIL, **changes: Any) -> Received:
    event = InboundReceived(
        input_id=input_id,
        channel="email",
        account="support",
        received_at=NOW,
        body_base64=base64.b64encode(body).decode(),
    ).model_copy(update=changes)
    envelope = Envelope(
        InboundReceived.TYPE,
        "signalbox/ingest.gateway/0",
        input_id,
        NOW,
        partitionkey="email/support/ada",
    )
    return Received(envelope, event, "email/support/ada", "inbound", input_id)


async def decide_all(stage: NormaliserStage, *items: Received) -> list[Any]:
    states = await stage.load(None, 0, items, list({item.key for item in items}))  # type: ignore[arg-type]
    return [stage.decide(states[item.key], item, NOW) for item in items]


async def test_a_record_sees_what_the_one_before_it_in_its_batch_claimed(
    stage: NormaliserStage,
) -> None:
    reply = MAIL.replace(b"<1@", b"<2@").replace(
        b"\r\n\r\n", b"\r\nIn-Reply-To: <1@example.com>\r\n\r\n"
    )
    first, again, joined, repeated = await decide_all(
        stage, inbound("a"), inbound("b"), inbound("c", reply), inbound("a")
    )
    assert (len(first.events), again.ignored, repeated.ignored) == (
        1,
        "duplicate",
        "repeated_input",
    )
    assert joined.events[0].conversation_id == first.events[0].conversation_id
    assert first.is_changed is False
    assert stage.partition_key(first.events[0]) == first.events[0].conversation_id


async def test_poison_is_parked_and_its_neighbours_go_on(stage: NormaliserStage) -> None:
    junk, good, no_base64, no_body = await decide_all(
        stage,
        inbound("a", b"\x00\xff" * 40),
        inbound("b"),
        inbound("c", body_base64="!!"),
        inbound("d", body_ref="f" * 64),
    )
    assert junk.park == ("unparsable_body", "no_header: has none of the header fields of a mail")
    assert no_base64.park == ("unparsable_body", "invalid_base64: is not base64")
    assert no_body.park[0] == "unparsable_body"
    assert len(good.events) == 1


async def test_a_large_body_is_fetched_by_its_reference(stage: NormaliserStage) -> None:
    stage.store.bodies["e" * 64] = MAIL + b" long" * 50_000  # type: ignore[attr-defined]
    (outcome,) = await decide_all(stage, inbound("a", b"", body_ref="e" * 64))
    assert outcome.events[0].content.text.startswith("Where is my lamp? long")


def test_a_foreign_event_is_read_and_what_does_not_fit_is_invalid(stage: NormaliserStage) -> None:
    envelope = Envelope("message.submitted.v1", "/shop", "e-1", NOW)
    data = b'{"sender": {"address": "ada@example.com"}, "text": "Where is my order?"}'
    event = stage.decode(envelope, data)
    assert isinstance(event, InboundReceived)
    assert (event.channel, event.account, stage.key(envelope, event)) == (
        "event",
        "kafka",
        event.input_id,
    )
    again = stage.decode(envelope, data)
    assert isinstance(again, InboundReceived)
    assert again.input_id == event.input_id
    with pytest.raises(InvalidEvent, match=r"data\.sender"):
        stage.decode(envelope, b'{"text": "x"}')
    with pytest.raises(InvalidEvent):
        stage.decode(envelope, b"\xff")


async def test_a_foreign_event_becomes_a_message(stage: NormaliserStage) -> None:
    envelope = Envelope("message.submitted.v1", "/shop", "e-1", NOW)
    event = stage.decode(
        envelope, b'{"sender": {"address": "ada@example.com"}, "text": "Where is my order?"}'
    )
    (outcome,) = await decide_all(stage, Received(envelope, event, "k", "inbound", "/shop/e-1"))
    assert outcome.events[0].content.vendor_message_id == "/shop#e-1"
    assert outcome.events[0].verified is False


WITH_FILE = (
    b"From: ada@example.com\r\nMessage-ID: <9@example.com>\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
    b"--b\r\n\r\nSee the picture\r\n--b\r\nContent-Type: image/png; name=a.png\r\n\r\nPNG\r\n--b--\r\n"
)


def keeping(stage: NormaliserStage, folder: Path) -> NormaliserStage:
    stage._files = AttachmentStore(LocalStore(folder), Limits())
    return stage


async def test_the_files_of_a_mail_are_stored_before_its_message_is_told(
    stage: NormaliserStage, tmp_path: Path
) -> None:
    for _ in range(2):  # A batch that is read again finds what it stored.
        (outcome,) = await decide_all(keeping(stage, tmp_path), inbound("a", WITH_FILE))
        (file,) = outcome.events[0].content.attachments
        assert (file.name, file.size, file.refused) == ("a.png", 3, None)
        assert (tmp_path / "sha256" / file.sha256[:2] / file.sha256).read_bytes() == b"PNG"


async def test_a_store_that_is_away_gives_the_batch_back(
    stage: NormaliserStage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.ingest.handlers.AWAY_PAUSE_SECONDS", 0.0)
    keeping(stage, tmp_path)
    (tmp_path / "sha256").write_text("in the way")
    with pytest.raises(StoreAway) as away:
        await decide_all(stage, inbound("a", WITH_FILE))
    # A lost connection costs the batch and is never counted against the input.
    assert isinstance(away.value, DATABASE_ERRORS)


def test_types_nobody_knows_are_not_understood(stage: NormaliserStage) -> None:
    assert stage.understands_type("inbound", "inbound.received.v1")
    assert stage.understands_type("inbound", "message.submitted.v1")
    assert not stage.understands_type("inbound", "order.placed.v1")
