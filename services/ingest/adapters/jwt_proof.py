"""JSON Web Tokens as proof of origin: one algorithm each, keys that are given, and a time that is given.

Sources: RFC 7519 (claims), RFC 7515 (signature, `kid`), RFC 7517 and 7518 (JWK sets, RS256, HS256), RFC 8725 (what goes
wrong with them). Signatures are checked by PyJWT and cryptography; claims about time and place are checked here, for the
clock is an argument.

What a token says of itself never chooses how it is checked: the algorithm is fixed by the function, a header's own key
(`jwk`, `jku`, `x5c`, `x5u`) is not looked at, keys of a set count only if they are RSA keys for signing with RS256 and of
2048 bits or more. A public key can thus never pass for a shared secret. A token proves itself and not the body that came
with it; where the body matters, read it back.

Both functions return the claims, or the refusal's reason: `missing_signature`, `bad_signature` (form, algorithm or
signature), `unknown_key` (the set has no key of that `kid`: fetch it anew once), `no_secret` (no usable key at all),
`stale` (expired, not yet valid, too old), `bad_token` (another issuer or audience, or a claim is missing). Neither raises.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

import jwt
from jwt.algorithms import RSAAlgorithm

Claims = dict[str, Any]

TOKEN_LENGTH_MAX: Final = 8_192
"""Characters of a token; those of the vendors here have about a thousand."""
JWKS_LENGTH_MAX: Final = 256 * 1024
JWKS_KEYS_MAX: Final = 50
RSA_BITS_MIN: Final = 2_048
RSA_BITS_MAX: Final = 8_192
"""A longer key would cost a check too much time (an own bound)."""
LEEWAY_SECONDS: Final = 60.0
"""How far two clocks may differ."""
AGE_SECONDS_MAX: Final = 3_600.0
"""How old a token without `exp` may be (an own bound)."""
MILLISECONDS_FROM: Final = 1e11
"""A NumericDate is in seconds; some issuers write milliseconds. Beyond this number it can be no seconds."""

_ALGORITHM_ONLY: Final[Any] = {
    "verify_signature": True,
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "verify_aud": False,
    "verify_iss": False,
    "verify_sub": False,
    "verify_jti": False,
    "require": [],
}
_UNUSABLE: Final = (jwt.PyJWTError, ValueError, TypeError, KeyError, OverflowError, RecursionError)


def check_rs256(
    token: str,
    jwks_json: str,
    *,
    issuers: Collection[str] | None,
    audience: str | Collection[str] | None,
    now: datetime,
    leeway: float = LEEWAY_SECONDS,
) -> Claims | str:
    """Return the claims of a token that a key of the set signed with RS256, or the refusal's reason.

    `issuers` and `audience` are what `iss` and `aud` may be; None skips that check. `exp` is required.
    """
    header = _header(token, "RS256")
    if isinstance(header, str):
        return header
    keys = _rsa_keys(jwks_json)
    if not keys:
        return "no_secret"
    kid = header.get("kid")
    if kid is None:
        key = next(iter(keys.values())) if len(keys) == 1 else None
    else:
        key = keys.get(kid) if isinstance(kid, str) else None
    if key is None:
        return "unknown_key"
    claims = _signed(token, key, "RS256")
    if claims is None:
        return "bad_signature"
    if "exp" not in claims:
        return "bad_token"
    return _believed(claims, issuers, audience, now, leeway)


def check_hs256(
    token: str,
    keys: Iterable[bytes],
    *,
    audience: str | Collection[str] | None,
    now: datetime,
    issuers: Collection[str] | None = None,
    leeway: float = LEEWAY_SECONDS,
    age_max: float = AGE_SECONDS_MAX,
) -> Claims | str:
    """Return the claims of a token that one of the shared keys signed with HS256, or the refusal's reason.

    `iat` is required and may be `age_max` seconds old at most; an `exp` counts where there is one.
    """
    header = _header(token, "HS256")
    if isinstance(header, str):
        return header
    usable = [key for key in keys if key]
    if not usable:
        return "no_secret"
    claims: Claims | None = None
    for key in usable:
        claims = _signed(token, key, "HS256") or claims
    if claims is None:
        return "bad_signature"
    made_at = _seconds(claims.get("iat"))
    if made_at is None:
        return "bad_token"
    if now.timestamp() - made_at > age_max + leeway:
        return "stale"
    return _believed(claims, issuers, audience, now, leeway)


def bearer(headers: Mapping[str, str]) -> str:
    """Return the token of an `Authorization: Bearer` header; empty where there is none."""
    kind, _, token = headers.get("authorization", "").strip().partition(" ")
    return token.strip() if kind.lower() == "bearer" else ""


def _header(token: str, algorithm: str) -> dict[str, Any] | str:
    if not token:
        return "missing_signature"
    if len(token) > TOKEN_LENGTH_MAX or not token.isascii() or token.count(".") != 2:
        return "bad_signature"
    try:
        header = jwt.get_unverified_header(token)
    except _UNUSABLE:
        return "bad_signature"
    return header if header.get("alg") == algorithm else "bad_signature"


def _signed(token: str, key: Any, algorithm: str) -> Claims | None:
    """Return the claims if the key signed them with that algorithm, whatever they say; else None."""
    try:
        claims: Claims = jwt.decode(token, key, algorithms=[algorithm], options=_ALGORITHM_ONLY)
    except _UNUSABLE:
        return None
    return claims


def _believed(
    claims: Claims,
    issuers: Collection[str] | None,
    audience: str | Collection[str] | None,
    now: datetime,
    leeway: float,
) -> Claims | str:
    if issuers is not None and claims.get("iss") not in list(issuers):
        return "bad_token"
    if audience is not None:
        wanted = [audience] if isinstance(audience, str) else list(audience)
        given = claims.get("aud")
        named = given if isinstance(given, list) else [given]
        if not any(one in wanted for one in named if isinstance(one, str)):
            return "bad_token"
    at = now.timestamp()
    for name in ("exp", "nbf", "iat"):
        if name not in claims:
            continue
        moment = _seconds(claims[name])
        if moment is None:
            return "bad_token"
        if at >= moment + leeway if name == "exp" else at < moment - leeway:
            return "stale"
    return claims


def _seconds(value: object) -> float | None:
    """Return a NumericDate in seconds, whether it is given in seconds or in milliseconds; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if not 0 <= value < 1e15:
        return None
    return value / 1_000 if value >= MILLISECONDS_FROM else float(value)


@lru_cache(maxsize=32)
def _rsa_keys(jwks_json: str) -> dict[str, Any]:
    """Return a set's RSA keys that may sign with RS256, by `kid` (empty for a key without); unusable ones are left out."""
    if len(jwks_json) > JWKS_LENGTH_MAX:
        return {}
    try:
        told = json.loads(jwks_json)
    except (ValueError, RecursionError):
        return {}
    listed = told.get("keys") if isinstance(told, dict) else None
    found: dict[str, Any] = {}
    for one in (listed if isinstance(listed, list) else [])[:JWKS_KEYS_MAX]:
        if not isinstance(one, dict) or one.get("kty") != "RSA":
            continue
        if one.get("use", "sig") != "sig" or one.get("alg", "RS256") != "RS256" or "d" in one:
            continue
        kid = one.get("kid", "")
        if not isinstance(kid, str):
            continue
        try:
            key = RSAAlgorithm.from_jwk(one)
        except _UNUSABLE:
            continue
        if RSA_BITS_MIN <= key.key_size <= RSA_BITS_MAX:
            found.setdefault(kid, key)
    return found
