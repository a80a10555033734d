"""Topic → normaliser: fetch, read, ask, decide, write. No rules here.

`inbound` holds what the gateway took in (`inbound.received.v1`) and what other systems publish themselves
(`message.submitted.v1`, see `adapters.event`). Other types are parked: on this topic they are somebody's message.
"""

import asyncio
import base64
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Final

from chassis import logs
from chassis.deadletters import Reason
from chassis.errors import InvalidEvent, PolicyError
from chassis.policy import PolicyFiles, PolicyHolder
from chassis.stage import Connection, Input, Outcome, Received, Stage
from schemas import ids
from schemas.customers import CustomerEvent, CustomerLinkSuggested, CustomerMerged
from schemas.envelope import Envelope
from schemas.inbound import InboundReceived
from schemas.messages import MessageDeliveryReported, MessageReceived, MessageRevised
from schemas.payload import Payload
from schemas.topics import INBOUND, Topic
from services.ingest import adapters, metrics
from services.ingest.adapters import attachments, mail_rules
from services.ingest.adapters import event as foreign
from services.ingest.adapters.attachments import AttachmentStore
from services.ingest.adapters.channel import ChannelSettings, delivery_of
from services.ingest.core import customers
from services.ingest.core import decide as core
from services.ingest.core import policy as channels
from services.ingest.core.policy import Channels, ChannelsFile, PolicyMistake
from services.ingest.core.state import Directory, Parsed, ParseError
from services.ingest.settings import IngestSettings
from services.ingest.store import DirectoryStore

PARSE_IN_LOOP_BYTES: Final = 64 * 1024
"""A batch with more than this to read is read in a thread, so that heartbeats and timers go on."""

AWAY_PAUSE_SECONDS: Final = 1.0
"""How long a batch waits before it is given back because its files cannot be stored."""

log = logs.get("ingest.normaliser")


def _build(parsed: Mapping[str, Any], folder: Path, version: str) -> Channels:
    try:
        return channels.build(
            parsed,
            folder,
            version,
            {name: channel.settings for name, channel in adapters.CHANNELS.items()},
        )
    except PolicyMistake as mistake:
        raise PolicyError(mistake.file, mistake.path, mistake.value, mistake.allowed) from None


POLICY: PolicyFiles[Channels] = PolicyFiles(files={channels.FILE: ChannelsFile}, build=_build)


class NormaliserStage(Stage[Directory]):
    """Makes messages of deliveries. Its rows are shared by all tasks, so it keeps nothing between batches."""

    name: ClassVar[str] = "ingest.normaliser"
    topics: ClassVar[tuple[Topic, ...]] = (INBOUND,)
    understands: ClassVar[frozenset[str]] = frozenset({InboundReceived.TYPE, foreign.TYPE})
    keeps_state: ClassVar[bool] = False

    def __init__(
        self,
        policies: PolicyHolder[Channels],
        settings: IngestSettings,
        files: AttachmentStore | None = None,
    ) -> None:
        """`files` keeps what mails bring along; without it nothing of that is kept."""
        self.store: DirectoryStore = DirectoryStore(settings.workspace)
        self._files = files
        self._policies = policies
        self._workspace = settings.workspace
        self._phone_region = settings.phone_region
        self._secret = settings.token_secret.get_secret_value().encode()

    def decode(self, envelope: Envelope, data: bytes) -> Payload:
        """Read a delivery; an event of another system becomes one, as the channel `event`."""
        if envelope.type != foreign.TYPE:
            return super().decode(envelope, data)
        headers = {
            "content-type": "application/json",
            "ce-specversion": "1.0",
            "ce-type": envelope.type,
            "ce-source": envelope.source,
            "ce-id": envelope.id,
            "ce-time": envelope.time.isoformat(),
        }
        try:
            message = foreign.read_message(headers, data, "kafka")
        except ParseError as error:
            raise InvalidEvent(Reason.INVALID_PAYLOAD, error.detail) from None
        return InboundReceived(
            input_id=ids.derive("input", self._workspace, "event", envelope.source, envelope.id),
            channel="event",
            account=message.account,
            method="PUBLISH",
            headers=headers,
            body_base64=base64.b64encode(data).decode(),
            received_at=envelope.time,
        )

    def key(self, envelope: Envelope, event: Payload) -> str:
        """Return the correspondent's key, as the gateway (or a foreign publisher) gave it; else the input's own id."""
        assert isinstance(event, InboundReceived)
        return envelope.partitionkey or event.input_id

    async def load(
        self, connection: Connection, task: int, inputs: Sequence[Input], missing: Sequence[str]
    ) -> dict[str, Directory]:
        """Read bodies, deliveries and tables for a batch; every key gets the same directory."""
        del task
        received = [item for item in inputs if isinstance(item, Received)]
        events = {item.cause: _received(item) for item in received}
        blobs = await self.store.blobs(
            connection, (one.body_ref for one in events.values() if one.body_ref is not None)
        )
        policy = self._policies.current
        size = sum(len(one.body_base64) for one in events.values()) + sum(map(len, blobs.values()))
        with metrics.PARSE_SECONDS.time():
            parsed = (
                _parse_all(events, blobs, policy)
                if size <= PARSE_IN_LOOP_BYTES
                else await asyncio.to_thread(_parse_all, events, blobs, policy)
            )
        if self._files is not None and self._files.is_on:
            parsed = await self._keep_files(self._files, events, blobs, parsed)
        readable = [
            (one, found if isinstance(found := parsed[cause], Parsed) else None)
            for cause, one in events.items()
        ]
        since = min((one.received_at for one in events.values()), default=None)
        directory = (
            await self.store.directory(
                connection,
                core.questions(readable, self._phone_region),
                since - policy.automatic_window,
            )
            if since is not None
            else Directory()
        )
        directory.parsed = parsed
        return dict.fromkeys(missing, directory)

    async def _keep_files(
        self,
        files: AttachmentStore,
        events: Mapping[str, InboundReceived],
        blobs: Mapping[str, bytes],
        parsed: Mapping[str, Parsed | ParseError],
    ) -> dict[str, Parsed | ParseError]:
        """Store the files of mails, one mail after the other; what was stored before is found and not stored again."""
        made = dict(parsed)
        for cause, found in parsed.items():
            if not isinstance(found, Parsed) or not any(m.attachments for m in found.messages):
                continue
            one = events[cause]
            raw = attachments.mail_of(delivery_of(one, blobs.get(one.body_ref or "")))
            if raw is not None:
                try:
                    kept = [await files.kept(message, raw) for message in found.messages]
                except attachments.StoreAway as error:
                    log.warning("attachments_away", problem=str(error), channel=one.channel)
                    await asyncio.sleep(AWAY_PAUSE_SECONDS)
                    raise
                made[cause] = replace(found, messages=tuple(kept))
        return made

    def decide(self, state: Directory | None, item: Input, now: datetime) -> Outcome[Directory]:
        """Apply one delivery."""
        assert state is not None
        assert isinstance(item, Received)
        received = _received(item)
        parsed = state.parsed[item.cause]
        if isinstance(parsed, ParseError):
            _count(received.channel, "parked")
            reason = Reason.TOO_LARGE if parsed.problem == "too_large" else Reason.UNPARSABLE_BODY
            return Outcome(is_changed=False, park=(reason, str(parsed)))
        policy = self._policies.current
        rules = core.Rules(
            workspace=self._workspace,
            secret=self._secret,
            automatic_max=policy.file.automatic.messages_max,
            automatic_window=policy.automatic_window,
            phone_region=self._phone_region,
        )
        decision = core.decide(state, received, parsed, now, rules)
        _observe(received, decision)
        return Outcome(
            is_changed=False,
            events=decision.events,
            rows=decision.rows,
            ignored=decision.ignored,
        )

    def partition_key(self, event: Payload) -> str:
        """Return the conversation's id; a report that leads to none has its message's."""
        if isinstance(event, MessageDeliveryReported):
            return event.conversation_id or event.vendor_message_id
        assert isinstance(event, (MessageReceived, MessageRevised, CustomerEvent))
        return event.conversation_id


def _received(item: Received) -> InboundReceived:
    assert isinstance(item.event, InboundReceived)
    return item.event


def _parse_all(
    events: Mapping[str, InboundReceived], blobs: Mapping[str, bytes], policy: Channels
) -> dict[str, Parsed | ParseError]:
    return {
        cause: read_delivery(one, blobs.get(one.body_ref or ""), policy)
        for cause, one in events.items()
    }


def settings_in(policy: Channels, channel: str, account: str) -> ChannelSettings | None:
    """Return the settings of an account, where the policy in force has it on that channel."""
    if channel == "email" and account in policy.file.mail:
        return mail_rules.Settings(rules=policy.file.mail[account].rules)
    found = policy.channel_accounts.get(account)
    if found is None or found[0] != channel or not isinstance(found[1], ChannelSettings):
        return None
    return found[1]


def read_delivery(
    received: InboundReceived, stored: bytes | None, policy: Channels
) -> Parsed | ParseError:
    """Return what a delivery says, or why it says nothing; the error is a value here, for it is one outcome of many."""
    try:
        delivery = delivery_of(
            received,
            stored,
            own_addresses=policy.own_addresses,
            trusted_servers=policy.trusted_servers(received.account),
            settings=settings_in(policy, received.channel, received.account),
        )
        if received.channel == customers.CHANNEL and received.method == customers.METHOD:
            return Parsed(command=customers.read_command(delivery.body))
        parsed = adapters.parse(delivery)
        channel = adapters.CHANNELS.get(received.channel)
        if channel is not None and adapters.wants_read_back(channel, delivery, parsed):
            return Parsed(ignored=core.READ_BACK)
        return parsed
    except ParseError as error:
        return error


def _count(channel: str, outcome: str) -> None:
    metrics.OUTCOME.labels(channel if channel in adapters.CHANNELS else "generic", outcome).inc()


def _observe(received: InboundReceived, decision: core.Decision) -> None:
    if decision.ignored is None:
        _count(received.channel, "message")
    elif decision.ignored == "duplicate":
        _count(received.channel, "duplicate")
    elif decision.ignored == core.REPEATED:
        _count(received.channel, "repeated_input")
    else:
        _count(received.channel, "ignored")
        metrics.IGNORED.labels(decision.ignored).inc()
    if any(
        isinstance(event, MessageReceived) and event.suspicion is not None
        for event in decision.events
    ):
        metrics.SUSPICIONS.inc()
    if any(isinstance(event, CustomerLinkSuggested) for event in decision.events):
        metrics.LINKS.labels("suggested").inc()
    merged = {event.merge_id for event in decision.events if isinstance(event, CustomerMerged)}
    if merged:
        metrics.LINKS.labels("merged").inc(len(merged))
