"""When to say what to whom: the life of an alert, and that of a page (a group of alerts at one receiver).

Owns both state machines. Time comes in as an argument, and what a group holds as `Seen`. A page is silent until `group_wait`
after the first change; then it is told first (`trigger`), told changes no sooner than `group_interval` after the last message
(`update`), reminded of (`repeat`) and ended (`resolve`), exactly once an episode. What got worse is told after `group_wait`
already. Alerts that ended before they were told are never told.

**At least once.** A page is marked as begun before it is sent. A sender that dies in between, or hears no answer, leaves that
mark: the next attempt knows that the message may be there, and a group that is over by then is resolved all the same.
"""

import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, NamedTuple

import msgspec
from msgspec.structs import replace

from services.sla.core.alerts import Alert, Change, End, Fire, Return, is_milder
from services.sla.core.pages import SEVERITIES, Event, Pages, Severity

TOP: Final = 10
"""Alerts that a message names one by one, the oldest first; of the rest it tells the number."""

ATTEMPT: Final = timedelta(seconds=90)
"""How long an attempt that was begun has to be heard of, before it is made again: longer than all time limits of one."""

KEEPALIVE: Final = timedelta(minutes=1)
"""How often an Alertmanager is told what still fires. Its own page for clients asks for 30 seconds to 3 minutes
(https://prometheus.io/docs/alerting/latest/clients/)."""

LIFE: Final = 10 * KEEPALIVE
"""How long such an alert stands without a word from us: a restart or a takeover is shorter."""

RETRY_FIRST: Final = timedelta(seconds=5)
RETRY_MAX: Final = timedelta(minutes=5)
RETRY_AFTER_MAX: Final = timedelta(hours=1)
"""What a receiver says about when to come again is believed so far, and never for less than our own pause."""


class AlertState(msgspec.Struct, frozen=True, kw_only=True):
    """An alert as the pager knows it. `fired_seq` and `seq` number its last rise and its last change among all.

    `left` is where it was told before its last rise, if that took it from a group or a receiver.
    """

    alert: Alert
    fired_at: datetime
    fired_seq: int
    seq: int
    ended_at: datetime | None = None
    note: str = ""
    left: "Left | None" = None

    @property
    def is_firing(self) -> bool:
        """Whether it still holds."""
        return self.ended_at is None


class Left(msgspec.Struct, frozen=True):
    """A group and the receivers that an alert was told to, and the number of the rise that it was told with."""

    group_key: str
    receivers: tuple[str, ...]
    fired_seq: int


def fold(state: AlertState | None, change: Change, seq: int) -> AlertState | None:
    """The alert after a change; the same object where the change is no news."""
    match change:
        case Fire(alert=alert, at=at):
            left = None if state is None else _left(state, alert)
            if state is None or not state.is_firing:
                return AlertState(alert=alert, fired_at=at, fired_seq=seq, seq=seq, left=left)
            # A risk begins when it is noticed: noticed again, it is the same.
            is_same = alert.event == state.alert.event and (
                alert.since == state.alert.since or alert.event == "at_risk"
            )
            if is_same or is_milder(alert.event, state.alert.event):
                return state
            return replace(state, alert=alert, fired_seq=seq, seq=seq, left=left)
        case Return(at=at, ended_by=ended_by):
            if state is None or state.is_firing or state.note != ended_by:
                return state
            return AlertState(alert=state.alert, fired_at=at, fired_seq=seq, seq=seq)
        case End(at=at, note=note, only=only):
            if state is None or not state.is_firing or only not in (None, state.alert.event):
                return state
            return replace(state, ended_at=max(at, state.fired_at), note=note, seq=seq)


def _left(state: AlertState, alert: Alert) -> Left | None:
    """Where an alert was told that rises now, if not everybody there is told of it again."""
    before = state.alert
    if before.group_key == alert.group_key and set(before.receivers) <= set(alert.receivers):
        return state.left
    return Left(before.group_key, before.receivers, state.fired_seq)


class Ended(NamedTuple):
    """An alert that is over, for a message to name."""

    alert: Alert
    note: str


class Seen(NamedTuple):
    """What a page's group holds for its receiver, against what the receiver was told last.

    `news` fire and are not told, `ended` were told and are over; `gone` are the latest of those. `moved` were told and are
    told to others since they got worse; `elsewhere` are the latest of those, as they are now.
    """

    firing: int
    severity: Severity | None
    since: datetime | None
    events: tuple[tuple[Event, int], ...]
    top: tuple[Alert, ...]
    news: int
    ended: int
    gone: tuple[Ended, ...]
    seq: int
    moved: int = 0
    elsewhere: tuple[Alert, ...] = ()


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """What a receiver was told of a group.

    `episode` counts how often it was over, `number` the messages since. `changed_at` is the first change that is not told,
    `news_at` the first since the attempt under way began;
    `told_seq`, `told_firing` and `severity` what the last message knew; `content` its digest, `ref` the vendor's name of the
    first. `is_begun`: a message may be there that nobody confirmed. `refused_at`: the receiver refused for good.
    """

    group_key: str
    receiver: str
    family: str
    group: dict[str, str]
    route: str
    episode: int = 0
    number: int = 0
    is_told: bool = False
    is_begun: bool = False
    changed_at: datetime | None = None
    news_at: datetime | None = None
    sent_at: datetime | None = None
    told_seq: int = 0
    told_firing: int = 0
    severity: Severity | None = None
    content: str = ""
    ref: str = ""
    attempts: int = 0
    refused_at: datetime | None = None
    problem: str = ""
    due_at: datetime | None = None


_UNTOLD: Final[dict[str, Any]] = {
    "number": 0,
    "is_told": False,
    "is_begun": False,
    "told_firing": 0,
    "severity": None,
    "content": "",
    "ref": "",
    "news_at": None,
}
"""The fields of a page whose receiver knows nothing that still stands."""


class Rule(NamedTuple):
    """What a page goes by: its route's times, and its receiver's ways. With `keepalive` it is told again as often."""

    wait: timedelta
    interval: timedelta
    repeat: timedelta
    send_resolved: bool = True
    keepalive: timedelta | None = None

    @property
    def again(self) -> timedelta:
        """After how long a page without news is told again."""
        return self.repeat if self.keepalive is None else min(self.repeat, self.keepalive)

    @property
    def apart(self) -> timedelta:
        """The least between two messages about changes. What is told again anyway is told with what has changed."""
        return self.interval if self.keepalive is None else min(self.interval, self.again)


class Saying(StrEnum):
    """What a message is."""

    TRIGGER = "trigger"
    UPDATE = "update"
    REPEAT = "repeat"
    RESOLVE = "resolve"


class Act(NamedTuple):
    """What to do with a page now: say something, or (None) nothing before `page.due_at`."""

    page: Page
    saying: Saying | None = None


DEFAULT_RULE: Final = Rule(timedelta(seconds=30), timedelta(minutes=5), timedelta(hours=4))
"""For pages whose route is not in the policy any more."""


def rule_of(pages: Pages, page: Page) -> Rule:
    """The rule of a page under the policy in force."""
    receiver = pages.receivers.get(page.receiver)
    route = pages.named(page.route)
    rule = DEFAULT_RULE
    if route is not None:
        rule = Rule(route.group_wait, route.group_interval, route.repeat_interval)
    if receiver is None:
        return rule
    keepalive = KEEPALIVE if receiver.kind == "alertmanager" else None
    return rule._replace(send_resolved=receiver.send_resolved, keepalive=keepalive)


def touched(page: Page, rule: Rule, now: datetime, severity: Severity | None = None) -> Page:
    """A page whose group has changed: it is to be looked at when the change may be told. `severity` is what came."""
    changed_at = page.changed_at or now
    if page.is_begun:
        # What is being sent does not have it. If that fails, the next attempt has.
        return replace(page, changed_at=changed_at, news_at=page.news_at or now)
    if page.attempts:
        return replace(page, changed_at=changed_at)  # The next attempt tells it too.
    is_planned = page.is_told and page.changed_at is not None and page.due_at is not None
    if is_planned and page.refused_at is None and not is_worse(severity, page.severity):
        return page  # It goes with what is to be told already: a storm needs one look at the group, not one a change.
    due_at = changed_at + rule.wait
    if page.refused_at is not None:
        due_at = max(due_at, page.refused_at + rule.apart)
    if page.due_at is not None:
        due_at = min(due_at, page.due_at)
    return replace(page, changed_at=changed_at, due_at=due_at)


def look(page: Page, seen: Seen, rule: Rule, now: datetime) -> Act:
    """Decide about a page that is due."""
    may_be_there = page.is_told or page.is_begun
    if not seen.firing:
        return _over(page, seen, rule, now) if may_be_there else Act(_at_rest(page, seen))
    changed_at = page.changed_at or now
    if not page.is_told:
        ready = changed_at + rule.wait
        if page.refused_at is not None:
            ready = max(ready, page.refused_at + rule.apart)
        return _when(page, ready, Saying.TRIGGER, now, is_retry=page.attempts > 0 or page.is_begun)
    sent_at = page.sent_at or now
    again_at = sent_at + rule.again
    is_known = not is_changed(page, seen) or content_of(seen) == page.content
    if is_known and not page.is_begun:  # What may be there unconfirmed is put right first.
        if now >= again_at:
            return Act(page, Saying.REPEAT)
        known = replace(page, changed_at=None, told_seq=seen.seq, told_firing=seen.firing)
        return Act(replace(known, attempts=0, problem="", due_at=again_at))
    ready = max(sent_at + rule.apart, page.refused_at or sent_at)
    if is_worse(seen.severity, page.severity):
        ready = min(ready, changed_at + rule.wait)
    return _when(page, ready, Saying.UPDATE, now, is_retry=page.attempts > 0 or page.is_begun)


def _over(page: Page, seen: Seen, rule: Rule, now: datetime) -> Act:
    if not rule.send_resolved:
        return Act(_at_rest(page, seen))
    ready = now if page.sent_at is None else page.sent_at + rule.apart
    return _when(page, ready, Saying.RESOLVE, now, is_retry=page.attempts > 0 or page.is_begun)


def _when(page: Page, ready: datetime, saying: Saying, now: datetime, *, is_retry: bool) -> Act:
    """Say it now, or look again when it may be said. A retry was ready before."""
    if is_retry or now >= ready:
        return Act(page, saying)
    return Act(replace(page, due_at=ready))


def is_changed(page: Page, seen: Seen) -> bool:
    """Whether the group is not what the receiver was told."""
    return bool(seen.news or seen.ended or seen.moved) or seen.firing != page.told_firing


def is_worse(severity: Severity | None, before: Severity | None) -> bool:
    """Whether a severity is above another."""
    return rank(severity) > rank(before)


def rank(severity: Severity | None) -> int:
    """How bad, as a number; 0 for nothing."""
    return 0 if severity is None else SEVERITIES.index(severity) + 1


def content_of(seen: Seen) -> str:
    """The digest of what a message about `seen` says; the same words have the same."""
    top = [(alert.alert_key, alert.event, alert.since.isoformat()) for alert in seen.top]
    left = [(alert.alert_key, alert.event, alert.receivers) for alert in seen.elsewhere]
    over = (seen.gone, seen.ended, left, seen.moved)
    said = (seen.firing, seen.severity, str(seen.since), seen.events, top, over)
    return hashlib.sha256(repr(said).encode()).hexdigest()[:32]


# ---------------------------------------------------------------------------------------- sending


def begun(page: Page, now: datetime) -> Page:
    """The page from when an attempt to send begins; written down before anything goes out."""
    return replace(page, is_begun=True, news_at=None, due_at=now + ATTEMPT)


def delivered(page: Page, saying: Saying, seen: Seen, rule: Rule, now: datetime, ref: str) -> Page:
    """The page after a message that arrived. `page` is as it stands now, `seen` what the message told."""
    clean = replace(
        page,
        is_begun=False,
        changed_at=page.news_at,
        news_at=None,
        sent_at=now,
        told_seq=seen.seq,
        attempts=0,
        refused_at=None,
        problem="",
    )
    if saying is Saying.RESOLVE:
        return _closed(clean, rule)
    return replace(
        clean,
        is_told=True,
        number=page.number + 1,
        told_firing=seen.firing,
        severity=seen.severity,
        content=content_of(seen),
        ref=ref,
        due_at=now + (rule.again if page.news_at is None else min(rule.again, rule.wait)),
    )


def failed(
    page: Page,
    now: datetime,
    problem: str,
    *,
    is_unknown: bool,
    was_begun: bool,
    retry_after: timedelta | None = None,
) -> Page:
    """The page after an attempt that may be made again: later each time, or when the receiver said.

    `is_unknown`: the message may be there. `was_begun`: one of an earlier attempt may.
    """
    pause = min(RETRY_FIRST * 2 ** min(page.attempts, 10), RETRY_MAX)
    return replace(
        page,
        is_begun=is_unknown or was_begun,
        changed_at=page.changed_at or now,
        news_at=None,
        attempts=page.attempts + 1,
        problem=problem,
        due_at=now + max(pause, min(retry_after or pause, RETRY_AFTER_MAX)),
    )


def refused(
    page: Page, saying: Saying, seen: Seen, rule: Rule, now: datetime, problem: str
) -> Page:
    """The page after a receiver refused the message for good. The same is said again as a reminder would be, no sooner;
    what came meanwhile, as a change would be.
    """
    clean = replace(
        page,
        is_begun=False,
        attempts=0,
        problem=problem,
        refused_at=now,
        changed_at=page.changed_at or now,
        news_at=None,
    )
    if saying is Saying.RESOLVE:
        return _closed(replace(clean, told_seq=seen.seq, changed_at=page.news_at), rule)
    return replace(clean, due_at=now + (rule.again if page.news_at is None else rule.apart))


def _closed(page: Page, rule: Rule) -> Page:
    """A page that is over, ready for its group's next episode."""
    due_at = None if page.changed_at is None else page.changed_at + rule.wait
    return replace(page, episode=page.episode + 1, due_at=due_at, **_UNTOLD)


def _at_rest(page: Page, seen: Seen) -> Page:
    """A page with nothing to tell: what it was silent about is over."""
    was_there = page.is_told or page.is_begun
    return replace(
        page,
        changed_at=None,
        told_seq=seen.seq,
        attempts=0,
        refused_at=None,
        problem="",
        episode=page.episode + 1 if was_there else page.episode,
        due_at=None,
        **_UNTOLD,
    )


# ------------------------------------------------------------------------------------------ groups


def seen_of(page: Page, alerts: Iterable[AlertState]) -> Seen:
    """What a page's group holds, from all alerts; the store asks the database the same."""
    alerts = tuple(alerts)
    mine = [
        one
        for one in alerts
        if one.alert.group_key == page.group_key and page.receiver in one.alert.receivers
    ]
    firing = sorted(
        (one for one in mine if one.is_firing),
        key=lambda one: (one.alert.since, one.alert.alert_key),
    )
    ended = sorted(
        (one for one in mine if not one.is_firing and one.fired_seq <= page.told_seq < one.seq),
        key=lambda one: -one.seq,
    )
    moved = sorted(
        (one for one in alerts if _has_left(one, page)),
        key=lambda one: -one.fired_seq,
    )
    counts: dict[Event, int] = {}
    for one in firing:
        counts[one.alert.event] = counts.get(one.alert.event, 0) + 1
    return Seen(
        firing=len(firing),
        severity=max((one.alert.severity for one in firing), key=rank, default=None),
        since=firing[0].alert.since if firing else None,
        events=tuple(sorted(counts.items())),
        top=tuple(one.alert for one in firing[:TOP]),
        news=sum(one.fired_seq > page.told_seq for one in firing),
        ended=len(ended),
        gone=tuple(Ended(one.alert, one.note) for one in ended[:TOP]),
        seq=max(
            (*(one.seq for one in mine), *(one.fired_seq for one in moved)), default=page.told_seq
        ),
        moved=len(moved),
        elsewhere=tuple(one.alert for one in moved[:TOP]),
    )


def _has_left(one: AlertState, page: Page) -> bool:
    """Whether the receiver was told of an alert in this group that got worse since, and is told to others."""
    left, alert = one.left, one.alert
    return (
        left is not None
        and left.group_key == page.group_key
        and page.receiver in left.receivers
        and left.fired_seq <= page.told_seq < one.fired_seq
        and not (alert.group_key == page.group_key and page.receiver in alert.receivers)
    )


def pages_of(alert: Alert, known: Mapping[tuple[str, str], Page]) -> Iterable[Page]:
    """The pages that an alert is told on: one a receiver, as they stand or new ones."""
    for receiver in alert.receivers:
        page = known.get((alert.group_key, receiver))
        yield (
            replace(page, route=alert.route)
            if page is not None
            else Page(
                group_key=alert.group_key,
                receiver=receiver,
                family=alert.family,
                group=alert.group,
                route=alert.route,
            )
        )
