"""The form of a rule in `routing.yaml`: its conditions (`when`), what it decides (`then`), and requirements.

Each field that can be written wrong has an example, which the refusal of a wrong value shows.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from schemas.commands import Tag
from schemas.messages import MessageKind, Visibility
from schemas.tickets import Desk

WHEN_DEPTH_MAX = 4
"""How deep `any` and `not` may stand in each other."""

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
Language = Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}$")]
Level = Annotated[int, Field(ge=1, le=10)]
Priority = Annotated[int, Field(ge=1, le=4)]
Seconds = Annotated[float, Field(gt=0, le=30 * 86_400)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Pattern = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
Label = Annotated[str, StringConstraints(min_length=1, max_length=100, strip_whitespace=True)]
Cost = Annotated[int, Field(ge=0, le=100_000)]


class Model(BaseModel):
    """What stands in a policy file: nothing unknown, and nothing changes it."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SkillModel(Model):
    """A skill asked for. It falls away after `relax_after_seconds`, else as `relaxation` says, unless `required`."""

    level: Level = 1
    relax_after_seconds: Seconds | None = None
    required: bool = False

    @model_validator(mode="after")
    def _one_of_them(self) -> "SkillModel":  # noqa: N804 - mode "after" gets the instance
        if self.required and self.relax_after_seconds is not None:
            raise ValueError(
                "a required skill never relaxes: leave out relax_after_seconds or required"
            )
        return self


class LanguageModel(Model):
    """How the ticket's language is asked for; `asked: false` lets anyone answer, `required` never relaxes."""

    asked: bool = True
    level: Level = 1
    relax_after_seconds: Seconds | None = None
    required: bool = False

    @model_validator(mode="after")
    def _one_of_them(self) -> "LanguageModel":  # noqa: N804 - mode "after" gets the instance
        if self.required and self.relax_after_seconds is not None:
            raise ValueError(
                "a required language never relaxes: leave out relax_after_seconds or required"
            )
        if self.required and not self.asked:
            raise ValueError("a language that is not asked for cannot be required: leave out one")
        return self


class StepModel(Model):
    """A step of relaxation: when it comes (`after_seconds` from entry, or a share of the time left to the target), and
    what is asked less: lower `levels`, skills to `drop`, the `language`, or other `queues` asked as well.

    With both, the share counts where a target is known. With neither it comes when an offer is missed (`moves_on_miss`).
    """

    after_seconds: Seconds | None = Field(default=None, examples=["after_seconds: 120"])
    share_of_time_left: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None, examples=["share_of_time_left: 0.5"]
    )
    levels: dict[Name, Level] = Field(default_factory=dict, examples=["levels: {api: 2}"])
    drop: tuple[Name, ...] = Field(default=(), examples=["drop: [orders]"])
    language: bool = False
    queues: tuple[Name, ...] = Field(default=(), examples=["queues: [technical]"])

    @model_validator(mode="after")
    def _asks_less(self) -> "StepModel":  # noqa: N804 - mode "after" gets the instance
        if not (self.levels or self.drop or self.language or self.queues):
            raise ValueError(
                "changes nothing: give levels: {api: 2}, drop: [orders], language: true, or queues: [technical]"
            )
        return self


class RequirementModel(Model):
    """What a ticket asks of a person.

    `skills` at levels, hard or falling away · `preferred` ones are asked for a moment and then no more · `forbidden` ones
    must be missing · `also_queues` are asked from the beginning. With `moves_on_miss` an offer that is declined or runs out
    takes the next of `steps` at once.
    """

    language: LanguageModel = LanguageModel()
    skills: dict[Name, SkillModel] = Field(
        default_factory=dict, examples=["skills: {api: {level: 4, required: true}}"]
    )
    preferred: dict[Name, Level] = Field(default_factory=dict, examples=["preferred: {orders: 5}"])
    forbidden: tuple[Name, ...] = Field(default=(), examples=["forbidden: [trainee]"])
    also_queues: tuple[Name, ...] = Field(default=(), examples=["also_queues: [technical]"])
    steps: tuple[StepModel, ...] = Field(
        default=(), max_length=20, examples=["steps: [{after_seconds: 120, levels: {api: 2}}]"]
    )
    moves_on_miss: bool = False


class KnownAgentModel(Model):
    """How long a ticket waits for whoever had its customer last: `patience_seconds`, halved for each `half_life_hours`
    since then; a wait below `at_least_seconds` is none. A patience of 0 waits for nobody.
    """

    patience_seconds: Annotated[float, Field(ge=0, le=86_400)] = Field(
        default=120, examples=["patience_seconds: 120"]
    )
    half_life_hours: Annotated[float, Field(gt=0, le=24 * 365)] = Field(
        default=72, examples=["half_life_hours: 72"]
    )
    at_least_seconds: Annotated[float, Field(ge=0, le=86_400)] = Field(
        default=5, examples=["at_least_seconds: 5"]
    )


class _Bounds(Model):
    at_least: Annotated[float, Field(ge=0, le=1_000_000)] | None = None
    at_most: Annotated[float, Field(ge=0, le=1_000_000)] | None = None

    @model_validator(mode="after")
    def _has_a_bound(self) -> "_Bounds":  # noqa: N804 - mode "after" gets the instance
        if self.at_least is None and self.at_most is None:
            raise ValueError("has no bound: give at_least, at_most or both, such as {at_least: 2}")
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise ValueError(
                f"nothing is at least {self.at_least:g} and at most {self.at_most:g}: change them over"
            )
        return self


class BoundsModel(_Bounds):
    """A number's bounds, both included."""


class QueueLengthModel(_Bounds):
    """How many tickets wait in a queue, as of a second ago."""

    queue: Name


class HoursModel(Model):
    """Within the hours of a calendar of `calendars.yaml`, or with `open: false` outside of them."""

    calendar: Name
    open: bool = True


class CustomerModel(Model):
    """What is known of the customer: their `tier` and `contract`, how many other `conversations` and `orders` they have, and
    whether this message proved that it is theirs. Orders are counted to 5, conversations to 100.
    """

    tier: tuple[Label, ...] = ()
    contract: tuple[Label, ...] = ()
    conversations: BoundsModel | None = Field(
        default=None, examples=["conversations: {at_least: 3}"]
    )
    orders: BoundsModel | None = Field(default=None, examples=["orders: {at_least: 1}"])
    is_proved: bool | None = None


class WhenModel(Model):
    """A rule's conditions: all that stand here must hold; of a list, one entry is enough.

    `intent`, `category`, `cause` and `desk` are what whoever classified the message put into its fields. `rating` is a
    review's, of five stars. `previous_tickets` and `reopens` are the conversation's: closed cases before this one, and how
    often the latest of them was reopened. `matches` are patterns of RE2. `percent` holds for so many of a hundred
    conversations, always the same ones. Of `any` one group must hold, `not` must not.
    """

    channel: tuple[Name, ...] = Field(default=(), examples=["channel: [email, form]"])
    account: tuple[Text, ...] = Field(default=(), examples=["account: [support]"])
    language: tuple[Language, ...] = Field(default=(), examples=["language: [tr]"])
    kind: tuple[MessageKind, ...] = Field(default=(), examples=["kind: [review, comment]"])
    verified: bool | None = None
    is_automatic: bool | None = None
    visibility: tuple[Visibility, ...] = Field(default=(), examples=["visibility: [public]"])
    intent: tuple[Label, ...] = Field(default=(), examples=["intent: [refund]"])
    category: tuple[Label, ...] = Field(default=(), examples=["category: [payment]"])
    cause: tuple[Label, ...] = Field(default=(), examples=["cause: [double_charge]"])
    desk: tuple[Desk, ...] = Field(default=(), examples=["desk: [technical]"])
    address_kind: tuple[Annotated[str, Field(pattern="^(email|phone|vendor_id|none)$")], ...] = (
        Field(default=(), examples=["address_kind: [phone]"])
    )
    customer: CustomerModel | None = Field(
        default=None, examples=["customer: {tier: [gold], orders: {at_least: 1}}"]
    )
    previous_tickets: BoundsModel | None = Field(
        default=None, examples=["previous_tickets: {at_least: 1}"]
    )
    reopens: BoundsModel | None = Field(default=None, examples=["reopens: {at_least: 2}"])
    rating: BoundsModel | None = Field(default=None, examples=["rating: {at_most: 2}"])
    subject_contains: tuple[Text, ...] = Field(default=(), examples=["subject_contains: [invoice]"])
    text_contains: tuple[Text, ...] = Field(default=(), examples=["text_contains: [refund]"])
    contains: tuple[Text, ...] = Field(default=(), examples=["contains: [refund, iade]"])
    words: tuple[Text, ...] = Field(default=(), examples=["words: [api, sign in]"])
    matches: tuple[Pattern, ...] = Field(
        default=(), examples=["matches: ['order (no\\.? ?)?[0-9]{4,6}']"]
    )
    hours: HoursModel | None = Field(
        default=None, examples=["hours: {calendar: shop, open: false}"]
    )
    queue_length: QueueLengthModel | None = Field(
        default=None, examples=["queue_length: {queue: service, at_least: 100}"]
    )
    percent: Annotated[float, Field(gt=0, le=100)] | None = Field(
        default=None, examples=["percent: 5"]
    )
    any_: tuple["WhenModel", ...] = Field(
        default=(), alias="any", examples=["any: [{channel: [chat]}, {customer: {tier: [gold]}}]"]
    )
    not_: "WhenModel | None" = Field(
        default=None, alias="not", examples=["not: {contains: [newsletter]}"]
    )


class ThenModel(RequirementModel):
    """What a rule decides. A ticket costs what `costs` says of its channel, else `cost`, else what the file's `costs` says."""

    queue: Name
    priority: Priority = Field(default=3, examples=["priority: 2  # 1 urgent … 4 low"])
    sla_policy: Name = "standard"
    cost: Cost | None = Field(default=None, examples=["cost: 20"])
    costs: dict[Name, Cost] = Field(
        default_factory=dict, examples=["costs: {chat: 10, voice: 100}"]
    )
    tags: tuple[Tag, ...] = Field(default=(), max_length=20, examples=["tags: [refund]"])
    known_agent: KnownAgentModel | None = Field(
        default=None, examples=["known_agent: {patience_seconds: 120, half_life_hours: 72}"]
    )


class RuleModel(Model):
    """A named rule; the first that matches decides."""

    name: Text
    when: WhenModel = WhenModel()
    then: ThenModel


WhenModel.model_rebuild()
