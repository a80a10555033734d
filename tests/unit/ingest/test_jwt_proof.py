"""Tokens as proof: one algorithm each, given keys, a given time; whatever a stranger sends is refused by a reason."""

import base64
import hashlib
import hmac
import json
import string
from datetime import UTC, datetime
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from services.ingest.adapters import jwt_proof

MADE = 1_763_630_100
NOW = datetime.fromtimestamp(MADE + 10, UTC)
KEY = rsa.generate_private_key(65537, 2048)
OTHER = rsa.generate_private_key(65537, 2048)
CLAIMS = {"iss": "https://issuer.example", "aud": "us", "iat": MADE, "exp": MADE + 300}
SHARED = b"a-shared-secret-of-32-bytes-long"


def jwk(key: rsa.RSAPrivateKey, kid: str | None, **more: Any) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(RSAAlgorithm.to_jwk(key.public_key()))
    told = {"kty": "RSA", "n": told["n"], "e": told["e"], "use": "sig", "alg": "RS256", **more}
    return told if kid is None else {**told, "kid": kid}


def jwks(*keys: dict[str, Any]) -> str:
    return json.dumps({"keys": list(keys)})


KEYS = jwks(jwk(KEY, "k1"))


def token(
    claims: dict[str, Any] = CLAIMS, key: Any = KEY, alg: str = "RS256", **header: Any
) -> str:
    return jwt.encode(claims, key, algorithm=alg, headers={"kid": "k1", **header})


def rs256(text: str, keys: str = KEYS, now: datetime = NOW, **more: Any) -> Any:
    asked: dict[str, Any] = {"issuers": ["https://issuer.example"], "audience": "us", **more}
    return jwt_proof.check_rs256(text, keys, now=now, **asked)


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(MADE + seconds, UTC)


def test_a_right_token_gives_its_claims() -> None:
    assert rs256(token()) == CLAIMS


def test_both_edges_of_its_life_with_a_minute_for_clocks() -> None:
    assert rs256(token(), now=at(359)) == CLAIMS
    assert rs256(token(), now=at(360)) == "stale"
    assert rs256(token(), now=at(-60)) == CLAIMS
    assert rs256(token(), now=at(-61)) == "stale"


def test_times_in_milliseconds_are_read_as_such() -> None:
    claims = {**CLAIMS, "iat": MADE * 1_000, "exp": (MADE + 300) * 1_000}
    assert rs256(token(claims), now=at(359)) == claims
    assert rs256(token(claims), now=at(360)) == "stale"


@pytest.mark.parametrize(
    "changed",
    [
        {"iss": "https://evil.example"},
        {"iss": None},
        {"iss": ["https://issuer.example"]},
        {"aud": "them"},
        {"aud": ["them", 7]},
        {"exp": None},
        {"exp": "tomorrow"},
        {"exp": True},
        {"exp": -1},
        {"exp": 1e300},
        {"iat": "now"},
    ],
    ids=repr,
)
def test_another_issuer_audience_or_an_unreadable_time_is_refused(changed: dict[str, Any]) -> None:
    header = {"alg": "RS256", "kid": "k1"}
    assert rs256(signed(header, {**CLAIMS, **changed})) == "bad_token"


def signed(header: dict[str, Any], claims: Any) -> str:
    """Return a token with any claims whatever, rightly signed."""
    said = b".".join(
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")
        for part in (header, claims)
    )
    signature = RSAAlgorithm(RSAAlgorithm.SHA256).sign(said, KEY)
    return (said + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


def test_one_of_several_audiences_is_enough() -> None:
    claims = {**CLAIMS, "aud": ["them", "us"]}
    assert rs256(token(claims)) == claims
    assert rs256(token(claims), audience=["x", "them"]) == claims


def test_without_an_expiry_a_token_is_refused() -> None:
    assert rs256(token({k: v for k, v in CLAIMS.items() if k != "exp"})) == "bad_token"


def test_a_token_that_is_not_valid_yet_is_refused() -> None:
    assert rs256(token({**CLAIMS, "nbf": MADE + 200})) == "stale"


def test_a_key_that_is_not_in_the_set_is_unknown() -> None:
    assert rs256(token(kid="k2")) == "unknown_key"
    assert rs256(signed({"alg": "RS256", "kid": ["k1"]}, CLAIMS)) == "bad_signature"


def test_a_token_without_a_kid_is_taken_only_where_there_is_one_key() -> None:
    bare = jwt.encode(CLAIMS, KEY, algorithm="RS256")
    assert rs256(bare) == CLAIMS
    assert rs256(bare, jwks(jwk(KEY, "k1"), jwk(OTHER, "k2"))) == "unknown_key"


def test_another_key_of_the_same_name_proves_nothing() -> None:
    assert rs256(token(key=OTHER)) == "bad_signature"
    assert rs256(token(key=OTHER, jwk=jwk(OTHER, "k1"))) == "bad_signature"
    assert rs256(token(key=OTHER, jku="https://evil.example/jwks")) == "bad_signature"


@pytest.mark.parametrize("name", ["none", "None", "HS256", "RS384", "RS512", "PS256", "ES256", ""])
def test_a_token_cannot_choose_its_algorithm(name: str) -> None:
    header, claims, signature = token().split(".")
    forged = base64.urlsafe_b64encode(json.dumps({"alg": name, "kid": "k1"}).encode()).rstrip(b"=")
    assert rs256(f"{forged.decode()}.{claims}.{signature}") == "bad_signature"
    assert rs256(f"{forged.decode()}.{claims}.") == "bad_signature"
    assert header


@pytest.mark.parametrize("shape", ["set", "key", "modulus"])
def test_a_public_key_is_no_shared_secret(shape: str) -> None:
    secret = {"set": KEYS, "key": json.dumps(jwk(KEY, "k1")), "modulus": jwk(KEY, "k1")["n"]}[shape]
    said = ".".join(
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()
        for part in ({"alg": "HS256", "kid": "k1"}, CLAIMS)
    )
    made = hmac.new(secret.encode(), said.encode(), hashlib.sha256).digest()
    forged = f"{said}.{base64.urlsafe_b64encode(made).rstrip(b'=').decode()}"
    assert rs256(forged) == "bad_signature"


@pytest.mark.parametrize(
    "keys",
    [
        "",
        "<html>",
        "null",
        "[]",
        "{}",
        '{"keys": {}}',
        '{"keys": [null, 1, "a", {}]}',
        "[" * 100_000,
        jwks(jwk(KEY, "k1", use="enc")),
        jwks(jwk(KEY, "k1", alg="RS512")),
        jwks({**jwk(KEY, "k1"), "n": "!"}),
        jwks({**jwk(KEY, "k1"), "e": None}),
        jwks({"kty": "oct", "kid": "k1", "k": "AAAA"}),
    ],
    ids=lambda text: text[:30],
)
def test_a_set_without_a_usable_key_lets_nobody_in(keys: str) -> None:
    assert rs256(token(), keys) == "no_secret"


@pytest.mark.filterwarnings("ignore:The RSA key is 1024 bits")
def test_short_keys_and_other_kinds_are_left_out_of_a_set() -> None:
    short = rsa.generate_private_key(65537, 1024)
    curve = json.loads(ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()).public_key()))
    keys = jwks(jwk(short, "k1"), {**curve, "kid": "k1"}, jwk(KEY, "k1"))
    assert rs256(token(), keys) == CLAIMS
    assert rs256(token(key=short), jwks(jwk(short, "k1"))) == "no_secret"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "missing_signature"),
        ("a", "bad_signature"),
        ("a.b", "bad_signature"),
        ("..", "bad_signature"),
        ("é.é.é", "bad_signature"),
        ("a.b.c.d.e", "bad_signature"),
        ("\udcff.a.b", "bad_signature"),
        ("a" * 9_000 + ".b.c", "bad_signature"),
        ("bnVsbA.e30.AA", "bad_signature"),
        ("W10.e30.AA", "bad_signature"),
    ],
)
def test_what_is_no_token_is_refused(text: str, reason: str) -> None:
    assert rs256(text) == reason
    assert jwt_proof.check_hs256(text, [SHARED], audience=None, now=NOW) == reason


@pytest.mark.parametrize("claims", [None, [], "text", 7])
def test_claims_that_are_no_object_are_refused(claims: Any) -> None:
    assert rs256(signed({"alg": "RS256", "kid": "k1"}, claims)) == "bad_signature"


def test_a_critical_extension_that_nobody_knows_is_refused() -> None:
    header = {"alg": "RS256", "kid": "k1", "crit": ["x"], "x": 1}
    assert rs256(signed(header, CLAIMS)) == "bad_signature"


@given(text=st.text(alphabet=string.ascii_letters + string.digits + "-_.=é", max_size=200))
def test_no_text_whatever_raises_or_gets_in(text: str) -> None:
    assert isinstance(rs256(text), str)
    assert isinstance(jwt_proof.check_hs256(text, [SHARED], audience=None, now=NOW), str)


@given(position=st.integers(0, 10_000), letter=st.sampled_from(string.ascii_letters))
def test_no_changed_token_gets_in(position: int, letter: str) -> None:
    right = token()
    place = position % (len(right) - 2)  # The last two letters hold bits that base64 leaves unused.
    changed = right[:place] + letter + right[place + 1 :]
    made = rs256(changed)
    assert changed == right or isinstance(made, str)


# ------------------------------------------------------------------------------------------- HS256

APPLE = (
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJhdWQiOiIxYjJjM2Q0ZS0wMDAwLTQxMTEtODIyMi0zMzMzNDQ0NDU1NTUiLCJpYXQiOjE3NjM2M"
    "zAxMDB9.pnWex4FBfx5jqgMZBmwsjnQxHSeid7_by3XRktS9rUk"
)


def hs256(claims: dict[str, Any], key: bytes = SHARED, alg: str = "HS256") -> str:
    return jwt.encode(claims, key, algorithm=alg)


def check(text: str, *keys: bytes, now: datetime = NOW, audience: str | None = "us") -> Any:
    return jwt_proof.check_hs256(text, keys or [SHARED], audience=audience, now=now)


def test_a_known_token_of_a_shared_key_is_right() -> None:
    key = base64.b64decode("b21uaXRpY2stYXBwbGUtbXNwLXNlY3JldC0zMmJ5dGU=")
    made = check(APPLE, key, audience="1b2c3d4e-0000-4111-8222-333344445555")
    assert made == {"aud": "1b2c3d4e-0000-4111-8222-333344445555", "iat": MADE}
    undecoded = b"b21uaXRpY2stYXBwbGUtbXNwLXNlY3JldC0zMmJ5dGU="
    assert check(APPLE, undecoded, audience=None) == "bad_signature"


def test_any_of_several_shared_keys_will_do() -> None:
    claims = {"aud": "us", "iat": MADE}
    assert check(hs256(claims), b"x" * 32, SHARED) == claims
    assert check(hs256(claims), SHARED, b"x" * 32) == claims
    assert check(hs256(claims), b"x" * 32) == "bad_signature"
    assert jwt_proof.check_hs256(hs256(claims), [b""], audience=None, now=NOW) == "no_secret"


def test_both_edges_of_a_tokens_age() -> None:
    text = hs256({"aud": "us", "iat": MADE})
    assert check(text, now=at(3_660)) != "stale"
    assert check(text, now=at(3_661)) == "stale"
    assert check(text, now=at(-60)) != "stale"
    assert check(text, now=at(-61)) == "stale"


def test_a_shared_token_needs_its_time_and_heeds_its_end() -> None:
    assert check(hs256({"aud": "us"})) == "bad_token"
    assert check(hs256({"aud": "us", "iat": MADE, "exp": MADE - 100})) == "stale"
    assert check(hs256({"aud": "them", "iat": MADE})) == "bad_token"


def test_a_shared_token_of_another_algorithm_is_refused() -> None:
    assert (
        check(hs256({"aud": "us", "iat": MADE}, b"x" * 64, "HS512"), b"x" * 64) == "bad_signature"
    )
    assert check(token(), SHARED) == "bad_signature"


def test_a_bearer_is_read_from_its_header() -> None:
    assert jwt_proof.bearer({"authorization": "Bearer  a.b.c "}) == "a.b.c"
    assert jwt_proof.bearer({"authorization": "bearer a.b.c"}) == "a.b.c"
    assert jwt_proof.bearer({"authorization": "Basic a.b.c"}) == ""
    assert jwt_proof.bearer({}) == ""
