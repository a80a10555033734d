"""`notify.yaml` and the templates: what is told to whom, how often, from which address, in which words.

Owns the files' models and the checks across them. `build` gets the templates' sources, compiles them and renders each
once with a sample, so that a template that could fail at a customer fails at the operator instead.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from types import MappingProxyType
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from babel import Locale, UnknownLocaleError
from pydantic import TypeAdapter, ValidationError

from schemas.notifications import Category, Occasion
from services.notifier.core.accounts import Account, AccountSettings
from services.notifier.core.articles import (
    NO_ARTICLES,
    ArticleMistake,
    ArticlesPolicy,
    build_articles,
)
from services.notifier.core.notify_file import (
    DAYS,
    ApprovedTemplateFile,
    LanguageFile,
    NotifyFile,
    QuietHoursFile,
    SenderFile,
)
from services.notifier.core.post import ANY_CHANNEL, Traits
from services.notifier.core.quiet import (
    WEEK,
    QuietHours,
    Window,
    first_overlap,
    is_quiet_at,
    quiet_minutes,
)
from services.notifier.core.reason import OPENING
from services.notifier.core.render import TemplateMistake, Templates, compile_templates
from services.notifier.core.text import clean_line
from services.notifier.core.timing import NextIssue, Timing

__all__ = ["FILE", "NotifyFile", "Policy", "PolicyMistake", "build"]

FILE = "notify.yaml"

MAIL = "smtp"
"""The provider of our own mail server, which needs no account: senders are its addresses."""

MAIL_FALL_BACK = "mail"
"""What `fall_back` calls it."""

PHONE_PROVIDERS = frozenset({"twilio_sms", "whatsapp"})
"""Providers that write to a telephone number, wherever it was learned. All others know only people who wrote there first."""

FREE_MINUTES_MIN = 3 * 60
"""Quiet hours leave at least so many minutes of a week; clocks that change take one or two hours away."""


class PolicyMistake(ValueError):
    """A policy that cannot work. Says which file, which path in it, which value, and what is allowed."""

    def __init__(self, file: str, path: str, value: object, allowed: str) -> None:
        super().__init__(f"{file}: {path}: {value!r}: {allowed}")
        self.file = file
        self.path = path
        self.value = value
        self.allowed = allowed


@dataclass(frozen=True, slots=True)
class Sender:
    """Who a notice comes from, and where bounces of it go."""

    from_name: str
    address: str
    message_id_domain: str
    bounces_to: Literal["token", "address", "nobody"]
    is_rehearsed: bool = False


@dataclass(frozen=True, slots=True)
class LanguagePolicy:
    """A language with templates: its locale and our signature in it."""

    locale: Locale
    signature: str


@dataclass(frozen=True, slots=True)
class CategoryCap:
    """At most `count` automatic notices of a category to one recipient within `window`."""

    count: int
    window: timedelta


@dataclass(frozen=True, slots=True)
class ApprovedTemplate:
    """A message that the vendor has approved: its name and language there, and the facts that fill its places, in order."""

    name: str
    language: str
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Digest:
    """Occasions that are gathered into one notice a day, at `minute` of the customer's day."""

    occasions: frozenset[Occasion] = frozenset()
    minute: int = 600


@dataclass(frozen=True, slots=True)
class SurveyPolicy:
    """Who is asked how it went: a share of the cases, by channel where one has a share of its own, nobody twice within `again`."""

    kind: Literal["csat", "ces", "nps"] = "csat"
    share: float = 1
    shares: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    again: timedelta = timedelta(days=30)

    def share_of(self, channel: str) -> float:
        """Return the share of a channel's cases that is asked about."""
        return self.shares.get(channel, self.share)


@dataclass(frozen=True, slots=True)
class OutageAudience:
    """Who hears of an outage beside those it names: nobody, who has an `open` case, or who had one in the time of `recent`."""

    audience: Literal["named", "open", "recent"] = "open"
    recent: timedelta = timedelta(days=7)
    recipients_max: int = 20_000


@dataclass(frozen=True, slots=True)
class Policy:
    """The notifier's policy in force, checked. `version` is the folder's digest.

    `accounts`, `traits` (of the account's provider) and `approved` (templates by occasion and our language) are by the account's
    name. `fall_back` names ways in order: `mail` or an account. `hard_bounce_for` is how long an address is left alone that
    was refused for good (None: for good). `occasions_off` are those that are turned off or that nobody has written.
    `is_dry_run`: nothing leaves at all; `rehearsed_accounts` are those that nothing leaves by.
    """

    version: str
    sender_by_account: Mapping[str, Sender]
    default_sender: Sender
    own_addresses: frozenset[str]
    channels: frozenset[str]
    default_language: str
    zone: ZoneInfo
    languages: Mapping[str, LanguagePolicy]
    occasions_off: frozenset[str]
    promise_wait: timedelta
    unverified_recipient_per_hour: int
    unverified_total_per_hour: int
    verified_recipient_per_hour: int
    automatic_between_human: int
    retry_delays: tuple[timedelta, ...]
    retry_jitter: float
    templates: Templates
    timing: Timing = field(default_factory=Timing)
    automatic_total_per_hour: int = 20_000
    category_caps: Mapping[Category, CategoryCap] = field(
        default_factory=lambda: MappingProxyType({})
    )
    accounts: Mapping[str, Account] = field(default_factory=lambda: MappingProxyType({}))
    traits: Mapping[str, Traits] = field(default_factory=lambda: MappingProxyType({}))
    approved: Mapping[str, Mapping[Occasion, Mapping[str, ApprovedTemplate]]] = field(
        default_factory=lambda: MappingProxyType({})
    )
    fall_back: tuple[str, ...] = ()
    zone_by_country: Mapping[str, ZoneInfo] = field(default_factory=lambda: MappingProxyType({}))
    quiet: QuietHours = field(default_factory=QuietHours)
    digest: Digest = Digest()
    consent_needed: frozenset[Category] = frozenset()
    hard_bounce_for: timedelta | None = None
    soft_bounce_for: timedelta = timedelta(days=3)
    survey: SurveyPolicy = SurveyPolicy()
    outage: OutageAudience = OutageAudience()
    articles: ArticlesPolicy = NO_ARTICLES
    is_dry_run: bool = False
    rehearsed_accounts: frozenset[str] = frozenset()

    def rehearses(self, provider: str, account: str) -> bool:
        """Whether a message that would go this way stays here: all is done but handing it over.

        `account` is as a route has it: of our own mail it is the channel's account that a sender answers for.
        """
        if self.is_dry_run:
            return True
        if provider == MAIL:
            return self.sender_by_account.get(account, self.default_sender).is_rehearsed
        return account in self.rehearsed_accounts

    def rehearsals(self) -> tuple[str, ...]:
        """Return what does not leave, in the file's own terms: `all`, or the senders' addresses and the accounts' names."""
        if self.is_dry_run:
            return ("all",)
        senders = {self.default_sender, *self.sender_by_account.values()}
        addresses = {sender.address for sender in senders if sender.is_rehearsed}
        return (*sorted(addresses), *sorted(self.rehearsed_accounts))

    @property
    def attempts_max(self) -> int:
        """How often a notice is tried, the first time included."""
        return len(self.retry_delays) + 1


Providers = Mapping[str, tuple[type[AccountSettings], Traits]]
"""What the policy needs to know of each provider, by its name."""

NO_PROVIDERS: Providers = MappingProxyType({})


def build(
    file: NotifyFile,
    sources: Mapping[str, str],
    version: str,
    providers: Providers = NO_PROVIDERS,
    *,
    articles: Mapping[str, str] = MappingProxyType({}),
    guides: Mapping[str, type[AccountSettings]] = MappingProxyType({}),
) -> Policy:
    """Check `notify.yaml` with the templates (`sources` by path below `templates/`) and return the policy.

    `providers` are those that an account can be at. Mail by our own server needs none. `articles` are the sources below
    `articles/` by path, `guides` the kinds of help centres.

    Raises:
        PolicyMistake: the first thing that cannot work.
    """
    senders = {name: _sender(item) for name, item in file.senders.items()}
    if file.default_sender not in senders:
        raise PolicyMistake(
            FILE,
            "default_sender",
            file.default_sender,
            f"one of the senders: {', '.join(sorted(senders))}",
        )
    if file.default_language not in file.languages:
        raise PolicyMistake(
            FILE,
            "default_language",
            file.default_language,
            f"one of the languages: {', '.join(sorted(file.languages))}",
        )
    try:
        templates = compile_templates(sources, tuple(file.languages))
    except TemplateMistake as mistake:
        raise PolicyMistake(
            mistake.file, mistake.where, mistake.value, mistake.allowed
        ) from mistake
    occasions = file.occasions.model_dump()
    unwritten = {name for name in occasions if not templates.has(name)}
    off = frozenset(name for name, is_on in occasions.items() if not is_on) | unwritten
    zone = _zone("timezone", file.timezone)
    accounts = {name: _account(name, item, providers) for name, item in file.accounts.items()}
    traits = {name: providers[account.provider][1] for name, account in accounts.items()}
    quiet = _quiet(file.quiet_hours, providers)
    return Policy(
        version=version,
        sender_by_account=MappingProxyType(_senders_of_accounts(file, senders)),
        default_sender=senders[file.default_sender],
        own_addresses=frozenset(sender.address.lower() for sender in senders.values()),
        channels=frozenset(file.channels_answered_by_mail),
        default_language=file.default_language,
        zone=zone,
        languages=MappingProxyType(
            {code: _language(code, item) for code, item in file.languages.items()}
        ),
        occasions_off=off,
        promise_wait=timedelta(seconds=file.promise_wait_seconds),
        unverified_recipient_per_hour=file.caps.unverified_recipient_per_hour,
        unverified_total_per_hour=file.caps.unverified_total_per_hour,
        verified_recipient_per_hour=file.caps.verified_recipient_per_hour,
        automatic_between_human=file.caps.automatic_between_human,
        retry_delays=tuple(timedelta(seconds=seconds) for seconds in file.retry.delays_seconds),
        retry_jitter=file.retry.jitter,
        templates=templates,
        timing=_timing(file, off),
        automatic_total_per_hour=file.caps.automatic_total_per_hour,
        category_caps=MappingProxyType(
            {
                category: CategoryCap(cap.count, timedelta(days=cap.days))
                for category, cap in file.caps.categories.items()
            }
        ),
        accounts=MappingProxyType(accounts),
        traits=MappingProxyType(traits),
        approved=MappingProxyType(
            {
                name: _approved(name, item, file, traits[name])
                for name, item in file.accounts.items()
            }
        ),
        fall_back=_fall_back(file, traits, accounts),
        zone_by_country=MappingProxyType(
            {
                country: _zone(f"timezone_by_country.{country}", name)
                for country, name in file.timezone_by_country.items()
            }
        ),
        quiet=quiet,
        digest=_digest(file, quiet, off),
        consent_needed=frozenset(file.consent.needed),
        hard_bounce_for=_days(file.undeliverable.hard_days),
        soft_bounce_for=timedelta(days=file.undeliverable.soft_days),
        survey=SurveyPolicy(
            file.survey.kind,
            file.survey.share,
            MappingProxyType(dict(file.survey.shares)),
            timedelta(days=file.survey.again_after_days),
        ),
        outage=OutageAudience(
            file.outage.audience,
            timedelta(days=file.outage.recent_days),
            file.outage.recipients_max,
        ),
        articles=_articles(file, articles, guides),
        is_dry_run=file.delivery == "dry_run",
        rehearsed_accounts=frozenset(
            name for name, item in file.accounts.items() if _is_rehearsed(name, item)
        ),
    )


def _articles(
    file: NotifyFile, sources: Mapping[str, str], guides: Mapping[str, type[AccountSettings]]
) -> ArticlesPolicy:
    try:
        return build_articles(file.articles, sources, tuple(file.languages), guides)
    except ArticleMistake as mistake:
        raise PolicyMistake(FILE, mistake.field, mistake.value, mistake.allowed) from mistake


def _sender(item: SenderFile) -> Sender:
    return Sender(
        clean_line(item.from_name),
        item.address,
        item.message_id_domain.lower(),
        item.bounces_to,
        item.delivery == "dry_run",
    )


def _senders_of_accounts(file: NotifyFile, senders: Mapping[str, Sender]) -> dict[str, Sender]:
    owner: dict[str, str] = {}
    for name, item in file.senders.items():
        for index, account in enumerate(item.accounts):
            if account in owner:
                raise PolicyMistake(
                    FILE,
                    f"senders.{name}.accounts.{index}",
                    account,
                    f"an account that no other sender has; {owner[account]} has this one",
                )
            owner[account] = name
    return {account: senders[name] for account, name in owner.items()}


def _zone(path: str, name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise PolicyMistake(FILE, path, name, "an IANA time zone such as Europe/Istanbul") from None


def _language(code: str, item: LanguageFile) -> LanguagePolicy:
    path = f"languages.{code}.locale"
    try:
        locale = Locale.parse(item.locale, sep="_")
    except (UnknownLocaleError, ValueError):
        raise PolicyMistake(
            FILE, path, item.locale, f"a locale such as {code} or {code}_{code.upper()}"
        ) from None
    if locale.language != code:
        raise PolicyMistake(FILE, path, item.locale, f"a locale of the language {code}")
    return LanguagePolicy(locale, clean_line(item.signature))


# ---------------------------------------------------------------------------------------- accounts

_APPROVED: TypeAdapter[dict[Occasion, dict[str, ApprovedTemplateFile]]] = TypeAdapter(
    dict[Occasion, dict[str, ApprovedTemplateFile]]
)
_NOT_THE_PROVIDERS = frozenset({"provider", "templates", "delivery"})
"""What an account has beside its provider's own settings."""

_SECRET = re.compile(r"secret|token|password|key", re.IGNORECASE)


def _account(name: str, item: Mapping[str, Any], providers: Providers) -> Account:
    path = f"accounts.{name}"
    provider = item.get("provider")
    if not isinstance(provider, str) or provider not in providers:
        raise PolicyMistake(
            FILE,
            f"{path}.provider",
            provider,
            f"one of the providers: {', '.join(sorted(providers)) or 'there are none'}"
            + ("; mail by our own server goes by `senders`" if provider == MAIL else ""),
        )
    settings = {key: value for key, value in item.items() if key not in _NOT_THE_PROVIDERS}
    try:
        return Account(provider, providers[provider][0].model_validate(settings))
    except ValidationError as error:
        raise _mistake(path, error) from None


def _is_rehearsed(name: str, item: Mapping[str, Any]) -> bool:
    delivery = item.get("delivery", "live")
    if delivery not in ("live", "dry_run"):
        raise PolicyMistake(FILE, f"accounts.{name}.delivery", delivery, "live or dry_run")
    return bool(delivery == "dry_run")


def _mistake(path: str, error: ValidationError) -> PolicyMistake:
    """Return the first of the mistakes. What may be a secret that somebody wrote where a reference belongs is not shown."""
    first = error.errors(include_url=False, include_context=False)[0]
    where = ".".join([path, *(str(part) for part in first["loc"] if part != "[key]")])
    value: object = first["input"]
    if first["type"] == "missing" or isinstance(value, Mapping):
        value = None
    elif _SECRET.search(where):
        value = "(not shown)"
    return PolicyMistake(FILE, where, value, first["msg"])


def _approved(
    name: str, item: Mapping[str, Any], file: NotifyFile, traits: Traits
) -> Mapping[Occasion, Mapping[str, ApprovedTemplate]]:
    written = item.get("templates", {})
    path = f"accounts.{name}.templates"
    if written and not traits.has_templates:
        raise PolicyMistake(
            FILE, path, None, f"nothing: {item['provider']} has no templates of its own"
        )
    try:
        checked = _APPROVED.validate_python(written)
    except ValidationError as error:
        raise _mistake(path, error) from None
    for occasion, by_language in checked.items():
        for language in by_language:
            if language not in file.languages:
                raise PolicyMistake(
                    FILE,
                    f"{path}.{occasion}.{language}",
                    language,
                    f"one of the languages: {', '.join(sorted(file.languages))}",
                )
    return MappingProxyType(
        {
            occasion: MappingProxyType(
                {
                    language: ApprovedTemplate(one.name, one.language, one.values)
                    for language, one in by_language.items()
                }
            )
            for occasion, by_language in checked.items()
        }
    )


def _fall_back(
    file: NotifyFile, traits: Mapping[str, Traits], accounts: Mapping[str, Account]
) -> tuple[str, ...]:
    for index, way in enumerate(file.fall_back):
        path = f"fall_back.{index}"
        if way in file.fall_back[:index]:
            raise PolicyMistake(FILE, path, way, "each way once")
        if way == MAIL_FALL_BACK:
            continue
        if way not in accounts:
            known = ", ".join([MAIL_FALL_BACK, *sorted(accounts)])
            raise PolicyMistake(FILE, path, way, f"one of: {known}")
        is_for_anybody = traits[way].form == "mail" or ANY_CHANNEL in traits[way].channels
        if not is_for_anybody and accounts[way].provider not in PHONE_PROVIDERS:
            raise PolicyMistake(
                FILE,
                path,
                way,
                f"an account that reaches people who never wrote there: mail, {', '.join(sorted(PHONE_PROVIDERS))};"
                f" {accounts[way].provider} knows only its own users",
            )
    return file.fall_back


# ------------------------------------------------------------------------------------------- times


def _minute(clock: str) -> int:
    hours, _, minutes = clock.partition(":")
    return int(hours) * 60 + int(minutes)


def _quiet(file: QuietHoursFile, providers: Providers) -> QuietHours:
    windows = []
    for one in file.windows:
        start, end = _minute(one.start), _minute(one.end)
        days = frozenset(DAYS.index(day) for day in one.days)
        windows.append(Window(days, start, end if end > start else end + 24 * 60))
    overlap = first_overlap(tuple(windows))
    if overlap is not None:
        first, second = (file.windows[index] for index in overlap)
        raise PolicyMistake(
            FILE,
            f"quiet_hours.windows.{overlap[1]}",
            f"{','.join(second.days)} {second.start}-{second.end}",
            "windows that do not overlap; this one does with number"
            f" {overlap[0]} ({','.join(first.days)} {first.start}-{first.end})",
        )
    free = WEEK - quiet_minutes(tuple(windows))
    if free < FREE_MINUTES_MIN:
        raise PolicyMistake(
            FILE,
            "quiet_hours.windows",
            f"{free} minutes of a week are not quiet",
            f"at least {FREE_MINUTES_MIN} minutes of a week in which customers may be written to",
        )
    rules = file.break_through
    for index, name in enumerate(rules.silent_providers):
        if name != MAIL and name not in providers:
            raise PolicyMistake(
                FILE,
                f"quiet_hours.break_through.silent_providers.{index}",
                name,
                f"one of the providers: {', '.join(sorted([MAIL, *providers]))}",
            )
    return QuietHours(
        windows=tuple(windows),
        categories=frozenset({"security", *rules.categories}),
        occasions=frozenset(rules.occasions),
        priorities=frozenset(rules.priorities),
        silent=frozenset(rules.silent_providers),
        awake=timedelta(minutes=rules.awake_minutes),
        spread=timedelta(minutes=file.spread_minutes),
    )


_NEVER_GATHERED: frozenset[str] = OPENING | {
    "answered", "security", "digest", "callback_booked", "callback_missed", "outage_known", "need_info",
    "still_on_it", "delayed", "recovery", "survey", "help",
}  # fmt: skip
"""What cannot wait for tomorrow, and a survey: its links would be cut in a digest, and nobody would know that it was asked."""


def _digest(file: NotifyFile, quiet: QuietHours, off: frozenset[str]) -> Digest:
    if file.digest.occasions and "digest" in off:
        raise PolicyMistake(
            FILE,
            "digest.occasions",
            list(file.digest.occasions),
            "empty while occasions.digest is false, or no template says it",
        )
    for index, occasion in enumerate(file.digest.occasions):
        if occasion in _NEVER_GATHERED:
            raise PolicyMistake(
                FILE,
                f"digest.occasions.{index}",
                occasion,
                f"an occasion that can wait for a day; these cannot: {', '.join(sorted(_NEVER_GATHERED))}",
            )
    minute = _minute(file.digest.at)
    if file.digest.occasions and is_quiet_at(quiet.windows, minute):
        raise PolicyMistake(
            FILE, "digest.at", file.digest.at, "a time that no day of the week has quiet"
        )
    return Digest(frozenset(file.digest.occasions), minute)


def _timing(file: NotifyFile, off: frozenset[str]) -> Timing:
    issues = {}
    for cause, issue in file.next_issue.items():
        path = f"next_issue.{cause}.articles"
        for language in issue.articles:
            if language not in file.languages:
                raise PolicyMistake(
                    FILE,
                    f"{path}.{language}",
                    language,
                    f"one of the languages: {', '.join(sorted(file.languages))}",
                )
        if file.default_language not in issue.articles:
            raise PolicyMistake(
                FILE, path, None, f"an article in the default language, {file.default_language}"
            )
        articles = {
            language: (clean_line(one.title), one.url, clean_line(one.summary, 500))
            for language, one in issue.articles.items()
        }
        issues[cause] = NextIssue(timedelta(hours=issue.after_hours), MappingProxyType(articles))
    return Timing(
        still_on_it_before=timedelta(minutes=file.still_on_it.before_minutes),
        next_issues=MappingProxyType(issues),
        check_in_after=None if "check_in" in off else timedelta(days=file.check_in.after_days),
        survey_after=None if "survey" in off else timedelta(hours=file.survey.after_hours),
        topics=MappingProxyType(dict(file.topics)),
        account_retry=timedelta(minutes=file.account_trouble.retry_minutes),
        account_patience=timedelta(hours=file.account_trouble.give_up_hours),
    )


def _days(days: float) -> timedelta | None:
    return timedelta(days=days) if days else None
