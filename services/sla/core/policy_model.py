"""`sla.yaml` as models: what the file may say, and the one way of writing durations.

Owns the format and the checks that a value alone can fail. What only shows across names stands in `policy`.
"""

import re
from datetime import timedelta
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from services.sla.core.promise_policy import AtRiskModel, PromisesModel

PRIORITIES: Final = (1, 2, 3, 4)
"""1 urgent … 4 low."""

VOICE_CHANNELS: Final = ("twilio_voice", "aircall", "voip")
"""The channels of which an answer is a call, unless a policy names others."""

INTERNAL_WAITS: Final = ("colleague", "internal", "team")
"""Whom a ticket on hold may wait for without that being a third party, unless the file names others."""

_DURATION: Final = re.compile(r"(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,6})s)?", re.ASCII)
A_DURATION: Final = (
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
        raise ValueError(f"must be {A_DURATION}")
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    length = timedelta(hours=hours, minutes=minutes, seconds=seconds)
    if not length:
        raise ValueError("must be longer than zero: a target of zero is broken before it starts")
    return length


def _as_list(value: object) -> object:
    """One value stands for a list of one."""
    return value if isinstance(value, list | tuple) or value is None else (value,)


def _as_length(value: object) -> object:
    """A duration alone stands for a budget of it."""
    return {"within": value} if isinstance(value, str) else value


Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
Share = Annotated[float, Field(gt=0, lt=1)]
Name = Annotated[str, Field(pattern=_NAME)]
Queue = Annotated[str, Field(min_length=1, max_length=200)]
Priority = Annotated[int, Field(ge=PRIORITIES[0], le=PRIORITIES[-1])]
PauseCause = Literal["pending", "customer", "on_hold", "third_party", "hold"]
Reopen = Literal["continue", "restart"]
PolicyChange = Literal["pin", "retarget"]
Outcome = Literal["reached", "no_answer", "voicemail"]
Word = Annotated[str, Field(min_length=1, max_length=200)]
Words = Annotated[tuple[Word, ...], BeforeValidator(_as_list), Field(min_length=1, max_length=200)]
Priorities = Annotated[tuple[Priority, ...], BeforeValidator(_as_list), Field(min_length=1)]


class TargetModel(BaseModel):
    """One target: `within` (`4h`) or `seconds`, and what differs from its policy's defaults.

    `warn_at` is the share of the time after which a warning is told (null: none). `pauses` names what stops the clock:
    `pending` or `customer` (the ticket waits for the customer), `third_party` and `hold` (it is on hold for somebody outside,
    or for one of us), `on_hold` for both of these.
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


class TierModel(BaseModel):
    """A tier's budget: `within` (`2h`, or just that), or a `share` of the policy's resolution.

    `pauses`, `warn_at` and `calendar` are the resolution's unless they are said here.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    within: Duration | None = None
    share: float | None = Field(default=None, gt=0, le=1)
    calendar: str | None = None
    warn_at: Share | None = None
    pauses: tuple[PauseCause, ...] = ()

    @model_validator(mode="after")
    def _one_length(self) -> "TierModel":  # noqa: N804 - an after-validator is a method
        if (self.within is None) == (self.share is None):
            raise ValueError("give `within` or `share`, and not both")
        return self


class CallbackModel(BaseModel):
    """How the promise of a call is kept: by a call with one of the outcomes `counts`, or an answer on `voice_channels`.

    Its deadline is what was promised, so it has no length here.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    warn_at: Share | None = None
    counts: tuple[Outcome, ...] = Field(default=("reached",), min_length=1)
    voice_channels: tuple[Word, ...] = VOICE_CHANNELS


TierBudget = Annotated[TierModel, BeforeValidator(_as_length)]


class OverrideModel(BaseModel):
    """What differs for one priority."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    first_response: TargetModel | None = None
    next_response: TargetModel | None = None
    later_response: TargetModel | None = None
    periodic_update: TargetModel | None = None
    time_to_offer: TargetModel | None = None
    time_to_accept: TargetModel | None = None
    resolution: TargetModel | None = None
    tiers: dict[Name, TierBudget] = {}


class CalendarChoiceModel(BaseModel):
    """Whose hours count: `by_queue` names the calendar of a queue's team."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    by_queue: dict[Queue, str] = Field(default={}, max_length=200)


class PolicyModel(OverrideModel):
    """A named set of targets. One that is left out is not promised.

    `calendar` and `warn_at` hold for its targets unless they say otherwise; `calendars.by_queue` takes the place of `calendar`
    while the ticket is in such a queue. `reopen` says what a reopened ticket has for its resolution: what was left
    (`continue`) or all of it (`restart`).
    `policy_change` says what an edit of this policy does to clocks that run: nothing (`pin`), or they are held to it as it is
    then, with the time spent kept (`retarget`).
    """

    calendar: str
    calendars: CalendarChoiceModel = CalendarChoiceModel()
    warn_at: Share | None = 0.8
    reopen: Reopen = "continue"
    policy_change: PolicyChange = "pin"
    callback: CallbackModel = CallbackModel()
    priorities: dict[Priority, OverrideModel] = {}


class WhenModel(BaseModel):
    """What a ticket must be, each a value or a list of which one must hold; what is left out does not matter.

    `tag`: it has one of these. `desk` is the one that it was opened at.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    queue: Words | None = None
    priority: Priorities | None = None
    channel: Words | None = None
    account: Words | None = None
    language: Words | None = None
    customer_tier: Words | None = None
    contract: Words | None = None
    desk: Words | None = None
    tag: Words | None = None

    def conditions(self) -> dict[str, frozenset[Any]]:
        """The allowed values of each field that matters."""
        said = ((name, getattr(self, name)) for name in type(self).model_fields)
        return {name: frozenset(values) for name, values in said if values is not None}


class RuleModel(BaseModel):
    """Tickets that are as `when` says go by `policy`, whatever routing named."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    when: WhenModel
    policy: str


class SlaFile(BaseModel):
    """`sla.yaml`: the policies by name, and which of them a ticket goes by.

    The first of `rules` that fits chooses; where none does, the policy that routing named; where there is none of that name,
    `default`. `tiers` are the queues of each tier of the operational agreement.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    default: str
    rules: tuple[RuleModel, ...] = Field(default=(), max_length=500)
    policies: dict[Name, PolicyModel] = Field(min_length=1)
    tiers: dict[Name, Annotated[tuple[Queue, ...], Field(min_length=1)]] = {}
    internal_waits: tuple[Word, ...] = INTERNAL_WAITS
    promises: PromisesModel = PromisesModel()
    at_risk: AtRiskModel = AtRiskModel()
