"""The policy of the SLA clocks: `sla.yaml` and `calendars.yaml`, as models and as rules.

Owns both files' formats, the one way of writing durations, and the checks that only show across
files. A rule is ready to use: defaults and the priority's overrides are worked in.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from hours.calendar import Calendar, CalendarError, elapsed
from hours.file import CALENDARS_FILE, CalendarsFile
from hours.file import read as read_calendars
from schemas.sla import TargetKind
from services.sla.core.state import KINDS

SLA_FILE: Final = "sla.yaml"

PRIORITIES: Final = (1, 2, 3, 4)
"""1 urgent … 4 low."""

WEEKS_MAX: Final = 520
"""A target holds at most ten years of its calendar's ordinary weeks; more is a slip of the pen."""

_WEEK_BEGINS: Final = datetime(2400, 1, 3, tzinfo=UTC)
"""A Monday after every exception that a calendar can sensibly list."""

_DURATION: Final = re.compile(r"(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,6})s)?", re.ASCII)
_A_DURATION: Final = (
    'a duration of open time such as "4h", "1h30m", "90m" or "45s"; days are not taken, since a day'
    " has as many hours as its calendar says"
)
_NAME: Final = r"^[a-z0-9][a-z0-9_-]{0,62}$"


class PolicyMistake(ValueError):
    """What a file says cannot work: `path` in `file`, the `value` there, and what is `allowed`."""

    def __init__(self, file: str, path: str, value: object, allowed: str) -> None:
        super().__init__(f"{file}: {path}: {value!r}: {allowed}")
        self.file = file
        self.path = path
        self.value = value
        self.allowed = allowed


def parse_duration(text: object) -> timedelta:
    """The length that `4h`, `1h30m`, `90m` or `45s` names: hours, minutes, seconds, in this order.

    Raises:
        ValueError: anything else, zero included; says what is allowed.
    """
    if isinstance(text, timedelta):
        return text
    match = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if match is None or not text:
        raise ValueError(f"must be {_A_DURATION}")
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    length = timedelta(hours=hours, minutes=minutes, seconds=seconds)
    if not length:
        raise ValueError("must be longer than zero: a target of zero is broken before it starts")
    return length


Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
Share = Annotated[float, Field(gt=0, lt=1)]
Name = Annotated[str, Field(pattern=_NAME)]
Priority = Annotated[int, Field(ge=PRIORITIES[0], le=PRIORITIES[-1])]
PauseCause = Literal["pending", "on_hold"]
Reopen = Literal["continue", "restart"]


class TargetModel(BaseModel):
    """One target: `within` (`4h`) or `seconds`, and what differs from its policy's defaults.

    `warn_at` is the share of the time after which a warning is told (null: none).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    within: Duration | None = None
    seconds: float | None = Field(default=None, gt=0, le=366 * 86_400)
    calendar: str | None = None
    warn_at: Share | None = None
    pauses: tuple[PauseCause, ...] = ()

    @model_validator(mode="after")
    def _one_length(self) -> "TargetModel":  # noqa: N804 - an after-validator is a method
        if self.within is not None and self.seconds is not None:
            raise ValueError("give `within` or `seconds`, not both")
        return self

    @property
    def allowed(self) -> timedelta | None:
        """The open time it has, if it says so itself."""
        return timedelta(seconds=self.seconds) if self.seconds is not None else self.within


class OverrideModel(BaseModel):
    """What differs for one priority."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    first_response: TargetModel | None = None
    next_response: TargetModel | None = None
    resolution: TargetModel | None = None


class PolicyModel(OverrideModel):
    """A named set of targets. One that is left out is not promised.

    `calendar` and `warn_at` hold for its targets unless they say otherwise. `reopen` says what a
    reopened ticket has for its resolution: what was left (`continue`) or all of it (`restart`).
    """

    calendar: str
    warn_at: Share | None = 0.8
    reopen: Reopen = "continue"
    priorities: dict[Priority, OverrideModel] = {}


class SlaFile(BaseModel):
    """`sla.yaml`: the policies by name; `default` serves tickets whose policy is not among them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    default: str
    policies: dict[Name, PolicyModel] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class TargetRule:
    """What one kind of clock is started with."""

    kind: TargetKind
    allowed: timedelta
    calendar: str
    warn_share: float | None
    pauses_on: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """One named policy: the targets of each priority by kind, and what reopening does."""

    name: str
    reopen: Reopen
    targets: Mapping[int, Mapping[TargetKind, TargetRule]]


@dataclass(frozen=True, slots=True)
class Policy:
    """The policy in force; `version` is recorded by every clock that starts under it."""

    version: str
    default: str
    policies: Mapping[str, PolicyRule]
    calendars: Mapping[str, Calendar]

    def rule(self, name: str) -> PolicyRule:
        """The policy called `name`, or the default one where there is none."""
        return self.policies.get(name) or self.policies[self.default]

    def target(self, name: str, priority: int, kind: TargetKind) -> TargetRule | None:
        """What `name` promises of `kind` at `priority`; `None`: nothing."""
        return self.rule(name).targets[priority].get(kind)

    def calendar(self, name: str) -> Calendar:
        """The calendar called `name`.

        One that a later policy took away is always open: the strictest reading of the promise.
        """
        return self.calendars.get(name) or Calendar.always()


def policy_names(policy: Policy) -> frozenset[str]:
    """The names that a ticket's `sla_policy` may have, for checks across services' files."""
    return frozenset(policy.policies)


def build(parsed: Mapping[str, Any], folder: Path, version: str) -> Policy:
    """Put the parsed files together.

    Raises:
        PolicyMistake: the first thing that cannot work: an unknown calendar, one that never opens
            or not every week, a target without a length or too long for its calendar, an unknown
            default.
    """
    del folder
    sla: SlaFile = parsed[SLA_FILE]
    calendars = _calendars(parsed[CALENDARS_FILE])
    if sla.default not in sla.policies:
        raise PolicyMistake(SLA_FILE, "default", sla.default, f"one of {_list(sla.policies)}")
    return Policy(
        version=version,
        default=sla.default,
        policies={
            name: PolicyRule(
                name=name,
                reopen=model.reopen,
                targets={
                    priority: _targets(name, model, priority, calendars) for priority in PRIORITIES
                },
            )
            for name, model in sla.policies.items()
        },
        calendars=calendars,
    )


def _calendars(file: CalendarsFile) -> dict[str, Calendar]:
    try:
        return read_calendars(file)
    except CalendarError as error:
        raise PolicyMistake(CALENDARS_FILE, error.path, error.value, error.allowed) from error


def _targets(
    name: str, model: PolicyModel, priority: int, calendars: Mapping[str, Calendar]
) -> dict[TargetKind, TargetRule]:
    if model.calendar not in calendars:
        raise PolicyMistake(
            SLA_FILE, f"policies.{name}.calendar", model.calendar, _a_calendar(calendars)
        )
    override = model.priorities.get(priority, OverrideModel())
    rules: dict[TargetKind, TargetRule] = {}
    for kind in KINDS:
        base: TargetModel | None = getattr(model, kind)
        special: TargetModel | None = getattr(override, kind)
        if base is None and special is None:
            continue
        path = f"policies.{name}" + (f".priorities.{priority}" if special is not None else "")
        rule = _rule(kind, model, base or TargetModel(), special or TargetModel())
        _check(f"{path}.{kind}", rule, calendars)
        rules[kind] = rule
    return rules


def _rule(
    kind: TargetKind, model: PolicyModel, base: TargetModel, special: TargetModel
) -> TargetRule:
    """The most special word on each matter counts: the priority's, the target's, the policy's."""
    said: dict[str, Any] = {"calendar": model.calendar, "warn_at": model.warn_at, "pauses": ()}
    for layer in (base, special):
        said |= {field: getattr(layer, field) for field in layer.model_fields_set & said.keys()}
    return TargetRule(
        kind=kind,
        allowed=special.allowed or base.allowed or timedelta(0),
        calendar=said["calendar"] or model.calendar,
        warn_share=said["warn_at"],
        pauses_on=tuple(said["pauses"]),
    )


def _check(path: str, rule: TargetRule, calendars: Mapping[str, Calendar]) -> None:
    if not rule.allowed:
        raise PolicyMistake(SLA_FILE, f"{path}.within", None, f"is required: {_A_DURATION}")
    calendar = calendars.get(rule.calendar)
    if calendar is None:
        raise PolicyMistake(SLA_FILE, f"{path}.calendar", rule.calendar, _a_calendar(calendars))
    weekly = elapsed(calendar, _WEEK_BEGINS, _WEEK_BEGINS + timedelta(days=7))
    if not weekly:
        raise PolicyMistake(
            SLA_FILE,
            f"{path}.calendar",
            rule.calendar,
            "a calendar with weekly hours: one of single dates runs out, and its clocks stand",
        )
    if rule.allowed > weekly * WEEKS_MAX:
        raise PolicyMistake(
            SLA_FILE,
            f"{path}.within",
            str(rule.allowed),
            f"at most what calendar {rule.calendar} is open in {WEEKS_MAX} weeks",
        )


def _a_calendar(calendars: Mapping[str, Calendar]) -> str:
    return f"one of {CALENDARS_FILE}: {_list(calendars)}"


def _list(names: Mapping[str, object]) -> str:
    return ", ".join(sorted(names))
