"""Web chat's rules: who a token says its bearer is, what a stored message says, when somebody is there."""

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.inbound import InboundReceived
from schemas.messages import MessageReceived
from schemas.tickets import TicketAnswered, TicketClosed, TicketOpened, TicketSolved
from services.ingest.adapters import webchat
from services.ingest.adapters.channel import Delivery, ParseError
from services.ingest.core import decide
from services.ingest.core import webchat as tokens
from services.ingest.core.state import Directory
from services.ingest.core.webchat import Session, TokenRefused
from services.ingest.webchat_stage import WebchatStage
from services.ingest.webchat_store import AnswerRow, Chat, OpenedRow, SeenRow

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
STAMP = int(NOW.timestamp())
KEY = tokens.session_key(b"a secret of at least thirty-two characters", "default")
SESSION = Session("shop", "0123456789abcdef" * 2, STAMP, STAMP + 3600, "ada@example.com", "Ada")
SECRETS = [b"the shop's new secret", b"the shop's old secret"]


def part(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def identity(
    claims: dict[str, Any], secret: bytes = SECRETS[0], header: dict[str, Any] | None = None
) -> str:
    said = f"{part(json.dumps(header or {'alg': 'HS256'}).encode())}.{part(json.dumps(claims).encode())}"
    return f"{said}.{part(hmac.new(secret, said.encode(), hashlib.sha256).digest())}"


def test_a_session_token_says_what_it_was_made_of() -> None:
    assert tokens.read(KEY, tokens.sign(KEY, SESSION), "shop", NOW) == SESSION


@pytest.mark.parametrize(
    ("change", "account", "now", "reason"),
    [
        (lambda token: token, "other", NOW, "other_account"),
        (lambda token: token, "shop", NOW + timedelta(seconds=3600), "stale"),
        (lambda token: token[:-1] + ("A" if token[-1] != "A" else "E"), "shop", NOW, "forged"),
        (lambda token: token.replace(".", ".e", 1), "shop", NOW, "forged"),
        (lambda token: token.replace("wc1", "wc2"), "shop", NOW, "malformed"),
        (lambda _: "", "shop", NOW, "malformed"),
        (lambda _: "wc1.ö.ü", "shop", NOW, "malformed"),
        (lambda token: token + "." + "a" * 5_000, "shop", NOW, "malformed"),
    ],
)
def test_a_session_token_opens_its_own_account_until_it_expires(
    change: Any, account: str, now: datetime, reason: str
) -> None:
    with pytest.raises(TokenRefused) as refused:
        tokens.read(KEY, change(tokens.sign(KEY, SESSION)), account, now)
    assert refused.value.reason == reason


def test_a_token_of_another_workspace_or_secret_is_forged() -> None:
    for secret, workspace in (
        (b"a secret of at least thirty-two characters", "x"),
        (b"y", "default"),
    ):
        with pytest.raises(TokenRefused, match="forged"):
            tokens.read(
                tokens.session_key(secret, workspace), tokens.sign(KEY, SESSION), "shop", NOW
            )


def test_a_token_is_renewed_a_day_after_it_was_made() -> None:
    assert not SESSION.is_due_for_renewal(NOW + timedelta(hours=24, seconds=-1))
    assert SESSION.is_due_for_renewal(NOW + timedelta(hours=24))
    renewed = SESSION.renewed(NOW + timedelta(days=1), timedelta(days=30))
    assert (renewed.session_id, renewed.expires_at) == (SESSION.session_id, STAMP + 31 * 86_400)


@given(st.text(max_size=200))
def test_no_text_is_taken_for_a_token(text: str) -> None:
    with pytest.raises(TokenRefused):
        tokens.read(KEY, text, "shop", NOW)
    with pytest.raises(TokenRefused):
        tokens.read_identity(SECRETS, text, "shop", NOW)


@pytest.mark.parametrize("secret", SECRETS)
def test_an_identity_is_believed_under_the_new_secret_and_the_old(secret: bytes) -> None:
    token = identity({"email": "ada@example.com", "name": "Ada", "exp": STAMP + 60}, secret)
    assert tokens.read_identity(SECRETS, token, "shop", NOW) == tokens.Identity(
        "ada@example.com", "Ada"
    )


def test_an_identity_of_the_vector_in_the_documentation_is_believed() -> None:
    token = (
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9."
        "eyJlbWFpbCI6ImFkYUBleGFtcGxlLmNvbSIsIm5hbWUiOiJBZGEiLCJleHAiOjE3OTU1MjE5MDB9."
    )
    mac = part(hmac.new(b"a secret", token[:-1].encode(), hashlib.sha256).digest())
    found = tokens.read_identity(
        [b"a secret"], token + mac, "shop", datetime.fromtimestamp(1_795_521_600, UTC)
    )
    assert found == tokens.Identity("ada@example.com", "Ada")


@pytest.mark.parametrize(
    ("claims", "header", "reason"),
    [
        ({"email": "ada@example.com"}, None, "malformed"),
        ({"email": "ada@example.com", "exp": "soon"}, None, "malformed"),
        ({"email": "ada@example.com", "exp": True}, None, "malformed"),
        ({"email": "ada@example.com", "exp": STAMP - 61}, None, "stale"),
        ({"email": "ada@example.com", "exp": STAMP + 60, "nbf": STAMP + 61}, None, "stale"),
        ({"email": "ada@example.com", "exp": STAMP + 86_461}, None, "malformed"),
        ({"email": "ada@example.com", "exp": STAMP + 60, "aud": ["a", "b"]}, None, "other_account"),
        ({"exp": STAMP + 60}, None, "malformed"),
        ({"email": 7, "exp": STAMP + 60}, None, "malformed"),
        ({"email": "ada@example.com", "exp": STAMP + 60}, {"alg": "none"}, "malformed"),
        ({"email": "ada@example.com", "exp": STAMP + 60}, {"alg": "HS512"}, "malformed"),
    ],
)
def test_an_identity_that_says_too_little_or_too_much_is_refused(
    claims: dict[str, Any], header: dict[str, Any] | None, reason: str
) -> None:
    with pytest.raises(TokenRefused) as refused:
        tokens.read_identity(SECRETS, identity(claims, header=header), "shop", NOW)
    assert refused.value.reason == reason


def test_without_a_secret_nobody_is_proved() -> None:
    token = identity({"email": "ada@example.com", "exp": STAMP + 60}, b"")
    with pytest.raises(TokenRefused, match="forged"):
        tokens.read_identity([], token, "shop", NOW)


def delivery(*, verified: bool = False, **said: Any) -> Delivery:
    body = {"session": SESSION.session_id, "id": "client-id-1", "text": "Lambam nerede?", **said}
    return Delivery(
        "webchat", "shop", json.dumps(body).encode(), NOW, verified=verified, input_id="in-1"
    )


def test_a_visitor_is_known_by_the_session_alone() -> None:
    parsed = webchat.parse(delivery(email="ada@example.com", name="Ada", language="tr"))
    (message,) = parsed.messages
    assert parsed.verified is False
    assert (message.sender.kind, message.sender.address, message.sender.name) == (
        "vendor_id",
        SESSION.session_id,
        "",
    )
    assert message.vendor_message_id == f"{SESSION.session_id}.client-id-1"
    assert webchat.session_of(message.vendor_message_id) == SESSION.session_id
    assert (message.thread, message.language) == (SESSION.session_id, "tr")


def test_a_proved_visitor_is_known_by_their_address() -> None:
    parsed = webchat.parse(delivery(verified=True, email="ada@example.com", name="Ada"))
    (message,) = parsed.messages
    assert parsed.verified is True
    assert (message.sender.kind, message.sender.address) == ("email", "ada@example.com")
    assert message.thread == SESSION.session_id


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"text": " \n "}, "text"),
        ({"text": "a" * 4_001}, "text"),
        ({"session": "../x"}, "session"),
        ({"id": "short"}, "id"),
        ({"surplus": 1}, "surplus"),
    ],
)
def test_a_delivery_that_the_gateway_did_not_write_is_refused(
    said: dict[str, Any], field: str
) -> None:
    with pytest.raises(ParseError) as refused:
        webchat.parse(delivery(**said))
    assert refused.value.field == field


def test_a_page_that_is_no_web_address_is_left_out() -> None:
    assert webchat.parse(delivery(page="javascript:alert(1)")).messages[0].url is None
    page = "https://shop.example/lamps"
    assert webchat.parse(delivery(page=page)).messages[0].fields == {"page": page}


HOURS = {
    "timezone": "Europe/Istanbul",
    "tue": ["09:00-12:30", "13:30-18:00"],
    "sat": ["20:00-24:00"],
    "closed": ["2026-12-29"],
}


@pytest.mark.parametrize(
    ("instant", "is_open"),
    [
        ("2026-11-24T05:59:59+00:00", False),
        ("2026-11-24T06:00:00+00:00", True),
        ("2026-11-24T09:30:00+00:00", False),
        ("2026-11-24T10:30:00+00:00", True),
        ("2026-11-24T15:00:00+00:00", False),
        ("2026-11-25T08:00:00+00:00", False),
        ("2026-11-28T20:59:59+00:00", True),
        ("2026-11-28T21:00:00+00:00", False),
        ("2026-12-29T08:00:00+00:00", False),
    ],
)
def test_somebody_is_there_within_the_hours_and_not_on_days_off(
    instant: str, is_open: bool
) -> None:
    settings = webchat.Settings.model_validate({"hours": HOURS})
    assert webchat.is_open(settings, datetime.fromisoformat(instant)) is is_open
    shut = webchat.Settings.model_validate({"hours": HOURS, "offline": True})
    assert webchat.is_open(shut, datetime.fromisoformat(instant)) is False


def test_without_hours_somebody_is_always_there() -> None:
    assert webchat.is_open(webchat.Settings(), NOW)


@pytest.mark.parametrize(
    "given_settings",
    [
        {"origins": ["https://shop.example/page"]},
        {"origins": ["shop.example"]},
        {"colour": "blue"},
        {"greeting": {"xx": "?"}},
        {"hours": {"timezone": "Nowhere/Here"}},
        {"hours": {"timezone": "UTC", "mon": ["18:00-09:00"]}},
        {"hours": {"timezone": "UTC", "mon": ["9-18"]}},
    ],
)
def test_settings_that_cannot_work_are_refused(given_settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        webchat.Settings.model_validate(given_settings)


# ------------------------------------------------------------------------------------------------ answers


def told(kind: Any, **changes: Any) -> Any:
    from tests.integration.webchat_kit import received  # The stage's input, as the loop makes it.

    return received(kind.model_validate({**kind.EXAMPLE, **changes}))


def opening(**changes: Any) -> Any:
    contact = {"customer_id": "c", "address": "x", "channel": "webchat", "account": "shop"}
    name = webchat.message_name(SESSION.session_id, "client-id-1")
    return told(TicketOpened, contact=contact, vendor_message_id=name, **changes)


def test_an_opening_leads_answers_to_its_session() -> None:
    stage = WebchatStage("default")
    outcome = stage.decide(None, opening(), NOW)
    (row,) = outcome.rows
    assert isinstance(row, OpenedRow)
    assert (row.session_id, row.account) == (SESSION.session_id, "shop")
    answer = stage.decide(outcome.state, told(TicketAnswered, text="It left.\x00"), NOW)
    seen, shown = answer.rows
    assert isinstance(seen, SeenRow)
    assert isinstance(shown, AnswerRow)
    assert (shown.session_id, shown.command_id, shown.text) == (
        SESSION.session_id,
        "c-2f5d",
        "It left.",
    )


def test_tickets_of_other_channels_mean_nothing_here() -> None:
    stage = WebchatStage("default")
    for event in (told(TicketOpened), told(TicketAnswered), told(TicketClosed), told(TicketSolved)):
        outcome = stage.decide(None, event, NOW)
        assert (outcome.state, outcome.rows, outcome.ignored) == (None, (), "not_a_webchat")


def test_a_conversation_is_forgotten_with_its_last_ticket() -> None:
    stage = WebchatStage("default")
    state = stage.decide(None, opening(), NOW).state
    state = stage.decide(state, opening(ticket_id="follow-up"), NOW).state
    first = stage.decide(state, told(TicketClosed), NOW).state
    assert first == Chat(SESSION.session_id, "shop", ("follow-up",))
    assert stage.decide(first, told(TicketClosed, ticket_id="follow-up"), NOW).state is None


def test_a_session_stays_one_conversation_when_its_visitor_logs_in() -> None:
    directory, rules = Directory(), decide.Rules("default", b"a secret")
    said = [
        delivery(),
        delivery(id="client-id-2"),
        delivery(id="client-id-3", verified=True, email="ada@example.com"),
        delivery(id="client-id-4", session="f" * 32),
    ]
    conversations = []
    for number, one in enumerate(said):
        received = InboundReceived(
            input_id=f"in-{number}", channel="webchat", account="shop", received_at=NOW
        )
        decision = decide.decide(directory, received, webchat.parse(one), NOW, rules)
        (event,) = decision.events
        assert isinstance(event, MessageReceived)
        assert event.suspicion is None
        conversations.append(event.conversation_id)
    assert len(set(conversations[:3])) == 1
    assert conversations[3] != conversations[0]
