"""The glue: events in, effects out, results back, and what the settings refuse."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from chassis.errors import ConfigurationError, InvalidEvent
from chassis.policy import PolicyHolder
from chassis.settings import load_settings
from chassis.stage import Effect, EffectDone, EffectResult, Received, Tick
from schemas.envelope import Envelope
from schemas.sla import WaitPromised
from schemas.tickets import TicketOpened
from services.notifier.core.delivery import Attempted, Delivered, Failed, Unknown
from services.notifier.core.state import Conversation, Mail
from services.notifier.core.throttle import UNVERIFIED
from services.notifier.handlers import POLICY, NotifierStage
from services.notifier.settings import NotifierSettings
from services.notifier.store import Loaded

NOW = datetime(2026, 11, 24, 8, 0, 2, tzinfo=UTC)
SECRET = "0123456789abcdef0123456789abcdef"


class ScriptedProvider:
    """Answers what it is told to, and remembers the mails."""

    def __init__(self, answer: Attempted) -> None:
        self.answer = answer
        self.mails: list[Mail] = []

    async def send(self, mail: Mail) -> Attempted:
        self.mails.append(mail)
        return self.answer


def _settings(**changes: Any) -> NotifierSettings:
    given = {"kafka": "k:9092", "database_url": "postgresql://x", "token_secret": SECRET, **changes}
    return load_settings(NotifierSettings, **given)


def _stage(answer: Attempted, wait: float = 0) -> NotifierStage:
    """The stage under the example policy; `received` waits so many seconds for what can be promised."""
    holder = PolicyHolder(Path(__file__).parents[3] / "policy", POLICY)
    holder.current = replace(holder.current, promise_wait=timedelta(seconds=wait))
    return NotifierStage(holder, _settings(), ScriptedProvider(answer))


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
    first = stage.decide(Loaded(Conversation(), {}), _received(), NOW)
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
    first = stage.decide(Loaded(Conversation(), {}), _received(), NOW)
    effect = _through_json(first.effects[0])
    waiting = stage.decide(first.state, EffectDone(effect, await stage.perform(effect)), NOW)
    due = waiting.timers["retry"]
    assert due is not None
    again = stage.decide(waiting.state, Tick(effect.key, "retry", due), due)
    assert again.timers == {"retry": None}
    (retry,) = again.effects
    assert (retry.id, retry.attempt) == (effect.id, 2)
    assert _through_json(retry).payload == effect.payload


def test_what_can_be_promised_is_waited_for_by_a_timer_of_its_own() -> None:
    stage = _stage(Delivered(), wait=5)
    held = stage.decide(Loaded(Conversation(), {}), _received(), NOW)
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
    held = stage.decide(Loaded(Conversation(), {}), _received(), NOW)
    opened = _received()
    event = WaitPromised.model_validate(WaitPromised.EXAMPLE)
    assert WaitPromised.TYPE in stage.understands
    told = Received(opened.envelope, event, event.conversation_id, "sla", "e2")
    sent = stage.decide(held.state, told, NOW)
    assert (sent.timers, len(sent.effects)) == ({"promise": None}, 1)
    assert "within 45 minutes" in sent.effects[0].payload["mail"]["text"]


def test_an_interrupted_send_is_unknown_and_not_repeated() -> None:
    stage = _stage(Delivered())
    first = stage.decide(Loaded(Conversation(), {}), _received(), NOW)
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
    recents: dict[str, list[datetime]] = {}
    requested = 0
    for number in range(10):
        item = _received()
        event = item.event.model_copy(update={"ticket_id": f"t{number}"})
        item = Received(
            item.envelope, event, f"b1c9f1c2-55a0-5a0e-9d1e-7c6d6a0f7f{number:02}", "tickets", "e"
        )
        requested += len(stage.decide(Loaded(Conversation(), recents), item, NOW).effects)
    assert requested == 4


def test_a_flood_to_many_addresses_within_one_batch_is_counted() -> None:
    stage = _stage(Delivered())
    recents: dict[str, list[datetime]] = {UNVERIFIED: [NOW] * 497}
    requested = 0
    for number in range(10):
        item = _received()
        assert isinstance(item.event, TicketOpened)
        contact = item.event.contact.model_copy(update={"address": f"c{number}@example.com"})
        event = item.event.model_copy(update={"ticket_id": f"t{number}", "contact": contact})
        item = Received(
            item.envelope, event, f"b1c9f1c2-55a0-5a0e-9d1e-7c6d6a0f7f{number:02}", "tickets", "e"
        )
        requested += len(stage.decide(Loaded(Conversation(), recents), item, NOW).effects)
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
