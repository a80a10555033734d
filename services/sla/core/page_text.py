"""The words of a page: what broke, in which queue, since when, how many, the oldest, where to look, and what ended why.

Owns what every receiver is told, before the vendor's own form. No message of a customer ever stands in it: a ticket is named
by its number. All texts are bounded, whatever the number of alerts.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Final, NamedTuple

from services.sla.core.alerts import Alert, clock
from services.sla.core.pages import Event, Severity
from services.sla.core.paging import Page, Saying, Seen

TITLE_MAX: Final = 200
LINE_MAX: Final = 300

_SAID: Final[Mapping[Event, str]] = {
    "breached": "broken",
    "at_risk": "at risk",
    "paged": "paged",
    "owner_forced": "given to and fro",
    "exhausted": "declined by all",
    "overloaded": "in too long a queue",
    "unmatchable": "that nobody can take",
}


class Notice(NamedTuple):
    """What a message says: `title` in one line, `lines` of text, and the links apart."""

    title: str
    lines: tuple[str, ...]
    link: str
    runbook: str

    @property
    def text(self) -> str:
        """All of it, a line each."""
        return "\n".join((self.title, *self.lines))


class Message(NamedTuple):
    """One thing to say to one receiver. `page` is what it was told before; `severity` None where nothing fires any more.

    `is_test` marks one that a person asked for.
    """

    saying: Saying
    page: Page
    severity: Severity | None
    since: datetime
    now: datetime
    firing: int
    notice: Notice
    workspace: str
    is_retry: bool = False
    is_test: bool = False

    @property
    def key(self) -> str:
        """The page's name at every vendor, the same through all its episodes."""
        return f"signalbox/{self.workspace}/{self.page.group_key}"


def message(
    saying: Saying,
    page: Page,
    seen: Seen,
    now: datetime,
    *,
    workspace: str,
    console_url: str,
    runbook: str,
) -> Message:
    """Put into words what a receiver is to be told of a group."""
    return Message(
        saying=saying,
        page=page,
        severity=seen.severity,
        since=seen.since or page.sent_at or now,
        now=now,
        firing=seen.firing,
        notice=_notice(saying, page, seen, console_url.rstrip("/"), runbook),
        workspace=workspace,
        is_retry=page.is_begun,
    )


def _notice(saying: Saying, page: Page, seen: Seen, console_url: str, runbook: str) -> Notice:
    lines: list[str] = []
    if seen.firing and seen.since is not None:
        lines.append(f"{_counted(seen)}; the oldest since {clock(seen.since)}.")
        lines += (_named(alert, console_url) for alert in seen.top)
        if seen.firing > len(seen.top):
            lines.append(f"… and {seen.firing - len(seen.top)} more.")
    if seen.ended:
        lines.append(f"No longer ({seen.ended}):")
        lines += (f"- {_ticket(one.alert)}: {one.note}" for one in seen.gone)
        if seen.ended > len(seen.gone):
            lines.append(f"… and {seen.ended - len(seen.gone)} more.")
    if seen.moved:
        lines.append(f"Told to others now ({seen.moved}):")
        lines += (_moved(alert) for alert in seen.elsewhere)
        if seen.moved > len(seen.elsewhere):
            lines.append(f"… and {seen.moved - len(seen.elsewhere)} more.")
    if not seen.firing:
        lines.append(
            "What stands of it is not told here any more."
            if seen.moved
            else "Nothing of it stands any more."
        )
    link = _link(seen.top[0], console_url) if seen.top else console_url
    return Notice(
        title=_one_line(f"[{_state(saying, seen)}] {_what(page, seen)}", TITLE_MAX),
        lines=tuple(_one_line(line, LINE_MAX) for line in lines),
        link=link,
        runbook=runbook,
    )


def _moved(alert: Alert) -> str:
    others = ", ".join(alert.receivers)
    return f"- {_ticket(alert)}: now {_SAID[alert.event]}, told to {others}"


def _state(saying: Saying, seen: Seen) -> str:
    if saying is Saying.RESOLVE or seen.severity is None:
        return "MOVED" if seen.moved else "RESOLVED"
    return seen.severity.upper()


def _what(page: Page, seen: Seen) -> str:
    where = ", ".join(f"{name} {value.replace('_', ' ')}" for name, value in _group(page))
    if not seen.firing:
        family = "targets" if page.family == "sla" else page.family.replace("_", " ")
        return f"{family}: {where}" if where else family
    return f"{_counted(seen)}: {where}" if where else _counted(seen)


def _group(page: Page) -> list[tuple[str, str]]:
    return [(name, value) for name, value in sorted(page.group.items()) if value]


def _counted(seen: Seen) -> str:
    """How many of what: `2 targets broken, 1 target at risk`."""
    return ", ".join(
        f"{count} {_thing(event)}{'' if count == 1 else 's'} {_SAID[event]}"
        for event, count in seen.events
    )


def _thing(event: Event) -> str:
    return "target" if event in ("breached", "at_risk") else "ticket"


def _named(alert: Alert, console_url: str) -> str:
    labels = alert.labels
    told = [
        *([labels["target"].replace("_", " ")] if labels["target"] else []),
        _SAID[alert.event],
        *([f"queue {labels['queue']}"] if labels["queue"] else []),
        *([f"priority {labels['priority']}"] if labels["priority"] else []),
        f"since {clock(alert.since)}",
    ]
    link = _link(alert, console_url)
    return f"- {_ticket(alert)}: {', '.join(told)}" + (f" {link}" if link else "")


def _ticket(alert: Alert) -> str:
    return f"#{alert.number}" if alert.number is not None else alert.ticket_id


def _link(alert: Alert, console_url: str) -> str:
    return f"{console_url}/tickets/{alert.ticket_id}" if console_url else ""


def _one_line(text: str, length: int) -> str:
    """A line without control characters, cut where it is too long."""
    plain = "".join(one if one.isprintable() else " " for one in text)
    return plain if len(plain) <= length else plain[: length - 1] + "…"


def trial(
    saying: Saying, receiver: str, workspace: str, now: datetime, page: Page | None = None
) -> Message:
    """A page that a person sends to see that it arrives, or (given the page it was) its end."""
    told = page or Page(
        group_key=f"test-{now:%Y%m%dT%H%M%S%f}",
        receiver=receiver,
        family="test",
        group={},
        route="test",
        changed_at=now,
    )
    is_over = saying is Saying.RESOLVE
    words = "This is over." if is_over else "This is a test of Signalbox's pages; nothing is wrong."
    return Message(
        saying=saying,
        page=told,
        severity=None if is_over else "info",
        since=now,
        now=now,
        firing=0 if is_over else 1,
        notice=Notice(
            title=f"[{'RESOLVED' if is_over else 'INFO'}] test of the receiver {receiver}",
            lines=(words,),
            link="",
            runbook="",
        ),
        workspace=workspace,
        is_test=True,
    )
