"""Who asks at the gateway: keys of `channels.yaml`, stored keys, and access tokens, proved before a body is read.

A client address that fails to prove itself too often is told to come back later, whatever it shows then.
"""

import hmac
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from fastapi import Request

from chassis.audit import Asked, Audit
from chassis.auth import Caller, NotAllowed, NotProved, Permission
from chassis.auth_keys import PREFIX, KeyRing
from chassis.auth_tokens import TokenVerifier, looks_like_token
from chassis.clock import Clock
from chassis.errors import Unavailable
from schemas.scopes import Right, opened
from services.ingest.adapters.intake import PolicySource
from services.ingest.answers import Problem, client_of, too_many, unavailable
from services.ingest.core.pace import Pace

FAILED_PER_MINUTE: Final = 60
"""Failed authentications of one client address in a minute; then it is told 429 whatever it shows."""
KEYS_UNREAD_SECONDS: Final = 2.0


class SecretSource(Protocol):
    """Where secrets are read by reference; `adapters.secrets.Secrets` is one."""

    def get(self, reference: str) -> bytes | None:
        """Return a secret's bytes, or None where there is none."""
        ...


def _unauthorized(detail: str, reason: str = "unauthorized") -> Problem:
    return Problem(
        401,
        reason,
        "Not authorized",
        f"Authorization: {detail}",
        field="Authorization",
        headers={"WWW-Authenticate": "Bearer"},
    )


def forbidden(detail: str, field: str = "Authorization") -> Problem:
    """Return the answer for who is known, and not allowed this."""
    return Problem(403, "forbidden", "Forbidden", f"{field}: {detail}", field=field)


class Access:
    """What proves callers, and the audit of what they did."""

    def __init__(
        self,
        policies: PolicySource,
        secrets: SecretSource,
        clock: Clock,
        audit: Audit,
        *,
        keys: KeyRing | None = None,
        tokens: TokenVerifier | None = None,
    ) -> None:
        self._policies = policies
        self._secrets = secrets
        self._clock = clock
        self._keys = keys
        self._tokens = tokens
        self._failures = Pace(FAILED_PER_MINUTE)
        self.audit = audit

    def hold_off(self, request: Request) -> None:
        """Let a client address that failed too often try no further; for what is proved by its body, before that is read.

        Raises:
            Problem: 429, it has failed too often.
        """
        wait = self._failures.wait(client_of(request), self._seconds())
        if wait > 0:
            raise too_many("Authorization: failed too often from this address", wait)

    @contextmanager
    def proving(self, request: Request, *, with_stale: bool = True) -> Iterator[None]:
        """Count what fails to prove who asks, and let a client address that fails too often try no further.

        `with_stale` says whether what is too old counts too: not where only its true holder can be told so, who guesses
        nothing.

        Raises:
            Problem: 429, it has failed too often.
        """
        self.hold_off(request)
        try:
            yield
        except Problem as problem:
            if problem.status == 401 and (with_stale or problem.reason != "stale"):
                self._failures.take(client_of(request), self._seconds())
            raise

    async def admit(self, request: Request, permission: Permission, route: str) -> Caller | None:
        """Return who asks, once they have what a route needs; None where it needs no right of this request.

        Raises:
            Problem: 401, 403 or 429; 503 where what would prove them cannot be asked.
        """
        right = permission.right
        if right is None or (permission.waived_by is not None and permission.waived_by(request)):
            return None
        caller = None
        try:
            # Keys and tokens are called stale only once digest or signature was found right.
            with self.proving(request, with_stale=False):
                caller = await self._caller(request, right)
                try:
                    caller.check(right)
                except NotAllowed as refused:
                    raise forbidden(str(refused)) from None
        except Problem as problem:
            if problem.status in (401, 403):
                asked = asked_of(request, right, route)
                self.audit.refused(asked, problem.status, problem.reason, caller)
            raise
        return caller

    async def _caller(self, request: Request, right: Right) -> Caller:
        shown = _shown(request, right)
        if not shown:
            raise _unauthorized("a bearer key is required")
        # First, for such a key may be of any form: also of a stored key's, or of a token's.
        known = self._policy_key(shown)
        if known is not None:
            return known
        try:
            if shown.startswith(PREFIX) and self._keys is not None:
                if not self._keys.is_loaded:
                    raise unavailable(KEYS_UNREAD_SECONDS)
                return self._keys.find(shown, self._clock.now())
            if self._tokens is not None and looks_like_token(shown):
                return await self._tokens.find(shown)
        except NotProved as refused:
            raise _unauthorized(
                str(refused), "stale" if refused.is_stale else "unauthorized"
            ) from None
        except NotAllowed as refused:
            raise forbidden(str(refused)) from None
        except Unavailable as error:
            raise unavailable(error.retry_after) from None
        raise _unauthorized("the key is not known")

    def _policy_key(self, shown: bytes) -> Caller | None:
        """Return whose key of `channels.yaml` this is, if one's; all are compared as bytes, each in constant time."""
        found = None
        for key in self._policies.current.file.api_keys:
            secret = self._secrets.get(key.secret)
            if secret is not None and hmac.compare_digest(secret, shown):
                found = key
        if found is None:
            return None
        return Caller(
            "policy_key", found.name, found.name, opened(found.scopes), domains=found.domains
        )

    def _seconds(self) -> float:
        return self._clock.now().timestamp()


def _shown(request: Request, right: Right) -> bytes:
    """Return the bearer key or token that a request shows; empty for none."""
    given = b""
    for name, value in request.scope["headers"]:
        if name == b"authorization":
            given = value
    if not given and right == "events" and "access_token" in request.query_params:
        # The HTTP webhook binding of CloudEvents has senders that can set no header.
        return request.query_params["access_token"].encode("utf-8", "replace").strip()
    kind, _, token = given.partition(b" ")
    shown: bytes = token.strip() if kind.lower() == b"bearer" else b""
    return shown


def asked_of(request: Request, right: Right, route: str) -> Asked:
    """Return a request as the audit knows it."""
    return Asked(request.method, route, request.scope["path"], client_of(request), right)
