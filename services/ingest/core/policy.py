"""`channels.yaml`: which accounts there are on which channels, and who may post to the gateway.

Secrets stand here by reference only: `env:NAME` or `file:/path`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from schemas.scopes import Scope
from services.ingest.core import identity

FILE: Final = "channels.yaml"
OWN_CHANNELS: Final = frozenset({"email", "form", "event", "identity"})
"""Channels with a section of their own, and the one by which people decide about customers; `messages` may not pose as
one of them."""

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
SECRET_REFERENCE: Final = re.compile(r"^(?:env:[A-Za-z_][A-Za-z0-9_]*|file:/.+)$")
SecretReference = Annotated[str, StringConstraints(pattern=SECRET_REFERENCE.pattern)]
Address = Annotated[
    str, StringConstraints(pattern=r"^[^\s@<>,;:\"()]{1,64}@[^\s@<>,;:\"()]{1,189}$", to_lower=True)
]
RETIRED: Final = dict.fromkeys(
    ("buffer", "buffer_reply"),
    "is discontinued and has no inbox any more; use facebook_page, instagram, x, hootsuite or sprout",
)
"""Channels that people ask for and that have no counterpart any more, and what took their place."""


class PolicyMistake(ValueError):
    """A file says what cannot work: which file, which path in it, which value, and what is allowed."""

    def __init__(self, file: str, path: str, value: object, allowed: str) -> None:
        super().__init__(f"{file}: {path}: {allowed}")
        self.file = file
        self.path = path
        self.value = value
        self.allowed = allowed


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class OAuth(_Strict):
    """Where access tokens for a mailbox come from (RFC 6749, refresh token grant). Defaults are Google's.

    A `client_secret` may be missing where the client is a public one; `scope` is asked for where it is not empty.
    """

    token_url: Annotated[str, StringConstraints(pattern=r"^https?://[^/\s]+/.*$")] = (
        "https://oauth2.googleapis.com/token"  # noqa: S105 - an address
    )
    client_id: Annotated[str, StringConstraints(min_length=1)]
    client_secret: SecretReference | None = None
    refresh_token: SecretReference
    scope: str = ""


class ImapSource(_Strict):
    """A mailbox that is read. `start` says what a first look takes: `new` mail from then on, or `all` there is.

    `auth` is how we log in: by `password`, or by `xoauth2` with an access token that `oauth` says how to get.
    """

    host: Annotated[str, StringConstraints(min_length=1)]
    port: int = Field(default=993, ge=1, le=65535)
    security: Literal["tls", "starttls", "none"] = "tls"
    user: Annotated[str, StringConstraints(min_length=1)]
    auth: Literal["password", "xoauth2"] = "password"
    password: SecretReference | None = None
    oauth: OAuth | None = None
    folder: str = "INBOX"
    poll_seconds: int | None = Field(default=None, ge=1, le=3600)
    start: Literal["new", "all"] = "new"

    @model_validator(mode="after")
    def _can_log_in(self) -> Self:  # noqa: N804 - an "after" validator gets the model itself
        if self.auth == "password" and self.password is None:
            raise ValueError("auth: password needs `password`, a reference such as env:NAME")
        if self.auth == "xoauth2" and self.oauth is None:
            raise ValueError("auth: xoauth2 needs `oauth` with client_id and refresh_token")
        return self

    @property
    def references(self) -> tuple[str, ...]:
        """The references to secrets that logging in needs."""
        if self.auth == "password":
            return (self.password,) if self.password is not None else ()
        if self.oauth is None:
            return ()
        return tuple(
            one for one in (self.oauth.client_secret, self.oauth.refresh_token) if one is not None
        )


Meaning = Literal[
    "name", "first_name", "last_name", "email", "phone", "subject", "message", "order", "ignore"
]
"""What a form's field means."""
Notice = Literal["voicemail", "missed", "text"]
"""What a telephone service tells of by mail."""
Sender = Annotated[str, StringConstraints(pattern=r"^[^\s<>,;]{3,254}$", to_lower=True)]
"""An address, or a domain that stands for all its addresses (and none of its subdomains')."""


class PhoneMails(_Strict):
    """Mails of a telephone service. What is empty is as built in.

    `subjects` maps text within a subject, in any case, to what such a mail tells of. `cut_at` are the beginnings of lines
    at which a footer starts. `country_code` completes numbers that are written without one.
    """

    senders: tuple[Sender, ...] = Field(default=(), max_length=50)
    subjects: dict[str, Notice] = Field(default_factory=dict, max_length=50)
    cut_at: tuple[Annotated[str, StringConstraints(min_length=3, max_length=200)], ...] = Field(
        default=(), max_length=50
    )
    country_code: str = Field(default="1", pattern=r"^[0-9]{0,3}$")


class FormMails(_Strict):
    """Mails of a form product, a line `label: value` for each field.

    `fields` says what a label (in any case) means; a label that is neither named here nor known becomes a field of the
    message. `subject` is text that the mail's subject must contain, in any case.
    """

    senders: tuple[Sender, ...] = Field(min_length=1, max_length=50)
    subject: str = Field(default="", max_length=200)
    fields: dict[str, Meaning] = Field(default_factory=dict, max_length=50)


class MailRules(_Strict):
    """What is made of mails that machines write in somebody's name; only of those whose sender is proved."""

    google_voice: PhoneMails = PhoneMails()
    youmail: PhoneMails = PhoneMails()
    forms: tuple[FormMails, ...] = Field(default=(FormMails(senders=("powr.io",)),), max_length=50)


class MailAccount(_Strict):
    """A mail account: its addresses, where it is read from, whose authentication results count, rules for machines' mails."""

    addresses: tuple[Address, ...] = Field(min_length=1)
    imap: ImapSource | None = None
    trusted_servers: tuple[str, ...] = ()
    rules: MailRules = MailRules()


class FormAccount(_Strict):
    """A web form. `origins` are the sites it may be sent from (none listed: any); `secrets` sign a server's posts."""

    origins: tuple[Annotated[str, StringConstraints(pattern=r"^https?://[^/]+$")], ...] = ()
    secrets: tuple[SecretReference, ...] = ()


class GenericAccount(_Strict):
    """An account of a channel that other systems post for by `/v1/messages`."""

    channel: Name


class ChannelAccount(BaseModel):
    """An account of a channel that has an adapter: the channel's name, and the settings that the adapter declares."""

    model_config = ConfigDict(extra="allow", frozen=True)

    channel: Name


class EventAccount(_Strict):
    """A source of CloudEvents that signs them (Standard Webhooks)."""

    secrets: tuple[SecretReference, ...] = Field(min_length=1)


class ApiKey(_Strict):
    """A key of the gateway, and what it opens. `domains` are those that it may provision; none listed: all of them."""

    name: Name
    secret: SecretReference
    scopes: tuple[Scope, ...] = Field(min_length=1)
    domains: tuple[Name, ...] = ()


GroupMeaning = Annotated[
    str,
    StringConstraints(
        pattern=r"^(?:queue:[a-z0-9][a-z0-9_-]{0,62}"
        r"|skill:[a-z0-9][a-z0-9_-]{0,62}(?::(?:[1-9]|10))?"
        r"|language:[a-z]{2,3}(?::(?:[1-9]|10))?)$"
    ),
]


class ScimDomain(_Strict):
    """A routing domain whose agents an identity provider may provision, and what SCIM cannot know of it.

    `capacity` is what an agent carries whose user says nothing of it: 0, so nothing, until an operator chooses. `level` is
    the proficiency that a group gives whose name has none (`skill:orders`); without it such a group is refused. `groups`
    says what the provider's own group names mean (`Front line: queue:service`).
    """

    capacity: int = Field(default=0, ge=0, le=100_000)
    level: int | None = Field(default=None, ge=1, le=10)
    groups: dict[Annotated[str, StringConstraints(min_length=1, max_length=200)], GroupMeaning] = (
        Field(default_factory=dict)
    )


class AutomaticRules(_Strict):
    """When automatic mail in a conversation is a loop: more than `messages_max` within the window."""

    messages_max: int = Field(default=10, ge=1, le=1000)
    window_minutes: int = Field(default=180, ge=1, le=10_080)


class ChannelsFile(_Strict):
    """The file as written."""

    domain: Name = "main"
    mail: dict[Name, MailAccount] = Field(default_factory=dict)
    forms: dict[Name, FormAccount] = Field(default_factory=dict)
    channels: dict[Name, ChannelAccount] = Field(default_factory=dict)
    messages: dict[Name, GenericAccount] = Field(default_factory=dict)
    events: dict[Name, EventAccount] = Field(default_factory=dict)
    event_origins: tuple[str, ...] = ()
    """Who may deliver CloudEvents, by the origin they name beforehand; none listed: whoever has a key."""
    api_keys: tuple[ApiKey, ...] = ()
    scim: dict[Name, ScimDomain] = Field(default_factory=dict)
    """By routing domain; others take no SCIM."""
    automatic: AutomaticRules = Field(default_factory=AutomaticRules)


@dataclass(frozen=True, slots=True)
class Channels:
    """The accounts in force. `accounts_by_address` has every address of every mail account."""

    version: str
    file: ChannelsFile
    accounts_by_address: Mapping[str, str] = field(default_factory=dict)
    channel_accounts: Mapping[str, tuple[str, BaseModel]] = field(default_factory=dict)
    """By the account's name: its channel, and its settings as the channel's adapter declares them."""

    @property
    def own_addresses(self) -> frozenset[str]:
        """Our mailboxes' addresses, in lower case."""
        return frozenset(self.accounts_by_address)

    @property
    def automatic_window(self) -> timedelta:
        """How far back automatic mail is counted."""
        return timedelta(minutes=self.file.automatic.window_minutes)

    def account_of(self, address: str) -> str | None:
        """Return the mail account that an address (with or without `+detail`) belongs to."""
        exact = self.accounts_by_address.get(address.strip().lower())
        return exact or self.accounts_by_address.get(identity.without_detail(address))

    def trusted_servers(self, account: str) -> frozenset[str]:
        """Return the receiving servers whose authentication results count for a mail account."""
        found = self.file.mail.get(account)
        return frozenset(name.lower() for name in found.trusted_servers) if found else frozenset()


def _channel_accounts(
    file: ChannelsFile, kinds: Mapping[str, type[BaseModel]]
) -> dict[str, tuple[str, BaseModel]]:
    """Return the accounts with the settings their channels declare.

    Raises:
        PolicyMistake: there is no such channel, or a setting is not what the channel takes.
    """
    made: dict[str, tuple[str, BaseModel]] = {}
    for name, account in file.channels.items():
        where = f"channels.{name}"
        kind = kinds.get(account.channel)
        if kind is None:
            raise PolicyMistake(
                FILE,
                f"{where}.channel",
                account.channel,
                RETIRED.get(account.channel) or f"must be one of {', '.join(sorted(kinds))}",
            )
        try:
            made[name] = (account.channel, kind.model_validate(account.model_extra or {}))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            path = ".".join(str(part) for part in first["loc"])
            known = ", ".join(sorted(kind.model_fields))
            allowed = (
                f"is not known here; known: {known}"
                if first["type"] == "extra_forbidden"
                else first["msg"]
            )
            raise PolicyMistake(FILE, f"{where}.{path}", first["input"], allowed) from None
    return made


def _check_domains(file: ChannelsFile, index: int, key: ApiKey) -> None:
    """Refuse a bound that would not hold.

    Raises:
        PolicyMistake: the key opens more than SCIM, of which `domains` bounds nothing, or a domain takes no SCIM.
    """
    if key.domains and set(key.scopes) != {"scim"}:
        raise PolicyMistake(
            FILE,
            f"api_keys.{index}.domains",
            ", ".join(key.domains),
            "bounds the scope scim alone; give the other scopes to a key of their own",
        )
    for place, domain in enumerate(key.domains):
        if domain not in file.scim:
            raise PolicyMistake(
                FILE,
                f"api_keys.{index}.domains.{place}",
                domain,
                f"must be one of the domains under scim: {', '.join(sorted(file.scim)) or 'none'}",
            )


def build(
    parsed: Mapping[str, Any],
    folder: Path,
    version: str,
    kinds: Mapping[str, type[BaseModel]] | None = None,
) -> Channels:
    """Return the accounts of a parsed file; `kinds` are the settings that each channel declares.

    Raises:
        PolicyMistake: an address or a key's name stands twice, a key's domains bound nothing, a channel's name is taken
            or unknown, or its settings are not what it takes.
    """
    del folder
    file: ChannelsFile = parsed[FILE]
    by_address: dict[str, str] = {}
    for name, account in file.mail.items():
        for index, address in enumerate(account.addresses):
            taken = by_address.setdefault(address, name)
            if taken != name or address in account.addresses[:index]:
                raise PolicyMistake(
                    FILE,
                    f"mail.{name}.addresses.{index}",
                    address,
                    f"an address belongs to one account; {taken} has it",
                )
    taken_names = OWN_CHANNELS | set(kinds or {})
    for name, generic in file.messages.items():
        if generic.channel in taken_names:
            raise PolicyMistake(
                FILE,
                f"messages.{name}.channel",
                generic.channel,
                f"must not be one of {', '.join(sorted(taken_names))}",
            )
    seen: set[str] = set()
    for index, key in enumerate(file.api_keys):
        if key.name in seen:
            raise PolicyMistake(
                FILE, f"api_keys.{index}.name", key.name, "a key's name may stand once"
            )
        seen.add(key.name)
        _check_domains(file, index, key)
    return Channels(version, file, by_address, _channel_accounts(file, kinds or {}))
