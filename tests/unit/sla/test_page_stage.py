"""The stage and the terminal: calls go with the decision's rows, and a person can try a receiver."""

import shutil
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from msgspec.structs import replace
from typer.testing import CliRunner

from chassis.policy import PolicyHolder, load
from chassis.stage import Received, Tick
from cli.main import app
from cli.policy import examine
from schemas.envelope import Envelope
from schemas.payload import Payload
from schemas.routing import AssignmentExhausted, TicketAssigned
from schemas.sla import TargetRetargeted
from schemas.tickets import TicketAnswered, TicketOpened, TicketPaged, TicketStatusChanged
from services.sla.core import alerts, paging
from services.sla.core.alerts import End, Fire
from services.sla.core.state import Conversation
from services.sla.handlers import POLICY, TIMER, SlaStage

REPOSITORY = Path(__file__).parents[3]
NINE = datetime.fromisoformat("2026-11-24T09:00:00+00:00")


@pytest.fixture(scope="module")
def calling(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped policy, with somebody who is called by each of its routes."""
    folder = tmp_path_factory.mktemp("stage") / "policy"
    shutil.copytree(REPOSITORY / "policy", folder)
    pages = yaml.safe_load((folder / "pages.yaml").read_text(encoding="utf-8"))
    pages["receivers"] = {"on-call": {"kind": "alertmanager", "urls": ["http://localhost:9093"]}}
    for route in pages["routes"]:
        route["receivers"] = ["on-call"]
    (folder / "pages.yaml").write_text(yaml.safe_dump(pages), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def stage(calling: Path) -> SlaStage:
    return SlaStage(PolicyHolder(calling, POLICY))


def received(kind: type[Payload], when: datetime, **fields: Any) -> Received:
    data = kind.EXAMPLE | {"at": when, "occurred_at": when} | fields
    envelope = Envelope(type=kind.TYPE, source="signalbox/router.tickets/0", id="e1", time=when)
    return Received(
        envelope, kind.model_validate(data), str(data["conversation_id"]), "tickets", "e1"
    )


def opened(stage: SlaStage) -> Conversation:
    event = received(TicketOpened, NINE, sla_policy="urgent", priority=1)
    state = stage.decide(None, event, NINE).state
    assert state is not None
    return state


def test_the_stage_understands_all_that_fires_or_ends_an_alert(stage: SlaStage) -> None:
    assert stage.understands >= alerts.UNDERSTOOD


def test_where_no_route_has_receivers_nothing_is_written_down_for_anybody() -> None:
    stage = SlaStage(PolicyHolder(REPOSITORY / "policy", POLICY))
    state, now, n_told = opened(stage), NINE, 0
    while (due := stage.decide(state, Tick("c", TIMER, now), now).timers[TIMER]) is not None:
        now = due
        outcome = stage.decide(state, Tick("c", TIMER, now), now)
        assert outcome.state is not None
        state = outcome.state
        n_told += len(outcome.events)
        assert not [row for row in outcome.rows if isinstance(row, Fire)]
    assert n_told
    paged = stage.decide(state, received(TicketPaged, now), now)
    assert not [row for row in paged.rows if isinstance(row, Fire)]


def test_a_breach_is_written_as_a_call_in_the_batch_that_tells_it(stage: SlaStage) -> None:
    state, now = opened(stage), NINE
    fired: list[Fire] = []
    while not any(one.alert.event == "breached" for one in fired):
        wanted = stage.decide(state, Tick("c", TIMER, now), now).timers[TIMER]
        assert wanted is not None
        now = wanted
        outcome = stage.decide(state, Tick("c", TIMER, now), now)
        assert outcome.state is not None
        state = outcome.state
        fired += [row for row in outcome.rows if isinstance(row, Fire)]
    (breach,) = [one for one in fired if one.alert.event == "breached"]
    assert (breach.alert.route, breach.alert.severity) == ("urgent-promises", "critical")
    assert breach.alert.number == TicketOpened.EXAMPLE["number"]
    assert breach.alert.labels["queue"] == TicketOpened.EXAMPLE["queue"]
    answered = stage.decide(state, received(TicketAnswered, now), now)
    ends = {row.alert_key for row in answered.rows if isinstance(row, End)}
    assert breach.alert.alert_key in ends


def until_fired(stage: SlaStage, what: str, target: str) -> tuple[Conversation, datetime, Fire]:
    """Let a ticket's clocks run until one of them fires."""
    state, now = opened(stage), NINE
    while True:
        wanted = stage.decide(state, Tick("c", TIMER, now), now).timers[TIMER]
        assert wanted is not None
        now = wanted
        outcome = stage.decide(state, Tick("c", TIMER, now), now)
        assert outcome.state is not None
        state = outcome.state
        for row in outcome.rows:
            wanted_labels = {"event": what, "target": target}.items()
            if isinstance(row, Fire) and wanted_labels <= row.alert.labels.items():
                return state, now, row


@pytest.mark.parametrize(
    ("what", "status"), [("at_risk", "pending"), ("breached", "spam"), ("at_risk", "spam")]
)
def test_what_a_pause_or_spam_ended_is_called_for_again_when_the_clock_goes_on(
    stage: SlaStage, what: str, status: str
) -> None:
    state, now, fired = until_fired(stage, what, "resolution")
    key = fired.alert.alert_key
    aside = received(
        TicketStatusChanged, now + timedelta(seconds=5), status=status, before="assigned"
    )
    held = stage.decide(state, aside, now + timedelta(seconds=5))
    assert [row.alert_key for row in held.rows if isinstance(row, End)].count(key) == 1
    back = received(
        TicketStatusChanged, now + timedelta(seconds=60), status="assigned", before=status
    )
    again = stage.decide(held.state, back, now + timedelta(seconds=60))
    (refired,) = [r for r in again.rows if isinstance(r, Fire) and r.alert.alert_key == key]
    assert refired.alert.event == what
    assert what == "at_risk" or refired.alert.since == fired.alert.since


def test_a_nearer_deadline_leaves_a_risk_that_was_told(stage: SlaStage, calling: Path) -> None:
    state, now, fired = until_fired(stage, "at_risk", "resolution")
    ticket = state.tickets[0]
    target = next(one for one in ticket.targets if one.target_id == fired.alert.alert_key)
    assert target.is_warned
    told = TargetRetargeted.model_validate(
        TargetRetargeted.EXAMPLE
        | {"ticket_id": ticket.ticket_id, "target_id": target.target_id, "target": "resolution"}
        | {"policy": ticket.policy, "queue": ticket.queue, "priority": ticket.priority}
    )
    pages = load(calling, POLICY).pages
    (stays,) = alerts.changes(pages, None, (told,), state, now)
    assert isinstance(stays, Fire)
    risen = paging.fold(None, fired, 1)
    assert paging.fold(risen, stays, 2) is risen  # Nothing new is told.
    calm = replace(
        state,
        tickets=(replace(ticket, targets=(replace(target, is_warned=False),)),),
    )
    (ends,) = alerts.changes(pages, None, (told,), calm, now)
    assert isinstance(ends, End)


def test_a_ticket_without_clocks_can_be_called_for_too(stage: SlaStage) -> None:
    outcome = stage.decide(None, received(TicketPaged, NINE), NINE)
    (fired,) = [row for row in outcome.rows if isinstance(row, Fire)]
    assert (fired.alert.route, fired.alert.labels["policy"]) == ("on-call", "security")
    assert outcome.ignored is None
    assert not outcome.is_changed


def test_what_routing_says_of_waiting_work_fires_and_ends(stage: SlaStage) -> None:
    fired = stage.decide(None, received(AssignmentExhausted, NINE), NINE)
    assert [row.alert.event for row in fired.rows if isinstance(row, Fire)] == ["exhausted"]
    over = stage.decide(None, received(TicketAssigned, NINE, assigned_at=NINE), NINE)
    keys = {row.alert_key.rpartition("/")[2] for row in over.rows if isinstance(row, End)}
    assert "exhausted" in keys


# ------------------------------------------------------------------------------------ the terminal


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import shutil

    made = Path(shutil.copytree(REPOSITORY / "policy", tmp_path / "policy"))
    monkeypatch.setenv("SIGNALBOX_POLICY", str(made))
    monkeypatch.setenv("SIGNALBOX_KAFKA", "nowhere:1")
    return made


def write(folder: Path, **file: Any) -> None:
    (folder / "pages.yaml").write_text(yaml.safe_dump(file), encoding="utf-8")


DUTY = {"kind": "pagerduty", "routing_key": "env:NO_SUCH_KEY_HERE"}


def test_the_policy_check_names_the_place_of_a_mistake_in_the_pages(folder: Path) -> None:
    write(folder, routes=[{"name": "a", "severity": "critical", "receivers": ["nobody"]}])
    result = CliRunner().invoke(app, ["policy", "check", str(folder)])
    assert result.exit_code == 1
    assert "error: pages.yaml: routes.0.receivers.0: 'nobody': one of `receivers`" in result.output


@pytest.mark.parametrize(
    ("receiver", "said"),
    [
        ({"kind": "pagerduty", "routing_key": "R" * 32}, "receivers.duty.routing_key"),
        ({"kind": "slack", "channel": "#general", "token": "env:T"}, "receivers.duty"),
        ({**DUTY, "ulr": "https://x.example"}, "receivers.duty"),
    ],
)
def test_a_secret_in_clear_or_a_slip_of_the_pen_is_refused_with_its_path(
    folder: Path, receiver: dict[str, Any], said: str
) -> None:
    write(folder, receivers={"duty": receiver})
    _, findings = examine(folder)
    assert [one.level for one in findings if one.file == "pages.yaml"] == ["error"]
    told = next(str(one) for one in findings if one.file == "pages.yaml")
    assert said in told
    assert "RRR" not in told


MAIL = {"kind": "email", "to": "a@shop.example", "sender": "c@shop.example", "host": "h"}


@pytest.mark.parametrize(
    ("receiver", "path", "said"),
    [
        ({"kind": "pagerduty", "routing_key": 5377053770}, "duty.routing_key", "valid string"),
        ({**MAIL, "user": "u", "pasword": "S53770"}, "duty.pasword", "known here: kind, to,"),
        ({**MAIL, "user": "u", "password": 53770}, "duty.password", "valid string"),
        ({**MAIL, "password": "S53770"}, "duty", "`user` and `password`"),
        ({**DUTY, "url": "https://u:S53770@h.example/x"}, "duty.url", "should match"),
        ({"kind": "slak", "token": "S53770"}, "duty", "one of: alertmanager, pagerduty, slack"),
        ({"token": "S53770"}, "duty", "needs a `kind`"),
        ("S53770", "duty", "valid dictionary"),
    ],
)
def test_nothing_that_may_be_a_secret_is_quoted(
    folder: Path, receiver: Any, path: str, said: str
) -> None:
    write(folder, receivers={"duty": receiver})
    _, findings = examine(folder)
    told = next(str(one) for one in findings if one.file == "pages.yaml")
    assert f"receivers.{path}:" in told
    assert said in told
    assert "5377" not in told


def test_a_key_that_is_not_known_is_answered_with_those_of_its_kind(folder: Path) -> None:
    slack = {"kind": "slack", "channel": "C0123", "token": "env:T", "tokn": "x"}
    write(folder, receivers={"duty": slack})
    _, findings = examine(folder)
    told = next(str(one) for one in findings if one.file == "pages.yaml")
    assert told.endswith("known here: kind, channel, token, url, send_resolved")


def test_a_receiver_that_no_route_has_and_a_queue_that_is_not_there_are_warned_of(
    folder: Path,
) -> None:
    route = {"name": "a", "severity": "error", "when": {"event": "breached", "queue": "bilings"}}
    write(folder, receivers={"duty": DUTY}, routes=[route])
    _, findings = examine(folder)
    told = {(one.level, one.path) for one in findings if one.file == "pages.yaml"}
    assert told == {("warning", "receivers.duty"), ("warning", "routes.0.when.queue")}


def test_a_test_page_to_a_receiver_without_its_secret_says_what_is_missing(folder: Path) -> None:
    write(folder, receivers={"duty": DUTY})
    result = CliRunner().invoke(app, ["pages", "test", "duty"])
    assert result.exit_code != 0
    assert "env:NO_SUCH_KEY_HERE is missing" in str(result.exception)


def test_a_test_page_to_a_receiver_that_is_not_there_names_those_that_are(folder: Path) -> None:
    write(folder, receivers={"duty": DUTY})
    result = CliRunner().invoke(app, ["pages", "test", "dutty"])
    assert "it has: duty" in str(result.exception)
