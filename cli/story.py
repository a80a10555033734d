"""Events as one readable line each: who, what, about whom. For `tail`, the demo's board and a ticket's story."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from schemas import (
    commands,
    customers,
    deadletters,
    elsewhere,
    feedback,
    inbound,
    merging,
    messages,
    notifications,
    roster,
    routing,
    sla,
    submissions,
    tickets,
)
from schemas.payload import Payload

STYLES: Final = {
    "inbound": "dim",
    "messages": "cyan",
    "commands": "blue",
    "roster": "magenta",
    "routing-work": "dim",
    "tickets": "bold",
    "routing": "green",
    "sla": "yellow",
    "notifications": "bright_blue",
    "dead-letters": "bold red",
}
ALARMING: Final = frozenset(
    {
        sla.TargetBreached.TYPE,
        tickets.CommandRefused.TYPE,
        tickets.TicketOwnerForced.TYPE,
        tickets.TicketPaged.TYPE,
        notifications.NoticeFailed.TYPE,
        notifications.NoticeUnknown.TYPE,
        routing.AssignmentExhausted.TYPE,
        elsewhere.AssignmentElsewhereFailed.TYPE,
    }
)


def style_of(event: Payload) -> str:
    """Return the colour of an event's line."""
    return "bold red" if event.TYPE in ALARMING else STYLES.get(event.TOPIC, "")


def short(text: str, length: int = 60) -> str:
    """Return a text on one line, cut to `length` characters, without control characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= length else line[: length - 1] + "…"


def span(seconds: float) -> str:
    """Return a length of time as people say it: 45 s, 12 min, 3 h 20 min, 5 days."""
    whole = round(abs(seconds))
    if whole < 90:
        return f"{whole} s"
    if whole < 5400:
        return f"{round(whole / 60)} min"
    hours, minutes = divmod(round(whole / 60), 60)
    if hours >= 48:
        return f"{round(whole / 86_400)} days"
    return f"{hours} h {minutes:02d} min" if minutes else f"{hours} h"


def until(at: datetime, now: datetime) -> str:
    """Return how far an instant is from now, in words."""
    left = (at - now) / timedelta(seconds=1)
    return f"in {span(left)}" if left >= 0 else f"{span(left)} ago"


def local_time(at: datetime, with_date: bool = False) -> str:
    """Return an instant on this machine's clock."""
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S" if with_date else "%H:%M:%S")


def utc(at: datetime) -> str:
    """Return an instant in UTC, to the second."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _facts(facts: dict[str, str]) -> str:
    return "; ".join(f"{name}: {short(value, 40)}" for name, value in facts.items())


def _who(content: messages.MessageContent) -> str:
    return content.sender.name or content.sender.address or "somebody"


_LINES: Final[dict[type[Payload], Callable[[Any], str]]] = {
    inbound.InboundReceived: lambda e: f"accepted by {e.channel} ({e.account}), input {e.input_id}",
    submissions.MessageSubmitted: lambda e: f"submitted by another system: {short(e.subject)}",
    messages.MessageReceived: lambda e: (
        f"{short(_who(e.content), 30)} wrote by {e.content.channel}"
        f"{f' in {e.content.language}' if e.content.language else ''}: {short(e.content.subject or e.content.text_new)}"
        f"{f' ({e.content.kind})' if e.content.kind != 'message' else ''}"
        f"{f' [{e.suspicion}]' if e.suspicion else ''}"
    ),
    messages.MessageRevised: lambda e: (
        f"{short(_who(e.content), 30)} {e.content.change} a message by {e.content.channel}:"
        f" {short(e.content.text_new or e.content.text)}"
    ),
    customers.CustomerMerged: lambda e: (
        f"customer {e.merged_id[:8]} is {e.customer_id[:8]} ({e.by}, score {e.score:.2f})"
    ),
    customers.CustomerUnmerged: lambda e: (
        f"customer {e.customer_id[:8]} is not {e.left_id[:8]} after all ({e.by})"
    ),
    customers.CustomerLinkSuggested: lambda e: (
        f"customer {e.customer_id[:8]} may be {e.other_id[:8]} (score {e.score:.2f})"
    ),
    customers.CustomerDescribed: lambda e: (
        f"customer {e.customer_id[:8]}: {_described(e.tier, e.contract)} ({e.by})"
    ),
    customers.CustomerErased: lambda e: f"customer {e.customer_id[:8]} is to be forgotten ({e.by})",
    commands.ReplyToCustomer: lambda e: (
        f"{e.agent_id} replies{' and solves' if e.solves else ''}{_again(e.next_update_by)}: {short(e.text)}"
    ),
    commands.AddNote: lambda e: f"{e.agent_id} notes: {short(e.text)}",
    commands.SolveTicket: lambda e: f"{e.agent_id} solves{f' ({e.cause})' if e.cause else ''}",
    commands.EscalateTicket: lambda e: (
        f"{e.agent_id} escalates: {short(e.reason)} ({_facts(e.facts)})"
    ),
    commands.ReassignTicket: lambda e: (
        f"{e.agent_id} hands on to {e.to_agent_id or e.queue or 'somebody'}"
    ),
    commands.TagTicket: lambda e: (
        f"{e.agent_id} tags {' '.join([*('+' + t for t in e.add), *('-' + t for t in e.remove)])}"
    ),
    commands.HoldTicket: lambda e: (
        f"{e.agent_id} waits for {short(e.waiting_on, 40)}{_until(e.until)}: {short(e.reason)}"
    ),
    commands.SnoozeTicket: lambda e: f"{e.agent_id} puts it away{_until(e.until)}",
    commands.ResumeTicket: lambda e: f"{e.agent_id} takes it up again",
    commands.DelegateTicket: lambda e: (
        f"{e.agent_id} asks {e.to_agent_id} for a part: {short(e.task)}"
    ),
    commands.ReturnTicket: lambda e: f"{e.agent_id} gives it back: {short(e.reason)}",
    commands.MarkTicketAsSpam: lambda e: f"{e.agent_id} says it is spam: {short(e.reason)}",
    commands.RestoreTicket: lambda e: f"{e.agent_id} says it is no spam",
    commands.MergeTicket: lambda e: f"{e.agent_id} merges it into ticket {e.into_ticket_id[:8]}",
    commands.UnmergeTicket: lambda e: f"{e.agent_id} undoes its merge",
    commands.PromiseCustomer: lambda e: f"{e.agent_id} {_promise(e)}",
    commands.CallMade: lambda e: f"{e.agent_id} {_call(e)}",
    commands.PrioritiseTicket: lambda e: (
        f"{e.agent_id} gives it priority {e.priority}: {short(e.reason)}"
    ),
    commands.NotifyCustomer: lambda e: (
        f"{e.agent_id} has the customer told '{e.occasion}'{f': {short(e.title)}' if e.title else ''}"
    ),
    commands.ResendNotice: lambda e: f"{e.agent_id} wants notice '{e.occasion}' sent again",
    merging.MergeAsked: lambda e: f"{e.from_reference} asks to be merged into it",
    merging.MergeAnswered: lambda e: (
        f"merged into {e.into_reference}" if e.is_accepted else f"not merged: {e.reason.replace('_', ' ')}"
    ),
    merging.MessageCarried: lambda e: f"a message comes from merged ticket {e.from_ticket_id[:8]}",
    merging.MessageReturned: lambda _: "a message comes back: what it was carried to is closed",
    merging.RevisionCarried: lambda e: (
        f"a message of merged ticket {e.from_ticket_id[:8]} was {e.message.content.change}"
    ),
    merging.NoteCarried: lambda e: f"from merged ticket {e.from_ticket_id[:8]}: {short(e.text)}",
    merging.MergeChanged: lambda e: f"merged ticket {e.from_ticket_id[:8]} let go of a case itself",
    merging.ErasureCarried: lambda e: f"what came from ticket {e.from_ticket_id[:8]} is to be forgotten",
    merging.MergeUndone: lambda e: f"ticket {e.from_ticket_id[:8]} stands on its own again",
    merging.MergeEnded: lambda _: "the ticket it went into is closed",
    roster.AgentSet: lambda e: (
        f"{e.agent_id} can carry {e.capacity}, serves {', '.join(e.queues)}, speaks {', '.join(e.languages)}"
    ),
    roster.AgentRemoved: lambda e: f"{e.agent_id} has left",
    roster.PresenceSet: lambda e: f"{e.agent_id} is {e.presence}",
    roster.AgentHeartbeat: lambda e: f"{e.agent_id} gives a sign of life",
    roster.OfferAccepted: lambda e: f"{e.agent_id} accepts",
    roster.OfferDeclined: lambda e: (
        f"{e.agent_id} declines{f': {short(e.reason)}' if e.reason else ''}"
    ),
    routing.WorkRequested: lambda e: (
        f"a person is asked for in {e.queue}, priority {e.priority} ({e.reason})"
    ),
    routing.WorkWithdrawn: lambda e: f"nobody is needed any more ({e.reason})",
    routing.TicketQueued: lambda e: f"waits in {e.queue}{_excluded(e.record)}",
    routing.OfferMade: lambda e: (
        f"offered to {e.agent_id} after {span(e.waited_seconds)}, until {local_time(e.expires_at)}"
    ),
    routing.TicketAssigned: lambda e: f"{e.agent_id} has taken it",
    routing.TicketRequeued: lambda e: (
        f"back to {e.queue}: {e.reason.replace('_', ' ')} by {e.agent_id}"
        if e.reason != "agent_removed"
        else f"back to {e.queue}: {e.agent_id} has left"
    ),
    routing.OfferAnswerRefused: lambda e: (
        f"the answer of {e.agent_id} does not count: {e.reason.replace('_', ' ')}"
    ),
    routing.WorkReleased: lambda e: (
        f"{e.agent_id or 'nobody'} is free of it ({e.reason.replace('_', ' ')})"
    ),
    routing.RequirementRelaxed: lambda e: f"asks for less now: without {', '.join(e.relaxed)}",
    routing.AssignmentExhausted: lambda e: f"everyone in {e.queue} who could take it has declined",
    elsewhere.AssignmentElsewhereDone: lambda e: (
        f"{e.place} ({e.vendor}) {'shows' if e.is_changed else 'already showed'}: {_shown(e)}"
    ),
    elsewhere.AssignmentElsewhereFailed: lambda e: (
        f"{e.place} ({e.vendor}) does not show: {_shown(e)}; {e.reason.replace('_', ' ')}"
        f"{f' ({e.detail})' if e.detail else ''} after {e.attempts} attempts"
    ),
    routing.TransferRefused: lambda e: (
        f"could not be given to {e.agent_id}: {', '.join(r.replace('_', ' ') for r in e.rules or (e.reason,))}"
    ),
    routing.OfferWithdrawn: lambda e: (
        f"is not offered to {e.agent_id} any more: {e.reason.replace('_', ' ')}"
    ),
    routing.QueueOverloaded: lambda e: (
        f"{e.length} tickets wait in {e.queue}, more than {e.threshold}"
    ),
    tickets.TicketOpened: lambda e: (
        f"{e.reference} opened for {short(e.contact.name or e.contact.address, 30)}: {short(e.subject)}"
        f" → {e.queue}, priority {e.priority} ({e.rule})"
    ),
    tickets.TicketMessageAdded: lambda e: (
        f"{'an automatic message' if e.is_automatic else 'the customer'} joined it ({e.kind})"
        f"{', written in a case that was merged into it' if e.from_conversation_id else ''}"
    ),
    tickets.TicketReopened: lambda e: f"reopened, back to {e.queue}",
    tickets.TicketAnswered: lambda e: (
        f"{e.agent_name or e.agent_id} answered{' first' if e.is_first else ''}{_again(e.next_update_by)}: {short(e.text)}"
    ),
    tickets.TicketNoteAdded: lambda e: f"note by {e.agent_id}: {short(e.text)}",
    tickets.TicketStatusChanged: lambda e: (
        f"{e.before.replace('_', ' ')} → {e.status.replace('_', ' ')} ({e.reason.replace('_', ' ')})"
        f"{f', {e.agent_id}' if e.agent_id else ''}"
        f"{f', waits for {short(e.waiting_on, 40)}' if e.waiting_on else ''}{_until(e.until)}"
        f"{f': {short(e.detail)}' if e.detail else ''}"
        f"{', ABOVE what they can carry' if e.overfull else ''}"
    ),
    tickets.TicketEscalated: lambda e: (
        f"escalated {e.from_queue} → {e.to_queue} by {e.agent_id or e.by_rule or 'rule'}: {short(e.reason)}"
        f"{f' ({_facts(e.facts)})' if e.facts else ''}"
        f"{f', {span(e.late_seconds)} late' if e.late_seconds >= 1 else ''}"
    ),
    tickets.TicketReturned: lambda e: (
        f"given back {e.from_queue} → {e.to_queue}{f', to {e.to_agent_id}' if e.to_agent_id else ''}: {short(e.reason)}"
        if e.what == "escalation"
        else f"{e.agent_id} gives it back to {e.to_agent_id}, whose it is: {short(e.reason)}"
    ),
    tickets.TicketOwnerForced: lambda e: (
        f"{e.owner_id} keeps it now: it was given back {e.returns} times. A supervisor should look"
    ),
    tickets.TicketPaged: lambda e: f"on call for {e.on_call} was paged ({e.reason})",
    tickets.TicketPrioritised: lambda e: (
        f"priority {e.before} → {e.priority} by {e.agent_id or e.by_rule or 'rule'}: {short(e.reason)}"
    ),
    tickets.TicketDelegated: lambda e: (
        f"{e.owner_id} asks {e.to_agent_id} for a part and stays responsible: {short(e.task)}"
    ),
    tickets.TicketMerged: lambda e: f"merged into {e.into_reference} by {e.agent_id}",
    tickets.TicketAbsorbed: lambda e: (
        f"{e.from_reference} was merged into it by {e.agent_id}; priority {e.priority}, oldest words of {utc(e.opened_at)}"
    ),
    tickets.TicketUnmerged: lambda e: (
        f"on its own again by {e.agent_id}, back to {e.queue}, with {len(e.message_ids)} messages that were carried"
    ),
    tickets.TicketSplitOff: lambda e: (
        f"ticket {e.from_ticket_id[:8]} stands on its own again ({e.agent_id})"
    ),
    tickets.TicketMessageCarried: lambda e: (
        f"a message went on to ticket {e.into_ticket_id[:8]}, which it was merged into"
    ),
    tickets.TicketSolved: lambda e: f"solved by {e.agent_id}{f' ({e.cause})' if e.cause else ''}",
    tickets.TicketClosed: lambda _: "closed: the reopen window is over",
    tickets.TicketPromised: lambda e: f"{e.agent_id} {_promise(e)}",
    tickets.TicketCalled: lambda e: f"{e.agent_id} {_call(e)}",
    tickets.TicketCustomerDescribed: lambda e: (
        f"its customer is described anew: {_described(e.tier, e.contract)}"
    ),
    tickets.TicketTagged: lambda e: f"tags: {', '.join(e.tags) or 'none'}",
    tickets.CommandRefused: lambda e: (
        f"{e.command} of {e.agent_id} refused: {e.reason.replace('_', ' ')} (it is {e.state})"
    ),
    tickets.TicketAnsweredElsewhere: lambda e: (
        f"{short(e.author or 'somebody of ours', 30)} answered by {e.channel} itself"
    ),
    tickets.TicketMessageRevised: lambda e: f"the customer has {e.change} a message",
    tickets.TicketCustomerChanged: lambda e: (
        f"its customer is {e.customer_id[:8]} now, was {e.before[:8]} ({e.reason})"
    ),
    tickets.ConversationErased: lambda e: f"names and words were erased ({e.by})",
    tickets.MessageNotTicketed: lambda e: f"a message opens no ticket: {e.reason}",
    sla.TargetStarted: lambda e: (
        f"clock {_target(e)} runs ({e.policy}): due {utc(e.due_at)}"
    ),
    sla.TargetPaused: lambda e: f"clock {_target(e)} stands ({e.cause})",
    sla.TargetResumed: lambda e: f"clock {_target(e)} runs on: due {utc(e.due_at)}",
    sla.TargetRetargeted: lambda e: (
        f"clock {_target(e)} has another deadline ({e.reason.replace('_', ' ')}): "
        f"{'it stands' if e.due_at is None else 'due ' + utc(e.due_at)}"
        f"{'' if e.before_due_at is None else ', was ' + utc(e.before_due_at)}"
    ),
    sla.TargetAtRisk: lambda e: f"clock {_target(e)} is at risk: due {utc(e.due_at)}",
    sla.TargetBreached: lambda e: f"clock {_target(e)} BREACHED at {utc(e.breached_at)}",
    sla.TargetMet: lambda e: (
        f"clock {_target(e)} met after {span(e.elapsed_seconds)}{' (late)' if e.was_breached else ''}"
    ),
    sla.TargetCancelled: lambda e: f"clock {_target(e)} cancelled ({e.reason})",
    sla.BreachRetracted: lambda e: (
        f"breach of clock {_target(e)} taken back: it was answered in time"
    ),
    sla.WaitPromised: lambda e: _wait(e),
    sla.TimeAttributed: lambda e: (
        f"time of {_target(e)}: {span(e.queue_ms / 1000)} in a queue, {span(e.offer_ms / 1000)} offered,"
        f" {span(e.work_ms / 1000)} in work, {span(e.pause_ms / 1000)} held, {span(e.closed_ms / 1000)} closed"
    ),
    notifications.NoticeRequested: lambda e: (
        f"notice '{e.occasion}' in {e.language} to {short(e.recipient, 40)}: {short(e.subject)}"
    ),
    notifications.NoticeSent: lambda e: f"notice '{e.occasion}' sent",
    notifications.NoticeFailed: lambda e: f"notice '{e.occasion}' failed: {short(e.reason)}",
    notifications.NoticeUnknown: lambda e: (
        f"notice '{e.occasion}': nobody knows whether it went out ({short(e.reason)})"
    ),
    notifications.NoticeSuppressed: lambda e: (
        f"notice '{e.occasion}' not sent: {e.reason.replace('_', ' ')}"
    ),
    notifications.NoticeDeferred: lambda e: (
        f"notice '{e.occasion}' is told later, not before {utc(e.until)}: {e.reason.replace('_', ' ')}"
    ),
    notifications.NoticeDeliveryReported: lambda e: (
        f"notice '{e.occasion}' {e.what}{' for good' if e.is_permanent else ''}{f': {short(e.detail)}' if e.detail else ''}"
    ),
    notifications.NoticeResendDecided: lambda e: (
        f"{e.agent_id} has notice '{e.occasion}' sent again"
        if e.outcome == "resent"
        else f"notice '{e.occasion}' is not sent again for {e.agent_id}: {short(e.reason)}"
    ),
    messages.MessageDeliveryReported: lambda e: (
        f"the vendor reports a message of ours {e.what}{' for good' if e.is_permanent else ''}"
    ),
    feedback.FeedbackGiven: lambda e: f"answers the survey ({e.kind}): {e.score}",
    feedback.ContactOptedOut: lambda e: f"wants no more notices of the kind {e.category}",
    feedback.ContactOptedIn: lambda e: f"wants notices of the kind {e.category} again",
    deadletters.DeadLetterParked: lambda e: (
        f"{e.service} parked {e.topic}/{e.partition}@{e.offset}: {e.reason}: {short(e.error)}"
    ),
}  # fmt: skip


def _until(at: datetime | None) -> str:
    return f", until {utc(at)}" if at is not None else ""


def _again(at: datetime | None) -> str:
    return f" and promises to write by {utc(at)}" if at is not None else ""


def _promise(event: commands.PromiseCustomer | tickets.TicketPromised) -> str:
    what = "a call" if event.what == "callback" else "to write"
    after = f", not before {utc(event.not_before)}" if event.not_before is not None else ""
    note = f": {short(event.note)}" if event.note else ""
    return f"promises {what} by {utc(event.by)}{after}{note}"


def _call(event: commands.CallMade | tickets.TicketCalled) -> str:
    came_of_it = {
        "reached": "and spoke with the customer",
        "no_answer": "and nobody answered",
        "voicemail": "and left a message",
    }
    return f"called {utc(event.occurred_at)} {came_of_it[event.outcome]}"


def _described(tier: str | None, contract: str | None) -> str:
    return f"tier {tier or 'none'}, contract {contract or 'none'}"


def _wait(event: sla.WaitPromised) -> str:
    opens = f"; closed until {utc(event.opens_at)}" if event.opens_at is not None else ""
    if event.by is None:
        return f"nothing can be promised of the wait: too little was measured{opens}"
    kept = f"{event.kept_share:.0%} of {event.samples} were"
    return f"an answer can be promised by {utc(event.by)}, as {kept}{opens}"


def _target(event: sla.SlaEvent | sla.TimeAttributed) -> str:
    return event.target.replace("_", " ")


def _shown(event: elsewhere.ElsewhereEvent) -> str:
    return f"{event.says}{f', {event.agent_id}' if event.agent_id else ''}"


def _excluded(record: routing.DecisionRecord | None) -> str:
    if record is None or not record.excluded:
        return ""
    rules: dict[str, int] = {}
    for agent in record.excluded:
        rules[agent.rules[0] if agent.rules else "?"] = (
            rules.get(agent.rules[0] if agent.rules else "?", 0) + 1
        )
    return f": {', '.join(f'{count} × {rule}' for rule, count in sorted(rules.items()))}"


def tell(event: Payload) -> str:
    """Return what an event says, on one line."""
    line = _LINES.get(type(event))
    return line(event) if line is not None else event.TYPE


def instant_of(event: Payload, otherwise: datetime) -> datetime:
    """Return when what an event tells of happened, as the event itself says."""
    for name in ("at", "offered_at", "assigned_at", "detected_at", "received_at"):
        found = getattr(event, name, None)
        if isinstance(found, datetime):
            return found
    return otherwise
