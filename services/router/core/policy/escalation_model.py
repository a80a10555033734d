"""The form of what `routing.yaml` says of a ticket's life: escalation, on call, reopening, what wakes a ticket that rests."""

from typing import Annotated

from pydantic import Field, model_validator

from schemas.sla import TargetKind
from services.router.core.policy.rule_model import Label, Model, Name, Priority, SkillModel, Text

Hours = Annotated[float, Field(gt=0, le=24 * 365)]


class TargetAction(Model):
    """What a clock's or another event does: hand the ticket to technical support, raise its priority, or both."""

    escalate: bool = False
    raise_priority_to: Priority | None = None

    @model_validator(mode="after")
    def _does_something(self) -> "TargetAction":  # noqa: N804 - mode "after" gets the instance
        if not self.escalate and self.raise_priority_to is None:
            raise ValueError("does nothing: give escalate: true or raise_priority_to")
        return self


class ReopensAction(TargetAction):
    """From the `at`-th reopening on."""

    at: Annotated[int, Field(ge=1, le=1000)] = Field(examples=["at: 3"])


class UnansweredAction(TargetAction):
    """From the `messages`-th message on that a customer wrote without an answer."""

    messages: Annotated[int, Field(ge=2, le=1000)] = Field(examples=["messages: 3"])


class AgeAction(TargetAction):
    """Once the ticket has waited `hours` with the front line, counted from when the customer began to wait.

    Time in which it rests (pending, on hold, snoozed) does not count.
    """

    hours: Hours = Field(examples=["hours: 24"])


class OnCallModel(Model):
    """Tickets that somebody on call must see: all that stands here must hold; of a list, one entry is enough.

    They go to `queue` where it is given, and with `page` a `ticket.paged` is told, once while the ticket is open.
    """

    rules: tuple[Text, ...] = Field(default=(), examples=["rules: [a secret got out]"])
    queues: tuple[Name, ...] = ()
    priorities: tuple[Priority, ...] = ()
    tags: tuple[Label, ...] = ()
    queue: Name | None = None
    page: bool = True

    @model_validator(mode="after")
    def _says_when_and_what(self) -> "OnCallModel":  # noqa: N804 - mode "after" gets the instance
        if not (self.rules or self.queues or self.priorities or self.tags):
            raise ValueError("would page for every ticket: give rules, queues, priorities or tags")
        if self.queue is None and not self.page:
            raise ValueError("does nothing: give queue, or leave out page: false")
        return self


class EscalationModel(Model):
    """From the front line to technical support: where to, what must be known, and when a rule does it.

    `required_facts_by_queue` says what a queue needs that needs something else. `skills` are asked for beside what the ticket
    asked for already; with `replace_skills` instead of it (the language stays).
    """

    to_queue: Name
    required_facts: tuple[Name, ...] = ()
    required_facts_by_queue: dict[Name, tuple[Name, ...]] = Field(default_factory=dict)
    raise_priority_to: Priority | None = None
    skills: dict[Name, SkillModel] | None = None
    replace_skills: bool = False
    on_breach: dict[TargetKind, TargetAction] = Field(default_factory=dict)
    on_risk: dict[TargetKind, TargetAction] = Field(default_factory=dict)
    on_exhausted: bool = False
    on_reopens: ReopensAction | None = None
    on_unanswered: UnansweredAction | None = None
    on_overload: dict[Name, TargetAction] = Field(default_factory=dict)
    on_intents: tuple[Label, ...] = Field(default=(), examples=["on_intents: [outage]"])
    on_causes: tuple[Label, ...] = Field(default=(), examples=["on_causes: [api_down]"])
    after: AgeAction | None = None
    forced_owner_after: Annotated[int, Field(ge=1, le=100)] = Field(
        default=2, examples=["forced_owner_after: 2"]
    )
    return_to: Name | None = None
    on_call: dict[Name, OnCallModel] = Field(default_factory=dict)


class LifeCycleModel(Model):
    """What wakes a ticket that is on hold or snoozed, before its own time."""

    customer_wakes_on_hold: bool = True
    customer_wakes_snoozed: bool = True
    risk_wakes: bool = True


class ReopenModel(Model):
    """How long a customer's message reopens a solved ticket; later it opens a follow-up."""

    window_hours: Hours
