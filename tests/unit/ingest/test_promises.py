"""What ingest promises about mail, echoes, loops and public words, each by its number: I2 to I7 and I9.

Deliveries are read and decided by the product's own rules, and where a promise speaks of answers, the router's and the
notifier's rules decide on: what comes out at the end is the mail that would be sent. I1 and I8 need a broker and stand in
`tests/integration/test_ingest_promises.py`.
"""

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import pytest

from chassis.policy import load
from schemas import commands, reply_token
from schemas.inbound import InboundReceived
from schemas.messages import MessageContent, MessageReceived, MessageRevised
from schemas.payload import Payload
from schemas.tickets import TicketNoteAdded, TicketOpened
from services.ingest import adapters, webchat_stage
from services.ingest.adapters.channel import ChannelSettings, Delivery, Parsed, ParseError
from services.ingest.core import conversation
from services.ingest.core.decide import Decision, Rules, decide
from services.ingest.core.state import Directory, OutcomeRow
from services.notifier.adapters import smtp
from services.notifier.core import decide as notifier
from services.notifier.core.articles import NO_ARTICLES
from services.notifier.core.delivery import SendNotice
from services.notifier.core.known import Known
from services.notifier.core.policy import Policy
from services.notifier.core.policy import Sender as OurSender
from services.notifier.core.state import Conversation as Told
from services.notifier.handlers import POLICY as NOTIFIER_POLICY
from services.router.core.tickets import decide as router
from services.router.core.tickets.state import Conversation as Case
from tests.unit.router.stories import POLICY as ROUTING

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
SECRET = b"k" * 32
FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "ingest"
SUPPORT = "support@lantern-oak.example"
HELP = "help@lantern-oak.example"
OWN = frozenset({SUPPORT, HELP})
ADA = "ada@example.com"
# No clocks run here, so nobody says what can be promised, and no notice waits for it.
NOTIFIED = replace(
    load(Path(__file__).resolve().parents[3] / "policy", NOTIFIER_POLICY),
    promise_wait=timedelta(0),
    articles=NO_ARTICLES,
)


def mail(
    name: str | None = "<1@example.com>",
    sender: str = ADA,
    *,
    to: str = SUPPORT,
    subject: str = "My lamp",
    text: str = "Where is my lamp?",
    headers: str = "",
) -> bytes:
    """A mail as it stands in a mailbox; `name` None leaves out the Message-ID, `headers` are whole lines."""
    lines = [
        f"From: Ada <{sender}>",
        f"To: {to}",
        f"Subject: {subject}",
        "Date: Tue, 24 Nov 2026 11:00:00 +0000",
        *([f"Message-ID: {name}"] if name is not None else []),
        *(line for line in headers.split("\n") if line),
        "Content-Type: text/plain; charset=utf-8",
        "",
        text,
    ]
    return "\r\n".join(lines).encode()


class Ingest:
    """One installation's intake: deliveries read and decided one after the other."""

    def __init__(
        self, own: frozenset[str] = OWN, workspace: str = "default", secret: bytes = SECRET
    ) -> None:
        self.own = own
        self.rules = Rules(workspace=workspace, secret=secret)
        self.directory = Directory()
        self.count = 0
        self.last: Decision = Decision((), ())

    def takes(self, raw: bytes, account: str = "support", **changes: Any) -> Decision:
        """Take a mail in."""
        return self.reads(
            Delivery("email", account, raw, NOW, own_addresses=self.own, method="SMTP", **changes)
        )

    def reads(self, delivery: Delivery) -> Decision:
        """Take any delivery in."""
        self.count += 1
        received = InboundReceived(
            input_id=f"in-{self.count}",
            channel=delivery.channel,
            account=delivery.account,
            received_at=delivery.received_at,
        )
        return self.knows(received, adapters.parse(delivery))

    def knows(self, received: InboundReceived, parsed: Parsed) -> Decision:
        self.last = decide(self.directory, received, parsed, NOW, self.rules)
        return self.last

    def message(self, raw: bytes, account: str = "support", **changes: Any) -> MessageReceived:
        """Take in a mail that becomes a message."""
        (event,) = said(self.takes(raw, account, **changes))
        assert isinstance(event, MessageReceived)
        return event


def said(decision: Decision) -> list[MessageReceived | MessageRevised]:
    """What a decision says of messages."""
    return [one for one in decision.events if isinstance(one, MessageReceived | MessageRevised)]


def outcome(decision: Decision) -> OutcomeRow:
    (row,) = [row for row in decision.rows if isinstance(row, OutcomeRow)]
    return row


class Installation:
    """Ingest, router and notifier by their rules alone: a mail in, and the mails that are sent for it."""

    def __init__(self, policy: Policy = NOTIFIED, own: frozenset[str] = OWN, **more: Any) -> None:
        self.ingest = Ingest(own, **more)
        self.policy = policy
        self.cases: dict[str, Case | None] = {}
        self.told: dict[str, Told] = {}
        self.tickets: list[TicketOpened] = []

    def takes(self, raw: bytes, account: str = "support", **changes: Any) -> list[bytes]:
        """Take a mail in and return the mails it brings forth."""
        return self.after(self.ingest.takes(raw, account, **changes))

    def after(self, decision: Decision) -> list[bytes]:
        """Return the mails that a decision of ingest brings forth."""
        sends: list[bytes] = []
        for event in said(decision):
            sends += self.goes_on(event.conversation_id, event)
        return sends

    def goes_on(self, conversation_id: str, event: Any) -> list[bytes]:
        """Give a message or a command to the router, and what it tells to the notifier."""
        state = self.cases.get(conversation_id)
        decision = router.decide(state, event, NOW, ROUTING, NOW)
        self.cases[conversation_id] = decision.state
        sends: list[bytes] = []
        for told in decision.events:
            if isinstance(told, TicketOpened):
                self.tickets.append(told)
            sends += [smtp.render(send.message) for send in self._notifies(conversation_id, told)]
        return sends

    def _notifies(self, conversation_id: str, event: Payload) -> tuple[SendNotice, ...]:
        if not isinstance(event, get_args(notifier.Event)):
            return ()
        rules = self.ingest.rules
        context = notifier.Context(
            self.policy, rules.secret, rules.workspace, NOW, Known(rules.workspace)
        )
        state = self.told.get(conversation_id, Told())
        decision = notifier.decide(conversation_id, state, event, context)
        self.told[conversation_id] = decision.state
        return decision.sends


@pytest.fixture
def ingest() -> Ingest:
    return Ingest()


@pytest.fixture
def installation() -> Installation:
    return Installation()


# ------------------------------------------------------------------------------- I2, I3: by its name


def test_i2_the_same_message_id_in_two_mailboxes_is_two_messages_and_again_in_one_is_one(
    ingest: Ingest,
) -> None:
    """I2: each mailbox is a desk of its own (the declared rule of `core.dedupe`); nothing is lost and nothing doubled."""
    support, sales = ingest.message(mail()), ingest.message(mail(), "sales")
    assert support.message_id != sales.message_id
    assert support.conversation_id != sales.conversation_id
    assert support.customer_id == sales.customer_id
    for account, first in (("support", support), ("sales", sales)):
        again = ingest.takes(mail(), account)
        assert (again.events, again.ignored) == ((), "duplicate")
        assert outcome(again).message_id == first.message_id


def test_i2_a_message_id_that_a_machine_uses_for_ever_loses_no_mail(ingest: Ingest) -> None:
    """I2: the same name with other words is another message, in the same mailbox too."""
    texts = ("Order 1 is paid", "Order 2 is paid", "Order 3 is paid")
    found = {ingest.message(mail(text=text)).message_id for text in texts}
    assert len(found) == 3


BROKEN = {
    "missing": None,
    "empty": "",
    "empty brackets": "<>",
    "blanks": "   ",
    "no brackets": "1@example.com",
    "no at sign": "<1>",
    "open bracket": "<1@example.com",
    "blanks inside": "<1 2@example.com>",
    "2,000 characters": "<" + "x" * 2_000 + "@example.com>",
    "not ASCII": "<çığ@örnek.example>",
    "not unfolded": "\r\n <1@example.com>",
}


@pytest.mark.parametrize("name", BROKEN.values(), ids=BROKEN)
def test_i3_a_mail_without_a_proper_message_id_comes_in_under_a_name_that_stays(
    ingest: Ingest, name: str | None
) -> None:
    """I3: ingested, and keyed by what does not change on the way: anywhere, any time, by any road the same."""
    first = ingest.message(mail(name))
    assert first.content.vendor_message_id
    assert len(first.content.vendor_message_id) <= 200
    again = ingest.takes(mail(name))
    assert (again.ignored, outcome(again).message_id) == ("duplicate", first.message_id)
    # Another installation, another day, relayed by one more server with other line ends: the same message.
    relayed = b"Received: from mx by mx2; Tue, 24 Nov 2026 12:30:00 +0000\r\n" + mail(name)
    elsewhere = Ingest()
    later = Delivery(
        "email", "support", relayed, NOW + timedelta(days=3), own_addresses=OWN, method="IMAP"
    )
    (event,) = said(elsewhere.reads(later))
    assert event.message_id == first.message_id
    other = ingest.message(mail(name, text="Another question altogether"))
    assert other.message_id != first.message_id


def test_i3_two_message_ids_in_one_mail_are_one_message_by_the_first(ingest: Ingest) -> None:
    """I3: a doubled field is broken too."""
    doubled = mail("<1@example.com>", headers="Message-ID: <2@relay.example>")
    assert ingest.message(doubled).content.vendor_message_id == "<1@example.com>"
    assert ingest.takes(doubled).ignored == "duplicate"


# ------------------------------------------------------------------------------- I4, I5: which case

COLLEAGUE = "deniz@lantern-oak.example"


@pytest.mark.parametrize(
    "headers",
    [
        "References: <1@example.com>",
        "In-Reply-To: <1@example.com>",
        "References: <1@example.com> <o1@outlook.lantern-oak.example>",
        "References: <1@example.com> <o1@outlook.lantern-oak.example>\n"
        "In-Reply-To: <o1@outlook.lantern-oak.example>",
        "References: <1@example.com>\nIn-Reply-To: <o1@outlook.lantern-oak.example>",
        "References: <a@x> <b@x>\n <1@example.com>\n\t<o1@outlook.lantern-oak.example>",
    ],
    ids=["References only", "In-Reply-To only", "colleague in References", "colleague in both",
         "colleague in In-Reply-To", "folded"],
)  # fmt: skip
@pytest.mark.parametrize("is_copied", [False, True], ids=["unseen", "copied to us"])
def test_i4_a_reply_finds_its_case_by_any_one_field_and_past_a_colleagues_own_mail(
    installation: Installation, headers: str, is_copied: bool
) -> None:
    """I4, chatwoot#10028: a colleague answered from Outlook; we may have a copy of that mail, or never saw it."""
    installation.takes(mail())
    (opened,) = installation.tickets
    first = said(installation.ingest.last)[0]
    if is_copied:
        copied = mail(
            "<o1@outlook.lantern-oak.example>",
            COLLEAGUE,
            to=ADA,
            subject="RE: My lamp",
            text="It left on Monday. Deniz",
            headers=f"Cc: {SUPPORT}\nIn-Reply-To: <1@example.com>\nReferences: <1@example.com>",
        )
        installation.takes(copied)
    before = len(installation.tickets)
    installation.takes(mail("<2@example.com>", subject="RE: My lamp", headers=headers))
    (reply,) = said(installation.ingest.last)
    assert isinstance(reply, MessageReceived)
    assert (reply.conversation_id, reply.suspicion) == (first.conversation_id, None)
    assert len(installation.tickets) == before, "the reply opened a ticket"
    assert opened.conversation_id == reply.conversation_id


def test_i4_a_reply_that_names_only_a_colleagues_own_mail_is_never_lost_or_put_elsewhere(
    installation: Installation,
) -> None:
    """I4's edge: a mail program that drops References names a mail that we had no part in. Then nothing proves the place:
    the reply is a case of its own, of the same customer, and nobody else's case is touched.
    """
    installation.takes(mail())
    first = said(installation.ingest.last)[0]
    case = installation.cases[first.conversation_id]
    named = "In-Reply-To: <o1@outlook.lantern-oak.example>"
    reply = installation.ingest.message(mail("<2@example.com>", headers=named))
    assert reply.customer_id == first.customer_id
    assert installation.cases[first.conversation_id] == case


@pytest.mark.parametrize("field", ["In-Reply-To", "References"])
def test_i4_a_reply_to_our_own_mail_finds_its_case_by_either_field(
    installation: Installation, field: str
) -> None:
    """I4: the Message-ID of what we sent is all that a mail program needs to keep."""
    (answer,) = installation.takes(mail())
    first = said(installation.ingest.last)[0]
    ours = next(line for line in answer.decode().split("\r\n") if line.startswith("Message-ID: "))
    name = ours.removeprefix("Message-ID: ")
    reply = installation.ingest.message(mail("<2@example.com>", headers=f"{field}: {name}"))
    assert (reply.conversation_id, reply.suspicion) == (first.conversation_id, None)


def reference_of(installation: Installation) -> str:
    (opened,) = installation.tickets
    return opened.reference


@pytest.mark.parametrize(
    "subject", ["Re: [{}] My lamp", "{}", "Fwd: AW: YNT: my case {} please", "[{}] " * 3]
)
def test_i5_a_strangers_mail_with_a_tickets_number_is_a_ticket_of_its_own_with_a_suspicion(
    installation: Installation, subject: str
) -> None:
    """I5: whoever quotes a number reads nothing of that case and changes nothing in it."""
    installation.takes(mail())
    first = said(installation.ingest.last)[0]
    case = installation.cases[first.conversation_id]
    quoted = subject.format(*[reference_of(installation)] * 3)
    answers = installation.takes(mail("<e1@evil.example>", "eve@evil.example", subject=quoted))
    (event,) = said(installation.ingest.last)
    assert isinstance(event, MessageReceived)
    assert event.conversation_id != first.conversation_id
    assert event.customer_id != first.customer_id
    assert event.suspicion == conversation.QUOTED_TICKET
    assert installation.cases[first.conversation_id] == case
    _, theirs = installation.tickets
    assert theirs.suspicion == conversation.QUOTED_TICKET
    for answer in answers:
        assert ADA.encode() not in answer
        assert b"To: eve@evil.example" in answer


def test_i5_a_stranger_who_knows_a_message_id_or_forges_a_token_joins_nothing_either(
    ingest: Ingest,
) -> None:
    """I5: what can be guessed or overheard proves nothing."""
    first = ingest.message(mail())
    forged = reply_token.message_id(
        reply_token.make(b"x" * 32, "default", first.conversation_id, "eve@evil.example", NOW),
        "n",
        "lantern-oak.example",
    )
    for n, (named, suspicion) in enumerate(
        (("<1@example.com>", conversation.FOREIGN_REFERENCE), (forged, conversation.FORGED_TOKEN))
    ):
        event = ingest.message(
            mail(f"<e{n}@evil.example>", "eve@evil.example", headers=f"In-Reply-To: {named}")
        )
        assert event.conversation_id != first.conversation_id
        assert event.suspicion == suspicion


# ------------------------------------------------------------------------------- I6: who is answered


def test_i6_a_person_is_answered_and_auto_submitted_no_says_that_one_is(
    installation: Installation,
) -> None:
    """I6: `Auto-Submitted: no` is human, whatever the subject looks like."""
    for n, headers in enumerate(("", "Auto-Submitted: no", "auto-submitted: NO (really)")):
        sender = f"c{n}@example.com"
        (answer,) = installation.takes(mail(f"<{n}@example.com>", sender, headers=headers))
        assert f"To: {sender}".encode() in answer
    subject = "Out of office: who answers my question?"
    assert installation.takes(
        mail("<9@example.com>", "c9@example.com", subject=subject, headers="Auto-Submitted: no")
    )


DSN = (
    b"From: Mail Delivery System <mailer-daemon@mx.example>\r\nTo: %(to)s\r\n"
    b"Subject: Undelivered Mail Returned to Sender\r\nMessage-ID: <dsn1@mx.example>\r\n"
    b"MIME-Version: 1.0\r\nContent-Type: multipart/report; report-type=delivery-status; boundary=b\r\n"
    b"In-Reply-To: %(ours)s\r\nReferences: %(ours)s\r\n\r\n"
    b"--b\r\nContent-Type: text/plain\r\n\r\nYour mail could not be delivered.\r\n"
    b"--b\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.example\r\n\r\n"
    b"Final-Recipient: rfc822; ada@example.com\r\nAction: failed\r\nStatus: 5.1.1\r\n\r\n--b--\r\n"
)
AUTOMATIC: dict[str, tuple[str, dict[str, Any]]] = {
    "auto-replied": ("Auto-Submitted: auto-replied", {}),
    "auto-generated": ("Auto-Submitted: auto-generated; owner-email=x@y", {}),
    "auto-notified": ("Auto-Submitted: auto-notified", {}),
    "list id": ("List-Id: <news.example.com>", {}),
    "list unsubscribe": ("List-Unsubscribe: <mailto:leave@example.com>", {}),
    "precedence bulk": ("Precedence: bulk", {}),
    "precedence list": ("Precedence: list", {}),
    "precedence junk": ("Precedence: junk", {}),
    "null path in the header": ("Return-Path: <>", {}),
    "null path in the envelope": ("", {"envelope_from": ""}),
    "X-Autoreply": ("X-Autoreply: yes", {}),
    "X-Autorespond": ("X-Autorespond: holiday", {}),
}


@pytest.mark.parametrize(("headers", "envelope"), AUTOMATIC.values(), ids=AUTOMATIC)
@pytest.mark.parametrize("is_in_a_case", [False, True], ids=["out of the blue", "within a case"])
def test_i6_what_machines_send_is_not_answered(
    installation: Installation, headers: str, envelope: dict[str, Any], is_in_a_case: bool
) -> None:
    """I6: decided by ingest, carried out by the notifier: no ticket, and nothing is sent."""
    if is_in_a_case:
        (ours,) = installation.takes(mail())
        headers += f"\nIn-Reply-To: {field_of(ours, 'Message-ID')}"
    before = len(installation.tickets)
    assert installation.takes(mail("<a@example.com>", headers=headers), **envelope) == []
    assert len(installation.tickets) == before
    events = said(installation.ingest.last)
    assert all(event.content.is_automatic for event in events)
    assert bool(events) == is_in_a_case


@pytest.mark.parametrize(
    "subject",
    ["Automatic reply: My lamp", "Out of Office: back on Monday", "Otomatik yanıt: Lambam",
     "Автоответ: Лампа", "Abwesenheitsnotiz: Lampe", "Réponse automatique : lampe"],
)  # fmt: skip
def test_i6_a_holiday_notice_within_a_case_is_not_answered(
    installation: Installation, subject: str
) -> None:
    """I6: a subject alone is a weak sign: it silences the machine that would answer, and drops no person's mail."""
    (ours,) = installation.takes(mail())
    named = f"In-Reply-To: {field_of(ours, 'Message-ID')}"
    assert installation.takes(mail("<v@example.com>", subject=subject, headers=named)) == []
    (event,) = said(installation.ingest.last)
    assert event.content.is_automatic
    assert installation.takes(mail("<w@example.com>", "other@example.com", subject=subject)) == []


@pytest.mark.parametrize("is_ours", [True, False], ids=["of our mail", "of somebody else's"])
def test_i6_a_report_that_mail_did_not_arrive_is_not_answered_and_opens_nothing(
    installation: Installation, is_ours: bool
) -> None:
    """I6 with F24: a bounce joins the case of the mail that bounced, or comes to nothing."""
    (ours,) = installation.takes(mail())
    name = field_of(ours, "Message-ID") if is_ours else "<else@where.example>"
    report = DSN % {b"to": SUPPORT.encode(), b"ours": name.encode()}
    assert installation.takes(report, envelope_from="") == []
    assert len(installation.tickets) == 1
    assert [event.content.kind for event in said(installation.ingest.last)] == (
        ["bounce"] if is_ours else []
    )


def field_of(raw: bytes, name: str) -> str:
    """Return a field of a mail of ours."""
    start = f"{name}: "
    return next(line for line in raw.decode().split("\r\n") if line.startswith(start))[len(start) :]


def test_i6_two_of_our_own_mailboxes_that_write_to_each_other_stop_after_one(
    installation: Installation,
) -> None:
    """I6: what our own mailbox sends is no customer's; it comes in once, brings nothing forth, and that is all."""
    for sender, to in ((HELP, SUPPORT), (SUPPORT, HELP)):
        assert installation.takes(mail(f"<{sender}>", sender, to=to)) == []
        assert installation.ingest.last.ignored == "loop"
    detailed = mail("<d@x>", "support+orders@lantern-oak.example", to=HELP)
    assert installation.takes(detailed) == []
    assert installation.tickets == []


def test_i6_a_form_in_the_name_of_our_own_mailbox_is_a_case_and_is_not_acknowledged(
    installation: Installation,
) -> None:
    """I6: anybody may type our address into a form; a mail to it would come back to us."""
    body = json.dumps({"email": SUPPORT, "message": "Where is my lamp?"}).encode()
    headers = {"content-type": "application/json"}
    form = Delivery("form", "contact", body, NOW, headers=headers, input_id="f-1")
    assert installation.after(installation.ingest.reads(form)) == []
    assert len(installation.tickets) == 1


def test_i6_two_installations_that_do_not_know_each_other_stop_after_one_answer() -> None:
    """I6: each acknowledges what a person sends; neither acknowledges an acknowledgement."""
    theirs_address = "care@oak-and-lantern.example"
    theirs_sender = OurSender(
        **{
            **{name: getattr(NOTIFIED.default_sender, name) for name in OurSender.__slots__},
            "address": theirs_address,
        }
    )
    ours = Installation()
    theirs = Installation(
        replace(
            NOTIFIED,
            default_sender=theirs_sender,
            sender_by_account={},
            own_addresses=frozenset({theirs_address}),
        ),
        own=frozenset({theirs_address}),
        secret=b"t" * 32,
    )
    # A colleague of theirs writes to us in their mailbox's name.
    travelling = [(ours, mail("<p@oak-and-lantern.example>", theirs_address))]
    answers: list[bytes] = []
    while travelling:
        where, raw = travelling.pop(0)
        sent = where.takes(raw)
        answers += sent
        assert len(answers) < 5, "they go on and on"
        travelling += [(theirs if where is ours else ours, one) for one in sent]
    assert len(answers) == 1
    assert field_of(answers[0], "To") == theirs_address
    assert theirs.tickets == []


def test_i6_an_autoresponder_that_says_nothing_of_itself_is_answered_once(
    installation: Installation,
) -> None:
    """I6 with F24: a machine without any mark of one answers each of our mails; ours end with the first."""
    answers = installation.takes(mail("<0@bot.example>", "info@bot.example"))
    rounds = 0
    while answers:
        (ours,) = answers
        rounds += 1
        assert rounds < 5, "they go on and on"
        named = f"In-Reply-To: {field_of(ours, 'Message-ID')}"
        answers = installation.takes(
            mail(f"<{rounds}@bot.example>", "info@bot.example", headers=named, text=f"{rounds}")
        )
    assert rounds == 1
    assert len(installation.tickets) == 1


# ------------------------------------------------------------------------------------- I7: echoes


def recorded(channel: str, case: str, **settings: Any) -> Delivery:
    """A recorded delivery, under settings of the channel's own kind."""
    asked = json.loads((FIXTURES / channel / f"{case}.json").read_text("utf-8"))
    body = asked.get("body", "")
    raw = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    if "body_base64" in asked:
        raw = base64.b64decode(asked["body_base64"])
    kind = adapters.CHANNELS[channel].settings
    made: ChannelSettings = kind(**settings)
    return Delivery(
        channel=channel,
        account=asked.get("account", "main"),
        body=raw,
        received_at=datetime.fromisoformat(asked.get("received_at", NOW.isoformat())),
        method=asked.get("method", "POST"),
        url=asked.get("url", ""),
        headers={name.lower(): value for name, value in asked.get("headers", {}).items()},
        settings=made,
    )


ECHOES = [
    ("facebook_page", "our_own_answer", {}),
    ("gorgias", "our_own_reply_is_an_echo", {}),
    ("instagram", "our_own_comment", {}),
    ("livechat", "echo_of_our_own", {}),
    ("messenger", "echo_of_our_own_reply", {}),
    ("messenger", "echo_of_another_app", {}),
    ("slack", "echo", {}),
    ("sprout", "own_post", {}),
    ("telegram", "business_echo", {}),
    ("x", "echo", {}),
    # Where only an id tells our updates from a colleague's, the account's settings have it.
    ("zendesk", "comment_of_staff_is_outbound", {"own_ids": ("90001",)}),
    ("zendesk", "read_back_reply_of_staff", {"own_ids": ("90001",)}),
    ("helpscout", "reply_of_staff_is_outbound", {"own_ids": ("256",)}),
    ("discourse", "staff_answer", {"own_ids": ("ada",)}),
    ("gorgias", "reply_of_staff_is_outbound", {}),
    ("hubspot", "reply_of_staff_is_outbound", {"own_ids": ("A-11",)}),
    ("freshdesk", "reply_of_staff_is_outbound", {}),
    ("intercom", "reply_of_staff_is_outbound", {"own_ids": ("880123",)}),
    ("edesk", "reply_of_staff_is_outbound", {}),
]


def own_writer(delivery: Delivery) -> str:
    """Return the id of whoever wrote a recorded answer of our side."""
    (content,) = adapters.parse(delivery).messages
    assert content.direction == "outbound"
    return content.sender.address


@pytest.mark.parametrize(
    ("channel", "case", "settings"), ECHOES, ids=[f"{one[0]}/{one[1]}" for one in ECHOES]
)
def test_i7_an_echo_of_our_own_update_creates_nothing(
    installation: Installation, channel: str, case: str, settings: dict[str, Any]
) -> None:
    """I7: no message, no ticket, no customer, no mail; one outcome that says why."""
    delivery = recorded(channel, case, **settings)
    if not settings and adapters.parse(delivery).messages:
        delivery = recorded(channel, case, own_ids=(own_writer(delivery),))
    for _ in range(2):
        decision = installation.ingest.reads(delivery)
        assert installation.after(decision) == []
        assert decision.events == ()
        assert decision.ignored in {"echo", "own_post"}
        assert decision.rows == (outcome(decision),)
    assert installation.tickets == []
    assert installation.ingest.directory.addresses == {}


def cases(is_wanted: Callable[[str, dict[str, Any]], bool]) -> list[Any]:
    """Return the recorded cases, by channel and name, whose name and expectation are as wanted."""
    found = []
    for path in sorted(FIXTURES.glob("*/*.expected.json")):
        case = path.name.removesuffix(".expected.json")
        expected = json.loads(path.read_text("utf-8"))
        if path.with_name(f"{case}.json").exists() and is_wanted(case, expected):
            found.append(pytest.param(path.parent.name, case, id=f"{path.parent.name}/{case}"))
    assert len(found) >= 5
    return found


def messages_of(expected: dict[str, Any]) -> list[dict[str, Any]]:
    return expected.get("messages") or []


@pytest.mark.parametrize(
    ("channel", "case"),
    cases(
        lambda _, expected: {one.get("direction") for one in messages_of(expected)} == {"outbound"}
    ),
)
def test_i7_what_a_colleague_wrote_at_the_vendor_opens_no_ticket_and_is_answered_by_nobody(
    installation: Installation, channel: str, case: str
) -> None:
    """I7: our side's words are nobody's question, where we know the case they belong to and where we do not."""
    delivery = recorded(channel, case)
    decision = installation.ingest.reads(delivery)
    assert decision.events == ()
    assert decision.ignored in {"outbound_unmatched", "automatic_unmatched"}
    assert installation.ingest.directory.addresses == {}
    (ours, *_) = adapters.parse(delivery).messages
    asked = ours.model_copy(
        update={
            "direction": "inbound",
            "vendor_message_id": "the-question",
            "sender": ours.sender.model_copy(
                update={"address": ours.recipients[0] if ours.recipients else "customer-1"}
            ),
            "thread": ours.thread or "t",
            "is_automatic": False,
            "call": None,
        }
    )
    received = InboundReceived(
        input_id="asked", channel=ours.channel, account=ours.account, received_at=NOW
    )
    installation.after(installation.ingest.knows(received, Parsed((asked,))))
    assert len(installation.tickets) == 1
    known = ours.model_copy(update={"thread": asked.thread, "recipients": (asked.sender.address,)})
    decision = installation.ingest.knows(
        received.model_copy(update={"input_id": "echoed"}), Parsed((known,))
    )
    assert installation.after(decision) == []
    assert len(installation.tickets) == 1, "our own words opened a ticket"
    for event in said(decision):
        assert event.content.direction == "outbound"


# ----------------------------------------------------------------------------- I9: public and private

WORDS_MIN = 8
"""Shorter texts may stand elsewhere by chance."""


def _elsewhere(content: MessageContent) -> str:
    """Everything a message carries but its words themselves."""
    words = {"text", "text_new", "html", "subject"}
    return content.model_dump_json(exclude=words)


@pytest.mark.parametrize(
    ("channel", "case"),
    cases(
        lambda _, expected: any(one.get("visibility") == "public" for one in messages_of(expected))
    ),
)
def test_i9_what_a_customer_wrote_for_all_to_read_stands_as_public_words_and_nowhere_else(
    channel: str, case: str
) -> None:
    """I9: the event of a review or comment says `public`, and no private field of it repeats the words."""
    ingest = Ingest()
    decision = ingest.reads(recorded(channel, case))
    parsed = adapters.parse(recorded(channel, case))
    written = [one for one in parsed.messages if one.visibility == "public"]
    assert written
    for content in written:
        for line in content.text.splitlines():
            if len(line.strip()) >= WORDS_MIN:
                assert line.strip() not in _elsewhere(content)
    for event in said(decision):
        before = next(
            one
            for one in parsed.messages
            if one.vendor_message_id == event.content.vendor_message_id
            and one.change == event.content.change
        )
        assert event.content.visibility == before.visibility
    # What is public and what is private shares no conversation, though one person wrote both.
    places: dict[str, set[str]] = {}
    for event in said(decision):
        places.setdefault(event.content.visibility, set()).add(event.conversation_id)
    assert not places.get("public", set()) & places.get("private", set())


@pytest.mark.parametrize(
    ("channel", "case"),
    cases(lambda _, expected: expected.get("ignored") == "internal_note"),
)
def test_i9_a_private_note_at_the_vendor_never_becomes_a_message(
    installation: Installation, channel: str, case: str
) -> None:
    """I9, the other way: what colleagues write for each other is in no event, and so in no answer."""
    delivery = recorded(channel, case)
    decision = installation.ingest.reads(delivery)
    assert installation.after(decision) == []
    assert decision.events == ()
    assert decision.rows == (outcome(decision),)
    assert installation.tickets == []


def test_i9_a_note_among_messages_of_one_delivery_is_left_out_and_the_messages_are_not(
    ingest: Ingest,
) -> None:
    """I9: the customer's words come in, the staff's answer joins them, the colleague's note is nowhere."""
    decision = ingest.reads(recorded("zoho", "batch_of_customer_staff_and_note"))
    assert [event.content.direction for event in said(decision)] == ["inbound", "outbound"]
    assert not any(b"carrier says lost" in event.to_json() for event in decision.events)


def test_i9_a_note_on_a_public_reviews_ticket_reaches_neither_the_customer_nor_the_public(
    installation: Installation,
) -> None:
    """I9: a note is an event that nobody who speaks to customers understands; an answer carries only its own words."""
    delivery = recorded("google_reviews", "review")
    installation.after(installation.ingest.reads(delivery))
    (opened,) = installation.tickets
    note = commands.AddNote(
        command_id="k1",
        conversation_id=opened.conversation_id,
        ticket_id=opened.ticket_id,
        agent_id="ada",
        text="This reviewer is a known troublemaker",
    )
    case = installation.cases[opened.conversation_id]
    decision = router.decide(case, note, NOW, ROUTING, NOW)
    assert [type(event) for event in decision.events] == [TicketNoteAdded]
    assert installation.goes_on(opened.conversation_id, note) == []
    assert TicketNoteAdded not in get_args(notifier.Event)
    assert TicketNoteAdded not in webchat_stage.UNDERSTOOD


def test_i9_a_review_is_never_acknowledged_by_a_private_mail(installation: Installation) -> None:
    """I9: nobody asked in private; and the words of the public are in no mail of ours."""
    for channel, case in (
        ("google_reviews", "review"),
        ("trustpilot", "created"),
        ("yelp", "read_back"),
        ("app_store", "google_play"),
        ("facebook_page", "comment"),
        ("discourse", "post_created"),
    ):
        decision = installation.ingest.reads(recorded(channel, case))
        assert decision.events, f"{channel}/{case}"
        assert installation.after(decision) == [], f"{channel}/{case}"


# ------------------------------------------------------------------------------- out of their order


def changed(ingest: Ingest, case: str, **changes: Any) -> Decision:
    """Take in a recorded chat message of Slack's, or its edit or removal."""
    (content,) = adapters.parse(recorded("slack", case)).messages
    ingest.count += 1
    received = InboundReceived(
        input_id=f"in-{ingest.count}", channel="slack", account="main", received_at=NOW
    )
    return ingest.knows(received, Parsed((content.model_copy(update=changes),), verified=True))


def test_an_edit_that_came_before_its_message_is_told_once_however_often_it_comes(
    ingest: Ingest,
) -> None:
    assert len(changed(ingest, "edited").events) == 1
    assert changed(ingest, "message").ignored == "duplicate"
    assert changed(ingest, "edited").ignored == "duplicate"


def test_a_message_that_its_writer_removed_before_it_came_is_not_told(ingest: Ingest) -> None:
    assert changed(ingest, "deleted").events == ()
    assert changed(ingest, "message").events == ()


def test_a_delivery_that_says_nothing_is_refused_with_a_reason(ingest: Ingest) -> None:
    with pytest.raises(ParseError, match="no_header"):
        ingest.takes(b"\x00\xff" * 40)
