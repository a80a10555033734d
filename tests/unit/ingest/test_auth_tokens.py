"""Access tokens: only the issuer's, only for us, only in force; its keys turn over, and it may be away."""

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

import chassis.auth_tokens
from chassis.auth import Issuer, NotAllowed, NotProved
from chassis.auth_tokens import (
    KEYS_AGAIN_SECONDS,
    KEYS_SECONDS_MAX,
    LEEWAY_SECONDS,
    IssuerKeys,
    TokenVerifier,
)
from chassis.errors import Unavailable

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
URL = "https://login.example.com/realms/shop"
RSA = rsa.generate_private_key(65537, 2048)
SHORT = rsa.generate_private_key(65537, 1024)
OTHER = rsa.generate_private_key(65537, 2048)
CURVE = ec.generate_private_key(ec.SECP256R1())
EDWARDS = ed25519.Ed25519PrivateKey.generate()
ALGORITHM = {RSA: "RS256", SHORT: "RS256", OTHER: "RS256", CURVE: "ES256", EDWARDS: "EdDSA"}


def published(key: Any, kid: str | None, **more: Any) -> dict[str, Any]:
    kinds = {"RS256": jwt.algorithms.RSAAlgorithm, "ES256": jwt.algorithms.ECAlgorithm}
    kind: Any = kinds.get(ALGORITHM[key], jwt.algorithms.OKPAlgorithm)
    made = json.loads(kind.to_jwk(key.public_key())) | more
    made.pop("key_ops", None)
    return made if kid is None else made | {"kid": kid}


class Provider:
    """The issuer's two documents, as they are at the moment; `asked` has the paths that were asked for."""

    def __init__(self, *keys: dict[str, Any]) -> None:
        self.keys: Any = list(keys)
        self.told_issuer = URL
        self.keys_url = f"{URL}/keys"
        self.is_away = False
        self.asked: list[str] = []

    def client(self) -> httpx.AsyncClient:
        def answer(request: httpx.Request) -> httpx.Response:
            self.asked.append(request.url.path)
            if self.is_away:
                raise httpx.ConnectError("away")
            if request.url.path.endswith("/openid-configuration"):
                return httpx.Response(
                    200, json={"issuer": self.told_issuer, "jwks_uri": self.keys_url}
                )
            return httpx.Response(200, json={"keys": self.keys})

        return httpx.AsyncClient(transport=httpx.MockTransport(answer))


class World:
    """A verifier, its issuer, and a clock to be put on."""

    def __init__(self, provider: Provider, monkeypatch: pytest.MonkeyPatch, **issuer: Any) -> None:
        self.provider = provider
        self.passed = 0.0
        monkeypatch.setattr(chassis.auth_tokens, "monotonic", lambda: 1_000.0 + self.passed)
        self.issuer = Issuer(URL, "signalbox", **issuer)
        self.verifier = TokenVerifier(
            self.issuer, IssuerKeys(self.issuer, client=provider.client), self
        )

    def now(self) -> datetime:
        return NOW + timedelta(seconds=self.passed)

    async def find(self, token: str | bytes) -> Any:
        return await self.verifier.find(token.encode() if isinstance(token, str) else token)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(
        Provider(published(RSA, "r1"), published(CURVE, "c1"), published(EDWARDS, "e1")),
        monkeypatch,
    )


def claims(**changed: Any) -> dict[str, Any]:
    at = int(NOW.timestamp())
    made = {
        "iss": URL,
        "aud": "signalbox",
        "sub": "ada",
        "exp": at + 300,
        "nbf": at,
        "iat": at,
        "scope": "openid agent",
    }
    return {name: value for name, value in (made | changed).items() if value is not None}


def token(key: Any = RSA, kid: str | None = "r1", header: Any = None, **changed: Any) -> str:
    headers = {"typ": "at+jwt", **({"kid": kid} if kid else {}), **(header or {})}
    return jwt.encode(claims(**changed), key, algorithm=ALGORITHM[key], headers=headers)


def unchecked(header: dict[str, Any], body: dict[str, Any], secret: bytes | None = None) -> str:
    """A token that no library would make."""
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, body)
    ]
    signed = b".".join(parts)
    mac = hmac.new(secret, signed, hashlib.sha256).digest() if secret is not None else b""
    return (signed + b"." + base64.urlsafe_b64encode(mac).rstrip(b"=")).decode()


@pytest.mark.parametrize(("key", "kid"), [(RSA, "r1"), (CURVE, "c1"), (EDWARDS, "e1")])
async def test_a_token_of_the_issuer_says_who_and_what(world: World, key: Any, kid: str) -> None:
    caller = await world.find(token(key, kid))
    assert (caller.kind, caller.subject, caller.agent_id) == ("token", "ada", "ada")
    assert caller.rights == {"agents"}
    assert caller.name.startswith("oidc-ada-")


@pytest.mark.parametrize(
    ("made", "because"),
    [
        (lambda: token(OTHER), "not signed by its issuer"),
        (lambda: token(kid="unheard-of"), "does not publish"),
        (lambda: token(kid=None), "does not publish"),  # Of several keys, which?
        (lambda: token(RSA, "c1"), "not signed by its issuer"),  # Another kind of key.
        (lambda: token(iss="https://evil.example"), "another issuer"),
        (lambda: token(iss=None), "lacks what it needs"),
        (lambda: token(aud="another-shop"), "somebody else"),
        (lambda: token(aud=None), "lacks what it needs"),
        (lambda: token(exp=None), "lacks what it needs"),
        (lambda: token(header={"typ": "logout+jwt"}), "another kind"),
        (lambda: token(header={"crit": ["b64"]}), "cannot be read"),
        (lambda: token(sub=None), "does not say whose"),
        (lambda: token()[:-5] + "AAAAA", "not signed by its issuer"),
        (lambda: token() + "A" * 9_000, "too long"),
        (lambda: "ey.ey.ey", "cannot be read"),
        (lambda: unchecked({"alg": "none"}, claims()), "not taken here"),
        (lambda: unchecked({"alg": "None", "kid": "r1"}, claims()), "not taken here"),
        # The public key taken for a shared secret: who can check tokens could make them.
        (
            lambda: unchecked(
                {"alg": "HS256", "kid": "r1"}, claims(), json.dumps(published(RSA, "r1")).encode()
            ),
            "not taken here",
        ),
        (lambda: unchecked({"alg": "RS256", "kid": "r1"}, claims()), "not signed by its issuer"),
    ],
)
async def test_any_other_token_is_not_proof(world: World, made: Any, because: str) -> None:
    with pytest.raises(NotProved, match=because):
        await world.find(made())


async def test_what_a_header_says_of_where_keys_are_is_not_read(world: World) -> None:
    """`jku`, `x5u` and `jwk` would let a stranger bring a key of their own."""
    header = {
        "jku": "https://evil.example/keys",
        "x5u": "https://evil.example/cert",
        "jwk": published(OTHER, "r1"),
    }
    with pytest.raises(NotProved, match="not signed by its issuer"):
        await world.find(token(OTHER, header=header))
    assert all(path.startswith("/realms/shop/") for path in world.provider.asked)


async def test_a_token_ends_half_a_minute_after_its_instant_and_not_before(world: World) -> None:
    ends = token(exp=int(NOW.timestamp()))
    world.passed = LEEWAY_SECONDS - 1
    await world.find(ends)
    world.passed = LEEWAY_SECONDS
    with pytest.raises(NotProved, match="has expired") as refused:  # From memory.
        await world.find(ends)
    assert refused.value.is_stale
    with pytest.raises(NotProved, match="has expired"):  # And met for the first time.
        await world.find(token(exp=int(NOW.timestamp()), jti="another"))


async def test_a_token_is_not_in_force_before_its_instant(world: World) -> None:
    begins = token(nbf=int(NOW.timestamp() + LEEWAY_SECONDS + 1))
    with pytest.raises(NotProved, match="not in force yet"):
        await world.find(begins)
    world.passed = 1
    await world.find(begins)


async def test_times_that_are_none_are_refused(world: World) -> None:
    for name in ("exp", "nbf"):
        for value in ("soon", True, [1]):
            with pytest.raises(NotProved):
                await world.find(token(**{name: value}))


@pytest.mark.parametrize("name", ["exp", "nbf"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 10**400, 1e300])
async def test_times_that_nobody_can_reckon_with_are_refused(
    world: World, name: str, value: Any
) -> None:
    with pytest.raises(NotProved, match=f"{name} is no time"):
        await world.find(token(**{name: value}))


async def test_half_a_character_in_a_name_is_a_refusal_and_no_mistake_of_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(Provider(published(RSA, "r1")), monkeypatch, agent_claim="agent_id")
    for changed in ({"sub": "ada\ud800"}, {"agent_id": "ada\udfff"}):
        with pytest.raises(NotProved, match="cannot be read"):
            await world.find(token(**{"agent_id": "ada", **changed}))


async def test_keys_are_asked_for_once_and_served_from_memory(world: World) -> None:
    for n in range(5):
        await world.find(token(jti=str(n)))
    assert world.provider.asked == [
        "/realms/shop/.well-known/openid-configuration",
        "/realms/shop/keys",
    ]


async def test_a_new_key_of_the_issuer_is_found_at_once_and_strangers_cause_no_more_looks(
    world: World,
) -> None:
    await world.find(token())
    world.provider.keys = [published(OTHER, "r2")]
    world.passed = KEYS_AGAIN_SECONDS
    looks = len(world.provider.asked)
    await world.find(token(OTHER, "r2"))
    for n in range(50):
        with pytest.raises(NotProved):
            await world.find(token(OTHER, f"made-up-{n}"))
    assert len(world.provider.asked) == looks + 1


async def test_a_key_that_the_issuer_took_back_opens_nothing_any_more(world: World) -> None:
    """Not even what it had signed and was let in before."""
    known = token()
    await world.find(known)
    world.provider.keys = [published(OTHER, "r2")]
    world.passed = KEYS_AGAIN_SECONDS
    await world.verifier.keys.refresh()
    with pytest.raises(NotProved, match="does not publish"):
        await world.find(known)


async def test_while_the_issuer_is_away_its_keys_serve_for_a_day(world: World) -> None:
    await world.find(token())
    world.provider.is_away = True
    world.passed = KEYS_SECONDS_MAX - 1
    await world.verifier.keys.refresh()
    at = int(NOW.timestamp() + KEYS_SECONDS_MAX)
    await world.find(token(exp=at + 600, jti="in the outage"))
    world.passed = KEYS_SECONDS_MAX + 1
    with pytest.raises(Unavailable):
        await world.find(token(exp=at + 600, jti="a day later"))


async def test_a_token_met_before_counts_no_longer_than_its_key(world: World) -> None:
    long = token(exp=int(NOW.timestamp() + KEYS_SECONDS_MAX + 600))
    await world.find(long)
    world.provider.is_away = True
    world.passed = KEYS_SECONDS_MAX
    await world.find(long)
    world.passed = KEYS_SECONDS_MAX + 1
    with pytest.raises(Unavailable):
        await world.find(long)


async def test_an_issuer_that_moved_its_keys_is_asked_where_they_are_now(world: World) -> None:
    await world.find(token())
    world.provider.is_away = True
    world.passed = KEYS_AGAIN_SECONDS
    await world.verifier.keys.refresh()
    world.provider.is_away = False
    world.provider.keys_url = f"{URL}/keys-of-tomorrow"
    world.passed = 2 * KEYS_AGAIN_SECONDS
    await world.verifier.keys.refresh()
    assert world.provider.asked[-2:] == [
        "/realms/shop/.well-known/openid-configuration",
        "/realms/shop/keys-of-tomorrow",
    ]


async def test_an_issuer_that_was_never_had_makes_no_token_wrong(world: World) -> None:
    """Its people are told to come again, not that they are nobody."""
    world.provider.is_away = True
    with pytest.raises(Unavailable):
        await world.find(token())
    world.provider.is_away = False
    world.passed = KEYS_AGAIN_SECONDS
    await world.find(token())


async def test_a_broken_answer_of_the_issuer_leaves_the_keys_as_they_are(world: World) -> None:
    await world.find(token())
    for broken in ([], None, "keys", [1, 2], [{"kty": "RSA"}], [published(SHORT, "r1")]):
        world.provider.keys = broken
        world.passed += KEYS_AGAIN_SECONDS
        await world.verifier.keys.refresh()
        await world.find(token(jti=repr(broken)[:20]))


def private(key: Any, kid: str) -> dict[str, Any]:
    kinds: Any = {RSA: jwt.algorithms.RSAAlgorithm, CURVE: jwt.algorithms.ECAlgorithm}
    kind = kinds.get(key, jwt.algorithms.OKPAlgorithm)
    made: dict[str, Any] = json.loads(kind.to_jwk(key))
    return made | {"kid": kid}


@pytest.mark.parametrize(
    "entry",
    [
        published(RSA, "x", alg="none"),
        private(RSA, "x"),
        private(CURVE, "x"),
        private(EDWARDS, "x"),
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": "x"},
        {"kty": "RSA", "n": "AA", "e": "AA", "kid": "x"},
        {"kty": [], "kid": "x"},
        published(RSA, "x", alg=7),
    ],
)
async def test_an_entry_that_is_no_public_key_leaves_the_others_as_they_are(
    monkeypatch: pytest.MonkeyPatch, entry: dict[str, Any]
) -> None:
    world = World(Provider(entry, published(RSA, "r1")), monkeypatch)
    await world.find(token())
    if "d" in entry or entry.get("alg") == "none":
        with pytest.raises(NotProved, match="does not publish"):
            await world.find(token(kid="x"))


async def test_whatever_a_library_makes_of_the_keys_the_watch_over_them_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.find(token())

    def fails(_: Any) -> Any:
        raise MemoryError("a key of a kind that is not known yet")

    world.passed = KEYS_AGAIN_SECONDS
    with monkeypatch.context() as broken:
        broken.setattr(chassis.auth_tokens, "PyJWK", fails)
        await world.verifier.keys.refresh()
    await world.find(token(jti="afterwards"))


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
async def test_keys_that_are_too_short_or_for_encryption_or_shared_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shared = {"kty": "oct", "kid": "o1", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LTEyMzQ"}
    world = World(
        Provider(
            published(SHORT, "s1"), published(OTHER, "enc", use="enc"), shared, published(RSA, "r1")
        ),
        monkeypatch,
    )
    await world.find(token())
    for key, kid in ((SHORT, "s1"), (OTHER, "enc")):
        with pytest.raises(NotProved):
            await world.find(token(key, kid))


async def test_discovery_of_another_issuer_is_not_believed(world: World) -> None:
    world.provider.told_issuer = "https://evil.example"
    with pytest.raises(Unavailable):
        await world.find(token())


async def test_keys_are_not_asked_for_in_clear_where_the_issuer_is_not(world: World) -> None:
    world.provider.keys_url = "http://login.example.com/keys"
    with pytest.raises(Unavailable):
        await world.find(token())
    assert world.provider.asked == ["/realms/shop/.well-known/openid-configuration"]


@pytest.mark.parametrize(
    ("changed", "issuer", "rights"),
    [
        ({"scope": "ingest"}, {}, {"messages", "events"}),
        ({"scope": None, "scp": ["lead"]}, {}, {"agents", "roster", "notices"}),
        ({"scope": "agent", "scp": "ingest"}, {}, {"agents", "messages", "events"}),
        (
            {"scope": "openid", "realm_access": {"roles": ["ingest", 7]}},
            {"scope_claims": ("realm_access.roles",)},
            {"messages", "events"},
        ),
        (
            {"scope": "signalbox.ingest admin"},
            {"scope_prefix": "signalbox."},
            {"messages", "events"},
        ),
    ],
)
async def test_scopes_stand_where_the_settings_say(
    monkeypatch: pytest.MonkeyPatch, changed: Any, issuer: Any, rights: set[str]
) -> None:
    world = World(Provider(published(RSA, "r1")), monkeypatch, **issuer)
    assert (await world.find(token(**changed))).rights == rights


async def test_roles_of_other_programs_open_nothing_unless_the_settings_say_so(
    world: World,
) -> None:
    with pytest.raises(NotAllowed, match="no scope"):
        await world.find(token(scope="openid", roles=["admin"], groups=["admin"]))


async def test_the_scope_agent_speaks_as_its_holder_and_lead_as_anybody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(Provider(published(RSA, "r1")), monkeypatch, agent_claim="agent_id")
    agent = await world.find(token(agent_id="ada-7"))
    agent.check_agent("ada-7")
    with pytest.raises(NotAllowed, match="nobody but yourself"):
        agent.check_agent("bob")
    lead = await world.find(token(scope="lead"))
    lead.check_agent("bob")
    with pytest.raises(NotAllowed, match="has no agent_id"):
        await world.find(token())


async def test_two_subjects_that_read_alike_are_two_callers(world: World) -> None:
    """Names of requests are kept apart by the caller's name."""
    one, other = await world.find(token(sub="a.b")), await world.find(token(sub="a-b"))
    assert one.name != other.name
