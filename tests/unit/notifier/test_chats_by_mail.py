"""Chats that nothing can be written into once they are over: their visitors are answered by mail, where they left an address."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from services.ingest.adapters import olark
from services.ingest.adapters.channel import Delivery
from services.notifier.core.known import Known
from services.notifier.core.plan import Go, Plan, Refused, plan
from services.notifier.core.policy import Policy
from services.notifier.core.reason import Cause
from services.notifier.core.state import Contact, Conversation

NOON = datetime(2026, 11, 24, 9, tzinfo=UTC)


def visitor(email: str) -> Contact:
    """The visitor of an Olark chat, as the channel tells them."""
    chat = {
        "kind": "Conversation",
        "id": "OLK17",
        "items": [{"kind": "OfflineMessage", "timestamp": "1795507200.1", "body": "Invoice?"}],
        "visitor": {"id": "vis00042", "fullName": "Ivo", "emailAddress": email},
    }
    delivery = Delivery("olark", "chat", json.dumps(chat).encode(), NOON)
    (message,) = olark.parse(delivery).messages
    sender = message.sender
    return Contact(sender.name, sender.address, sender.kind, "olark", "chat", "en", False)


def asked(policy: Policy, contact: Contact) -> Plan:
    conversation = Conversation(contact=contact, thread="OLK17", answers="OLK17/1")
    return plan(policy, Known("default"), conversation, Cause("t1", "answered", "c1"), NOON)


@pytest.mark.parametrize("is_named", [True, False])
def test_an_olark_visitor_is_answered_by_mail(policy: Policy, *, is_named: bool) -> None:
    """Either `channels_answered_by_mail` names the channel, or `fall_back` has `mail`."""
    channels = policy.channels | {"olark"} if is_named else policy.channels - {"olark"}
    fall_back = () if is_named else ("mail",)
    rules = replace(policy, channels=channels, fall_back=fall_back)
    planned = asked(rules, visitor("ivo@example.com"))
    assert isinstance(planned, Go), planned
    assert (planned.route.provider, planned.route.to) == ("smtp", "ivo@example.com")


def test_an_olark_visitor_without_an_address_cannot_be_told(policy: Policy) -> None:
    rules = replace(policy, channels=policy.channels | {"olark"})
    planned = asked(rules, visitor(""))
    assert isinstance(planned, Refused), planned
    assert planned.reason.value == "no_address"
