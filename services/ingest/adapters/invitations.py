"""Calendar parts of a mail (iCalendar in mail: RFC 5545, 5546, 6047): an invitation, a change of it, or an answer to one.

The first event is what the mail is about. Its facts become the message's `fields` (`calendar_…`), and where a mail has no
other text, a few lines that a person can read.
"""

import re
from dataclasses import dataclass, field
from typing import Final

from services.ingest.core.normalise import clean_text, clean_value

MEDIA_TYPES: Final = frozenset({"text/calendar", "application/ics"})
BYTES_MAX: Final = 200_000
LINES_MAX: Final = 4_000
VALUE_MAX: Final = 300
DESCRIPTION_MAX: Final = 5_000

_FOLDING: Final = re.compile(r"\r?\n[ \t]")
_LINE: Final = re.compile(r"([A-Za-z0-9-]{1,60})((?:;[^:;\"]{0,300}(?:\"[^\"]{0,300}\")?)*+):(.*)")
_PARAMETER: Final = re.compile(r';([A-Za-z0-9-]{1,60})=("[^"]{0,300}"|[^;:"]{0,300})')
_ESCAPE: Final = re.compile(r"\\([\\;,nN])")
_DATE: Final = re.compile(r"(\d{4})(\d{2})(\d{2})(?:T(\d{2})(\d{2})(\d{2})?(Z)?)?$")
_ANSWERS: Final = {"ACCEPTED": "accepted", "DECLINED": "declined", "TENTATIVE": "tentative"}
_SAID: Final = {
    "accepted": "{who} accepted: {what}",
    "declined": "{who} declined: {what}",
    "tentative": "{who} may come: {what}",
}
_TITLES: Final = {
    "REQUEST": "Invitation: {what}",
    "CANCEL": "Cancelled: {what}",
    "COUNTER": "{who} proposes another time: {what}",
    "DECLINECOUNTER": "Proposal declined: {what}",
    "REFRESH": "{who} asks for the latest state of: {what}",
    "ADD": "Added: {what}",
}


@dataclass(slots=True)
class _Event:
    summary: str = ""
    start: str = ""
    end: str = ""
    location: str = ""
    uid: str = ""
    organizer: str = ""
    description: str = ""
    attendees: list[tuple[str, str, str]] = field(default_factory=list)
    """Name, address and participation of each."""


@dataclass(frozen=True, slots=True)
class Invitation:
    """What a calendar part says: fields for machines, lines for people."""

    fields: dict[str, str]
    text: str


def _value(raw: str) -> str:
    return _ESCAPE.sub(lambda found: "\n" if found.group(1) in "nN" else found.group(1), raw)


def _when(raw: str, parameters: dict[str, str]) -> str:
    """Return an instant as ISO 8601; with its zone's name behind it where it has one."""
    found = _DATE.match(raw.strip())
    if found is None:
        return clean_value(raw, 40)
    year, month, day, hour, minute, second, utc = found.groups()
    if hour is None:
        return f"{year}-{month}-{day}"
    shown = f"{year}-{month}-{day}T{hour}:{minute}:{second or '00'}"
    zone = clean_value(parameters.get("TZID", ""), 60)
    return f"{shown}Z" if utc else f"{shown} {zone}".rstrip()


def _person(raw: str, parameters: dict[str, str]) -> tuple[str, str]:
    address = raw.strip()
    address = address[7:] if address.lower().startswith("mailto:") else address
    return clean_value(parameters.get("CN", "").strip('"'), 120), clean_value(address, 254)


def _take(event: _Event, name: str, parameters: dict[str, str], raw: str) -> None:
    if name == "SUMMARY":
        event.summary = event.summary or clean_value(_value(raw), VALUE_MAX)
    elif name == "LOCATION":
        event.location = event.location or clean_value(_value(raw), VALUE_MAX)
    elif name == "UID":
        event.uid = event.uid or clean_value(raw, 200)
    elif name == "DTSTART":
        event.start = event.start or _when(raw, parameters)
    elif name == "DTEND":
        event.end = event.end or _when(raw, parameters)
    elif name == "DESCRIPTION":
        event.description = event.description or clean_text(_value(raw), DESCRIPTION_MAX)
    elif name == "ORGANIZER":
        event.organizer = event.organizer or _person(raw, parameters)[1]
    elif name == "ATTENDEE" and len(event.attendees) < 100:
        shown, address = _person(raw, parameters)
        event.attendees.append((shown, address, parameters.get("PARTSTAT", "").strip('"').upper()))


def read(text: str, method: str = "") -> Invitation | None:
    """Return what a calendar says of its first event; None where there is none.

    `method` is the one that the part's Content-Type names, for calendars that do not say.
    """
    lines = _FOLDING.sub("", text[:BYTES_MAX]).splitlines()[:LINES_MAX]
    found_method = ""
    event: _Event | None = None
    inner = 0
    for line in lines:
        matched = _LINE.match(line[:20_000])
        if matched is None:
            continue
        name, parameters_raw, raw = matched.groups()
        name = name.upper()
        if name == "METHOD" and not found_method:
            found_method = clean_value(raw, 20).upper()
        elif name == "BEGIN":
            if event is not None:
                inner += 1
            elif raw.strip().upper() in ("VEVENT", "VTODO"):
                event = _Event()
        elif name == "END" and event is not None:
            if not inner:
                break
            inner -= 1
        elif event is not None and not inner:
            parameters = {key.upper(): value for key, value in _PARAMETER.findall(parameters_raw)}
            _take(event, name, parameters, raw)
    if event is None:
        return None
    return _shown(event, found_method or clean_value(method, 20).upper())


def _shown(event: _Event, method: str) -> Invitation:
    answered = next((one for one in event.attendees if one[2] in _ANSWERS), None)
    response = _ANSWERS[answered[2]] if answered is not None and method == "REPLY" else ""
    fields = {
        "calendar_method": method.lower(),
        "calendar_response": response,
        "calendar_summary": event.summary,
        "calendar_start": event.start,
        "calendar_end": event.end,
        "calendar_location": event.location,
        "calendar_organizer": event.organizer,
        "calendar_attendee": answered[1] if answered is not None and method == "REPLY" else "",
        "calendar_uid": event.uid,
    }
    name, address, _ = answered or (event.attendees[0] if event.attendees else ("", "", ""))
    who = name or address or event.organizer or "Somebody"
    template = _SAID.get(response) or _TITLES.get(method, "{what}")
    lines = [template.replace("{who}", who).replace("{what}", event.summary or "(no title)")]
    if event.start:
        lines.append(f"{event.start} – {event.end}" if event.end else event.start)
    lines += [line for line in (event.location,) if line]
    if event.description.strip():
        lines += ["", event.description]
    return Invitation({k: v for k, v in fields.items() if v}, "\n".join(lines))
