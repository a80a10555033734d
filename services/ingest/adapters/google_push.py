"""Google's Pub/Sub push: the OIDC token that comes with each, checked the same for every channel that has one.

Source: Google Cloud's pages on authenticated push subscriptions: RS256 with published keys, the issuer below, the audience
and the service account as configured on the subscription.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

from services.ingest.adapters import jwt_proof, signing
from services.ingest.adapters.channel import Request, Verdict

ISSUERS: Final = frozenset({"https://accounts.google.com", "accounts.google.com"})


def verify(
    request: Request,
    secrets: Mapping[str, str],
    now: datetime,
    *,
    name: Callable[[bytes], str | None],
    names_shown: bool = False,
) -> Verdict:
    """Return whether Google signed a Pub/Sub push for us; without published keys, whether the account's token was shown.

    Where a service account or an audience is set, only a signed push will do. Anybody with a project at Google gets tokens
    for any audience: only the account that we set tells who pushed. `name` reads the delivery's name out of the
    body, once that is proved; with `names_shown` also where only a token was shown.
    """
    wrong = signing.only(request, "POST")
    if wrong is not None:
        return wrong
    keys = secrets.get("jwks", "")
    audience, account = secrets.get("audience", ""), secrets.get("service_account", "")
    if not keys:
        if audience or account:
            return signing.refused("no_secret")
        shown = name(request.body) if names_shown else None
        return signing.by_token(request, secrets, name=shown)
    claims = jwt_proof.check_rs256(
        jwt_proof.bearer(request.headers),
        keys,
        issuers=ISSUERS,
        audience=audience or None,
        now=now,
    )
    if isinstance(claims, str):
        return signing.refused(claims)
    is_theirs = signing.same(account.lower(), str(claims.get("email", "")).lower())
    if account and not (is_theirs and claims.get("email_verified") in (True, "true")):
        return signing.refused("bad_token")
    found = name(request.body)
    return signing.proved(found) if account else signing.shown(found)
