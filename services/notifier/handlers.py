"""The notifier's stage: glue between its core, the loop and the SMTP provider. No rules."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol
from uuid import UUID

import msgspec

from chassis import logs
from chassis.clock import monotonic
from chassis.errors import InvalidEvent, PolicyError
from chassis.policy import PolicyFiles, PolicyHolder
from chassis.stage import (
    Connection,
    Effect,
    EffectDone,
    EffectResult,
    Input,
    Outcome,
    Received,
    Stage,
    Tick,
)
from schemas import sla, tickets
from schemas.envelope import Envelope
from schemas.notifications import NoticeRequested
from schemas.registry import Payload
from schemas.topics import ROUTING, SLA, TICKETS, Topic
from services.notifier.core.audience import mail_address, recipient_key
from services.notifier.core.decide import (
    Context,
    Decision,
    Event,
    PromiseDue,
    RetryDue,
    decide,
    next_due,
    promise_due,
)
from services.notifier.core.delivery import (
    Attempted,
    Delivered,
    Failed,
    SendNotice,
    SendSettled,
    Unknown,
)
from services.notifier.core.policy import FILE, NotifyFile, Policy, PolicyMistake, build
from services.notifier.core.render import FOLDER
from services.notifier.core.state import Contact, Conversation, Mail
from services.notifier.core.throttle import UNVERIFIED, WINDOW, Recent
from services.notifier.metrics import PROMISES, SEND_SECONDS
from services.notifier.settings import NotifierSettings
from services.notifier.store import STAGE, Loaded, LoadedStore, NoticeStore, Recents

TIMERS: Final[Mapping[str, tuple[Event, Callable[[Conversation], datetime | None]]]] = {
    "retry": (RetryDue(), next_due),
    "promise": (PromiseDue(), promise_due),
}
"""What each timer says when it fires, and when it is to."""

TEMPLATE_BYTES_MAX: Final = 256 * 1024

UNDERSTOOD: Final[tuple[type[Payload], ...]] = (
    tickets.TicketOpened,
    tickets.TicketMessageAdded,
    tickets.TicketReopened,
    tickets.TicketAnswered,
    tickets.TicketEscalated,
    tickets.TicketSolved,
    tickets.TicketClosed,
    tickets.ConversationErased,
    sla.WaitPromised,
)

log = logs.get("notifier")


def _build(parsed: Mapping[str, Any], folder: Path, version: str) -> Policy:
    file: NotifyFile = parsed[FILE]
    try:
        return build(file, read_templates(folder / FOLDER), version)
    except PolicyMistake as mistake:
        raise PolicyError(mistake.file, mistake.path, mistake.value, mistake.allowed) from mistake


POLICY: Final[PolicyFiles[Policy]] = PolicyFiles(
    files={FILE: NotifyFile}, build=_build, folders=(FOLDER,)
)


def read_templates(folder: Path) -> dict[str, str]:
    """Return the sources of all templates below `folder`, by their path in it.

    Raises:
        PolicyError: the folder is missing, or a file in it is too large, no UTF-8 or cannot be read.
    """
    if not folder.is_dir():
        raise PolicyError(
            FOLDER, "folder", str(folder), "does not exist; see `policy/templates/` for an example"
        )
    sources: dict[str, str] = {}
    for path in sorted(folder.glob("**/*.j2")):
        inside = path.relative_to(folder)
        if any(part.startswith("..") for part in inside.parts):
            continue  # The hidden folders a ConfigMap swaps.
        name = f"{FOLDER}/{inside.as_posix()}"
        try:
            raw = path.read_bytes()
            if len(raw) > TEMPLATE_BYTES_MAX:
                raise PolicyError(
                    name, "file", f"{len(raw)} bytes", f"at most {TEMPLATE_BYTES_MAX} bytes"
                )
            sources[inside.as_posix()] = raw.decode("utf-8")
        except OSError as error:
            raise PolicyError(name, "file", None, f"cannot be read: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise PolicyError(name, f"byte {error.start}", None, "must be UTF-8") from None
    return sources


class Provider(Protocol):
    """Hands a mail over and says what came of it; never raises for what a server does."""

    async def send(self, mail: Mail) -> Attempted:
        """Try once."""
        ...


class NotifierStage(Stage[Loaded]):
    """One task of the notifier.

    States are read for every batch: the counts per recipient come from rows that other tasks write too.
    """

    name: ClassVar[str] = STAGE
    topics: ClassVar[tuple[Topic, ...]] = (TICKETS, ROUTING, SLA)
    understands: ClassVar[frozenset[str]] = frozenset(kind.TYPE for kind in UNDERSTOOD)
    keeps_state: ClassVar[bool] = False

    def __init__(
        self, policies: PolicyHolder[Policy], settings: NotifierSettings, provider: Provider
    ) -> None:
        self._policies = policies
        self._secret = settings.token_secret.get_secret_value().encode()
        self._workspace = settings.workspace
        self._provider = provider
        self._notices = NoticeStore(settings.workspace)
        self.store = LoadedStore(self._notices)

    def decode(self, envelope: Envelope, data: bytes) -> Payload:
        """Read an event, and check the ids that our own mail is going to carry."""
        event = super().decode(envelope, data)
        conversation_id = str(getattr(event, "conversation_id", ""))
        try:
            UUID(conversation_id)
        except ValueError:
            raise InvalidEvent("invalid_payload", "conversation_id: is no UUID") from None
        if not str(getattr(event, "ticket_id", "")).isprintable():
            raise InvalidEvent("invalid_payload", "ticket_id: has a control character")
        return event

    async def load(
        self, connection: Connection, task: int, inputs: Sequence[Input], missing: Sequence[str]
    ) -> dict[str, Loaded]:
        """Return a state for each key, new ones included, all of them sharing the counts per recipient."""
        found = await self._notices.load(connection, task, missing)
        contacts = [state.contact for state in found.values()] + [
            _contact_in(item) for item in inputs
        ]
        recipients = sorted(
            {
                recipient_key(self._workspace, address)
                for contact in contacts
                if (address := mail_address(contact)) is not None
            }
        )
        policy = self._policies.current
        limit = max(policy.unverified_recipient_per_hour, policy.verified_recipient_per_hour)
        recents = await self._notices.recents(connection, recipients, limit)
        if any(contact is not None and not contact.is_verified for contact in contacts):
            total = policy.unverified_total_per_hour
            recents[UNVERIFIED] = await self._notices.recent_unverified(connection, total)
        return {key: Loaded(found.get(key, Conversation()), recents) for key in missing}

    def decide(self, state: Loaded | None, item: Input, now: datetime) -> Outcome[Loaded]:
        """Apply one input to its conversation."""
        loaded = state or Loaded(Conversation(), {})
        context = Context(
            policy=self._policies.current,
            secret=self._secret,
            workspace=self._workspace,
            now=now,
            recent=Recent(now, loaded.recents),
        )
        before = loaded.conversation
        decision = decide(item.key, before, _event(item), context)
        _remember(loaded.recents, decision, self._workspace)
        _count_promises(item, before, decision)
        return Outcome(
            state=Loaded(decision.state, loaded.recents),
            is_changed=decision.state != before,
            events=decision.events,
            timers=_timers(before, decision.state, item),
            effects=[_effect(item.key, send) for send in decision.sends],
            rows=(*decision.events, *_erasures(item)),
            ignored=decision.ignored,
        )

    async def perform(self, effect: Effect) -> EffectResult:
        """Hand one mail to the provider."""
        mail = msgspec.convert(effect.payload["mail"], Mail)
        began = monotonic()
        result = _result(await self._provider.send(mail))
        kind = _kind(result)
        SEND_SECONDS.labels(kind).observe(monotonic() - began)
        log.info("notice_tried", notice_id=effect.id, attempt=effect.attempt, result=kind)
        return result


def _count_promises(item: Input, before: Conversation, decision: Decision) -> None:
    """Count what acknowledgements say about time. A batch that is tried again counts again: rates, not books."""
    match item:
        case Tick(name="promise"):
            PROMISES.labels("not_in_time").inc(len(decision.sends))
        case Received(event=sla.WaitPromised()) if decision.ignored == "promise_late":
            PROMISES.labels("late").inc()
        case Received(event=sla.WaitPromised(by=by)) if decision.sends:
            PROMISES.labels("nothing_known" if by is None else "told").inc()
        case Received(event=tickets.TicketOpened(ticket_id=ticket_id)) if decision.sends:
            early = before.promises.get(ticket_id)
            if early is not None:
                PROMISES.labels("nothing_known" if early.by is None else "told").inc()
        case _:
            pass


def _timers(before: Conversation, after: Conversation, item: Input) -> dict[str, datetime | None]:
    """Return the timers that change. One that fired is gone, so it is said anew."""
    fired = item.name if isinstance(item, Tick) else None
    return {
        name: due(after)
        for name, (_, due) in TIMERS.items()
        if name == fired or due(after) != due(before)
    }


def _contact_in(item: Input) -> Contact | None:
    """The contact that an input brings, as far as an address is concerned."""
    told = getattr(item.event, "contact", None) if isinstance(item, Received) else None
    if not isinstance(told, tickets.Contact):
        return None
    return Contact(
        name="",
        address=told.address,
        address_kind=told.address_kind,
        channel=told.channel,
        account=told.account,
        language=None,
        is_verified=told.is_verified,
    )


def _remember(recents: Recents, decision: Decision, workspace: str) -> None:
    """Let later inputs of the batch count what this one has asked for."""
    for event in decision.events:
        if isinstance(event, NoticeRequested) and event.occasion != "answered":
            keys = [recipient_key(workspace, event.recipient)]
            keys += [] if event.is_verified else [UNVERIFIED]
            for key in keys:
                told = recents.setdefault(key, [])
                told.append(event.at)
                told[:] = [at for at in told if at > event.at - WINDOW]


def _erasures(item: Input) -> tuple[tickets.ConversationErased, ...]:
    event = item.event if isinstance(item, Received) else None
    return (event,) if isinstance(event, tickets.ConversationErased) else ()


def _event(item: Input) -> Event:
    match item:
        case Tick(name=name):
            return TIMERS[name][0]
        case EffectDone():
            return _settled(item)
        case Received(event=event):
            assert isinstance(event, UNDERSTOOD), (
                f"{type(event).__name__} is not among `understands`"
            )
            return event  # type: ignore[return-value]
        case _:
            raise TypeError(f"the notifier asks for no revisits and got {type(item).__name__}")


def _effect(conversation_id: str, send: SendNotice) -> Effect:
    payload = {"provider": send.provider, "mail": msgspec.to_builtins(send.mail)}
    return Effect(id=send.notice_id, key=conversation_id, payload=payload, attempt=send.attempt)


def _settled(item: EffectDone) -> SendSettled:
    effect, result = item.effect, item.result
    mail = msgspec.convert(effect.payload["mail"], Mail)
    send = SendNotice(effect.id, effect.attempt, str(effect.payload["provider"]), mail)
    match result.status:
        case "done":
            return SendSettled(send, Delivered(result.detail))
        case "failed":
            wished = None if result.retry_after is None else timedelta(seconds=result.retry_after)
            return SendSettled(send, Failed(result.detail, result.is_recoverable, wished))
        case _:
            return SendSettled(send, Unknown(result.detail or "interrupted"))


def _result(attempted: Attempted) -> EffectResult:
    match attempted:
        case Delivered(detail=detail):
            return EffectResult("done", detail)
        case Failed(reason=reason, is_recoverable=is_recoverable, retry_after=wait):
            seconds = None if wait is None else wait.total_seconds()
            return EffectResult("failed", reason, is_recoverable, seconds)
        case Unknown(reason=reason):
            return EffectResult("unknown", reason)


def _kind(result: EffectResult) -> str:
    """The result's name in metrics and logs."""
    if result.status == "failed":
        return "recoverable" if result.is_recoverable else "refused"
    return "delivered" if result.status == "done" else "unknown"
