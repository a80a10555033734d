"""What a notice would say now, and how it would go: for a ticket as the notifier knows it, or for a sample.

Nothing comes of it: it reads the policy in the folder and the notifier's tables, and writes nothing.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cli.errors import CommandError, UsageMistake

if TYPE_CHECKING:
    from schemas.notifications import Occasion
    from services.notifier.core.known import Known
    from services.notifier.core.policy import Policy
    from services.notifier.core.state import Conversation, Matter, Promise
    from services.notifier.core.words import Shown

SAMPLE_CONVERSATION: Final = "b1c9f1c2-55a0-5a0e-9d1e-7c6d6a0f7f01"
SAMPLE_TICKET: Final = "3c59dc04-8e88-5024-9be8-079a5c74d079"
PHONE: Final = "+905321234567"
LINKS: Final = "https://in.example.com"
"""Links in a preview lead nowhere: they are signed with no key of ours."""

_FITS: Final = {
    "received": "those who write, while we are open or nobody knows when we open",
    "after_hours": "those who write while we are closed and it is known when we open",
    "voicemail": "those who call",
}
"""Whom an opening is told in which of its ways."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Whose notice it would be."""

    conversation_id: str
    ticket_id: str
    state: "Conversation"
    known: "Known"


def load(folder: Path) -> "Policy":
    """Return the notifier's policy of a folder, as the service itself would read it."""
    from chassis.policy import load as read
    from cli.parts import policy_files

    found: Policy = read(folder, policy_files("notifier"))
    return found


def sample(
    policy: "Policy", folder: Path, workspace: str, channel: str, language: str, now: datetime
) -> Asked:
    """Return a made-up customer who has just written on a channel, in a language."""
    from cli import template_page, templates
    from services.notifier.core.known import Known
    from services.notifier.core.policy import PHONE_PROVIDERS
    from services.notifier.core.state import Case, Contact, Conversation

    file, _ = templates.read(folder)
    spoken = _language(policy, language)
    facts = template_page.sample(spoken, file)
    account = next(
        (name for name, traits in policy.traits.items() if traits.answers(channel)), None
    )
    is_phone = account is not None and policy.accounts[account].provider in PHONE_PROVIDERS
    is_mail = (
        channel in policy.channels if account is None else policy.traits[account].form == "mail"
    )
    contact = Contact(
        name=facts.name,
        address=PHONE if is_phone else ("ada@example.com" if is_mail else "customer-1"),
        address_kind="phone" if is_phone else ("email" if is_mail else "vendor_id"),
        channel=channel,
        account=account or next(iter(policy.sender_by_account), "support"),
        language=spoken,
        is_verified=True,
    )
    case = Case(facts.reference, now - timedelta(minutes=2), now - timedelta(minutes=2))
    state = Conversation(
        contact=contact,
        subject=facts.subject.removeprefix("Re: "),
        cases={SAMPLE_TICKET: case},
        thread="thread-1",
        answers="message-1",
        wrote_at=now - timedelta(minutes=2),
    )
    return Asked(SAMPLE_CONVERSATION, SAMPLE_TICKET, state, Known(workspace))


def show(
    policy: "Policy",
    folder: Path,
    asked: Asked,
    occasion: "Occasion",
    language: str,
    channel: str,
    now: datetime,
) -> "Shown":
    """Return what would be said.

    Raises:
        CommandError: it cannot be said.
    """
    from msgspec import structs

    from services.notifier.core import words
    from services.notifier.core.links import Links
    from services.notifier.core.reason import Cause
    from services.notifier.core.render import RenderError
    from services.notifier.core.told import Context, without_notice

    contact = asked.state.contact
    if contact is None:
        raise CommandError("The notifier knows nobody to write to in this conversation.")
    if language:
        contact = structs.replace(contact, language=_language(policy, language))
    if channel:
        contact = structs.replace(contact, channel=channel)
    state = structs.replace(asked.state, contact=contact)
    if asked.conversation_id == SAMPLE_CONVERSATION:
        state = _in_its_way(policy, state, occasion, now)
    matter, pending = _pending(state, asked.ticket_id, occasion)
    if pending:
        state = without_notice(state, pending)
    if matter is None:
        spoken = contact.language if contact.language in policy.languages else ""
        matter = _matter(policy, folder, occasion, spoken or policy.default_language, now)
    if language:
        matter = structs.replace(matter, language=None)
    context = Context(
        policy=policy,
        secret=b"preview only, signs nothing of ours",
        workspace=asked.known.workspace,
        now=now,
        known=asked.known,
        links=Links(b"preview only, signs nothing of ours", asked.known.workspace, LINKS),
    )
    cause = Cause(asked.ticket_id, occasion, "preview")
    promise = state.promises.get(asked.ticket_id)
    try:
        return words.show(
            asked.conversation_id, state, words.Intent(cause, matter, promise), context
        )
    except RenderError as error:
        raise CommandError(
            f"The notice “{occasion}” cannot be put into words: {error}. `signalbox templates lint` finds what is missing."
        ) from error


def _in_its_way(
    policy: "Policy", state: "Conversation", occasion: "Occasion", now: datetime
) -> "Conversation":
    """Return the made-up customer as one who gets this notice: they wrote while we are closed, or called.

    A channel that was asked for stays.
    """
    from msgspec import structs

    if occasion == "after_hours":
        return structs.replace(state, promises={SAMPLE_TICKET: _closed(policy, now)})
    contact = state.contact
    if occasion == "voicemail" and contact is not None and contact.channel == "email":
        called = "twilio_voice"
        account = (name for name, traits in policy.traits.items() if traits.answers(called))
        caller = structs.replace(
            contact,
            channel=called,
            address=PHONE,
            address_kind="phone",
            account=next(account, ""),
        )
        return structs.replace(state, contact=caller)
    return state


def _closed(policy: "Policy", now: datetime) -> "Promise":
    """Return what is known of the wait of somebody who wrote after hours: we open tomorrow at nine, and answer by noon."""
    from services.notifier.core.state import Promise, Slot

    tomorrow = now.astimezone(policy.zone) + timedelta(days=1)

    def at(days: int, hour: int, minute: int = 0) -> datetime:
        local = tomorrow.replace(hour=hour, minute=minute, second=0, microsecond=0)
        return (local + timedelta(days=days)).astimezone(UTC)

    slots = (Slot(at(0, 10), at(0, 10, 30)), Slot(at(1, 14), at(1, 14, 30)))
    return Promise(now, at(0, 12), None, at(0, 9), slots)


def _pending(state: "Conversation", ticket_id: str, occasion: str) -> "tuple[Matter | None, str]":
    """Return what a notice that is under way or still to come is about, and its id; none where there is none."""
    for name, one in sorted(state.notices.items()):
        matter = getattr(one, "matter", None)
        if one.occasion == occasion and one.ticket_id == ticket_id and matter is not None:
            return matter, name
    return None, ""


def _language(policy: "Policy", language: str) -> str:
    if language and language not in policy.languages:
        raise UsageMistake(
            f"--language {language}: notify.yaml has {', '.join(sorted(policy.languages))}."
        )
    return language or policy.default_language


def _matter(
    policy: "Policy", folder: Path, occasion: "Occasion", language: str, now: datetime
) -> "Matter":
    """Return what a made-up notice is about: the words that `signalbox templates preview` has."""
    from cli import template_page, templates
    from services.notifier.core.state import Article, Matter

    file, _ = templates.read(folder)
    facts = template_page.sample(language, file, occasion)
    is_answer = occasion == "answered"
    is_of_outage = occasion in ("outage_known", "outage_over")
    is_of_call = occasion in ("callback_booked", "callback_missed")
    soon = timedelta(minutes=30)
    outage = facts.outage
    text = facts.answer if is_answer else facts.note
    return Matter(
        now,
        text=outage.text if is_of_outage and outage is not None else text,
        agent_name=facts.agent_name if is_answer else "",
        question=facts.question if occasion == "need_info" else "",
        promised_by={"still_on_it": now + soon, "delayed": now - soon}.get(occasion),
        call_from=now + timedelta(days=1) if is_of_call else None,
        call_until=now + timedelta(days=1) + soon if is_of_call else None,
        outage_title=outage.title if is_of_outage and outage is not None else "",
        outage_since=now - soon if is_of_outage else None,
        articles=tuple(Article(one.title, one.url, one.summary) for one in facts.articles)
        if occasion in ("received", "next_issue")
        else (),
        survey_kind=policy.survey.kind if occasion == "survey" else "",
        items=tuple((one.reference, one.text) for one in facts.digest)
        if occasion == "digest"
        else (),
    )


def way_lines(policy: "Policy", shown: "Shown", line: Any, *, show_recipient: bool) -> list[str]:
    """Return why it is another notice than the one asked for, if it is, and how it would go, or why it would not.

    `line` finds a path's line in `notify.yaml`.
    """
    return [*_another(policy, shown), *_way(policy, shown, line, show_recipient=show_recipient)]


def _another(policy: "Policy", shown: "Shown") -> list[str]:
    asked, said = shown.asked, shown.cause.occasion
    if asked == said:
        return []
    is_off = asked in policy.occasions_off
    why = "is off in notify.yaml" if is_off else f"is for {_FITS[asked]}"
    return [f"this customer gets {said}: {asked} {why}"]


def _way(policy: "Policy", shown: "Shown", line: Any, *, show_recipient: bool) -> list[str]:
    from cli.story import utc
    from services.notifier.core.explain import why_deferred, why_suppressed
    from services.notifier.core.plan import Go, Later, Refused

    match shown.way:
        case Go(route=route):
            to = f" to {route.to or 'the thread'}" if show_recipient else ""
            said = [f"goes now by {route.provider}, account {route.account or '–'}{to}"]
            if route.template is not None:
                said.append(
                    f"as the vendor's approved template {route.template.name}: its window is over"
                )
            if route.is_public:
                said.append("in public: everybody reads it")
            if policy.rehearses(route.provider, route.account):
                said.append(f"DRY RUN: it would not leave ({line('delivery') or 'delivery'})")
            return said
        case Later(until=until, reason=reason):
            why = why_deferred(reason)
            return [f"goes later, not before {utc(until)}: {why.words}", line(why.path)]
        case Refused(reason=refused):
            why = why_suppressed(refused.value, shown.cause.occasion)
            return [f"does not go: {why.words}", line(why.path)]
