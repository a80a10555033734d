"""Web chat: the signed token that makes a returning visitor the same one, and the identity a site's server vouches for.

A session token says: this visitor of this account, until then. It is made with a key of its own, derived from
`SIGNALBOX_TOKEN_SECRET` and the workspace, and holds nothing that a visitor may not know of themselves.

An identity token is a JSON Web Token (RFC 7519) signed with HS256 (RFC 7515, RFC 7518 3.2) and the account's secret; only
that one algorithm is taken, whatever the token says of itself (RFC 8725 3.1).
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, TypeGuard

import msgspec

SESSION_PREFIX: Final = "wc1"
TOKEN_LENGTH_MAX: Final = 4_096
IDENTITY_LIFE_MAX: Final = timedelta(days=1)
"""An identity token that lives longer is refused: whoever finds it would be that customer for as long."""

CLOCK_SKEW: Final = timedelta(seconds=60)
"""How far the clock of a site's server may be ahead of ours or behind it."""

RENEW_AFTER: Final = timedelta(days=1)
"""A session token older than this is replaced when its visitor comes back."""


class TokenRefused(ValueError):
    """A token is not believed. `reason` is `malformed`, `forged`, `stale` or `other_account`; `detail` is for people."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Session:
    """A visitor's session on one account. `email` and `name` are what the site's server vouched for, else empty."""

    account: str
    session_id: str
    issued_at: int
    expires_at: int
    email: str = ""
    name: str = ""

    def is_due_for_renewal(self, now: datetime) -> bool:
        """Whether the visitor should be given a fresh token."""
        return now.timestamp() - self.issued_at >= RENEW_AFTER.total_seconds()

    def renewed(self, now: datetime, life: timedelta) -> "Session":
        """Return the same session, valid from now on for `life`."""
        stamp = int(now.timestamp())
        return replace(self, issued_at=stamp, expires_at=stamp + int(life.total_seconds()))


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a visitor is, by the word of the site's own server."""

    email: str
    name: str = ""


def session_key(secret: bytes, workspace: str) -> bytes:
    """Return the key of session tokens; it opens nothing else that the secret protects."""
    return hmac.digest(secret, b"signalbox webchat session v1\x1f" + workspace.encode(), "sha256")


def sign(key: bytes, session: Session) -> str:
    """Return the token of a session."""
    said = _encode(
        msgspec.json.encode(
            {
                "a": session.account,
                "s": session.session_id,
                "i": session.issued_at,
                "x": session.expires_at,
                "e": session.email,
                "n": session.name,
            }
        )
    )
    return f"{SESSION_PREFIX}.{said}.{_mac(key, said)}"


def read(key: bytes, token: str, account: str, now: datetime) -> Session:
    """Return the session that a token stands for.

    Raises:
        TokenRefused: it is not ours, is of another account, or has expired.
    """
    parts = _parts(token)
    if len(parts) != 3 or parts[0] != SESSION_PREFIX:
        raise TokenRefused("malformed", "is no session token")
    if not hmac.compare_digest(_mac(key, parts[1]).encode(), parts[2].encode()):
        raise TokenRefused("forged", "was not made here")
    # Signed by us from here on: its shape is ours.
    said: dict[str, Any] = msgspec.json.decode(_decode(parts[1]))
    if said["a"] != account:
        raise TokenRefused("other_account", "belongs to another account")
    if said["x"] <= now.timestamp():
        raise TokenRefused("stale", "has expired")
    return Session(said["a"], said["s"], said["i"], said["x"], said["e"], said["n"])


def read_identity(secrets: Iterable[bytes], token: str, account: str, now: datetime) -> Identity:
    """Return who a site's server says its visitor is.

    Claims: `email` and `exp` (required), `name`, `nbf`, `aud` (if there, it is or holds the account's name).

    Raises:
        TokenRefused: it is no JWT of HS256, is signed by none of `secrets`, is stale, lives too long or is for another
            account.
    """
    parts = _parts(token)
    if len(parts) != 3:
        raise TokenRefused("malformed", "is no JSON Web Token")
    header, claims = _object(parts[0]), _object(parts[1])
    if header.get("alg") != "HS256":
        raise TokenRefused("malformed", "must be signed with HS256")
    said = f"{parts[0]}.{parts[1]}".encode()
    given = _decode(parts[2])
    is_right = False
    for secret in secrets:
        is_right |= hmac.compare_digest(hmac.digest(secret, said, "sha256"), given)
    if not is_right:
        raise TokenRefused("forged", "is not signed with the account's secret")
    _check_times(claims, now)
    audience = claims.get("aud", account)
    if account not in (audience if isinstance(audience, list) else [audience]):
        raise TokenRefused("other_account", "is for another account")
    email, name = claims.get("email"), claims.get("name", "")
    if not isinstance(email, str) or not email.strip() or not isinstance(name, str):
        raise TokenRefused("malformed", "must hold `email`, a text")
    return Identity(email.strip(), name.strip())


def _check_times(claims: dict[str, Any], now: datetime) -> None:
    stamp, skew = now.timestamp(), CLOCK_SKEW.total_seconds()
    expires, begins = claims.get("exp"), claims.get("nbf", 0)
    if not _is_number(expires) or not _is_number(begins):
        raise TokenRefused("malformed", "must hold `exp`, seconds since 1970")
    if expires + skew <= stamp or begins - skew > stamp:
        raise TokenRefused("stale", "has expired, or is not valid yet")
    if expires - stamp > IDENTITY_LIFE_MAX.total_seconds() + skew:
        raise TokenRefused("malformed", "`exp` must be within a day")


def _parts(token: str) -> list[str]:
    return token.split(".") if len(token) <= TOKEN_LENGTH_MAX and token.isascii() else []


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _object(part: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(_decode(part), type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise TokenRefused("malformed", "is no JSON Web Token") from None


def _mac(key: bytes, said: str) -> str:
    return _encode(hmac.new(key, said.encode(), hashlib.sha256).digest())


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text.encode() + b"=" * (-len(text) % 4), b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise TokenRefused("malformed", "is not base64url") from None
