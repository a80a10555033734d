"""Whom to call, and how: `pages.yaml` as a model and as rules.

Owns the file's format and its checks. A route says what it is for (`when`), how bad that is, who is told and in which
groups; the first route that fits an alert takes it. Its times are named as Alertmanager names its own: `group_wait` before
a group is told first, `group_interval` between two messages about changes, `repeat_interval` between two about nothing new.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property, lru_cache
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from schemas.sla import TargetKind

PAGES_FILE: Final = "pages.yaml"

RECEIVERS_MAX: Final = 50
"""They are values of a metric's label, so there is a limit."""

Event = Literal[
    "breached", "at_risk", "paged", "owner_forced", "exhausted", "overloaded", "unmatchable"
]
"""What an alert is about: a clock (the first two), or a ticket that needs a person."""

Severity = Literal["info", "warning", "error", "critical"]
"""How bad, in PagerDuty's words, the least first."""

SEVERITIES: Final[tuple[Severity, ...]] = ("info", "warning", "error", "critical")

Label = Literal[
    "event",
    "target",
    "queue",
    "channel",
    "priority",
    "customer_tier",
    "tier",
    "policy",
    "ticket",
]
"""What alerts can be grouped by."""

_DURATION: Final = re.compile(r"(?:(\d{1,5})h)?(?:(\d{1,5})m)?(?:(\d{1,6})s)?", re.ASCII)
_REFERENCE: Final = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*|file:/.+", re.ASCII)
_NAME: Final = r"^[a-z0-9][a-z0-9_-]{0,62}$"
_URL: Final = r"^https?://[^\s/@]+(/\S*)?$"
_ADDRESS: Final = r"^[^\s@<>,;\"]+@[A-Za-z0-9.-]+$"


class PagesMistake(ValueError):
    """What the file says cannot work: `path`, the `value` there, and what is `allowed`."""

    def __init__(self, path: str, value: object, allowed: str) -> None:
        super().__init__(f"{PAGES_FILE}: {path}: {value!r}: {allowed}")
        self.file = PAGES_FILE
        self.path = path
        self.value = value
        self.allowed = allowed


def _duration(text: object) -> timedelta:
    if isinstance(text, timedelta):
        return text
    match = _DURATION.fullmatch(text) if isinstance(text, str) and text else None
    if match is None:
        raise ValueError('must be a duration such as "30s", "5m" or "4h"')
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return timedelta(hours=hours, minutes=minutes, seconds=seconds)


def _listed(value: object) -> object:
    """One value stands for a list of it."""
    return value if isinstance(value, list | tuple) else (value,)


Wait = Annotated[
    timedelta, BeforeValidator(_duration), Field(ge=timedelta(0), le=timedelta(hours=24))
]
Every = Annotated[
    timedelta, BeforeValidator(_duration), Field(ge=timedelta(seconds=1), le=timedelta(days=7))
]
Reference = Annotated[str, Field(max_length=500, examples=["env:SIGNALBOX_PAGES_TOKEN"])]
"""Where a secret is. `build` looks at its form, since what stands there by mistake may be the secret itself."""
Name = Annotated[str, Field(pattern=_NAME)]
Url = Annotated[str, Field(pattern=_URL, max_length=500, examples=["https://alerts.example"])]
Address = Annotated[str, Field(pattern=_ADDRESS, max_length=254, examples=["oncall@shop.example"])]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AlertmanagerReceiver(_Model):
    """One or more Alertmanagers of a cluster; each is told. `token` is a bearer token, where one is asked for."""

    kind: Literal["alertmanager"]
    urls: tuple[Url, ...] = Field(min_length=1, max_length=8)
    token: Reference | None = None
    send_resolved: bool = True


class PagerDutyReceiver(_Model):
    """A service of PagerDuty, by the integration key of its Events API v2."""

    kind: Literal["pagerduty"]
    routing_key: Reference
    url: Url = "https://events.pagerduty.com/v2/enqueue"
    send_resolved: bool = True


class SlackReceiver(_Model):
    """A channel in Slack, by a bot's token (`chat:write`; with `channels:history` no message is ever doubled)."""

    kind: Literal["slack"]
    channel: str = Field(pattern=r"^[CGD][A-Z0-9]{2,30}$", examples=["C0123456789"])
    token: Reference
    url: Url = "https://slack.com/api"
    send_resolved: bool = True


class EmailReceiver(_Model):
    """People with a mailbox. `tls` as for the notifier's mail: `starttls` is demanded, not tried."""

    kind: Literal["email"]
    to: Annotated[tuple[Address, ...], BeforeValidator(_listed)] = Field(
        min_length=1, max_length=20
    )
    sender: Address
    host: str = Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9.:\[\]-]+$")
    port: int = Field(default=587, ge=1, le=65535)
    tls: Literal["none", "starttls", "tls"] = "starttls"
    user: str = ""
    password: Reference | None = None
    send_resolved: bool = True

    @model_validator(mode="after")
    def _is_safe(self) -> "EmailReceiver":  # noqa: N804 - an after-validator is a method
        if bool(self.user) != (self.password is not None):
            raise ValueError("give `user` and `password` both, or neither")
        if self.tls == "none" and self.password is not None:
            raise ValueError("would send the password in clear; set tls to `starttls` or `tls`")
        return self


Receiver = Annotated[
    AlertmanagerReceiver | PagerDutyReceiver | SlackReceiver | EmailReceiver,
    Field(discriminator="kind"),
]


_KINDS: Final[Mapping[str, type[_Model]]] = {
    "alertmanager": AlertmanagerReceiver,
    "pagerduty": PagerDutyReceiver,
    "slack": SlackReceiver,
    "email": EmailReceiver,
}

HIDDEN: Final = "(not shown)"
"""What is told instead of a value among the receivers: by a slip of the pen it may be a secret, wherever it stands."""


def _unquoted(value: object, handler: ValidatorFunctionWrapHandler) -> object:
    """Check the receivers, and tell what is wrong with their values hidden, except names and kinds."""
    try:
        return handler(value)
    except ValidationError as error:
        found = [_hidden(one) for one in error.errors(include_url=False)]
        raise ValidationError.from_exception_data("receivers", found) from None


def _hidden(error: ErrorDetails) -> InitErrorDetails:
    loc, said, value, kind = error["loc"], error["msg"], error["input"], error["type"]
    tag = str(loc[1]) if len(loc) > 1 else ""
    shown: object = HIDDEN
    if loc and loc[-1] == "[key]":
        shown = value
    elif kind == "union_tag_invalid" and isinstance(value, dict):
        shown = str(value["kind"])[:40] if isinstance(value["kind"], str) else HIDDEN
        said = f"a receiver's `kind` is one of: {', '.join(_KINDS)}"
    elif kind == "union_tag_not_found":
        said = f"needs a `kind`, one of: {', '.join(_KINDS)}"
    elif kind == "extra_forbidden" and tag in _KINDS:
        said = f"unknown key; known here: {', '.join(_KINDS[tag].model_fields)}"
    if tag in _KINDS:
        loc = (loc[0], *loc[2:])
    told = PydanticCustomError("hidden" if kind != "missing" else kind, "{said}", {"said": said})
    return InitErrorDetails(type=told, loc=loc, input=shown)


class When(_Model):
    """What an alert must be for a route to take it: all that is said, each one of its values."""

    event: Annotated[tuple[Event, ...], BeforeValidator(_listed)] = ()
    target: Annotated[tuple[TargetKind, ...], BeforeValidator(_listed)] = ()
    queue: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    channel: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    priority: Annotated[
        tuple[Annotated[int, Field(ge=1, le=4)], ...], BeforeValidator(_listed)
    ] = ()
    customer_tier: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    tier: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    policy: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()

    def fits(self, labels: Mapping[str, str]) -> bool:
        """Whether an alert with these labels is meant."""
        return all(labels.get(name, "") in wanted for name, wanted in self._asked)

    @cached_property
    def _asked(self) -> tuple[tuple[str, frozenset[str]], ...]:
        """What is said, by label: the values as labels have them."""
        said = ((name, getattr(self, name)) for name in type(self).model_fields)
        return tuple((name, frozenset(map(str, wanted))) for name, wanted in said if wanted)


class Route(_Model):
    """Who is told of what. `runbook` is a link that stands in every message."""

    name: Name
    when: When = When()
    severity: Severity
    receivers: tuple[Name, ...] = ()
    group_by: tuple[Label, ...] = ("queue", "target")
    group_wait: Wait = timedelta(seconds=30)
    group_interval: Every = timedelta(minutes=5)
    repeat_interval: Every = timedelta(hours=4)
    runbook: Url | None = None

    @model_validator(mode="after")
    def _in_order(self) -> "Route":  # noqa: N804 - an after-validator is a method
        if self.repeat_interval < self.group_interval:
            raise ValueError("`repeat_interval` must not be shorter than `group_interval`")
        return self


class PagesFile(_Model):
    """`pages.yaml`: the receivers by name, and the routes in order; the first that fits takes an alert."""

    receivers: Annotated[
        dict[Name, Receiver], Field(max_length=RECEIVERS_MAX), WrapValidator(_unquoted)
    ] = {}
    routes: tuple[Route, ...] = Field(default=(), max_length=200)


@dataclass(frozen=True, slots=True)
class Pages:
    """The file's rules, ready to use."""

    receivers: Mapping[str, Receiver] = field(default_factory=lambda: MappingProxyType({}))
    routes: tuple[Route, ...] = ()

    def route(self, labels: Mapping[str, str]) -> Route | None:
        """The first route that takes an alert with these labels."""
        return next((route for route in self.routes if route.when.fits(labels)), None)

    def calls(self, event: Event) -> bool:
        """Whether somebody may be called for such an event at all: asked before anything is put together for it."""
        return any(
            route.receivers and (not route.when.event or event in route.when.event)
            for route in self.routes
        )

    def named(self, name: str) -> Route | None:
        """The route of that name, while there is one."""
        return next((route for route in self.routes if route.name == name), None)


def build(parsed: Mapping[str, Any]) -> Pages:
    """Return the rules of the parsed file; without one nobody is told of anything.

    Raises:
        PagesMistake: a secret stands where a reference should (it is not repeated), a route names a receiver twice or one that there is none of, two routes have one name, or a route
            can never be taken since an earlier one takes everything.
    """
    file: PagesFile | None = parsed.get(PAGES_FILE)
    if file is None:
        return Pages()
    for name, receiver in file.receivers.items():
        _check_references(name, receiver)
    known = ", ".join(sorted(file.receivers)) or "none yet"
    names: set[str] = set()
    for index, route in enumerate(file.routes):
        path = f"routes.{index}"
        if route.name in names:
            raise PagesMistake(f"{path}.name", route.name, "a name that no earlier route has")
        names.add(route.name)
        for place, name in enumerate(route.receivers):
            if name not in file.receivers:
                raise PagesMistake(
                    f"{path}.receivers.{place}", name, f"one of `receivers`: {known}"
                )
            if name in route.receivers[:place]:
                raise PagesMistake(f"{path}.receivers.{place}", name, "a receiver once")
        if route.when == When() and index + 1 < len(file.routes):
            raise PagesMistake(
                f"{path}.when", {}, "a condition: without one the routes behind it are never taken"
            )
    return Pages(file.receivers, file.routes)


def _check_references(name: str, receiver: Receiver) -> None:
    for field_name in ("token", "routing_key", "password"):
        reference = getattr(receiver, field_name, None)
        if reference is not None and _REFERENCE.fullmatch(reference) is None:
            raise PagesMistake(
                f"receivers.{name}.{field_name}",
                HIDDEN,
                "a reference to the secret: `env:NAME` or `file:/run/secrets/name`",
            )


def group_key(family: str, group: Mapping[str, str]) -> str:
    """The name of a group: 32 hex digits of its family and its labels, whatever their order."""
    return _digest("\n".join((family, *(f"{name}={group[name]}" for name in sorted(group)))))


@lru_cache(maxsize=4096)
def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
