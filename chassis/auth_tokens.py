"""Access tokens of an OpenID provider: JWTs (RFC 9068, RFC 7519), checked against the keys that the issuer publishes.

The keys (JWKS, RFC 7517) come over the guarded client, are kept, and are looked for again every ten minutes, and for a key that
a token names and nobody knows at most every half minute. While the issuer is away those that are kept serve, for a day. What a
token's header says of where keys are (`jku`, `x5u`, `jwk`) is never read.
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import jwt
from jwt import PyJWK

from chassis import logs
from chassis.auth import Caller, Issuer, NotAllowed, NotProved, short_name
from chassis.clock import Clock, monotonic, pause
from chassis.errors import Unavailable
from chassis.vendor_api import Failure, VendorApi, VendorFailure, new_client
from chassis.vendor_guard import Guard
from schemas.scopes import opened

TOKEN_BYTES_MAX: Final = 8 * 1024
LEEWAY_SECONDS: Final = 30.0
"""How far the issuer's clock may be off."""
KEYS_SECONDS: Final = 600.0
"""How long published keys count as fresh."""
KEYS_AGAIN_SECONDS: Final = 30.0
"""How soon after a look the next one may follow, whatever the tokens say."""
KEYS_SECONDS_MAX: Final = 24 * 3600.0
"""How long keys serve while the issuer cannot be asked: then a key that it took back must not count any more."""
KEYS_MAX: Final = 100
RSA_BITS_MIN: Final = 2048
CALL_SECONDS: Final = 5.0
SECONDS_MAX: Final = 1e12
"""No instant of a token lies beyond: some 30,000 years from 1970."""
CHECKED_MAX: Final = 10_000
"""Tokens that are known to be right, kept so that a signature is checked once."""
_TYPES: Final = frozenset({"", "jwt", "at+jwt", "application/at+jwt"})
_BROAD: Final = frozenset({"roster", "notices", "scim"})
"""Rights that speak for others: who has one of them, may speak as any agent."""

log = logs.get("auth.tokens")


def looks_like_token(shown: bytes) -> bool:
    """Whether something that was shown is a JWT by its form."""
    return shown.startswith(b"ey") and shown.count(b".") == 2


class IssuerKeys:
    """The issuer's published keys, by id."""

    def __init__(
        self,
        issuer: Issuer,
        inner_hosts: Sequence[str] = (),
        client: Callable[[], httpx.AsyncClient] | None = None,
    ) -> None:
        self._issuer = issuer
        self._new_client = client or (
            lambda: new_client(
                CALL_SECONDS, agent="signalbox-auth", connections=2, guard=Guard(inner_hosts)
            )
        )
        self._api: VendorApi | None = None
        self._url = issuer.keys_url
        self._keys: dict[str, PyJWK] = {}
        self._had_at = float("-inf")
        self._looked_at = float("-inf")
        self._lock = asyncio.Lock()
        self.version = 0
        """Counts changes of the keys: what was checked against others has to be checked again."""

    @property
    def _age(self) -> float:
        return monotonic() - self._had_at

    @property
    def can_serve(self) -> bool:
        """Whether the keys that are kept still count: they were had within a day."""
        return self._age <= KEYS_SECONDS_MAX

    async def get(self, kid: str | None) -> PyJWK:
        """Return the key of an id; without one, the only key that there is.

        Raises:
            NotProved: the issuer has no such key.
            Unavailable: no keys were ever had, or none for too long.
        """
        found = self._find(kid)
        if found is None:
            await self.refresh()
            found = self._find(kid)
        if not self.can_serve:
            raise Unavailable("the issuer of access tokens", KEYS_AGAIN_SECONDS)
        if found is None:
            raise NotProved("the token is signed with a key that its issuer does not publish")
        return found

    def _find(self, kid: str | None) -> PyJWK | None:
        if not self.can_serve:
            return None
        if kid is None:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(kid)

    async def refresh(self) -> None:
        """Ask for the keys, unless that was just done; whoever comes meanwhile waits for the same look."""
        async with self._lock:
            if monotonic() - self._looked_at < KEYS_AGAIN_SECONDS:
                return
            self._looked_at = monotonic()
            try:
                keys = await self._fetch()
                is_changed = _materials(keys) != _materials(self._keys)
            except VendorFailure as failure:
                log.warning(
                    "issuer_keys_not_had",
                    problem=failure.failure.value,
                    status=failure.status,
                    cure="name its host in SIGNALBOX_OIDC_INNER_HOSTS, if it is meant to be inside"
                    if failure.failure is Failure.INNER_HOST
                    else "see whether it answers; keys that were had serve for a day",
                )
                return
            except Exception as error:  # noqa: BLE001 - nothing that an issuer sends may end `run`, and the gateway with it
                log.warning(
                    "issuer_keys_not_had",
                    problem=str(error)[:200],
                    error=type(error).__name__,
                    status=200,
                )
                return
            if is_changed:
                self.version += 1
                log.info("issuer_keys_changed", count=len(keys))
            self._keys, self._had_at = keys, monotonic()

    async def _fetch(self) -> dict[str, PyJWK]:
        if self._api is None:
            self._api = VendorApi(self._new_client(), seconds=CALL_SECONDS)
        url = self._url or await self._discovered()
        # A discovered address is kept while it answers: an issuer that moved its keys is asked anew where they are.
        self._url = self._issuer.keys_url
        answer = await self._api.call("GET", url)
        made = _read_keys(answer.body)
        if not made:
            raise ValueError("the issuer publishes no key that can be used")
        self._url = url
        return made

    async def _discovered(self) -> str:
        """Return where the keys stand, as the issuer's discovery document says (OpenID Connect Discovery 1.0, 4)."""
        assert self._api is not None
        base = self._issuer.issuer.rstrip("/")
        answer = await self._api.call("GET", f"{base}/.well-known/openid-configuration")
        told = answer.body if isinstance(answer.body, dict) else {}
        if told.get("issuer") != self._issuer.issuer:
            raise ValueError("the discovery document is another issuer's")
        url = told.get("jwks_uri")
        if not isinstance(url, str) or urlsplit(url).scheme not in {"https", urlsplit(base).scheme}:
            raise ValueError("the discovery document has no jwks_uri that can be called")
        return url

    async def run(self, stopping: asyncio.Event) -> None:
        """Keep the keys fresh until the process stops, so that no request waits for them."""
        try:
            while not stopping.is_set():
                if self._age > KEYS_SECONDS:
                    await self.refresh()
                await pause(
                    stopping, KEYS_AGAIN_SECONDS if self._age > KEYS_SECONDS else KEYS_SECONDS
                )
        finally:
            await self.close()

    async def close(self) -> None:
        """Close the connections."""
        if self._api is not None:
            await self._api.retire()
            self._api = None


def _read_keys(body: Any) -> dict[str, PyJWK]:
    """Return the keys that can check signatures; others (for encryption, of unknown kinds, too short) are left out."""
    listed = body.get("keys") if isinstance(body, dict) else None
    if not isinstance(listed, list):
        raise TypeError("the issuer's keys are no JWKS")
    made: dict[str, PyJWK] = {}
    for index, told in enumerate(listed[:KEYS_MAX]):
        if (
            not isinstance(told, dict)
            or told.get("use", "sig") != "sig"
            or told.get("kty") == "oct"
            or "d" in told  # A private key: whoever publishes it has given it away.
        ):
            continue
        try:
            key = PyJWK(told)
        except (jwt.PyJWTError, ValueError, TypeError, KeyError, NotImplementedError):
            # The last is what an entry with "alg": "none" comes to.
            continue
        if getattr(key.key, "key_size", RSA_BITS_MIN) < RSA_BITS_MIN and told.get("kty") == "RSA":
            continue
        made[str(told.get("kid", f"#{index}"))] = key
    return made


def _materials(keys: Mapping[str, PyJWK]) -> dict[str, Any]:
    return {kid: _material(key) for kid, key in keys.items()}


def _material(key: PyJWK) -> Any:
    return (
        key.key.public_numbers()
        if hasattr(key.key, "public_numbers")
        else key.key.public_bytes_raw()
    )


class TokenVerifier:
    """Says who an access token is, or why not."""

    def __init__(self, issuer: Issuer, keys: IssuerKeys, clock: Clock) -> None:
        self._issuer = issuer
        self.keys = keys
        self._clock = clock
        self._checked: OrderedDict[bytes, tuple[Caller, float, int]] = OrderedDict()

    async def find(self, shown: bytes) -> Caller:
        """Return who shows this token.

        Raises:
            NotProved: it is none of the issuer's for us, or not in force.
            NotAllowed: it opens nothing here.
            Unavailable: the issuer's keys were never had.
        """
        now = self._clock.now().timestamp()
        digest = hashlib.sha256(shown).digest()
        known = self._checked.get(digest)
        if known is not None and known[2] == self.keys.version and self.keys.can_serve:
            if now < known[1] + LEEWAY_SECONDS:
                self._checked.move_to_end(digest)
                return known[0]
            raise NotProved("the token has expired", is_stale=True)
        claims = await self._claims(shown, now)
        try:
            caller = self._caller(claims)
        except ValueError:
            # Half of a surrogate pair is JSON, and is no text.
            raise NotProved("the token holds a text that cannot be read") from None
        self._checked[digest] = (caller, float(claims["exp"]), self.keys.version)
        if len(self._checked) > CHECKED_MAX:
            self._checked.popitem(last=False)
        return caller

    async def _claims(self, shown: bytes, now: float) -> dict[str, Any]:
        if len(shown) > TOKEN_BYTES_MAX:
            raise NotProved("the token is too long")
        try:
            header = jwt.get_unverified_header(shown)
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise NotProved("the token cannot be read") from None
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm not in self._issuer.algorithms or "crit" in header:
            raise NotProved("the token is signed in a way that is not taken here")
        if str(header.get("typ", "")).lower() not in _TYPES:
            raise NotProved("it is another kind of token")
        key = await self.keys.get(kid if isinstance(kid, str) else None)
        try:
            claims: dict[str, Any] = jwt.decode(
                shown,
                key.key,
                algorithms=[algorithm],
                options={
                    "require": ["exp", "iss", "aud"],
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
                issuer=self._issuer.issuer,
                audience=self._issuer.audience,
            )
        except jwt.InvalidIssuerError:
            raise NotProved("the token is of another issuer") from None
        except jwt.InvalidAudienceError:
            raise NotProved("the token is for somebody else") from None
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            # A key of another kind than the algorithm asks for is a TypeError.
            raise NotProved(
                "the token is not signed by its issuer, or lacks what it needs"
            ) from None
        self._check_times(claims, now)
        return claims

    def _check_times(self, claims: Mapping[str, Any], now: float) -> None:
        """Check by the clock that is given; the library has one of its own."""
        for name in ("exp", "nbf"):
            if name in claims and not _is_time(claims[name]):
                raise NotProved(f"the token's {name} is no time")
        if now >= claims["exp"] + LEEWAY_SECONDS:
            raise NotProved("the token has expired", is_stale=True)
        if now < claims.get("nbf", now) - LEEWAY_SECONDS:
            raise NotProved("the token is not in force yet")

    def _caller(self, claims: Mapping[str, Any]) -> Caller:
        issuer = self._issuer
        rights = opened(_scopes(claims, issuer.scope_claims, issuer.scope_prefix))
        if not rights:
            raise NotAllowed("the token has no scope that opens anything here")
        subject = str(claims.get("sub") or claims.get("client_id") or claims.get("azp") or "")[:200]
        if not subject:
            raise NotProved("the token does not say whose it is")
        agent_id = None
        if "agents" in rights and not rights & _BROAD:
            found = claims.get(issuer.agent_claim)
            if not isinstance(found, str) or not found:
                raise NotAllowed(
                    f"the token has no {issuer.agent_claim}, which would say which agent you are"
                )
            found.encode()  # A ValueError where it is no text, as in `short_name`.
            agent_id = found
        return Caller("token", short_name(subject), subject, rights, agent_id)


def _is_time(value: Any) -> bool:
    """Whether this is a number of seconds that can be reckoned with: JSON here may also be NaN, Infinity or 10^400."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and abs(value) < SECONDS_MAX


def _scopes(claims: Mapping[str, Any], names: Sequence[str], prefix: str) -> list[str]:
    """Return what stands in the claims of scopes: words of a text, or texts of a list."""
    found: list[str] = []
    for name in names:
        value: Any = claims
        for part in name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        words = (
            value.split() if isinstance(value, str) else value if isinstance(value, list) else ()
        )
        found += [word for word in words if isinstance(word, str)]
    return [word.removeprefix(prefix) for word in found if word.startswith(prefix)]
