"""The glue: events in, effects out, results back, and what the settings refuse."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from chassis.clock import Clock
from chassis.effects import WITHDRAWN
from chassis.errors import ConfigurationError, InvalidEvent
from chassis.policy import PolicyHolder
from chassis.settings import load_settings
from chassis.stage import Effect, EffectDone, EffectResult, Received, Tick
from schemas.envelope import Envelope
from schemas.messages import MessageDeliveryReported
from schemas.notifications import NoticeDeliveryReported
from schemas.sla import WaitPromised
from schemas.tickets import TicketAnswered, TicketOpened
from services.notifier.consent_store import FoundDead
from services.notifier.core.articles import NO_ARTICLES
from services.notifier.core.delivery import Attempted, Delivered, Ended, Failed, Unknown
from services.notifier.core.known import UNVERIFIED, Known, Told
from services.notifier.core.settle import LOOKS_AFTER
from services.notifier.core.state import Conversation, Mail, Message, Settled
from services.notifier.handlers import POLICY, NotifierStage
from services.notifier.settings import NotifierSettings
from services.notifier.store import Loaded, PutOff

NOW = datetime(2026, 11, 24, 8, 0, 2, tzinfo=UTC)
SECRET = "0123456789abcdef0123456789abcdef"


class ScriptedProvider:
    """Answers what it is told to, and remembers the mails."""

    def __init__(self, answer: Attempted) -> None:
        self.answer = answer
        self.mails: list[Mail] = []

    async def send(self, provider: str, account: str, message: Message) -> Attempted:
        assert (provider, account) == ("smtp", "support")
        assert isinstance(message, Mail)
        self.mails.append(message)
        return self.answer

    async def find(self, provider: str, account: str, message: Message) -> Ended:
        raise AssertionError(f"{provider} cannot be asked, nor can {account} for {message}")

    def is_repeatable(self, provider: str) -> bool:
        return provider != "smtp"


def _settings(**changes: Any) -> NotifierSettings:
    given = {"kafka": "k:9092", "database_url": "postgresql://x", "token_secret": SECRET, **changes}
    return load_settings(NotifierSettings, **given)


def _stage(
    answer: Attempted,
    wait: float = 0,
    provider: ScriptedProvider | None = None,
    clock: Clock | None = None,
) -> NotifierStage:
    """The stage under the example policy; `received` waits so many seconds for what can be promised."""
    holder = PolicyHolder(Path(__file__).parents[3] / "policy", POLICY)
    holder.current = replace(
        holder.current, promise_wait=timedelta(seconds=wait), articles=NO_ARTICLES
    )
    sending = provider or ScriptedProvider(answer)
    # By itself the day that the tests play on, whenever they run.
    return NotifierStage(holder, _settings(), sending, clock=clock or Stopped(NOW))


def _received() -> Received:
    event = TicketOpened.model_validate(TicketOpened.EXAMPLE)
    envelope = Envelope(
        id="e1",
        source="signalbox/router.tickets/0",
        type=TicketOpened.TYPE,
        time=NOW,
        subject=event.ticket_id,
        partitionkey=event.conversation_id,
    )
    return Received(envelope, event, event.conversation_id, "tickets", "e1")


def _through_json(effect: Effect) -> Effect:
    """As it comes back from the effect table."""
    payload = json.loads(json.dumps(effect.payload))
    return Effect(effect.id, effect.key, payload, effect.attempt)


@pytest.mark.parametrize(
    ("answer", "status", "event"),
    [
        (Delivered("250 ok"), "done", "NoticeSent"),
        (Failed("550 no", is_recoverable=False), "failed", "NoticeFailed"),
        (Unknown("lost"), "unknown", "NoticeUnknown"),
    ],
)
async def test_a_notice_goes_out_and_its_result_comes_back(
    answer: Attempted, status: str, event: str
) -> None:
    stage = _stage(answer)
    first = stage.decide(Loaded(Conversation(), Known("default")), _received(), NOW)
    (effect,) = first.effects
    assert (effect.key, effect.attempt) == (_received().key, 1)
    assert list(first.rows) == list(first.events)
    effect = _through_json(effect)
    result = await stage.perform(effect)
    assert result.status == status
    second = stage.decide(first.state, EffectDone(effect, result), NOW)
    assert [type(said).__name__ for said in second.events] == [event]
    assert second.effects == []


async def test_not_now_sets_a_timer_and_the_timer_sends_the_same_mail() -> None:
    stage = _stage(Failed("451 later", is_recoverable=True))
    first = stage.decide(Loaded(Conversation(), Known("default")), _received(), NOW)
    effect = _through_json(first.effects[0])
    waiting = stage.decide(first.state, EffectDone(effect, await stage.perform(effect)), NOW)
    due = waiting.timers["retry"]
    assert due is not None
    again = stage.decide(waiting.state, Tick(effect.key, "retry", due), due)
    assert again.timers == {"retry": None}
    (retry,) = again.effects
    assert (retry.id, retry.attempt) == (effect.id, 2)
    assert _through_json(retry).payload["message"] == effect.payload["message"]


class Stopped:
    """A clock that stands."""

    def __init__(self, instant: datetime) -> None:
        self.instant = instant

    def now(self) -> datetime:
        return self.instant


async def test_what_is_stale_when_its_turn_comes_is_not_handed_over() -> None:
    clock = Stopped(NOW + timedelta(hours=23))
    provider = ScriptedProvider(Delivered())
    stage = _stage(Delivered(), provider=provider, clock=clock)
    first = stage.decide(Loaded(Conversation(), Known("default")), _received(), NOW)
    effect = _through_json(first.effects[0])
    until = datetime.fromisoformat(effect.payload["until"])
    assert NOW < until <= NOW + timedelta(days=1)
    clock.instant = until
    result = await stage.perform(effect)
    assert (provider.mails, result.trouble) == ([], "unsent")
    after = stage.decide(first.state, EffectDone(effect, result), until)
    assert [said.reason for said in after.events] == ["expired"]  # type: ignore[attr-defined]
    clock.instant = until - timedelta(seconds=1)
    await stage.perform(effect)
    assert len(provider.mails) == 1


async def test_what_was_superseded_while_it_waited_for_its_turn_is_not_handed_over() -> None:
    provider = ScriptedProvider(Delivered())
    stage = _stage(Delivered(), provider=provider, clock=Stopped(NOW))
    first = stage.decide(Loaded(Conversation(), Known("default")), _received(), NOW)
    opened = _received()
    answered = TicketAnswered.model_validate(TicketAnswered.EXAMPLE)
    item = Received(opened.envelope, answered, opened.key, "tickets", "e2")
    second = stage.decide(first.state, item, NOW)
    late, answer = _through_json(first.effects[0]), _through_json(second.effects[0])
    assert second.withdrawn == (late.id,), "so it is, whichever process has the task by its turn"
    third = stage.decide(second.state, EffectDone(late, WITHDRAWN), NOW)
    assert [said.reason for said in third.events] == ["superseded"]  # type: ignore[attr-defined]
    assert third.withdrawn == ()
    await stage.perform(answer)
    assert len(provider.mails) == 1, "the answer goes out"


def _report(what: str, conversation_id: str | None = None) -> Received:
    facts = {**MessageDeliveryReported.EXAMPLE, "what": what, "conversation_id": conversation_id}
    event = MessageDeliveryReported.model_validate(facts)
    key = conversation_id or event.vendor_message_id
    return Received(_received().envelope, event, key, "messages", f"r-{what}")


def _sent(message_id: str) -> tuple[str, Conversation]:
    """The notice that a message was, as the table tells of it."""
    notice = Settled("t1", "received", "sent", message_id, "twilio_sms", "sms", recipient="r")
    return CONVERSATION, Conversation(notices={"n1": notice})


CONVERSATION = "b1c9f1c2-55a0-5a0e-9d1e-7c6d6a0f7f01"


def test_a_report_that_comes_before_its_notice_is_recorded_waits_for_it_and_is_told_then() -> None:
    stage = _stage(Delivered())
    early = _report("bounced")
    kept = stage.decide(Loaded(Conversation(), Known("default")), early, NOW)
    assert isinstance(kept.state, Loaded)
    due = kept.timers["report"]
    assert (due, kept.events, kept.is_changed) == (NOW + timedelta(seconds=5), (), True)

    known = Loaded(kept.state.conversation, Known("default"), {early.key: _sent(early.key)})
    told = stage.decide(known, Tick(early.key, "report", NOW), NOW + timedelta(seconds=5))
    (event,) = told.events
    assert isinstance(event, NoticeDeliveryReported)
    assert (event.conversation_id, event.ticket_id, event.what) == (CONVERSATION, "t1", "bounced")
    assert (told.state, told.is_changed, told.timers) == (None, True, {"report": None})
    assert [row.recipient for row in told.rows if isinstance(row, FoundDead)]


def test_a_later_report_finds_the_notice_and_what_was_kept_of_it_is_told_too() -> None:
    stage = _stage(Delivered())
    early = stage.decide(Loaded(Conversation(), Known("default")), _report("delivered"), NOW)
    assert isinstance(early.state, Loaded)
    second = _report("read")
    known = Loaded(early.state.conversation, Known("default"), {second.key: _sent(second.key)})
    told = stage.decide(known, second, NOW)
    assert [one.what for one in told.events] == ["delivered", "read"]  # type: ignore[attr-defined]
    assert (told.state, told.timers) == (None, {"report": None})


def test_a_report_of_a_message_that_never_becomes_ours_is_forgotten_within_hours() -> None:
    stage = _stage(Delivered())
    outcome = stage.decide(Loaded(Conversation(), Known("default")), _report("read"), NOW)
    key, looks = _report("read").key, []
    while outcome.state is not None:
        due = outcome.timers["report"]
        assert due is not None
        looks.append(due - NOW)
        outcome = stage.decide(outcome.state, Tick(key, "report", due), due)
    assert (outcome.timers, outcome.ignored) == ({"report": None}, "not_ours")
    assert looks == list(LOOKS_AFTER)


def test_a_report_that_names_a_conversation_which_knows_no_such_notice_is_told_where_it_belongs() -> (
    None
):
    """The ticket has closed meanwhile, or the chat is another conversation by now."""
    stage = _stage(Delivered())
    item = _report("bounced", "7a1f9c52-55a0-5a0e-9d1e-7c6d6a0f7f02")
    message = MessageDeliveryReported.EXAMPLE["vendor_message_id"]
    known = Loaded(Conversation(), Known("default"), {message: _sent(message)})
    told = stage.decide(known, item, NOW)
    assert [one.conversation_id for one in told.events] == [CONVERSATION]  # type: ignore[attr-defined]
    assert not told.is_changed


def test_the_table_knows_when_a_troubled_account_is_tried_again_and_that_it_is() -> None:
    stage = _stage(Delivered())
    outcome = stage.decide(Loaded(Conversation(), Known("default")), _received(), NOW)
    key, now, put_off = _received().key, NOW, []
    for _ in range(2):
        refused = EffectResult("failed", "535", is_recoverable=True, trouble="account")
        waiting = stage.decide(outcome.state, EffectDone(outcome.effects[0], refused), now)
        due = waiting.timers["retry"]
        assert due is not None
        outcome = stage.decide(waiting.state, Tick(key, "retry", due), due)
        put_off += [(due, row.until) for row in waiting.rows if isinstance(row, PutOff)]
        put_off += [(due, row.until) for row in outcome.rows if isinstance(row, PutOff)]
        now = due
    first, second = NOW + timedelta(minutes=15), NOW + timedelta(minutes=30)
    assert put_off == [(first, first), (first, None), (second, second), (second, None)]


def test_what_can_be_promised_is_waited_for_by_a_timer_of_its_own() -> None:
    stage = _stage(Delivered(), wait=5)
    held = stage.decide(Loaded(Conversation(), Known("default")), _received(), NOW)
    due = NOW + timedelta(seconds=5)
    assert (held.timers, held.effects, tuple(held.events)) == ({"promise": due}, [], ())
    early = stage.decide(
        held.state, Tick(_received().key, "promise", due), due - timedelta(seconds=1)
    )
    assert (early.timers, early.effects) == ({"promise": due}, []), "it is set again"
    sent = stage.decide(held.state, Tick(_received().key, "promise", due), due)
    assert (sent.timers, len(sent.effects)) == ({"promise": None}, 1)


def test_a_promise_is_understood_and_lets_the_notice_go_at_once() -> None:
    stage = _stage(Delivered(), wait=5)
    held = stage.decide(Loaded(Conversation(), Known("default")), _received(), NOW)
    opened = _received()
    event = WaitPromised.model_validate(WaitPromised.EXAMPLE)
    assert WaitPromised.TYPE in stage.understands
    told = Received(opened.envelope, event, event.conversation_id, "sla", "e2")
    sent = stage.decide(held.state, told, NOW)
    # That we are at it would be said half an hour before, when less than half of it is over: nothing is left but the end.
    late = datetime(2026, 11, 24, 8, 45, 5, tzinfo=UTC)
    assert (sent.timers, len(sent.effects)) == ({"promise": None, "follow_up": late}, 1)
    assert "within 45 minutes" in sent.effects[0].payload["message"]["text"]


def test_an_interrupted_send_is_unknown_and_not_repeated() -> None:
    stage = _stage(Delivered())
    first = stage.decide(Loaded(Conversation(), Known("default")), _received(), NOW)
    effect = first.effects[0]
    assert not stage.is_repeatable(effect)
    done = EffectDone(effect, EffectResult("unknown", "interrupted"))
    after = stage.decide(first.state, done, NOW)
    assert [(type(said).__name__, said.reason) for said in after.events] == [  # type: ignore[attr-defined]
        ("NoticeUnknown", "interrupted")
    ]
    assert after.effects == []
    assert after.timers == {}


def test_a_flood_within_one_batch_is_counted() -> None:
    stage = _stage(Delivered())
    known = Known("default")
    requested = 0
    for number in range(10):
        item = _received()
        event = item.event.model_copy(update={"ticket_id": f"t{number}"})
        item = Received(
            item.envelope, event, f"b1c9f1c2-55a0-5a0e-9d1e-7c6d6a0f7f{number:02}", "tickets", "e"
        )
        requested += len(stage.decide(Loaded(Conversation(), known), item, NOW).effects)
    assert requested == 4


def test_a_flood_to_many_addresses_within_one_batch_is_counted() -> None:
    stage = _stage(Delivered())
    known = Known("default", {UNVERIFIED: [Told(NOW, "service")] * 497})
    requested = 0
    for number in range(10):
        item = _received()
        assert isinstance(item.event, TicketOpened)
        contact = item.event.contact.model_copy(update={"address": f"c{number}@example.com"})
        event = item.event.model_copy(update={"ticket_id": f"t{number}", "contact": contact})
        item = Received(
            item.envelope, event, f"b1c9f1c2-55a0-5a0e-9d1e-7c6d6a0f7f{number:02}", "tickets", "e"
        )
        requested += len(stage.decide(Loaded(Conversation(), known), item, NOW).effects)
    assert requested == 3


@pytest.mark.parametrize(
    ("field", "value"), [("conversation_id", "not-a-uuid"), ("ticket_id", "t\u0000")]
)
def test_ids_that_our_mail_could_not_carry_are_parked(field: str, value: str) -> None:
    data = json.dumps({**TicketOpened.EXAMPLE, field: value}).encode()
    with pytest.raises(InvalidEvent, match=field):
        _stage(Delivered()).decode(_received().envelope, data)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"token_secret": ""}, "SIGNALBOX_TOKEN_SECRET"),
        ({"token_secret": "short"}, "SIGNALBOX_TOKEN_SECRET"),
        ({"smtp_tls": "none", "smtp_password": "hunter2"}, "SIGNALBOX_SMTP_TLS"),
        ({"smtp_tls": "maybe"}, "SIGNALBOX_SMTP_TLS"),
        ({"smtp_port": 0}, "SIGNALBOX_SMTP_PORT"),
        ({"smtp_helo": "a b"}, "SIGNALBOX_SMTP_HELO"),
    ],
)
def test_settings_that_cannot_work_are_named_without_their_value(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message) as raised:
        _settings(**changes)
    assert "hunter2" not in str(raised.value)
