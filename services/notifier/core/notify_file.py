"""`notify.yaml` as it is written: its sections, their defaults and what each value may be. The rules across them are in `policy.py`."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from schemas.notifications import Category, Occasion
from services.notifier.core.articles import ArticlesFile

Language = Annotated[str, StringConstraints(pattern=r"^[a-z]{2}$")]
Country = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")]
Line = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]+$", max_length=200)]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=100)]
Url = Annotated[str, StringConstraints(pattern=r"^https://[^\s<>\"]+$", max_length=2000)]
Address = Annotated[
    str,
    StringConstraints(
        pattern=r"^[A-Za-z0-9._-]{1,15}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*$", max_length=120
    ),
]
"""One of ours. Short before the @: `+sb.` and a token of 45 characters still have to fit into 64."""

Clock = Annotated[str, StringConstraints(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]
"""A time of day, in quotes: "09:00"."""
ClockEnd = Annotated[str, StringConstraints(pattern=r"^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$")]
"""A time of day that ends something; "24:00" ends the day."""
Delivery = Literal["live", "dry_run"]
"""Whether notices leave; in a dry run they are planned, put into words and recorded, and nothing leaves."""

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

OptionalCategory = Literal["service", "outage", "follow_up"]
"""Categories that can be capped or asked consent for; security is never held back."""

TemplateValue = Literal[
    "name",
    "salutation",
    "brand",
    "signature",
    "reference",
    "subject",
    "received_at",
    "agent_name",
    "answer",
    "question",
    "note",
]
"""Facts that are one plain text each, and so can fill a place of a vendor's approved template."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SenderFile(_Model):
    """One of our addresses, and the channel accounts it answers for."""

    from_name: Line
    address: Address
    message_id_domain: Annotated[
        str, StringConstraints(pattern=r"^[A-Za-z0-9.-]+$", max_length=120)
    ]
    accounts: tuple[str, ...] = ()
    bounces_to: Literal["token", "address", "nobody"] = "token"
    delivery: Delivery = "live"


class ApprovedTemplateFile(_Model):
    """A message that the vendor has approved: its name and language there, and what fills its places, in order."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:-]+$", max_length=512)]
    language: Annotated[str, StringConstraints(pattern=r"^[A-Za-z]{2,3}([_-][A-Za-z0-9]+)*$")]
    values: tuple[TemplateValue, ...] = Field(default=(), max_length=20)


class LanguageFile(_Model):
    """How a language writes dates, and how we sign in it."""

    locale: str
    signature: Line


class OccasionsFile(_Model):
    """Which automatic notices are sent. An agent's answer always is."""

    received: bool = True
    after_hours: bool = True
    voicemail: bool = True
    escalated: bool = True
    need_info: bool = True
    still_on_it: bool = True
    delayed: bool = True
    solved: bool = True
    reopened: bool = True
    outage_known: bool = True
    outage_over: bool = True
    callback_booked: bool = True
    callback_missed: bool = True
    security: bool = True
    next_issue: bool = True
    recovery: bool = True
    check_in: bool = False
    survey: bool = False
    digest: bool = True
    help: bool = True


class CategoryCapFile(_Model):
    """At most `count` automatic notices of the category to one recipient in so many days."""

    count: int = Field(ge=0, le=1000)
    days: float = Field(gt=0, le=366)


class CapsFile(_Model):
    """How many automatic notices are too many. `unverified_total_per_hour` counts all unproved addresses together."""

    unverified_recipient_per_hour: int = Field(default=4, ge=0, le=1000)
    unverified_total_per_hour: int = Field(default=500, ge=0, le=100_000)
    verified_recipient_per_hour: int = Field(default=20, ge=0, le=1000)
    automatic_total_per_hour: int = Field(default=20_000, ge=0, le=10_000_000)
    automatic_between_human: int = Field(default=3, ge=0, le=100)
    categories: dict[OptionalCategory, CategoryCapFile] = {}


class QuietWindowFile(_Model):
    """Quiet from `from` to `to` on the customer's clock, of the days that it begins on; past midnight if `to` is not later."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    days: tuple[Day, ...] = Field(default=DAYS, min_length=1)
    start: Clock = Field(alias="from")
    end: ClockEnd = Field(alias="to")

    @model_validator(mode="after")
    def _is_some_time(self) -> Self:  # noqa: N804 - an "after" validator gets the model itself
        if self.start == self.end:
            raise ValueError(
                f'from and to are the same; a whole day is from "00:00" to "24:00", not {self.start!r}'
            )
        if len(set(self.days)) != len(self.days):
            raise ValueError(f"days has a day twice: {', '.join(self.days)}")
        return self


class BreakThroughFile(_Model):
    """What goes out in quiet hours all the same."""

    categories: tuple[Category, ...] = ("security",)
    occasions: tuple[Occasion, ...] = ("answered",)
    priorities: tuple[Annotated[int, Field(ge=1, le=4)], ...] = ()
    awake_minutes: float = Field(default=30, ge=0, le=720)
    silent_providers: tuple[Name, ...] = ()


class QuietHoursFile(_Model):
    """When customers are left in peace; what waited goes out over `spread_minutes` after that."""

    windows: tuple[QuietWindowFile, ...] = Field(default=(), max_length=50)
    spread_minutes: float = Field(default=30, ge=0, le=240)
    break_through: BreakThroughFile = BreakThroughFile()


class DigestFile(_Model):
    """Automatic notices of low urgency are gathered into one a day, `at` this hour on the customer's clock."""

    occasions: tuple[Occasion, ...] = ()
    at: Clock = "10:00"


class StillOnItFile(_Model):
    """So long before what we promised is over, the customer hears that we are at it."""

    before_minutes: float = Field(default=30, ge=1, le=2880)


class ArticleFile(_Model):
    """An article in one language."""

    title: Line
    url: Url
    summary: Annotated[str, StringConstraints(max_length=500)] = ""


class NextIssueFile(_Model):
    """What usually comes next after a case with this cause was solved: told `after_hours`, once, with the article."""

    after_hours: float = Field(default=24, ge=0, le=24 * 90)
    articles: dict[Language, ArticleFile] = Field(min_length=1)


class CheckInFile(_Model):
    """So many days after a solved case we ask whether all is well."""

    after_days: float = Field(default=7, gt=0, le=366)


class SurveyFile(_Model):
    """Who is asked how it went, when, and what. Of a share of cases only, each channel's own where it has one."""

    kind: Literal["csat", "ces", "nps"] = "csat"
    after_hours: float = Field(default=24, ge=0, le=24 * 30)
    share: float = Field(default=1, ge=0, le=1)
    shares: dict[Name, Annotated[float, Field(ge=0, le=1)]] = {}
    again_after_days: float = Field(default=30, ge=0, le=366)


class OutageFile(_Model):
    """Who hears of an outage beside those whom the command names: whoever has an open case, or had one lately."""

    audience: Literal["named", "open", "recent"] = "open"
    recent_days: float = Field(default=7, gt=0, le=90)
    recipients_max: int = Field(default=20_000, ge=1, le=1_000_000)


class AccountTroubleFile(_Model):
    """While an account's credentials are refused its messages are tried every so often, and given up after a while."""

    retry_minutes: float = Field(default=15, ge=1, le=1440)
    give_up_hours: float = Field(default=48, gt=0, le=24 * 14)


class UndeliverableFile(_Model):
    """How long an address is left alone: for good after it was refused for good (0), and for a while after it was full."""

    hard_days: float = Field(default=0, ge=0, le=3660)
    soft_days: float = Field(default=3, gt=0, le=366)


class ConsentFile(_Model):
    """Categories that nobody gets who has not asked for them."""

    needed: tuple[Literal["outage", "follow_up"], ...] = ()


class RetryFile(_Model):
    """When to try again after "not now"; as many further attempts as there are delays."""

    delays_seconds: tuple[Annotated[float, Field(gt=0, le=172_800)], ...] = (
        60,
        300,
        900,
        3600,
        14400,
    )
    jitter: float = Field(default=0.2, ge=0, le=1)


class NotifyFile(_Model):
    """`notify.yaml`. `promise_wait_seconds` is how long `received` waits at most for what can be promised; 0: not at all.

    `delivery: dry_run` here lets nothing leave, whatever senders and accounts say; in one of those it is that one's alone.
    `accounts` are checked by their provider's own settings, so they stand here as they are written. `fall_back` names ways to
    try where the customer's own channel cannot be used: `mail`, or an account.
    """

    delivery: Delivery = "live"
    senders: dict[str, SenderFile] = Field(min_length=1)
    default_sender: str
    channels_answered_by_mail: tuple[str, ...] = ("email", "form")
    accounts: dict[Name, dict[str, Any]] = {}
    fall_back: tuple[Name, ...] = ()
    default_language: Language = "en"
    timezone: str = "UTC"
    timezone_by_country: dict[Country, str] = {}
    languages: dict[Language, LanguageFile] = Field(min_length=1)
    occasions: OccasionsFile = OccasionsFile()
    promise_wait_seconds: float = Field(default=5, ge=0, le=60)
    quiet_hours: QuietHoursFile = QuietHoursFile()
    digest: DigestFile = DigestFile()
    caps: CapsFile = CapsFile()
    consent: ConsentFile = ConsentFile()
    undeliverable: UndeliverableFile = UndeliverableFile()
    topics: dict[
        Name, Literal["lost_order", "damaged_parcel", "unhappy", "refund", "delay", "outage"]
    ] = {}
    still_on_it: StillOnItFile = StillOnItFile()
    next_issue: dict[Name, NextIssueFile] = {}
    check_in: CheckInFile = CheckInFile()
    survey: SurveyFile = SurveyFile()
    outage: OutageFile = OutageFile()
    articles: ArticlesFile = ArticlesFile()
    account_trouble: AccountTroubleFile = AccountTroubleFile()
    retry: RetryFile = RetryFile()
