"""The policy of the SLA clocks: what `sla.yaml` and `calendars.yaml` come to, as rules that are ready to use.

Owns the checks that only show across names and files, and which policy a ticket goes by. Defaults, the priority's overrides
and the queue's calendar are worked in when the files are read, so that a decision only looks things up.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from hours.calendar import Calendar, CalendarError, elapsed
from hours.file import CALENDARS_FILE, CalendarBook, CalendarsFile, read_book
from hours.ical import FeedContent
from schemas.sla import TargetKind
from services.sla.core.pages import Pages
from services.sla.core.policy_model import (
    A_DURATION,
    INTERNAL_WAITS,
    PRIORITIES,
    VOICE_CHANNELS,
    OverrideModel,
    PolicyChange,
    PolicyMistake,
    PolicyModel,
    Reopen,
    SlaFile,
    TargetModel,
    TierModel,
    parse_duration,
)
from services.sla.core.promise_policy import AtRiskModel, PromisesModel
from services.sla.core.state import KINDS, WALL, Facts

SLA_FILE: Final = "sla.yaml"

WEEKS_MAX: Final = 520
"""A target holds at most ten years of its calendar's ordinary weeks; more is a slip of the pen."""

_WEEK_BEGINS: Final = datetime(2400, 1, 3, tzinfo=UTC)
"""A Monday after every exception that a calendar can sensibly list."""

_ALWAYS: Final = Calendar.always()
"""One for all, with the windows that it has worked out."""

_BY_RULE: Final[tuple[TargetKind, ...]] = tuple(
    kind for kind in KINDS if kind not in ("callback", "tier")
)
"""The targets that have a length of their own: a callback has the one that was promised, a tier a budget."""


@dataclass(frozen=True, slots=True)
class TargetRule:
    """What one kind of clock is started with; `tier` names whose budget it is."""

    kind: TargetKind
    allowed: timedelta
    calendar: str
    warn_share: float | None
    pauses_on: tuple[str, ...]
    tier: str = ""


@dataclass(frozen=True, slots=True)
class CallRule:
    """How the promise of a call is kept, and when a warning of it is told."""

    warn_share: float | None = 0.8
    counts: tuple[str, ...] = ("reached",)
    voice_channels: tuple[str, ...] = VOICE_CHANNELS


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """One named policy: the targets of each priority by kind, the budgets of tiers, and what reopening does.

    `by_queue` is the same policy with the calendars of a queue's team. `policy_change` says whether clocks that run follow
    an edit.
    """

    name: str
    reopen: Reopen
    targets: Mapping[int, Mapping[TargetKind, TargetRule]]
    tiers: Mapping[int, Mapping[str, TargetRule]] = field(default_factory=dict)
    warn_share: float | None = 0.8
    callback: CallRule = CallRule()
    by_queue: "Mapping[str, PolicyRule]" = field(default_factory=dict)
    policy_change: PolicyChange = "pin"

    def in_queue(self, queue: str) -> "PolicyRule":
        """The policy for tickets of `queue`."""
        return self.by_queue.get(queue, self)

    def target(self, priority: int, kind: TargetKind, tier: str = "") -> TargetRule | None:
        """What is promised of `kind`, of `tier` where that is the kind; `None`: nothing."""
        if kind == "tier":
            return self.tiers.get(priority, {}).get(tier)
        return self.targets[priority].get(kind)


@dataclass(frozen=True, slots=True)
class Selection:
    """A rule of `sla.yaml`: the values that each field may have, and the policy of tickets that have them."""

    conditions: Mapping[str, frozenset[Any]]
    policy: str

    def fits(self, facts: Facts, priority: int) -> bool:
        """Whether a ticket is what the rule asks for."""
        for name, allowed in self.conditions.items():
            if name == "tag":
                is_one = not allowed.isdisjoint(facts.tags)
            else:
                is_one = (priority if name == "priority" else getattr(facts, name)) in allowed
            if not is_one:
                return False
        return True

    def covers(self, other: "Selection") -> bool:
        """Whether every ticket that fits `other` fits this rule."""
        return all(
            name in other.conditions and other.conditions[name] <= allowed
            for name, allowed in self.conditions.items()
        )


@dataclass(frozen=True, slots=True)
class Policy:
    """The policy in force; `version` is recorded by every clock that starts under it."""

    version: str
    default: str
    policies: Mapping[str, PolicyRule]
    calendars: Mapping[str, Calendar]
    rules: tuple[Selection, ...] = ()
    tiers: Mapping[str, str] = field(default_factory=dict)
    """The tier of each queue that belongs to one."""
    internal_waits: frozenset[str] = frozenset(INTERNAL_WAITS)
    promises: PromisesModel = field(default_factory=PromisesModel)
    at_risk: AtRiskModel = field(default_factory=AtRiskModel)
    pages: Pages = field(default_factory=Pages)
    """Whom to call, of `pages.yaml`."""
    book: CalendarBook = field(default_factory=CalendarBook)
    """The calendars with their feeds, and where each holiday comes from."""
    _chosen: "list[tuple[Facts, str, int, PolicyRule]]" = field(
        init=False, default_factory=list, compare=False, repr=False
    )
    """The last answer of `select`, and what was asked: one decision asks the same several times over."""

    def with_feeds(self, contents: Mapping[str, FeedContent]) -> "Policy":
        """The policy with what the feeds of its calendars say, by name.

        Its version then names the calendars too, so that a clock's record says which hours it ran by.
        """
        book = self.book.with_feeds(contents)
        if not book.contents and not self.book.contents:
            return self
        bare = self.version.partition("+")[0]
        version = f"{bare}+{book.version}" if book.contents else bare
        return replace(self, version=version, calendars=book.calendars, book=book)

    def rule(self, name: str) -> PolicyRule:
        """The policy called `name`, or the default one where there is none."""
        return self.policies.get(name) or self.policies[self.default]

    def select(self, named: str, facts: Facts, priority: int) -> PolicyRule:
        """The policy of a ticket for which routing named one: the first rule that fits, else that one, else the default."""
        for last in self._chosen:
            if last[0] is facts and last[1] == named and last[2] == priority:
                return last[3]
        chosen = next((one.policy for one in self.rules if one.fits(facts, priority)), named)
        rule = self.rule(chosen).in_queue(facts.queue)
        self._chosen[:] = ((facts, named, priority, rule),)
        return rule

    def target(
        self, name: str, priority: int, kind: TargetKind, queue: str = ""
    ) -> TargetRule | None:
        """What `name` promises of `kind` at `priority` to tickets of `queue`; `None`: nothing."""
        return self.rule(name).in_queue(queue).target(priority, kind)

    def calendar(self, name: str) -> Calendar:
        """The calendar called `name`.

        One that a later policy took away is always open: the strictest reading of the promise.
        """
        return self.calendars.get(name) or _ALWAYS

    def knows_calendar(self, name: str) -> bool:
        """Whether there is a calendar of this name; calendar time has one."""
        return name == WALL or name in self.calendars


def policy_names(policy: Policy) -> frozenset[str]:
    """The names that a ticket's `sla_policy` may have, for checks across services' files."""
    return frozenset(policy.policies)


def unreachable_rules(policy: Policy) -> Iterator[tuple[str, str]]:
    """Each rule that no ticket can come to: its path in `sla.yaml`, and why."""
    for index, rule in enumerate(policy.rules):
        before = next((n for n, one in enumerate(policy.rules[:index]) if one.covers(rule)), None)
        if before is not None:
            yield (
                f"rules.{index}",
                f"no ticket comes to it: rules.{before} fits whatever it fits, and stands before it",
            )


def named_queues(policy: Policy) -> Iterator[tuple[str, str]]:
    """Each queue that `sla.yaml` names, with the path where: for a check against those that there are."""
    for index, rule in enumerate(policy.rules):
        yield from (
            (f"rules.{index}.when.queue", one) for one in sorted(rule.conditions.get("queue", ()))
        )
    yield from ((f"tiers.{tier}", queue) for queue, tier in policy.tiers.items())
    for name, rule_of in policy.policies.items():
        yield from ((f"policies.{name}.calendars.by_queue", queue) for queue in rule_of.by_queue)


def build(parsed: Mapping[str, Any], folder: Path, version: str) -> Policy:
    """Put the parsed files together.

    Raises:
        PolicyMistake: the first thing that cannot work: an unknown calendar, policy or tier, a calendar that never opens
            or not every week, a target without a length or too long for its calendar, budgets of tiers that come to more
            than the resolution, a queue in two tiers.
    """
    sla: SlaFile = parsed[SLA_FILE]
    book = _book(parsed[CALENDARS_FILE], folder)
    calendars = book.calendars
    if sla.default not in sla.policies:
        raise PolicyMistake(SLA_FILE, "default", sla.default, f"one of {_list(sla.policies)}")
    for index, rule in enumerate(sla.rules):
        if rule.policy not in sla.policies:
            raise PolicyMistake(
                SLA_FILE, f"rules.{index}.policy", rule.policy, f"one of {_list(sla.policies)}"
            )
    return Policy(
        version=version,
        default=sla.default,
        policies={
            name: _policy(name, model, sla, calendars) for name, model in sla.policies.items()
        },
        calendars=calendars,
        book=book,
        rules=tuple(Selection(one.when.conditions(), one.policy) for one in sla.rules),
        tiers=_tiers(sla),
        internal_waits=frozenset(sla.internal_waits),
        promises=sla.promises,
        at_risk=sla.at_risk,
    )


def _book(file: CalendarsFile, folder: Path) -> CalendarBook:
    try:
        found = read_book(file, folder)
    except CalendarError as error:
        raise PolicyMistake(CALENDARS_FILE, error.path, error.value, error.allowed) from error
    if WALL in found.calendars:
        raise PolicyMistake(
            CALENDARS_FILE,
            f"calendars.{WALL}",
            WALL,
            "another name: this one is calendar time, and there already",
        )
    return found


def _tiers(sla: SlaFile) -> dict[str, str]:
    found: dict[str, str] = {}
    for tier, queues in sla.tiers.items():
        for queue in queues:
            if queue in found:
                raise PolicyMistake(
                    SLA_FILE, f"tiers.{tier}", queue, f"is in the tier {found[queue]} already"
                )
            found[queue] = tier
    return found


def _policy(
    name: str, model: PolicyModel, sla: SlaFile, calendars: Mapping[str, Calendar]
) -> PolicyRule:
    path = f"policies.{name}"
    _known_calendar(f"{path}.calendar", model.calendar, calendars)
    own = _with_calendar(name, model, model.calendar, sla, calendars)
    others = {}
    for queue, calendar in model.calendars.by_queue.items():
        _known_calendar(f"{path}.calendars.by_queue.{queue}", calendar, calendars)
        others[queue] = _with_calendar(name, model, calendar, sla, calendars)
    return replace(own, by_queue=others)


def _with_calendar(
    name: str,
    model: PolicyModel,
    calendar: str,
    sla: SlaFile,
    calendars: Mapping[str, Calendar],
) -> PolicyRule:
    targets = {
        priority: _targets(name, model, calendar, priority, calendars) for priority in PRIORITIES
    }
    callback = model.callback
    said = callback.model_fields_set
    return PolicyRule(
        name=name,
        reopen=model.reopen,
        policy_change=model.policy_change,
        targets=targets,
        tiers={
            priority: _budgets(
                name, model, calendar, priority, targets[priority].get("resolution"), sla, calendars
            )
            for priority in PRIORITIES
        },
        warn_share=model.warn_at,
        callback=CallRule(
            warn_share=callback.warn_at if "warn_at" in said else model.warn_at,
            counts=callback.counts,
            voice_channels=callback.voice_channels,
        ),
    )


def _targets(
    name: str,
    model: PolicyModel,
    calendar: str,
    priority: int,
    calendars: Mapping[str, Calendar],
) -> dict[TargetKind, TargetRule]:
    override = model.priorities.get(priority, OverrideModel())
    rules: dict[TargetKind, TargetRule] = {}
    for kind in _BY_RULE:
        base: TargetModel | None = getattr(model, kind)
        special: TargetModel | None = getattr(override, kind)
        if base is None and special is None:
            continue
        path = f"policies.{name}" + (f".priorities.{priority}" if special is not None else "")
        rule = _rule(kind, model, calendar, base or TargetModel(), special or TargetModel())
        _check(f"{path}.{kind}", rule, calendars)
        rules[kind] = rule
    if "later_response" in rules and "next_response" not in rules:
        raise PolicyMistake(
            SLA_FILE,
            f"policies.{name}.later_response",
            str(rules["later_response"].allowed),
            "needs `next_response` as well: it is for the replies after the next",
        )
    return rules


def _rule(
    kind: TargetKind, model: PolicyModel, calendar: str, base: TargetModel, special: TargetModel
) -> TargetRule:
    """The most special word on each matter counts: the priority's, the target's, the policy's."""
    said: dict[str, Any] = {"calendar": calendar, "warn_at": model.warn_at, "pauses": ()}
    for layer in (base, special):
        said |= {name: getattr(layer, name) for name in layer.model_fields_set & said.keys()}
    return TargetRule(
        kind=kind,
        allowed=special.allowed or base.allowed or timedelta(0),
        calendar=said["calendar"] or calendar,
        warn_share=said["warn_at"],
        pauses_on=_causes(said["pauses"]),
    )


def _causes(pauses: tuple[str, ...]) -> tuple[str, ...]:
    """The causes as the clocks know them: each once, `customer` by the name of its status."""
    return tuple(dict.fromkeys("pending" if one == "customer" else one for one in pauses))


def _budgets(
    name: str,
    model: PolicyModel,
    calendar: str,
    priority: int,
    resolution: TargetRule | None,
    sla: SlaFile,
    calendars: Mapping[str, Calendar],
) -> dict[str, TargetRule]:
    """The budgets of the tiers at a priority, which together are at most what the customer was promised."""
    override = model.priorities.get(priority, OverrideModel())
    path = f"policies.{name}.priorities.{priority}" if override.tiers else f"policies.{name}"
    rules = {}
    for tier, budget in (model.tiers | override.tiers).items():
        here = f"{path}.tiers.{tier}"
        if tier not in sla.tiers:
            raise PolicyMistake(
                SLA_FILE, here, tier, f"one of `tiers`: {_list(sla.tiers) or 'there are none yet'}"
            )
        rules[tier] = _budget(here, tier, budget, model, calendar, resolution)
        _check(here, rules[tier], calendars)
    total = sum((rule.allowed for rule in rules.values()), timedelta(0))
    if resolution is not None and total > resolution.allowed:
        raise PolicyMistake(
            SLA_FILE,
            f"{path}.tiers",
            str(total),
            f"together at most the {resolution.allowed} of the resolution at priority {priority}",
        )
    return rules


def _budget(
    path: str,
    tier: str,
    budget: TierModel,
    model: PolicyModel,
    calendar: str,
    resolution: TargetRule | None,
) -> TargetRule:
    said = budget.model_fields_set
    if budget.within is not None:
        allowed = budget.within
    elif budget.share is not None and resolution is not None:
        allowed = resolution.allowed * budget.share
    else:
        raise PolicyMistake(
            SLA_FILE, f"{path}.share", budget.share, "needs a `resolution` that it is a share of"
        )
    warn_at = model.warn_at if resolution is None else resolution.warn_share
    pauses = () if resolution is None else resolution.pauses_on
    whose = calendar if resolution is None else resolution.calendar
    return TargetRule(
        kind="tier",
        allowed=allowed,
        calendar=budget.calendar or whose,
        warn_share=budget.warn_at if "warn_at" in said else warn_at,
        pauses_on=_causes(budget.pauses) if "pauses" in said else pauses,
        tier=tier,
    )


def _check(path: str, rule: TargetRule, calendars: Mapping[str, Calendar]) -> None:
    if not rule.allowed:
        raise PolicyMistake(SLA_FILE, f"{path}.within", None, f"is required: {A_DURATION}")
    _known_calendar(f"{path}.calendar", rule.calendar, calendars)
    calendar = calendars.get(rule.calendar) or _ALWAYS
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


def _known_calendar(path: str, name: str, calendars: Mapping[str, Calendar]) -> None:
    if name != WALL and name not in calendars:
        raise PolicyMistake(
            SLA_FILE,
            path,
            name,
            f'one of {CALENDARS_FILE}: {_list(calendars)}; or "{WALL}" for calendar time',
        )


def _list(names: Mapping[str, object]) -> str:
    return ", ".join(sorted(names))


__all__ = [
    "PRIORITIES",
    "SLA_FILE",
    "CallRule",
    "Policy",
    "PolicyMistake",
    "PolicyRule",
    "Selection",
    "SlaFile",
    "TargetRule",
    "build",
    "named_queues",
    "parse_duration",
    "policy_names",
    "unreachable_rules",
]
