"""Looks at a clock before its warning: is the answer likely to come too late, as the queue stands?

Owns the instants of the looks and what one of them means. They are a few shares of the clock's open time, taken by the
conversation's timer: nothing is ever swept. The probability is `risk`'s; a clock that it warns of has had its warning.
"""

from datetime import datetime

from hours.calendar import Calendar, CalendarError
from services.sla.core import targets
from services.sla.core.policy import Policy
from services.sla.core.risk import probability_late
from services.sla.core.state import Facts, Target
from services.sla.core.targets import Step, Subject
from services.sla.core.waits import Estimates, place_of


def looked(
    subject: Subject,
    target: Target,
    facts: Facts,
    now: datetime,
    policy: Policy,
    estimates: Estimates,
) -> Step:
    """Take the look that has fallen due by `now`, and set the next; for several that did, one is taken."""
    look_at = targets.next_look(target)
    if look_at is None or look_at > now:
        return Step(target)
    calendar = policy.calendar(target.calendar)
    try:
        probability = probability_of(target, facts, now, calendar, estimates)
    except CalendarError:
        probability = None  # Its calendar has changed, and counts no more: the deadline that it was given stands.
    if probability is not None and probability >= policy.at_risk.probability:
        return targets.warn(subject, target, look_at, probability)
    return Step(targets.after_look(target, now, calendar))


def probability_of(
    target: Target, facts: Facts, now: datetime, calendar: Calendar, estimates: Estimates
) -> float | None:
    """The probability that an open clock is met after its deadline; None where nothing is known."""
    waited = target.watch.elapsed(calendar, now).total_seconds()
    left = target.allowed.total_seconds() - waited
    begun_at = target.watch.started_at
    name = target.calendar
    known = estimates.cell(place_of(facts.queue, facts.channel, name, calendar, begun_at))
    queue = estimates.queues.get((facts.queue, name))
    ahead = 0 if queue is None else queue.ahead(target.priority or 4, begun_at)
    return probability_late(waited, left, None if known is None else known[1], queue, ahead)
