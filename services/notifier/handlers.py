"""The notifier's stage: glue between its core, the loop and the providers. No rules."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Final, Protocol
from uuid import UUID

import msgspec

from chassis import logs
from chassis.clock import Clock, SystemClock, monotonic
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
from schemas import commands, feedback, messages, sla, tickets
from schemas.envelope import Envelope
from schemas.notifications import NoticeRequested
from schemas.registry import Payload
from schemas.topics import COMMANDS, MESSAGES, ROUTING, SLA, TICKETS, Topic
from services.notifier.adapters import KINDS
from services.notifier.adapters.guides import GUIDES
from services.notifier.consent_store import FoundDead, WishSaid, remember
from services.notifier.core import settle
from services.notifier.core.articles import ArticlesFound, Search, Suggestion
from services.notifier.core.decide import (
    DeferredDue,
    Event,
    FollowUpDue,
    PromiseDue,
    RetryDue,
    decide,
    deferred_due,
    follow_up_due,
    next_due,
    promise_due,
)
from services.notifier.core.delivery import (
    KEY_LIFE,
    Absent,
    Attempted,
    Delivered,
    Ended,
    Failed,
    Rehearsed,
    SendNotice,
    SendSettled,
    Unknown,
    Unsent,
)
from services.notifier.core.known import Known
from services.notifier.core.links import Links
from services.notifier.core.occasions import contact_of
from services.notifier.core.plan import recipients
from services.notifier.core.policy import (
    FILE,
    NotifyFile,
    Policy,
    PolicyMistake,
    Providers,
    build,
)
from services.notifier.core.post import Trouble
from services.notifier.core.render import FOLDER
from services.notifier.core.settle import good_until
from services.notifier.core.state import Contact, Conversation, Mail, Message, Sending, Waiting
from services.notifier.core.told import Context, Decision, lines_of
from services.notifier.metrics import PROMISES, SEND_SECONDS
from services.notifier.settings import NotifierSettings
from services.notifier.store import STAGE, Loaded, LoadedStore, NoticeStore, PutOff, Row

TIMERS: Final[Mapping[str, tuple[Event, Callable[[Conversation], datetime | None]]]] = {
    "retry": (RetryDue(), next_due),
    "promise": (PromiseDue(), promise_due),
    "deferred": (DeferredDue(), deferred_due),
    "follow_up": (FollowUpDue(), follow_up_due),
}
"""What each timer of a conversation says when it fires, and when it is to."""

REPORT: Final = "report"
"""The timer by which the message is looked for of which a report came that names no conversation."""

ABSENT: Final = "absent"
"""A lookup's word for a message that was surely not taken."""

REHEARSED: Final = "rehearsed"
"""The word for a message that a dry run did not hand over."""

UNSENT: Final = "unsent"
"""The word for a message whose turn came too late."""

CLOCK: Final = SystemClock()
"""Says how old an interrupted send is, and what is stale when its turn comes; facts take their instants from the loop."""

TEMPLATE_BYTES_MAX: Final = 256 * 1024

ARTICLES: Final = "articles"
"""The policy's folder of articles, the kind of the effects that look for some, and their lane."""

UNDERSTOOD: Final[tuple[type[Payload], ...]] = (
    tickets.TicketOpened,
    tickets.TicketMessageAdded,
    tickets.TicketReopened,
    tickets.TicketAnswered,
    tickets.TicketAnsweredElsewhere,
    tickets.TicketEscalated,
    tickets.TicketSolved,
    tickets.TicketStatusChanged,
    tickets.TicketPromised,
    tickets.TicketCalled,
    tickets.TicketTagged,
    tickets.TicketPrioritised,
    tickets.TicketMerged,
    tickets.TicketUnmerged,
    tickets.TicketClosed,
    tickets.ConversationErased,
    sla.WaitPromised,
    sla.TargetBreached,
    sla.BreachRetracted,
    commands.NotifyCustomer,
    commands.ResendNotice,
    feedback.FeedbackGiven,
    feedback.ContactOptedOut,
    feedback.ContactOptedIn,
    messages.MessageReceived,
    messages.MessageDeliveryReported,
)

_GUIDES: Final = MappingProxyType({name: one.settings for name, one in GUIDES.items()})

log = logs.get("notifier")

_PROVIDERS: Final[Providers] = KINDS


def _build(parsed: Mapping[str, Any], folder: Path, version: str) -> Policy:
    file: NotifyFile = parsed[FILE]
    try:
        return build(
            file,
            read_templates(folder / FOLDER),
            version,
            _PROVIDERS,
            articles=_read(folder / ARTICLES, ARTICLES, "*/*.md"),
            guides=_GUIDES,
        )
    except PolicyMistake as mistake:
        raise PolicyError(mistake.file, mistake.path, mistake.value, mistake.allowed) from mistake


POLICY: Final[PolicyFiles[Policy]] = PolicyFiles(
    files={FILE: NotifyFile}, build=_build, folders=(FOLDER, ARTICLES)
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
    return _read(folder, FOLDER, "**/*.j2")


def _read(folder: Path, called: str, pattern: str) -> dict[str, str]:
    """Return the texts below `folder` by their path in it; `called` is its name in the policy."""
    sources: dict[str, str] = {}
    for path in sorted(folder.glob(pattern)):
        inside = path.relative_to(folder)
        if any(part.startswith("..") for part in inside.parts):
            continue  # The hidden folders a ConfigMap swaps.
        name = f"{called}/{inside.as_posix()}"
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


class Sends(Protocol):
    """Hands messages over and says what came of it; never raises for what a server does."""

    async def send(self, provider: str, account: str, message: Message) -> Attempted:
        """Try once."""
        ...

    async def find(self, provider: str, account: str, message: Message) -> Ended:
        """Look an interrupted send up; `Delivered`: it was found."""
        ...

    def is_repeatable(self, provider: str) -> bool:
        """Whether the provider drops a repeat that carries the same key."""
        ...


class Suggests(Protocol):
    """Looks for articles; never raises for what a help centre or a database does."""

    async def perform(self, question: str, language: str) -> EffectResult:
        """Return what is worth naming, as JSON in the result's detail."""
        ...


class NotifierStage(Stage[Loaded]):
    """One task of the notifier.

    States are read for every batch: what is known of recipients comes from rows that other tasks write too.
    """

    name: ClassVar[str] = STAGE
    topics: ClassVar[tuple[Topic, ...]] = (TICKETS, ROUTING, SLA, COMMANDS, MESSAGES)
    understands: ClassVar[frozenset[str]] = frozenset(kind.TYPE for kind in UNDERSTOOD)
    keeps_state: ClassVar[bool] = False
    topology: ClassVar[int] = 2

    def __init__(
        self,
        policies: PolicyHolder[Policy],
        settings: NotifierSettings,
        sending: Sends,
        suggests: Suggests | None = None,
        clock: Clock = CLOCK,
    ) -> None:
        self._policies = policies
        self._secret = settings.token_secret.get_secret_value().encode()
        self._workspace = settings.workspace
        self._links = Links(self._secret, settings.workspace, settings.public_url)
        self._sending = sending
        self._suggests = suggests
        self._clock = clock
        self._notices = NoticeStore(settings.workspace)
        self.store = LoadedStore(self._notices, settings.workspace)

    def decode(self, envelope: Envelope, data: bytes) -> Payload:
        """Read an event, and check the ids that our own mail is going to carry."""
        event = super().decode(envelope, data)
        conversation_id = getattr(event, "conversation_id", None)
        if conversation_id is None and isinstance(event, messages.MessageDeliveryReported):
            return event  # It leads to its notice by the message's own id.
        try:
            UUID(str(conversation_id))
        except ValueError:
            raise InvalidEvent("invalid_payload", "conversation_id: is no UUID") from None
        if not str(getattr(event, "ticket_id", "")).isprintable():
            raise InvalidEvent("invalid_payload", "ticket_id: has a control character")
        return event

    def key(self, envelope: Envelope, event: Payload) -> str:
        """Return the conversation's id; a report that leads to none has its message's."""
        if isinstance(event, messages.MessageDeliveryReported):
            return event.conversation_id or event.vendor_message_id
        return super().key(envelope, event)

    async def load(
        self, connection: Connection, task: int, inputs: Sequence[Input], missing: Sequence[str]
    ) -> dict[str, Loaded]:
        """Return a state for each key, new ones included, all of them sharing what is known of recipients."""
        found = await self._notices.load(connection, task, missing)
        policy = self._policies.current
        seen = [(one.contact, one.thread, one.answers) for one in found.values()]
        seen += [_contact_in(item) for item in inputs]
        known = await self._notices.consent.load(
            connection,
            policy,
            {
                name
                for contact, thread, answers in seen
                if contact is not None
                for name in recipients(policy, contact, thread, answers)
            },
            with_unverified=any(
                contact is not None and not contact.is_verified for contact, _, _ in seen
            ),
        )
        reported = await self._notices.reported(connection, _reported(inputs))
        found = await self._notices.with_reports(connection, found)
        return {key: Loaded(found.get(key, Conversation()), known, reported) for key in missing}

    def decide(self, state: Loaded | None, item: Input, now: datetime) -> Outcome[Loaded]:
        """Apply one input to its conversation."""
        loaded = state or Loaded(Conversation(), Known(self._workspace))
        context = Context(
            policy=self._policies.current,
            secret=self._secret,
            workspace=self._workspace,
            now=now,
            known=loaded.known,
            links=self._links,
        )
        if _is_unplaced(item):
            return self._report(loaded, item, context)
        before = loaded.conversation
        decision = decide(item.key, before, _event(item), context)
        if decision.ignored in ("not_ours", "early") and _message_of(item) in loaded.reported:
            # It is another conversation's, or its ticket has closed and this one has forgotten the notice.
            return self._report(loaded, item, context)
        learned = _learned(decision)
        _remember(loaded.known, decision, learned)
        _count_promises(item, before, decision)
        return Outcome(
            state=Loaded(decision.state, loaded.known, loaded.reported),
            is_changed=decision.state != before,
            events=decision.events,
            timers=_timers(before, decision.state, item),
            effects=[
                *(_effect(item.key, send, _until(decision.state, send)) for send in decision.sends),
                *(_search(item.key, search) for search in decision.searches),
            ],
            withdrawn=_withdrawn(before, decision.state),
            rows=(
                *decision.events,
                *learned,
                *_put_off(before, decision.state),
                *_erasures(item),
            ),
            ignored=decision.ignored,
        )

    def _report(self, loaded: Loaded, item: Input, context: Context) -> Outcome[Loaded]:
        """Apply a report to the notice that its message's id leads to, or keep it until it leads to one.

        The state of an unplaced one is its own, under the message's id, and ends with it.
        """
        kept = loaded.conversation
        event = item.event if isinstance(item, Received) else None
        assert event is None or isinstance(event, messages.MessageDeliveryReported)
        led_to = loaded.reported.get(_message_of(item))
        if led_to is not None:
            is_own = _is_unplaced(item)
            early = kept if is_own else Conversation()
            decision = settle.placed(*led_to, early, event, context)
            learned = _learned(decision)
            _remember(loaded.known, decision, learned)
            return Outcome(
                is_changed=is_own and kept != Conversation(),
                events=decision.events,
                rows=(*decision.events, *learned),
                timers={REPORT: None} if kept.heard_at is not None else {},
                ignored=decision.ignored,
            )
        if event is not None:
            decision = settle.unplaced(kept, event, context)
            kept = decision.state
        due = settle.look_due(kept, context.now)
        return Outcome(
            state=None if due is None else Loaded(kept, loaded.known, loaded.reported),
            is_changed=event is not None or due is None,
            timers={REPORT: due},
            ignored="early" if event is not None else "not_ours" if due is None else None,
        )

    def _is_too_late(self, effect: Effect) -> bool:
        until = effect.payload.get("until")
        return until is not None and datetime.fromisoformat(until) <= self._clock.now()

    async def perform(self, effect: Effect) -> EffectResult:
        """Hand one message to its provider, ask there what became of it, or look for articles.

        What is stale by the time of its turn is not handed over; what is superseded was withdrawn, and does not come here.
        """
        if _is_search(effect):
            return await self._look(effect)
        send = _send_of(effect)
        began = monotonic()
        if send.is_lookup:
            found = await self._sending.find(send.provider, send.account, send.message)
            result = _result(found)
        elif self._is_too_late(effect):
            result = EffectResult("done", trouble=UNSENT)
        elif self._policies.current.rehearses(send.provider, send.account):
            result = EffectResult("done", trouble=REHEARSED)
        else:
            result = _result(await self._sending.send(send.provider, send.account, send.message))
        kind = _kind(result)
        SEND_SECONDS.labels(kind).observe(monotonic() - began)
        log.info(
            "notice_looked_up" if send.is_lookup else "notice_tried",
            notice_id=send.notice_id,
            attempt=effect.attempt,
            provider=send.provider,
            result=kind,
        )
        return result

    async def _look(self, effect: Effect) -> EffectResult:
        if self._suggests is None:
            return EffectResult("failed", "nobody looks for articles here")
        asked = effect.payload
        return await self._suggests.perform(str(asked["question"]), str(asked["language"]))

    def lane(self, effect: Effect) -> str:
        """An account shares its fate with no other."""
        if _is_search(effect):
            return ARTICLES
        return f"{effect.payload.get('provider', '')}/{effect.payload.get('account', '')}"

    def is_repeatable(self, effect: Effect) -> bool:
        """Whether it can be done again: looking always, a send where the provider still drops a repeat by its key."""
        if _is_search(effect):
            return True
        send = _send_of(effect)
        if send.is_lookup:
            return True
        is_fresh = send.asked_at is not None and self._clock.now() - send.asked_at < KEY_LIFE
        return is_fresh and self._sending.is_repeatable(send.provider)


def _count_promises(item: Input, before: Conversation, decision: Decision) -> None:
    """Count what acknowledgements say about time. A batch that is tried again counts again: rates, not books."""
    match item:
        case Tick(name="promise") if not before.promises:
            PROMISES.labels("not_in_time").inc(len(decision.sends))
        case Tick(name="promise") | EffectDone() if decision.sends and before.promises:
            gone = before.promises.keys() - decision.state.promises.keys()
            for ticket_id in sorted(gone):
                is_known = before.promises[ticket_id].by is not None
                PROMISES.labels("told" if is_known else "nothing_known").inc()
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


def _contact_in(item: Input) -> tuple[Contact | None, str, str]:
    """The contact that an input brings, with the vendor's thread and message: what one may be written to by."""
    event = item.event if isinstance(item, Received) else None
    if isinstance(event, messages.MessageReceived):
        content = event.content
        contact = Contact(
            name="",
            address=content.sender.address,
            address_kind=content.sender.kind,
            channel=content.channel,
            account=content.account,
            language=None,
            is_verified=event.verified,
        )
        return contact, content.thread or "", content.vendor_message_id
    told = getattr(event, "contact", None)
    if not isinstance(told, tickets.Contact):
        return None, "", ""
    thread = str(getattr(event, "vendor_thread", ""))
    return contact_of(told), thread, str(getattr(event, "vendor_message_id", ""))


def _message_of(item: Input) -> str:
    """The id of the message that an input is a report of; empty where it is none."""
    match item:
        case Received(event=messages.MessageDeliveryReported(vendor_message_id=name)):
            return name
        case Tick(name=name, key=key) if name == REPORT:
            return key
        case _:
            return ""


def _is_unplaced(item: Input) -> bool:
    """Whether it is about a report that names no conversation."""
    match item:
        case Received(event=messages.MessageDeliveryReported(conversation_id=conversation_id)):
            return conversation_id is None
        case _:
            return bool(_message_of(item))


def _reported(inputs: Sequence[Input]) -> list[str]:
    """The ids of the messages of which there are reports."""
    return list(dict.fromkeys(name for item in inputs if (name := _message_of(item))))


def _learned(decision: Decision) -> list[WishSaid | FoundDead]:
    """What was learned of recipients, as rows."""
    wishes = [
        WishSaid(one.recipient, one.category, one.is_out, one.at, one.source, one.is_name)
        for one in decision.wished
    ]
    dead = [
        FoundDead(one.recipient, one.reason, one.at, one.until, is_name=True)
        for one in decision.dead
    ]
    return [*wishes, *dead]


def _remember(known: Known, decision: Decision, learned: Sequence[WishSaid | FoundDead]) -> None:
    """Let later inputs of the batch know what this one has asked for and learned."""
    for event in decision.events:
        if isinstance(event, NoticeRequested):
            known.remember(event.recipient, event.occasion, event.at, is_verified=event.is_verified)
    for said in learned:
        remember(known, said)


def _until(state: Conversation, send: SendNotice) -> datetime | None:
    """Until when a message may be handed over as it is; None where it has no end, and for a lookup."""
    notice = state.notices.get(send.notice_id)
    return good_until(notice) if isinstance(notice, Sending) else None


def _withdrawn(before: Conversation, after: Conversation) -> tuple[str, ...]:
    """The sends that are not to be begun any more: superseded, or with words of which some are no longer true."""
    return tuple(
        notice_id
        for notice_id, notice in after.notices.items()
        if isinstance(notice, Sending)
        and isinstance(was := before.notices.get(notice_id), Sending)
        and was.attempt == notice.attempt
        and (notice.is_superseded, lines_of(notice)) != (was.is_superseded, lines_of(was))
    )


def _put_off(before: Conversation, after: Conversation) -> list[PutOff]:
    """When notices whose account has trouble are tried again; None where one has been handed over."""
    found = []
    for notice_id, notice in after.notices.items():
        was = before.notices.get(notice_id)
        match notice:
            case Waiting(is_troubled=True) if notice != was:
                found.append(PutOff(notice_id, notice.retry_at))
            case Sending() if was is not None and not isinstance(was, Sending):
                found.append(PutOff(notice_id, None))
            case _:
                pass
    return found


def _erasures(item: Input) -> tuple[Row, ...]:
    event = item.event if isinstance(item, Received) else None
    return (event,) if isinstance(event, tickets.ConversationErased) else ()


def _event(item: Input) -> Event:
    match item:
        case Tick(name=name):
            return TIMERS[name][0]
        case EffectDone(effect=effect, result=result) if _is_search(effect):
            return ArticlesFound(str(effect.payload["notice_id"]), _suggestions(result))
        case EffectDone():
            return _settled(item)
        case Received(event=event):
            assert isinstance(event, UNDERSTOOD), (
                f"{type(event).__name__} is not among `understands`"
            )
            return event  # type: ignore[return-value]
        case _:
            raise TypeError(f"the notifier asks for no revisits and got {type(item).__name__}")


def _effect(conversation_id: str, send: SendNotice, until: datetime | None = None) -> Effect:
    """A lookup is an effect of its own: the send that it asks about has been settled. `until`: not handed over from then on.

    It has the attempt's name: lookups count from 1 for each, and facts that come of them are named by the effect.
    """
    payload = {
        "notice_id": send.notice_id,
        "provider": send.provider,
        "account": send.account,
        "message": msgspec.to_builtins(send.message),
        "is_lookup": send.is_lookup,
        "about_attempt": send.about_attempt,
        "asked_at": None if send.asked_at is None else send.asked_at.isoformat(),
        "until": None if until is None else until.isoformat(),
    }
    name = f"{send.notice_id}/find/{send.about_attempt}" if send.is_lookup else send.notice_id
    return Effect(id=name, key=conversation_id, payload=payload, attempt=send.attempt)


def _search(conversation_id: str, search: Search) -> Effect:
    payload = {
        "kind": ARTICLES,
        "notice_id": search.notice_id,
        "question": search.question,
        "language": search.language,
    }
    return Effect(id=f"{search.notice_id}/{ARTICLES}", key=conversation_id, payload=payload)


def _is_search(effect: Effect) -> bool:
    return effect.payload.get("kind") == ARTICLES


def _suggestions(result: EffectResult) -> tuple[Suggestion, ...]:
    """What a search found; nothing where it failed, which was logged and counted."""
    if result.status != "done":
        return ()
    return msgspec.json.decode(result.detail, type=tuple[Suggestion, ...])


def _send_of(effect: Effect) -> SendNotice:
    payload = effect.payload
    if "mail" in payload:  # Recorded before there was anything but mail.
        mail = msgspec.convert({"type": "Mail", **payload["mail"]}, Mail)
        return SendNotice(effect.id, effect.attempt, str(payload["provider"]), mail)
    asked_at = payload.get("asked_at")
    return SendNotice(
        str(payload["notice_id"]),
        effect.attempt,
        str(payload["provider"]),
        msgspec.convert(payload["message"], Message),
        str(payload["account"]),
        bool(payload["is_lookup"]),
        None if asked_at is None else datetime.fromisoformat(asked_at),
        int(payload.get("about_attempt", 0)),
    )


def _settled(item: EffectDone) -> SendSettled:
    result, send = item.result, _send_of(item.effect)
    match result.status:
        case "done" if result.trouble == ABSENT:
            return SendSettled(send, Absent())
        case "done" if result.trouble == REHEARSED:
            return SendSettled(send, Rehearsed())
        case "done" if result.trouble == UNSENT:
            return SendSettled(send, Unsent())
        case "withdrawn":
            return SendSettled(send, Unsent())
        case "done":
            return SendSettled(send, Delivered(result.detail, result.ref))
        case "failed":
            wished = None if result.retry_after is None else timedelta(seconds=result.retry_after)
            trouble = Trouble(result.trouble) if result.trouble else Trouble.MESSAGE
            return SendSettled(send, Failed(result.detail, result.is_recoverable, wished, trouble))
        case _:
            return SendSettled(send, Unknown(result.detail or "interrupted"))


def _result(ended: Ended) -> EffectResult:
    match ended:
        case Absent():
            return EffectResult("done", trouble=ABSENT)
        case Delivered(detail=detail, message_id=message_id):
            return EffectResult("done", detail, ref=message_id)
        case Failed(reason=reason, is_recoverable=is_recoverable, retry_after=wait):
            seconds = None if wait is None else wait.total_seconds()
            return EffectResult(
                "failed", reason, is_recoverable, seconds, trouble=ended.trouble.value
            )
        case Unknown(reason=reason):
            return EffectResult("unknown", reason)


def _kind(result: EffectResult) -> str:
    """The result's name in metrics and logs."""
    if result.status == "failed":
        return "recoverable" if result.is_recoverable else "refused"
    if result.trouble == REHEARSED:
        return "rehearsed"
    if result.trouble == UNSENT:
        return UNSENT
    return "delivered" if result.status == "done" else "unknown"
