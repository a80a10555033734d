"""What a notice would say now, and how it would go: for a ticket as the notifier knows it, or for a sample.

Nothing comes of it: it reads the policy in the folder and the notifier's tables, and writes nothing.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cli.errors import CommandError, UsageMistake

if TYPE_CHECKING:
    from schemas.notifications import Occasion
    from services.notifier.core.known import Known
    from services.notifier.core.policy import Policy
    from services.notifier.core.state import Conversation, Matter
    from services.notifier.core.words import Shown

SAMPLE_CONVERSATION: Final = "b1c9f1c2-55a0-5a0e-9d1e-7c6d6a0f7f01"
SAMPLE_TICKET: Final = "3c59dc04-8e88-5024-9be8-079a5c74d079"
PHONE: Final = "+905321234567"
LINKS: Final = "https://in.example.com"
"""Links in a preview lead nowhere: they are signed with no key of ours."""


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
    """Return how it would go, or why it would not; `line` finds a path's line in `notify.yaml`."""
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
