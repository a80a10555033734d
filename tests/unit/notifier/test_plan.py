"""Who is told by which way, when, and what stands against it: N3, N4, caps, wishes, windows, digests."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, get_args
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.notifications import Category, Occasion
from services.notifier.core.accounts import Account, AccountSettings
from services.notifier.core.audience import is_about_the_mail
from services.notifier.core.known import Known, Undeliverable, Wish, dead_name
from services.notifier.core.plan import Go, Later, Plan, Refused, Route, plan, recipients
from services.notifier.core.policy import (
    ApprovedTemplate,
    CategoryCap,
    Digest,
    Policy,
    SurveyPolicy,
)
from services.notifier.core.post import Traits
from services.notifier.core.quiet import DAY, QuietHours, Window, quiet_until, zones_of
from services.notifier.core.reason import CATEGORIES, Cause, Suppression
from services.notifier.core.state import Case, Contact, Conversation

NOON = datetime(2026, 11, 24, 9, tzinfo=UTC)
"""12:00 in Istanbul."""
MIDNIGHT = datetime(2026, 11, 24, 21, 30, tzinfo=UTC)
"""00:30 in Istanbul."""
MORNING = datetime(2026, 11, 25, 5, tzinfo=UTC)
"""08:00 in Istanbul."""

NIGHT = QuietHours((Window(frozenset(range(7)), 21 * 60, 32 * 60),), occasions=frozenset())
TEXT_WINDOW = timedelta(hours=24)

TRAITS = {
    "desk": ("zendesk", Traits(frozenset({"zendesk"}), "html", "thread")),
    "shop-sms": ("twilio_sms", Traits(frozenset({"twilio_sms", "aircall"}), "text", "address")),
    "shop-whatsapp": (
        "whatsapp",
        Traits(frozenset({"whatsapp"}), "text", "address", window=TEXT_WINDOW, has_templates=True),
    ),
    "shop-instagram": (
        "instagram",
        Traits(frozenset({"instagram"}), "text", "address", window=TEXT_WINDOW),
    ),
    "reviews": ("trustpilot", Traits(frozenset({"trustpilot"}), "text", "message", is_public=True)),
    "hotline": ("twilio_voice", Traits(frozenset({"twilio_voice"}), "text", "address")),
    "box": ("gmail", Traits(frozenset({"email"}), "mail", "address")),
}

MAIL = Contact("Ada", "ada@example.com", "email", "email", "support", "en", True)
DESK = Contact("Ada", "ada@example.com", "email", "zendesk", "desk", "en", True)
SMS = Contact("Ada", "+905321234567", "phone", "twilio_sms", "shop-sms", "tr", True)
CALLER = Contact("Ada", "+905321234567", "phone", "twilio_voice", "hotline", "tr", True)
WHATSAPP = Contact("Ada", "+905321234567", "phone", "whatsapp", "shop-whatsapp", "tr", True)
INSTAGRAM = Contact("Ada", "17841400000", "vendor_id", "instagram", "shop-instagram", "tr", True)
REVIEWER = Contact("Ada", "r1", "vendor_id", "trustpilot", "reviews", "en", True)


@pytest.fixture(scope="module")
def rules(policy: Policy) -> Policy:
    """The example policy with accounts at vendors, and without quiet hours or digest."""
    return replace(
        policy,
        accounts=MappingProxyType(
            {name: Account(provider, AccountSettings()) for name, (provider, _) in TRAITS.items()}
        ),
        traits=MappingProxyType({name: traits for name, (_, traits) in TRAITS.items()}),
        occasions_off=frozenset(),
        fall_back=(),
        zone_by_country=MappingProxyType({}),
        quiet=QuietHours(),
        digest=Digest(),
        consent_needed=frozenset(),
        category_caps=MappingProxyType({}),
    )


def asked(
    policy: Policy,
    contact: Contact | None = MAIL,
    occasion: Occasion = "received",
    now: datetime = NOON,
    known: Known | None = None,
    **changes: Any,
) -> Plan:
    """What is planned for a notice; `changes` are those of the conversation and of the cause."""
    about = {
        name: changes.pop(name) for name in ("tried", "urgency", "is_counted") if name in changes
    }
    is_gathered = changes.pop("is_gathered", False)
    conversation = Conversation(contact=contact, **{"thread": "77", "answers": "88", **changes})
    cause = Cause("t1", occasion, "m1", **about)
    return plan(
        policy, known or Known("default"), conversation, cause, now, is_gathered=is_gathered
    )


def route(planned: Plan) -> Route:
    assert isinstance(planned, Go), planned
    return planned.route


def refused(planned: Plan) -> str:
    assert isinstance(planned, Refused), planned
    return planned.reason.value


def knowing(recipient: str = "ada@example.com", **facts: Any) -> Known:
    """What is known of one recipient."""
    known = Known("default")
    for name, value in facts.items():
        getattr(known, name)[known.key(recipient)] = value
    return known


# ------------------------------------------------------------------------------------------ the way


@pytest.mark.parametrize(
    ("contact", "way", "to", "recipient", "form"),
    [
        (MAIL, "smtp/support", "ada@example.com", "ada@example.com", "mail"),
        (DESK, "zendesk/desk", "ada@example.com", "ada@example.com", "html"),
        (SMS, "twilio_sms/shop-sms", "+905321234567", "+905321234567", "text"),
        (INSTAGRAM, "instagram/shop-instagram", "17841400000", "shop-instagram:17841400000", "text"),
        (Contact("", "", "none", "zendesk", "desk", None, False), "zendesk/desk", "", "desk:77", "html"),
    ],
)  # fmt: skip
def test_a_customer_is_answered_by_the_channel_and_account_they_wrote_to(
    rules: Policy, contact: Contact, way: str, to: str, recipient: str, form: str
) -> None:
    found = route(asked(rules, contact, wrote_at=NOON))
    assert (found.way, found.to, found.recipient, found.form) == (way, to, recipient, form)
    assert recipient in recipients(rules, contact, "77", "88")


def test_a_mail_account_at_a_vendor_takes_the_place_of_our_own_server(rules: Policy) -> None:
    contact = Contact("Ada", "ada@example.com", "email", "email", "box", "en", True)
    assert route(asked(rules, contact)).way == "gmail/box"


def test_a_channel_that_nothing_answers_is_said(rules: Policy) -> None:
    contact = Contact("Ada", "ada@example.com", "email", "kiosk", "kiosk", "en", True)
    assert refused(asked(rules, contact)) == "channel_unsupported"
    assert route(asked(replace(rules, fall_back=("mail",)), contact)).way == "smtp/kiosk"


def test_nobody_is_told_without_a_contact_an_address_or_a_thread(rules: Policy) -> None:
    assert refused(asked(rules, None)) == "no_address"
    assert refused(asked(rules, DESK, thread="")) == "no_address"
    assert refused(asked(rules, REVIEWER, "answered", answers="")) == "no_address"
    broken = Contact("Ada", "0532", "phone", "twilio_sms", "shop-sms", "tr", True)
    assert refused(asked(rules, broken)) == "no_address"


def test_we_do_not_write_to_ourselves_by_a_helpdesk_either(rules: Policy) -> None:
    ours = Contact("", "support@lantern-oak.example", "email", "zendesk", "desk", "en", True)
    assert refused(asked(rules, ours)) == "own_address"


def test_in_public_only_what_has_words_for_it_is_said(rules: Policy) -> None:
    assert route(asked(rules, REVIEWER, "answered")).is_public
    assert refused(asked(rules, REVIEWER, "escalated")) == "not_in_public"


def test_where_a_message_gets_one_answer_it_is_left_to_a_person(rules: Policy) -> None:
    traits = replace(rules.traits["reviews"], per_message=1)
    policy = replace(rules, traits=MappingProxyType({**rules.traits, "reviews": traits}))
    assert refused(asked(policy, REVIEWER, "received")) == "only_answer"
    assert route(asked(policy, REVIEWER, "answered")).is_public


def test_a_thread_that_everybody_reads_is_public_and_another_of_the_account_is_not(
    rules: Policy,
) -> None:
    traits = Traits(frozenset({"instagram"}), "text", "thread", public_thread=r"[0-9]+")
    policy = replace(rules, traits=MappingProxyType({**rules.traits, "shop-instagram": traits}))
    assert refused(asked(policy, INSTAGRAM, "escalated", thread="123")) == "not_in_public"
    assert not route(asked(policy, INSTAGRAM, "escalated", thread="1-2")).is_public


def test_a_webhook_tells_anybody_and_can_be_the_fall_back(rules: Policy) -> None:
    hook = ("outgoing_webhook", Traits(frozenset({"*"}), "html", "address", is_keyed=True))
    policy = replace(
        rules,
        accounts=MappingProxyType({**rules.accounts, "hook": Account(hook[0], AccountSettings())}),
        traits=MappingProxyType({**rules.traits, "hook": hook[1]}),
        fall_back=("hook",),
    )
    found = route(asked(policy, INSTAGRAM, wrote_at=None))
    assert (found.way, found.recipient) == ("outgoing_webhook/hook", "hook:17841400000")


def test_nobody_is_rung_up_by_a_machine(rules: Policy) -> None:
    assert refused(asked(rules, CALLER, "voicemail")) == "channel_unsupported"
    assert route(asked(rules, CALLER, "answered")).way == "twilio_voice/hotline"
    by_text = replace(rules, fall_back=("shop-sms",))
    assert route(asked(by_text, CALLER, "voicemail")).way == "twilio_sms/shop-sms"


def test_what_cannot_be_delivered_goes_once_by_the_next_way_that_has_an_address(
    rules: Policy,
) -> None:
    policy = replace(rules, fall_back=("shop-sms", "mail", "box"))
    assert route(asked(policy, DESK)).way == "zendesk/desk"
    second = asked(policy, DESK, tried=("zendesk/desk",))
    assert route(second).way == "smtp/desk"
    assert refused(asked(policy, DESK, tried=("zendesk/desk", "smtp/desk"))) == "undeliverable"
    assert refused(asked(rules, DESK, tried=("zendesk/desk",))) == "undeliverable"


def test_a_fall_back_that_is_the_customers_own_way_is_not_tried_twice(rules: Policy) -> None:
    policy = replace(rules, fall_back=("shop-sms", "mail"))
    assert refused(asked(policy, SMS, tried=("twilio_sms/shop-sms",))) == "undeliverable"


# ------------------------------------------------------------------------------- dead addresses, wishes


def test_a_dead_address_is_left_alone_by_machines_and_people_until_its_time_is_over(
    rules: Policy,
) -> None:
    known = knowing(undeliverable=Undeliverable("550 no such user", NOON, NOON + timedelta(days=3)))
    later = NOON + timedelta(days=3)
    for occasion in ("received", "answered", "security"):
        assert refused(asked(rules, occasion=occasion, known=known)) == "undeliverable"
        assert route(asked(rules, occasion=occasion, known=known, now=later))
    for_good = knowing(undeliverable=Undeliverable("550 no such user", NOON, None))
    assert refused(asked(rules, known=for_good, now=later)) == "undeliverable"


def test_a_number_that_is_not_on_whatsapp_still_takes_text_messages(rules: Policy) -> None:
    policy = replace(rules, fall_back=("shop-sms",))
    known = Known("default")
    name = dead_name("whatsapp", known.key("+905321234567"))
    known.undeliverable[name] = Undeliverable("131026 not on WhatsApp", NOON, None)
    assert route(asked(policy, WHATSAPP, known=known, wrote_at=None)).way == "twilio_sms/shop-sms"
    assert route(asked(policy, SMS, known=known)).way == "twilio_sms/shop-sms"
    assert refused(asked(rules, WHATSAPP, known=known, wrote_at=None)) == "undeliverable"


def test_a_thread_that_is_gone_says_nothing_of_the_other_threads(rules: Policy) -> None:
    known = Known("default")
    name = dead_name("zendesk", known.key("ada@example.com"))
    known.undeliverable[name] = Undeliverable("404", NOON, None)
    assert route(asked(rules, DESK, known=known)).way == "zendesk/desk"
    assert route(asked(rules, MAIL, known=known)).way == "smtp/support"


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("5.1.1", False),
        ("5.2.1", False),
        ("5.0.0", False),
        ("5.2.2", True),
        ("5.4.7", True),
        ("5.6.0", True),
        ("5.7.1", True),
        ("550 no such user", False),
        ("", False),
    ],
)
def test_a_server_that_refuses_the_mail_says_nothing_of_the_address(
    status: str, expected: bool
) -> None:
    assert is_about_the_mail(status) is expected


def test_whoever_writes_from_a_dead_address_and_has_proved_it_is_there_again(
    rules: Policy,
) -> None:
    known = knowing(undeliverable=Undeliverable("550 no such user", NOON, None))
    wrote_at = NOON + timedelta(hours=1)
    now = NOON + timedelta(hours=2)
    assert route(asked(rules, known=known, now=now, wrote_at=wrote_at))
    unproved = Contact("Ada", "ada@example.com", "email", "email", "support", "en", False)
    assert refused(asked(rules, unproved, known=known, now=now, wrote_at=wrote_at)) == (
        "undeliverable"
    )
    assert refused(asked(rules, known=known, now=now, wrote_at=NOON)) == "undeliverable"


def test_a_category_that_somebody_wants_no_more_of_is_not_told_and_the_others_are(
    rules: Policy,
) -> None:
    known = knowing(wishes={"follow_up": Wish(True, NOON)})
    assert refused(asked(rules, occasion="survey", known=known)) == "opted_out"
    assert route(asked(rules, occasion="received", known=known))
    assert route(asked(rules, occasion="outage_known", known=known))
    again = knowing(wishes={"follow_up": Wish(False, NOON)})
    assert route(asked(rules, occasion="survey", known=again))


def test_stop_by_text_message_ends_answers_too_but_no_security_notice(rules: Policy) -> None:
    known = knowing("+905321234567", wishes={"service": Wish(True, NOON)})
    assert refused(asked(rules, SMS, "answered", known=known)) == "opted_out"
    assert refused(asked(rules, SMS, "received", known=known)) == "opted_out"
    assert route(asked(rules, SMS, "security", known=known))


def test_what_needs_consent_goes_to_those_who_gave_it(rules: Policy) -> None:
    policy = replace(rules, consent_needed=frozenset({"follow_up"}))
    assert refused(asked(policy, occasion="survey")) == "no_consent"
    known = knowing(wishes={"follow_up": Wish(False, NOON)})
    assert route(asked(policy, occasion="survey", known=known))
    assert route(asked(policy, occasion="received"))


# ------------------------------------------------------------------------------------------- windows


def test_a_vendors_window_closes_five_minutes_early(rules: Policy) -> None:
    open_until = NOON - timedelta(hours=24) + timedelta(minutes=5)
    assert route(asked(rules, INSTAGRAM, wrote_at=open_until + timedelta(seconds=1)))
    assert refused(asked(rules, INSTAGRAM, wrote_at=open_until)) == "window_closed"
    assert refused(asked(rules, INSTAGRAM, wrote_at=None)) == "window_closed"
    assert refused(asked(rules, INSTAGRAM, "answered", wrote_at=open_until)) == "window_closed"


def test_a_person_has_longer_where_the_account_may_say_that_one_writes(rules: Policy) -> None:
    class Settings(AccountSettings):
        human_agent: bool = False

    traits = replace(rules.traits["shop-instagram"], answer_window=timedelta(days=7))
    old = NOON - timedelta(days=2)
    for human_agent, expected in ((True, "go"), (False, "window_closed")):
        account = Account("instagram", Settings(human_agent=human_agent))
        policy = replace(
            rules,
            accounts=MappingProxyType({**rules.accounts, "shop-instagram": account}),
            traits=MappingProxyType({**rules.traits, "shop-instagram": traits}),
        )
        answer = asked(policy, INSTAGRAM, "answered", wrote_at=old)
        assert ("go" if isinstance(answer, Go) else refused(answer)) == expected
        assert refused(asked(policy, INSTAGRAM, "solved", wrote_at=old)) == "window_closed"


def test_over_the_window_the_approved_template_goes_in_the_customers_language(
    rules: Policy,
) -> None:
    english = ApprovedTemplate("we_have_an_answer", "en_GB", ("name", "reference"))
    turkish = ApprovedTemplate("we_have_an_answer", "tr", ("name",))
    approved = {"shop-whatsapp": {"answered": {"en": english, "tr": turkish}}}
    policy = replace(rules, approved=MappingProxyType(approved))
    old = NOON - timedelta(days=2)
    assert route(asked(policy, WHATSAPP, "answered", wrote_at=NOON)).template is None
    assert route(asked(policy, WHATSAPP, "answered", wrote_at=old)).template == turkish
    russian = Contact("Ada", "+79161234567", "phone", "whatsapp", "shop-whatsapp", "ru", True)
    assert route(asked(policy, russian, "answered", wrote_at=old)).template == english
    assert refused(asked(policy, WHATSAPP, "solved", wrote_at=old)) == "window_closed"


def test_where_the_window_is_over_the_fall_back_is_taken(rules: Policy) -> None:
    policy = replace(rules, fall_back=("shop-whatsapp", "shop-sms"))
    old = NOON - timedelta(days=2)
    assert route(asked(policy, WHATSAPP, wrote_at=old)).way == "twilio_sms/shop-sms"
    # A window is one of the channel that they wrote to: that of another is shut.
    assert refused(asked(policy, SMS, wrote_at=NOON, tried=("twilio_sms/shop-sms",))) == (
        "window_closed"
    )


# ---------------------------------------------------------------------------------------------- caps


def test_a_customer_is_told_once_in_a_week_that_a_person_looks_at_what_made_them_unhappy(
    rules: Policy,
) -> None:
    """They may have rated cases in several conversations."""
    policy = replace(rules, category_caps=MappingProxyType({}))
    known = Known("default")
    known.remember("ada@example.com", "recovery", NOON, is_verified=True)
    after = NOON + timedelta(days=7)
    before = after - timedelta(seconds=1)
    assert refused(asked(policy, occasion="recovery", known=known, now=before)) == "told_lately"
    assert route(asked(policy, occasion="recovery", known=known, now=after))
    assert route(asked(policy, SMS, "recovery", known=known, now=before))
    assert route(asked(policy, occasion="check_in", known=known, now=before))


def test_nobody_is_asked_how_it_went_twice_within_the_time_that_the_policy_names(
    rules: Policy,
) -> None:
    policy = replace(rules, survey=SurveyPolicy(again=timedelta(days=30)))
    known = Known("default")
    known.remember("ada@example.com", "survey", NOON, is_verified=True)
    after = NOON + timedelta(days=30)
    before = after - timedelta(seconds=1)
    assert refused(asked(policy, occasion="survey", known=known, now=before)) == "asked_lately"
    assert route(asked(policy, occasion="survey", known=known, now=after))
    # Another customer was not asked, nor is another notice a survey.
    assert route(asked(policy, SMS, "survey", known=known, now=before))
    assert route(asked(policy, occasion="check_in", known=known, now=before))


def test_a_category_has_its_own_cap(rules: Policy) -> None:
    cap = CategoryCap(2, timedelta(days=30))
    policy = replace(rules, category_caps=MappingProxyType({"follow_up": cap}))
    known = Known("default")
    for day in (0, 1):
        at = NOON + timedelta(days=day)
        assert route(asked(policy, occasion="next_issue", known=known, now=at))
        known.remember("ada@example.com", "next_issue", at, is_verified=True)
    later = NOON + timedelta(days=2)
    assert refused(asked(policy, occasion="check_in", known=known, now=later)) == "category_limit"
    assert route(asked(policy, occasion="received", known=known, now=later))
    free = NOON + timedelta(days=30)
    assert route(asked(policy, occasion="check_in", known=known, now=free))


def test_the_workspace_has_a_cap(rules: Policy) -> None:
    policy = replace(rules, automatic_total_per_hour=3)
    known = Known("default")
    for number in range(3):
        known.remember(f"c{number}@example.com", "solved", NOON, is_verified=True)
    assert refused(asked(policy, known=known)) == "workspace_limit"
    assert route(asked(policy, known=known, now=NOON + timedelta(hours=1)))
    crowded = Known("default", crowded_at=NOON - timedelta(minutes=59))
    assert refused(asked(policy, known=crowded)) == "workspace_limit"
    assert route(asked(policy, known=Known("default", crowded_at=NOON - timedelta(hours=1))))


def test_security_and_answers_know_no_caps(rules: Policy) -> None:
    policy = replace(
        rules,
        automatic_total_per_hour=0,
        verified_recipient_per_hour=0,
        automatic_between_human=0,
    )
    assert route(asked(policy, occasion="security"))
    assert route(asked(policy, occasion="answered"))
    assert refused(asked(policy)) == "too_many_automatic"


def test_what_was_counted_when_it_was_asked_for_is_not_held_by_the_caps_again(
    rules: Policy,
) -> None:
    policy = replace(rules, verified_recipient_per_hour=0, automatic_between_human=0)
    assert route(asked(policy, is_counted=True))


# ---------------------------------------------------------------------------------------------- when


def test_what_comes_up_at_night_is_told_in_the_morning_of_the_customers_zone(
    rules: Policy,
) -> None:
    policy = replace(rules, quiet=NIGHT)
    assert asked(policy, occasion="solved", now=MIDNIGHT) == Later(MORNING, "quiet_hours")
    assert route(asked(policy, occasion="solved", now=MORNING))
    london = Contact("Ada", "+442079460000", "phone", "twilio_sms", "shop-sms", "en", True)
    assert asked(policy, london, "solved", now=MIDNIGHT) == Later(
        datetime(2026, 11, 25, 8, tzinfo=UTC), "quiet_hours"
    )


def test_the_end_of_quiet_hours_is_spread_and_stays_the_same_for_a_notice(rules: Policy) -> None:
    policy = replace(rules, quiet=replace(NIGHT, spread=timedelta(minutes=20)))
    first = asked(policy, occasion="solved", now=MIDNIGHT)
    assert first == asked(policy, occasion="solved", now=MIDNIGHT + timedelta(hours=3))
    assert isinstance(first, Later)
    assert MORNING <= first.until < MORNING + timedelta(minutes=20)
    assert route(asked(policy, occasion="solved", now=first.until))


@pytest.mark.parametrize(
    ("rule", "about"),
    [
        ({"occasions": frozenset({"solved"})}, {}),
        ({"categories": frozenset({"service"})}, {}),
        ({"priorities": frozenset({1})}, {}),
        ({"silent": frozenset({"smtp"})}, {}),
        ({}, {"urgency": "high"}),
        ({"awake": timedelta(minutes=30)}, {"wrote_at": MIDNIGHT - timedelta(minutes=29)}),
    ],
)
def test_what_breaks_through_quiet_hours_goes_at_once(
    rules: Policy, rule: dict[str, Any], about: dict[str, Any]
) -> None:
    cases = {"t1": Case("SB-1", NOON, priority=1)}
    plain = replace(rules, quiet=NIGHT)
    without = {name: value for name, value in about.items() if name != "urgency"}
    assert isinstance(asked(plain, occasion="solved", now=MIDNIGHT, cases=cases, **without), Later)
    policy = replace(rules, quiet=replace(NIGHT, **rule))
    assert route(asked(policy, occasion="solved", now=MIDNIGHT, cases=cases, **about))


def test_whoever_wrote_half_an_hour_ago_is_asleep_again(rules: Policy) -> None:
    policy = replace(rules, quiet=replace(NIGHT, awake=timedelta(minutes=30)))
    wrote_at = MIDNIGHT - timedelta(minutes=30)
    assert asked(policy, now=MIDNIGHT, wrote_at=wrote_at) == Later(MORNING, "quiet_hours")


def test_security_is_never_held_back(rules: Policy) -> None:
    policy = replace(rules, quiet=NIGHT)
    assert route(asked(policy, occasion="security", now=MIDNIGHT))


def test_small_news_wait_for_the_digests_hour_and_only_once(rules: Policy) -> None:
    policy = replace(rules, digest=Digest(frozenset({"next_issue"}), 11 * 60))
    eleven = datetime(2026, 11, 25, 8, tzinfo=UTC)
    assert asked(policy, occasion="next_issue") == Later(eleven, "digest")
    assert route(asked(policy, occasion="next_issue", now=eleven, is_gathered=True))
    assert route(asked(policy, occasion="solved"))
    assert route(asked(policy, occasion="next_issue", urgency="high"))


def test_what_is_refused_is_not_put_off(rules: Policy) -> None:
    policy = replace(rules, quiet=NIGHT, occasions_off=frozenset({"solved"}))
    assert refused(asked(policy, occasion="solved", now=MIDNIGHT)) == "occasion_off"


# ---------------------------------------------------------------------------------------- properties

OCCASIONS: tuple[Occasion, ...] = get_args(Occasion)
CONTACTS = (MAIL, DESK, SMS, CALLER, WHATSAPP, INSTAGRAM, REVIEWER)
ALL_CATEGORIES: tuple[Category, ...] = get_args(Category)
PLACES = (
    "+905321234567",
    "+442079460000",
    "+14155550100",
    "+61212345678",
    "+79161234567",
    "+9779841234567",
)


@settings(max_examples=300)
@given(
    occasion=st.sampled_from(OCCASIONS),
    phone=st.sampled_from(PLACES),
    seconds=st.integers(0, 7 * 365 * 86_400),
    start=st.integers(0, DAY - 1),
    length=st.integers(1, 20 * 60),
    spread=st.integers(0, 240),
    is_urgent=st.booleans(),
)
def test_what_may_not_break_quiet_hours_is_never_told_inside_them(
    rules: Policy,
    occasion: Occasion,
    phone: str,
    seconds: int,
    start: int,
    length: int,
    spread: int,
    is_urgent: bool,
) -> None:
    window = Window(frozenset(range(7)), start, start + length)
    policy = replace(
        rules, quiet=QuietHours((window,), spread=timedelta(minutes=spread)), zone=ZoneInfo("UTC")
    )
    now = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    contact = Contact("Ada", phone, "phone", "twilio_sms", "shop-sms", "en", True)
    urgency = "high" if is_urgent else "normal"
    planned = asked(policy, contact, occasion, now, urgency=urgency)
    may_break = is_urgent or occasion in ("answered", "security")
    asked_again = 0
    while isinstance(planned, Later):
        assert not may_break
        assert planned.until > now
        now, asked_again = planned.until, asked_again + 1
        planned = asked(policy, contact, occasion, now, urgency=urgency)
    assert isinstance(planned, Go)
    assert asked_again <= 1
    if not may_break:
        zones = zones_of(phone, policy.zone)
        assert quiet_until(policy.quiet.windows, zones, policy.zone, now) is None


@settings(max_examples=150)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(OCCASIONS),
            st.integers(0, 3),
            st.booleans(),
            st.integers(0, 3600),
        ),
        max_size=60,
    ),
    per_hour=st.integers(0, 4),
    unproved=st.integers(0, 3),
    together=st.integers(0, 5),
    everybody=st.integers(0, 12),
    follow_ups=st.integers(0, 2),
)
def test_caps_are_never_exceeded(
    rules: Policy,
    steps: list[tuple[Occasion, int, bool, int]],
    per_hour: int,
    unproved: int,
    together: int,
    everybody: int,
    follow_ups: int,
) -> None:
    policy = replace(
        rules,
        verified_recipient_per_hour=per_hour,
        unverified_recipient_per_hour=unproved,
        unverified_total_per_hour=together,
        automatic_total_per_hour=everybody,
        category_caps=MappingProxyType({"follow_up": CategoryCap(follow_ups, timedelta(days=1))}),
    )
    known, now = Known("default"), NOON
    told: list[tuple[datetime, str, bool, Occasion]] = []
    for occasion, who, is_verified, seconds in steps:
        now += timedelta(seconds=seconds)
        address = f"c{who}@example.com"
        contact = Contact("", address, "email", "email", "support", "en", is_verified)
        planned = asked(policy, contact, occasion, now, known)
        if not isinstance(planned, Go) or occasion in ("answered", "security"):
            continue
        known.remember(planned.route.recipient, occasion, now, is_verified=is_verified)
        told.append((now, address, is_verified, occasion))
        hour = [one for one in told if one[0] > now - timedelta(hours=1)]
        mine = [one for one in hour if one[1] == address]
        assert len(mine) <= (per_hour if is_verified else unproved)
        if not is_verified:
            assert sum(not one[2] for one in hour) <= together
        assert len(hour) <= everybody
        if CATEGORIES.get(occasion) == "follow_up":
            day = [one for one in told if one[0] > now - timedelta(days=1) and one[1] == address]
            assert sum(CATEGORIES.get(one[3]) == "follow_up" for one in day) <= follow_ups


@settings(max_examples=300)
@given(
    contact=st.sampled_from(CONTACTS),
    occasion=st.sampled_from(OCCASIONS),
    out=st.frozensets(st.sampled_from(ALL_CATEGORIES)),
    fall_back=st.permutations(("mail", "shop-sms", "shop-whatsapp", "box")),
    tried=st.booleans(),
)
def test_nobody_is_told_what_they_want_no_more_of(
    rules: Policy,
    contact: Contact,
    occasion: Occasion,
    out: frozenset[Category],
    fall_back: list[str],
    tried: bool,
) -> None:
    policy = replace(rules, fall_back=tuple(fall_back))
    known = Known("default")
    for recipient in recipients(policy, contact, "77", "88"):
        known.wishes[known.key(recipient)] = {one: Wish(True, NOON) for one in out}
    ways = ("zendesk/desk",) if tried else ()
    planned = asked(policy, contact, occasion, known=known, wrote_at=NOON, tried=ways)
    category = CATEGORIES.get(occasion, "service")
    if isinstance(planned, Go) and category in out and category != "security":
        # A person's own answer is no notice, but where carriers take STOP for everything; and HELP is always answered.
        assert occasion in ("answered", "help")
        assert occasion == "help" or planned.route.provider != "twilio_sms"


@settings(max_examples=200)
@given(contact=st.sampled_from(CONTACTS), occasion=st.sampled_from(OCCASIONS))
def test_the_same_question_has_the_same_answer(
    rules: Policy, contact: Contact, occasion: Occasion
) -> None:
    first = asked(rules, contact, occasion, wrote_at=NOON)
    assert first == asked(rules, contact, occasion, wrote_at=NOON)
    if isinstance(first, Refused):
        assert first.reason in Suppression
