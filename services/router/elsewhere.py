"""The stage that tells other places who has a ticket: glue between its core, the loop and the vendors. No rules."""

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, ClassVar, Final

import asyncpg
import httpx
import msgspec

from chassis import logs
from chassis.clock import monotonic
from chassis.lifecycle import Runtime
from chassis.policy import PolicyHolder
from chassis.stage import Effect, EffectDone, EffectResult, Input, Outcome, Received, Stage, Tick
from schemas import routing, tickets
from schemas.payload import Payload
from schemas.topics import ROUTING, TICKETS, Topic
from services.router.adapters import VENDORS
from services.router.adapters.api import PlaceApi, Problem, Secrets, Vendor, new_client
from services.router.core.elsewhere.calls import Assign, Call
from services.router.core.elsewhere.decide import (
    Ask,
    CallSettled,
    Decision,
    Done,
    Event,
    NotDone,
    RetryDue,
    Unknown,
    decide,
    next_due,
)
from services.router.core.elsewhere.policy import Place, Places
from services.router.core.elsewhere.state import Calling, Conversation, Reason
from services.router.core.policy.policy import Policy
from services.router.elsewhere_store import (
    STAGE,
    ElsewhereStore,
    ItemRow,
    LetGoRow,
    SupersededRow,
    sweep,
)
from services.router.metrics import ELSEWHERE_SECONDS

TIMER: Final = "retry"
FOLLOW_SECONDS: Final = 2.0
"""How often the policy is looked at for places that left it, and for a first one."""
SWEEP_SECONDS: Final = 3600.0
"""How often rows of tickets that were closed long ago are looked for."""

UNDERSTOOD: Final[tuple[type[Payload], ...]] = (
    tickets.TicketOpened,
    tickets.TicketStatusChanged,
    tickets.TicketEscalated,
    tickets.TicketSolved,
    tickets.TicketMerged,
    tickets.TicketUnmerged,
    tickets.TicketPrioritised,
    tickets.TicketReopened,
    tickets.TicketClosed,
    tickets.ConversationErased,
    routing.OfferMade,
    routing.OfferWithdrawn,
    routing.TicketAssigned,
    routing.TicketRequeued,
    routing.WorkReleased,
)

log = logs.get("router.elsewhere")


class ElsewhereStage(Stage[Conversation]):
    """Tells places; the state's key is the conversation.

    Beside its documents it remembers, in this process only, which calls a newer saying has overtaken: such a call is not
    begun any more. Forgetting that costs a call and nothing else. `clients` makes a client for each place; one is closed
    when its place has left the policy or the service stops, and then only when the last call has ended.
    """

    name: ClassVar[str] = STAGE
    topics: ClassVar[tuple[Topic, ...]] = (TICKETS, ROUTING)
    understands: ClassVar[frozenset[str]] = frozenset(kind.TYPE for kind in UNDERSTOOD)

    def __init__(
        self,
        policies: PolicyHolder[Policy],
        clients: Callable[[], httpx.AsyncClient],
        *,
        seconds: float = 20.0,
        vendors: Mapping[str, Vendor] = VENDORS,
        secrets: Secrets | None = None,
    ) -> None:
        self.store = ElsewhereStore()
        self._policies = policies
        self._clients = clients
        self._seconds = seconds
        self._vendors = vendors
        self._secrets = secrets or Secrets()
        self._apis: dict[str, PlaceApi] = {}
        self._overtaken: dict[str, int] = {}
        self._is_stopping = False

    @property
    def places(self) -> Places:
        """The places in force."""
        return self._policies.current.elsewhere

    def understands_type(self, topic: str, event_type: str) -> bool:
        """Whether an event means anything here: none does where there is no place to tell."""
        return bool(self.places.places) and super().understands_type(topic, event_type)

    def decide(
        self, state: Conversation | None, item: Input, now: datetime
    ) -> Outcome[Conversation]:
        """Ask the core, and put its answer in the loop's words."""
        before = state if state is not None else Conversation()
        decision = decide(item.key, before, _event(item), now, self.places)
        after = decision.state
        self._note_overtaken(before, after)
        due = next_due(after)
        is_timer_stale = isinstance(item, Tick) or due != next_due(before)
        return Outcome(
            state=after if after != Conversation() else None,
            is_changed=after != before,
            events=decision.events,
            timers={TIMER: due} if is_timer_stale else {},
            effects=[_effect(item.key, ask) for ask in decision.asks],
            rows=_rows(item.key, before, decision, now),
            ignored=decision.ignored,
        )

    def _note_overtaken(self, before: Conversation, after: Conversation) -> None:
        for key, item in after.items.items():
            if item is before.items.get(key):
                continue
            standing = item.standing
            if isinstance(standing, Calling) and standing.saying.serial < item.wanted.serial:
                self._overtaken[key] = item.wanted.serial
            else:
                self._overtaken.pop(key, None)

    def is_repeatable(self, effect: Effect) -> bool:
        """Whether a call that was begun may simply be made again: all but those that make something without looking."""
        call = _call_of(effect)
        return isinstance(call, Assign) or bool(call.handle) or call.look_from is not None

    async def perform(self, effect: Effect) -> EffectResult:
        """Tell one place."""
        payload = effect.payload
        if self._overtaken.pop(str(payload["item"]), 0) > int(payload["serial"]):
            return _result(NotDone(Reason.SUPERSEDED, is_recoverable=True))
        name, place = str(payload["place"]), self.places.of(str(payload["place"]))
        vendor = self._vendors.get(str(payload["vendor"]))
        if place is None or vendor is None or place.vendor != vendor.name:
            return _result(NotDone(Reason.PLACE_GONE, is_recoverable=False))
        began = monotonic()
        try:
            api = await self.api(name, place)
            outcome: Done | NotDone | Unknown = await api.told(
                vendor, _call_of(effect), is_last=self._is_stopping
            )
        except Problem as problem:
            outcome = problem.outcome
        if isinstance(outcome, NotDone) and not outcome.is_begun:
            log.debug("place_left_alone", place=name, vendor=vendor.name, call=effect.id)
            return _result(outcome)
        ELSEWHERE_SECONDS.labels(vendor.name, _kind(outcome)).observe(monotonic() - began)
        log.info(
            "place_told",
            place=name,
            vendor=vendor.name,
            call=effect.id,
            attempt=effect.attempt,
            result=_kind(outcome),
            reason="" if isinstance(outcome, Done) else outcome.reason.value,
        )
        return _result(outcome)

    async def api(self, name: str, place: Place) -> PlaceApi:
        """Return the place's API; tokens and pauses go with a change of its settings."""
        known = self._apis.get(name)
        if known is None or known.is_retired or known.settings != place.settings:
            made = PlaceApi(place.settings, self._clients(), self._secrets, seconds=self._seconds)
            if not self._is_stopping:
                self._apis[name] = made
            if known is not None:
                await known.retire()
            known = made
        return known

    async def follow_policy(self) -> None:
        """Keep no connection to a place that has left the policy."""
        for name, api in list(self._apis.items()):
            place = self.places.of(name)
            if place is None or place.settings != api.settings:
                del self._apis[name]
                await api.retire()

    async def stop(self) -> None:
        """Close every client, each when its last call has ended: those under way are finished and recorded first."""
        self._is_stopping = True
        apis, self._apis = list(self._apis.values()), {}
        for api in apis:
            await api.retire()


class Follower:
    """Beside the stage: follows the policy, lets rows of old tickets go, and closes the connections at the end.

    Where the process began without places there is no stage (None), and it says so when a first place has come.
    """

    def __init__(self, policies: PolicyHolder[Policy], stage: ElsewhereStage | None) -> None:
        self._policies = policies
        self._stage = stage
        self._has_said = False

    async def __call__(self, runtime: Runtime) -> None:
        """Follow until the service stops."""
        swept_at: float | None = None
        if self._stage is None:
            log.info("no_places", file="elsewhere.yaml", runs=False)
        while not runtime.stopping.is_set():
            await self.follow()
            if self._stage is not None and (
                swept_at is None or monotonic() - swept_at >= SWEEP_SECONDS
            ):
                swept_at = monotonic()
                try:
                    await sweep(runtime.pool, runtime.clock.now())
                except (
                    asyncpg.PostgresError,
                    asyncpg.InterfaceError,
                    OSError,
                    TimeoutError,
                ) as error:
                    log.warning("elsewhere_not_swept", error=type(error).__name__)
            try:
                async with asyncio.timeout(FOLLOW_SECONDS):
                    await runtime.stopping.wait()
            except TimeoutError:
                continue
        if self._stage is not None:
            await self._stage.stop()

    async def follow(self) -> None:
        """Look at the policy once."""
        if self._stage is not None:
            await self._stage.follow_policy()
            return
        has_places = bool(self._policies.current.elsewhere.places)
        if has_places and not self._has_said:
            log.warning(
                "places_need_a_restart",
                file="elsewhere.yaml",
                places=sorted(self._policies.current.elsewhere.places),
                cure="the router began without places; restart it to have them told",
            )
        self._has_said = has_places


def stages(
    policies: PolicyHolder[Policy], seconds: float
) -> tuple[tuple[ElsewhereStage, ...], Follower]:
    """Return the stage, or none where there is no place to tell, and what runs beside it.

    A stage without a place would read two topics for nothing.
    """
    if not policies.current.elsewhere.places:
        return (), Follower(policies, None)
    made = ElsewhereStage(policies, lambda: new_client(seconds), seconds=seconds)
    return (made,), Follower(policies, made)


def _event(item: Input) -> Event:
    match item:
        case Tick():
            return RetryDue()
        case EffectDone():
            return _settled(item)
        case Received(event=event):
            assert isinstance(event, UNDERSTOOD), (
                f"{type(event).__name__} is not among `understands`"
            )
            return event  # type: ignore[return-value]
        case _:
            raise TypeError(f"router.elsewhere asks for no revisits and got {type(item).__name__}")


def _effect(conversation_id: str, ask: Ask) -> Effect:
    payload = {
        "item": ask.item_id,
        "serial": ask.serial,
        "place": ask.place,
        "vendor": ask.vendor,
        "call": msgspec.to_builtins(ask.call),
    }
    return Effect(id=ask.name, key=conversation_id, payload=payload, attempt=ask.attempt)


def _call_of(effect: Effect) -> Call:
    call: Call = msgspec.convert(effect.payload["call"], Call)
    return call


class _Told(msgspec.Struct, frozen=True):
    """What a result's detail holds."""

    reason: Reason | None = None
    detail: str = ""
    handle: str = ""
    is_changed: bool = True
    is_begun: bool = True


def _result(outcome: Done | NotDone | Unknown) -> EffectResult:
    match outcome:
        case Done(handle=handle, is_changed=is_changed):
            said = _Told(handle=handle, is_changed=is_changed)
            return EffectResult("done", msgspec.json.encode(said).decode())
        case NotDone(reason=reason, detail=detail, retry_after=wish):
            failed = _Told(reason, detail, is_begun=outcome.is_begun)
            told = msgspec.json.encode(failed).decode()
            return EffectResult("failed", told, outcome.is_recoverable, _seconds(wish))
        case Unknown(reason=reason, detail=detail, retry_after=wish):
            told = msgspec.json.encode(_Told(reason, detail)).decode()
            return EffectResult("unknown", told, retry_after=_seconds(wish))


def _seconds(wish: timedelta | None) -> float | None:
    return None if wish is None else wish.total_seconds()


def _settled(item: EffectDone) -> CallSettled:
    payload, result = item.effect.payload, item.result
    try:
        told = msgspec.json.decode(result.detail, type=_Told)
    except (msgspec.DecodeError, msgspec.ValidationError):
        # The loop's own words, where the call never came to an end that we could put into ours.
        is_cut = result.detail == "interrupted"
        told = _Told(Reason.INTERRUPTED if is_cut else Reason.BUG)
    outcome: Done | NotDone | Unknown
    wish = None if result.retry_after is None else timedelta(seconds=result.retry_after)
    match result.status:
        case "done":
            outcome = Done(told.handle, told.is_changed)
        case "failed":
            reason = told.reason or Reason.BUG
            outcome = NotDone(reason, result.is_recoverable, wish, told.detail, told.is_begun)
        case _:
            outcome = Unknown(told.reason or Reason.BUG, told.detail, wish)
    return CallSettled(str(payload["item"]), int(payload["serial"]), item.effect.attempt, outcome)


def _kind(outcome: Done | NotDone | Unknown) -> str:
    match outcome:
        case Done():
            return "done"
        case NotDone(is_recoverable=True):
            return "recoverable"
        case NotDone():
            return "refused"
        case Unknown():
            return "unknown"


def _rows(
    conversation_id: str, before: Conversation, decision: Decision, now: datetime
) -> tuple[Any, ...]:
    after = (*decision.state.items.items(), *decision.ended)
    changed = [
        ItemRow(conversation_id, key, item, now)
        for key, item in after
        if item != before.items.get(key)
    ]
    return (
        *changed,
        *decision.events,
        *map(SupersededRow, decision.superseded),
        *(LetGoRow(ticket_id, now) for ticket_id in decision.let_go),
    )
