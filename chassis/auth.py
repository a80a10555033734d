"""Who asks, and what they may: callers, what a route declares of itself, and why somebody is turned away.

A route says what it needs when it is added, or it cannot be added. What proves a caller is a key (`chassis.auth_keys`) or an
access token of an OpenID provider (`chassis.auth_tokens`); both come to a `Caller`.

AccessRefused
├── NotProved      nothing shows who asks, or what should is unknown, wrong, or too old
└── NotAllowed     known, and not allowed this
"""

import hashlib
import re
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from schemas.scopes import Right, opened_by

CALLER: Final = "signalbox.caller"
"""Where a request's scope holds its caller."""

ALGORITHMS: Final = (
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
)
"""What may be allowed: signatures with a public key. A shared secret would let whoever can check tokens make them."""

_SLUG: Final = re.compile(r"[^a-z0-9_]+")


class AccessRefused(Exception):
    """Somebody is turned away. The text is for them, and never repeats what they showed."""


class NotProved(AccessRefused):
    """Nothing shows who asks, or what should is unknown or wrong; with `is_stale` it was right once."""

    def __init__(self, detail: str, *, is_stale: bool = False) -> None:
        super().__init__(detail)
        self.is_stale = is_stale


class NotAllowed(AccessRefused):
    """Known, and not allowed this."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who has proved who they are.

    `name` is short and of a key's form, and the caller's own: names of requests (idempotency) are kept apart by it.
    `subject` is who they are in the audit: a key's name and id, or the token's subject. `agent_id` is the one agent that
    they may speak as; None: any. `domains` are those that they may provision; none: any.
    """

    kind: Literal["policy_key", "key", "token"]
    name: str
    subject: str
    rights: frozenset[Right]
    agent_id: str | None = None
    domains: tuple[str, ...] = ()

    @property
    def sender(self) -> str:
        """By what their commands' names (idempotency) are kept apart: two keys of one name may be two agents'."""
        return self.name if self.agent_id is None else f"{self.name}@{self.agent_id}"

    def check(self, right: Right) -> None:
        """Do nothing, if they have this right.

        Raises:
            NotAllowed: they have not.
        """
        if right not in self.rights:
            scopes = " or ".join(opened_by(right))
            raise NotAllowed(f"it lacks the scope {right} (one of {scopes} opens it)")

    def check_agent(self, agent_id: str) -> None:
        """Do nothing, if they may speak as this agent.

        Raises:
            NotAllowed: they are somebody else.
        """
        if self.agent_id is not None and agent_id != self.agent_id:
            raise NotAllowed("may be nobody but yourself; the scope lead speaks for others")


@dataclass(frozen=True, slots=True)
class Issuer:
    """Whose tokens are taken, and how they are read.

    `audience` is our own name at the issuer. `keys_url` is where its keys stand; empty: its discovery says so.
    `scope_claims` are where scopes stand, dots between nested names; `scope_prefix` is what ours begin with there.
    `agent_claim` says which agent a person is.
    """

    issuer: str
    audience: str
    keys_url: str = ""
    algorithms: tuple[str, ...] = ("RS256", "ES256", "PS256", "EdDSA")
    scope_claims: tuple[str, ...] = ("scope", "scp")
    scope_prefix: str = ""
    agent_claim: str = "sub"


@dataclass(frozen=True, slots=True)
class Permission:
    """What a route needs: a right, or no right and a reason.

    `why` says for a route without a right who proves what, and where. With `waived_by` a right is not asked for where a
    request proves itself in that other way, which the handler checks.
    """

    right: Right | None
    why: str = ""
    waived_by: Callable[[Any], bool] | None = None


def needs(
    right: Right, *, waived_by: Callable[[Any], bool] | None = None, why: str = ""
) -> Permission:
    """Return what a route declares that a right opens."""
    return Permission(right, why, waived_by)


def anybody(why: str) -> Permission:
    """Return what a route declares that is open by its nature, and why that is no harm."""
    return Permission(None, f"anybody: {why}")


def proved(why: str) -> Permission:
    """Return what a route declares whose handler proves the sender by other means than a key, and by which."""
    return Permission(None, f"proved: {why}")


def caller_of(scope: MutableMapping[str, Any]) -> Caller:
    """Return who a request comes from; only for handlers of routes that need a right."""
    found: Caller = scope[CALLER]
    return found


def short_name(subject: str) -> str:
    """Return a name of a key's form for any subject: what can be read of it, and a digest that keeps it apart."""
    readable = _SLUG.sub("-", subject.lower()).strip("-")[:40].strip("-") or "subject"
    return f"oidc-{readable}-{hashlib.sha256(subject.encode()).hexdigest()[:8]}"
