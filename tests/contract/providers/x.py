"""X: a direct message, looked up in the conversation; answers to posts are shown in `test_provider_social.py`."""

from services.notifier.adapters import x
from services.notifier.core.post import Trouble
from tests.contract.providers import ProviderCase, VendorError, a_post
from tests.fakes import desk
from tests.fakes.x import X


def said(detail: str, kind: str = "about:blank") -> str:
    """Return a refusal's body."""
    return f'{{"title": "Forbidden", "type": "{kind}", "detail": "{detail}", "status": 403}}'


CASE = ProviderCase(
    provider=x.PROVIDER,
    settings=x.Settings(
        user_id=X.user,
        consumer_key="env:KEY",
        consumer_secret="env:SECRET",
        access_token="env:TOKEN",
        access_token_secret="env:TOKEN_SECRET",
        api_url=desk.BASE,
    ),
    secrets={
        "env:KEY": X.consumer_key,
        "env:SECRET": X.consumer_secret,
        "env:TOKEN": X.token,
        "env:TOKEN_SECRET": X.token_secret,
    },
    fake=X,
    post=a_post(x.PROVIDER, to="2222", thread="1111-2222", answers="9001"),
    errors=(
        VendorError(402, said("CreditsDepleted"), Trouble.ACCOUNT, is_recoverable=True),
        VendorError(
            403,
            said("not configured", "https://api.twitter.com/2/problems/oauth1-permissions"),
            Trouble.ACCOUNT,
            is_recoverable=True,
        ),
        VendorError(403, said("You cannot send messages to this user."), Trouble.ADDRESS),
        VendorError(
            403,
            said("You are not allowed to create a Tweet with duplicate content."),
            Trouble.MESSAGE,
        ),
        VendorError(403, said("You are not permitted to perform this action."), Trouble.MESSAGE),
    ),
)
