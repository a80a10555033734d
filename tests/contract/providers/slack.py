"""Slack, where a refusal comes with status 200."""

import json

from services.notifier.adapters import slack
from services.notifier.core.post import Trouble
from tests.contract.providers import ProviderCase, VendorError, a_post
from tests.fakes import desk
from tests.fakes.slack import Slack

ROOT = "1795506600.000100"
AT = 1_795_507_205


def fake() -> Slack:
    return Slack(channels={"C0CCC3": [{"ts": ROOT, "text": "printer is down"}]}, now=AT)


def said(error: str) -> str:
    return json.dumps({"ok": False, "error": error})


CASE = ProviderCase(
    provider=slack.PROVIDER,
    settings=slack.Settings(token="env:TOKEN", url=f"{desk.BASE}/api"),
    secrets={"env:TOKEN": Slack.token},
    fake=fake,
    post=a_post(slack.PROVIDER, to="U0DDD4", thread=f"C0CCC3:{ROOT}", answers=f"C0CCC3:{ROOT}"),
    errors=(
        VendorError(200, said("token_revoked"), Trouble.ACCOUNT, is_recoverable=True),
        VendorError(200, said("missing_scope"), Trouble.ACCOUNT, is_recoverable=True),
        VendorError(200, said("channel_not_found"), Trouble.ADDRESS),
        VendorError(200, said("is_archived"), Trouble.ADDRESS),
        VendorError(200, said("msg_too_long"), Trouble.MESSAGE),
        VendorError(200, said("something_new"), Trouble.MESSAGE),
        VendorError(200, said("<not a name>"), Trouble.MESSAGE),
        VendorError(200, said("ratelimited"), Trouble.PROVIDER, is_recoverable=True),
        VendorError(200, said("internal_error"), Trouble.PROVIDER, is_unknown=True),
        VendorError(200, "{}", Trouble.PROVIDER, is_unknown=True),
    ),
)
