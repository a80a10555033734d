"""What a provider's module is made of: its settings, its traits, how it sends, and how an interrupted send is looked up.

A provider is one module with a `PROVIDER`. It builds every address from the account's settings and never from a vendor's
answer. It raises `Problem` for every way in which a send does not succeed; what may have had an effect and what surely had
none is told apart by `Unknown` and `Failed`.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn, Protocol

from services.notifier.core.accounts import AccountSettings
from services.notifier.core.delivery import Delivered, Failed, Unknown
from services.notifier.core.post import Traits, Trouble


class Problem(Exception):
    """A send that did not succeed; `outcome` says what that means."""

    def __init__(self, outcome: Failed | Unknown) -> None:
        super().__init__(outcome.reason)
        self.outcome = outcome


def refuse(trouble: Trouble, reason: str) -> NoReturn:
    """End a send that would never succeed as it is. Trouble of the account waits until somebody has mended it.

    Raises:
        Problem: always.
    """
    raise Problem(Failed(reason, is_recoverable=trouble is Trouble.ACCOUNT, trouble=trouble))


def later(reason: str, retry_after: timedelta | None = None) -> NoReturn:
    """End a send that had no effect, and may succeed later.

    Raises:
        Problem: always.
    """
    raise Problem(Failed(reason, True, retry_after, Trouble.PROVIDER))


def unknown(reason: str) -> NoReturn:
    """End a send of which nobody knows whether it had an effect.

    Raises:
        Problem: always.
    """
    raise Problem(Unknown(reason))


@dataclass(frozen=True, slots=True)
class Answer:
    """What a vendor answered: the status, the headers (lower-case names), the JSON (None: an empty body or none)."""

    status: int
    headers: Mapping[str, str]
    body: Any


Explain = Callable[[Answer], Failed | Unknown | None]
"""What a refusal's body says in the vendor's own codes; None where the status alone says it."""


class Api(Protocol):
    """One account's API: bounded in time and size, no redirects, no proxies of the environment, guarded against inner hosts."""

    @property
    def settings(self) -> Any:
        """The account's settings, of the provider's own type."""
        ...

    def secret(self, field: str) -> str:
        """Return the secret that a field of the settings refers to.

        Raises:
            Problem: there is none (trouble of the account).
        """
        ...

    async def call(
        self,
        method: str,
        url: str,
        *,
        is_making: bool = False,
        json: Any = None,
        form: Mapping[str, str] | None = None,
        content: bytes | None = None,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        basic: tuple[str, str] | None = None,
        explain: Explain | None = None,
        reads_answer: bool = True,
    ) -> Answer:
        """Call, and return an answer below 300; its body counts for nothing unless `reads_answer`.

        `is_making` marks a call that makes something anew and carries no key: where its answer is lost, or a server failed
        half-way, it may have been made (`Unknown`). Any other call can be repeated. `explain` is asked first about each answer,
        for some refuse with 200; otherwise 401, 403, 404, 410 and redirects are trouble of the account (who has a recipient or a
        thread in the path explains 404), 408, 423, 425, 429 and 5xx of the provider (5xx and 408 `Unknown` where `is_making`), with
        Retry-After obeyed, and all others of the message. A wish for patience that `explain` reads is obeyed for the account.

        Raises:
            Problem: what else came of it.
        """
        ...

    async def token(
        self, url: str, form: Mapping[str, str], *, basic: tuple[str, str] | None = None
    ) -> str:
        """Return an OAuth access token, asked for at `url` and kept until shortly before it expires.

        Raises:
            Problem: it could not be had.
        """
        ...


Send = Callable[[Any, Any], Awaitable[Delivered]]
"""Sends one `Post` (a `Mail` where the provider's form is `mail`) by an account's `Api`.

`Delivered.message_id` is the vendor's id of the new message. Raises `Problem`.
"""

Find = Callable[[Any, Any], Awaitable[Delivered | None]]
"""Looks an interrupted send up: what was sent, or None where surely nothing was. Raises `Problem` where it cannot be told."""


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider as the service sees it. `renew` says in words what to renew when its credentials fail."""

    name: str
    settings: type[AccountSettings]
    traits: Traits
    send: Send
    renew: str
    find: Find | None = None

    def __post_init__(self) -> None:
        if self.traits.can_find != (self.find is not None):
            raise ValueError(f"{self.name}: a provider that can find says how, and no other does")
