"""OAuth 1.0a: the header that signs one request with an application's and a user's keys (RFC 5849, HMAC-SHA1).

The signature covers the method, the address and its parameters, and no body but a form's. SHA-1 is what the
standard has; inside an HMAC its known weakness does not matter.
"""

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote


@dataclass(frozen=True, slots=True, repr=False)
class Keys:
    """Four keys that do not expire: of the application (`consumer_key`, `consumer_secret`) and of the user."""

    consumer_key: str
    consumer_secret: str
    token: str
    token_secret: str


def header(
    keys: Keys,
    method: str,
    url: str,
    params: Mapping[str, str],
    *,
    nonce: str,
    seconds: int,
) -> str:
    """Return the `Authorization` header for a request to `url` (without a query) with the parameters of its query or form.

    `nonce` has to be new for each request of a second; `seconds` since 1970 are the request's time.
    """
    oauth = {
        "oauth_consumer_key": keys.consumer_key,
        "oauth_nonce": nonce,
        "oauth_signature_method": "HMAC-SHA1",
        "oauth_timestamp": str(seconds),
        "oauth_token": keys.token,
        "oauth_version": "1.0",
    }
    pairs = sorted((_coded(name), _coded(value)) for name, value in {**params, **oauth}.items())
    listed = "&".join(f"{name}={value}" for name, value in pairs)
    base = "&".join((method.upper(), _coded(url), _coded(listed)))
    key = f"{_coded(keys.consumer_secret)}&{_coded(keys.token_secret)}"
    digest = hmac.new(key.encode(), base.encode(), hashlib.sha1).digest()
    oauth["oauth_signature"] = base64.b64encode(digest).decode()
    return "OAuth " + ", ".join(f'{name}="{_coded(oauth[name])}"' for name in sorted(oauth))


def _coded(value: str) -> str:
    """Percent-encode as RFC 5849 3.6 has it: all but letters, digits and four marks."""
    return quote(value, safe="-._~")
