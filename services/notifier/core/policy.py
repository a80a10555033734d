"""`notify.yaml` and the templates: what is told to whom, how often, from which address, in which words.

Owns the files' models and the checks across them. `build` gets the templates' sources, compiles them and renders each
once with a sample, so that a template that could fail at a customer fails at the operator instead.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from babel import Locale, UnknownLocaleError
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from services.notifier.core.render import TemplateMistake, Templates, compile_templates
from services.notifier.core.text import clean_line

FILE = "notify.yaml"

Language = Annotated[str, StringConstraints(pattern=r"^[a-z]{2}$")]
Line = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]+$", max_length=200)]
Address = Annotated[
    str,
    StringConstraints(
        pattern=r"^[A-Za-z0-9._-]{1,15}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*$", max_length=120
    ),
]
"""One of ours. Short before the @: `+sb.` and a token of 45 characters still have to fit into 64."""


class PolicyMistake(ValueError):
    """A policy that cannot work. Says which file, which path in it, which value, and what is allowed."""

    def __init__(self, file: str, path: str, value: object, allowed: str) -> None:
        super().__init__(f"{file}: {path}: {value!r}: {allowed}")
        self.file = file
        self.path = path
        self.value = value
        self.allowed = allowed


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


class LanguageFile(_Model):
    """How a language writes dates, and how we sign in it."""

    locale: str
    signature: Line


class OccasionsFile(_Model):
    """Which automatic notices are sent. An agent's answer always is."""

    received: bool = True
    escalated: bool = True
    solved: bool = True


class CapsFile(_Model):
    """How many automatic notices are too many. `unverified_total_per_hour` counts all unproved addresses together."""

    unverified_recipient_per_hour: int = Field(default=4, ge=0, le=1000)
    unverified_total_per_hour: int = Field(default=500, ge=0, le=100_000)
    verified_recipient_per_hour: int = Field(default=20, ge=0, le=1000)
    automatic_between_human: int = Field(default=3, ge=0, le=100)


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
    """`notify.yaml`. `promise_wait_seconds` is how long `received` waits at most for what can be promised; 0: not at all."""

    senders: dict[str, SenderFile] = Field(min_length=1)
    default_sender: str
    channels_answered_by_mail: tuple[str, ...] = ("email", "form")
    default_language: Language = "en"
    timezone: str = "UTC"
    languages: dict[Language, LanguageFile] = Field(min_length=1)
    occasions: OccasionsFile = OccasionsFile()
    promise_wait_seconds: float = Field(default=5, ge=0, le=60)
    caps: CapsFile = CapsFile()
    retry: RetryFile = RetryFile()


@dataclass(frozen=True, slots=True)
class Sender:
    """Who a notice comes from, and where bounces of it go."""

    from_name: str
    address: str
    message_id_domain: str
    bounces_to: Literal["token", "address", "nobody"]


@dataclass(frozen=True, slots=True)
class LanguagePolicy:
    """A language with templates: its locale and our signature in it."""

    locale: Locale
    signature: str


@dataclass(frozen=True, slots=True)
class Policy:
    """The notifier's policy in force, checked. `version` is the folder's digest."""

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

    @property
    def attempts_max(self) -> int:
        """How often a notice is tried, the first time included."""
        return len(self.retry_delays) + 1


def build(file: NotifyFile, sources: Mapping[str, str], version: str) -> Policy:
    """Check `notify.yaml` with the templates (`sources` by path below `templates/`) and return the policy.

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
    return Policy(
        version=version,
        sender_by_account=MappingProxyType(_accounts(file, senders)),
        default_sender=senders[file.default_sender],
        own_addresses=frozenset(sender.address.lower() for sender in senders.values()),
        channels=frozenset(file.channels_answered_by_mail),
        default_language=file.default_language,
        zone=_zone(file.timezone),
        languages=MappingProxyType(
            {code: _language(code, item) for code, item in file.languages.items()}
        ),
        occasions_off=frozenset(name for name, is_on in occasions.items() if not is_on),
        promise_wait=timedelta(seconds=file.promise_wait_seconds),
        unverified_recipient_per_hour=file.caps.unverified_recipient_per_hour,
        unverified_total_per_hour=file.caps.unverified_total_per_hour,
        verified_recipient_per_hour=file.caps.verified_recipient_per_hour,
        automatic_between_human=file.caps.automatic_between_human,
        retry_delays=tuple(timedelta(seconds=seconds) for seconds in file.retry.delays_seconds),
        retry_jitter=file.retry.jitter,
        templates=templates,
    )


def _sender(item: SenderFile) -> Sender:
    return Sender(
        clean_line(item.from_name), item.address, item.message_id_domain.lower(), item.bounces_to
    )


def _accounts(file: NotifyFile, senders: Mapping[str, Sender]) -> dict[str, Sender]:
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


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise PolicyMistake(
            FILE, "timezone", name, "an IANA time zone such as Europe/Istanbul"
        ) from None


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
