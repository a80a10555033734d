"""Sends messages by the accounts of `notify.yaml`: a client for each account, made when first used and closed when it is gone.

Accounts share nothing, so one whose vendor hangs costs the others nothing. Trouble of an account (credentials, a missing secret,
an address that leads inside) is told once, with the account's name and what to renew, and taken back with the first success. What
is told is known to this process alone: another one, and this one after a restart, tells it again.

Our own mail server has one login for all senders, so its trouble is one, under the server's name.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

import httpx

from chassis import logs
from chassis.clock import monotonic
from chassis.secrets import read_secret
from services.notifier.adapters import PROVIDERS
from services.notifier.adapters.api import AccountApi, ReadSecret
from services.notifier.adapters.provider import Provider
from services.notifier.adapters.smtp import SmtpProvider
from services.notifier.core.accounts import Account
from services.notifier.core.delivery import (
    Absent,
    Attempted,
    Delivered,
    Ended,
    Failed,
    Unknown,
)
from services.notifier.core.post import Post, Trouble
from services.notifier.core.state import Mail
from services.notifier.metrics import (
    ACCOUNT_TROUBLE,
    ACCOUNT_TROUBLES,
    PROVIDER_OPEN,
    PROVIDER_SECONDS,
)

MAIL: Final = "smtp"
"""The provider of our own mail server; its accounts are senders, which share the server."""

_RENEW_MAIL: Final = (
    "SIGNALBOX_SMTP_USER and SIGNALBOX_SMTP_PASSWORD, or what the mail server says of them"
)

log = logs.get("notifier")


class Sending:
    """Sends and looks up. `accounts` returns those in force; `clients` makes a client for one."""

    def __init__(
        self,
        mail: SmtpProvider,
        accounts: Callable[[], Mapping[str, Account]],
        clients: Callable[[], httpx.AsyncClient],
        *,
        seconds: float = 20.0,
        providers: Mapping[str, Provider] = PROVIDERS,
        secrets: ReadSecret = read_secret,
        now: Callable[[], float] = monotonic,
    ) -> None:
        self._mail = mail
        self._accounts = accounts
        self._clients = clients
        self._seconds = seconds
        self._providers = providers
        self._secrets = secrets
        self._now = now
        self._apis: dict[str, AccountApi] = {}
        self._at: dict[str, str] = {}
        """At which provider each of them is."""
        self._troubled: set[tuple[str, str]] = set()
        self._is_stopping = False

    def is_repeatable(self, provider: str) -> bool:
        """Whether the provider drops a repeat by its key, so that an interrupted send may be made again."""
        found = self._providers.get(provider)
        return found is not None and found.traits.is_keyed

    def can_find(self, provider: str) -> bool:
        """Whether an interrupted send can be looked up there."""
        found = self._providers.get(provider)
        return found is not None and found.traits.can_find

    async def send(self, provider: str, account: str, message: Mail | Post) -> Attempted:
        """Send once. Every way it can end is an answer."""
        began = self._now()
        result = await self._send(provider, account, message)
        self._note(provider, account, result, began)
        if isinstance(result, Delivered):
            self._end_trouble(provider, self._whose(provider, account))
        return result

    async def _send(self, provider: str, account: str, message: Mail | Post) -> Attempted:
        if provider == MAIL:
            if not isinstance(message, Mail):
                return Failed("a mail server takes nothing but mails", is_recoverable=False)
            return await self._mail.send(message)
        found = await self._reach(provider, account)
        if isinstance(found, Failed):
            return found
        if isinstance(message, Mail) != (self._providers[provider].traits.form == "mail"):
            return Failed(f"{provider} takes no message of this kind", is_recoverable=False)
        return await found.send(self._providers[provider], message, is_last=self._is_stopping)

    async def find(self, provider: str, account: str, message: Mail | Post) -> Ended:
        """Look an interrupted send up.

        `Delivered` says that it was sent, `Absent` that it surely was not. `Failed` says that it cannot be told now (ask again
        where it is recoverable), `Unknown` that it cannot be told at all.
        """
        if not self.can_find(provider):
            return Unknown("the provider cannot be asked")
        found = await self._reach(provider, account)
        if isinstance(found, Failed):
            return found
        began = self._now()
        asked = found.find(self._providers[provider], message, is_last=self._is_stopping)
        result = await asked or Absent()
        self._note(provider, account, result, began)
        return result

    async def _reach(self, provider: str, account: str) -> AccountApi | Failed:
        """Return the account's API, with the settings that are in force."""
        while True:
            known = self._accounts().get(account)
            if known is None or known.provider != provider or provider not in self._providers:
                where = f"accounts.{account} of notify.yaml"
                return Failed(
                    f"{where} is not there, or not at {provider}", True, None, Trouble.ACCOUNT
                )
            api = self._apis.get(account)
            if api is None:
                break
            if not api.is_retired and api.settings == known.settings:
                return api
            # The old one first, and then all is looked at again: what is made below is in use before anything else happens, or
            # the service's end would close it as one that nobody needs.
            self._forget(account)
            await api.retire()
        made = AccountApi(
            known.settings,
            self._clients(),
            self._secrets,
            seconds=self._seconds,
            now=self._now,
        )
        if not self._is_stopping:
            self._apis[account], self._at[account] = made, provider
        return made

    def _note(self, provider: str, account: str, result: Ended, began: float) -> None:
        """Count what came of it, and tell an account's trouble once."""
        name = provider if provider == MAIL or provider in self._providers else "other"
        PROVIDER_SECONDS.labels(name, _kind(result)).observe(self._now() - began)
        api = self._apis.get(account)
        if api is not None:
            PROVIDER_OPEN.labels(name, account).set(float(api.http.is_open))
        if isinstance(result, Failed) and result.trouble is Trouble.ACCOUNT:
            self._tell_trouble(name, self._whose(provider, account), result.reason)

    def _whose(self, provider: str, account: str) -> str:
        """Return whose trouble it is. A mail's account is the channel that it answers, and the login is the server's for all."""
        return self._mail.host if provider == MAIL else account

    def _tell_trouble(self, provider: str, account: str, reason: str) -> None:
        if (provider, account) in self._troubled:
            return
        self._troubled.add((provider, account))
        ACCOUNT_TROUBLE.labels(provider, account).set(1.0)
        ACCOUNT_TROUBLES.labels(provider).inc()
        known = self._providers.get(provider)
        log.error(
            "account_trouble",
            provider=provider,
            account=account,
            reason=reason,
            cure=_RENEW_MAIL if known is None else known.renew,
            follows="messages of this account wait, and go when it works again",
        )

    def _end_trouble(self, provider: str, account: str) -> None:
        """Take trouble back after a send: a lookup that succeeds proves only that the account may read."""
        if (provider, account) in self._troubled:
            self._troubled.discard((provider, account))
            ACCOUNT_TROUBLE.labels(provider, account).set(0.0)
            log.info("account_works_again", provider=provider, account=account)

    async def follow_policy(self) -> None:
        """Keep no connection for an account that has left the policy or has other settings, and no trouble of it."""
        accounts = self._accounts()
        for name, api in list(self._apis.items()):
            known = accounts.get(name)
            if self._apis.get(name) is not api:
                continue  # A send was faster.
            if known is None or known.settings != api.settings:
                self._forget(name)
                await api.retire()
            else:
                PROVIDER_OPEN.labels(known.provider, name).set(float(api.http.is_open))
        for provider, name in list(self._troubled):
            known = accounts.get(name)
            if provider != MAIL and (known is None or known.provider != provider):
                self._troubled.discard((provider, name))
                ACCOUNT_TROUBLE.labels(provider, name).set(0.0)

    def _forget(self, account: str) -> None:
        """Use an account's client for nothing new; what is shown of its breaker goes with it."""
        if self._apis.pop(account, None) is not None:
            PROVIDER_OPEN.labels(self._at.pop(account), account).set(0.0)

    async def close(self) -> None:
        """Close every client as soon as its last send has ended, and say goodbye to the mail server.

        What is sent after that has a client of its own, for it alone.
        """
        self._is_stopping = True
        apis, self._apis = list(self._apis.values()), {}
        await asyncio.gather(*(api.retire() for api in apis), self._mail.close())


def _kind(result: Ended) -> str:
    """The result's name in metrics and logs."""
    match result:
        case Delivered() | Absent():
            return "delivered"
        case Failed(is_recoverable=is_recoverable):
            return "recoverable" if is_recoverable else "refused"
        case _:
            return "unknown"
