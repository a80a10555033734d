"""What only Gmail and our own webhooks do."""

import base64
import email
import email.policy
from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec import structs
from starlette.responses import JSONResponse

from services.ingest.adapters import standard_webhooks
from services.notifier.adapters import gmail, outgoing_webhook
from services.notifier.adapters.api import AccountApi
from services.notifier.core.delivery import Attempted, Delivered, Failed, Unknown
from services.notifier.core.post import Trouble
from tests.contract.providers import a_post
from tests.contract.providers.gmail import CASE as GMAIL
from tests.contract.providers.gmail import MAIL
from tests.contract.providers.outgoing_webhook import CASE as WEBHOOK
from tests.fakes import desk, receiver
from tests.fakes import gmail as gmail_fake


def api(case: Any, fake: Any, settings: Any = None, **secrets: str) -> AccountApi:
    known = {**case.secrets, **{f"env:{name}": value for name, value in secrets.items()}}
    return AccountApi(settings or case.settings, desk.client(fake.server()), known.get)


async def send_mail(fake: gmail_fake.Gmail, mail: Any = MAIL) -> Attempted:
    return await api(GMAIL, fake).send(gmail.PROVIDER, mail)


# ------------------------------------------------------------------------------------- Gmail


async def test_gmail_gets_the_mail_as_our_own_server_would() -> None:
    fake = gmail_fake.Gmail()
    assert isinstance(await send_mail(fake), Delivered)
    (kept,) = fake.mails.values()
    parsed = email.message_from_bytes(kept.raw, policy=email.policy.default)
    assert (parsed["Subject"], parsed["Message-ID"]) == (MAIL.subject, MAIL.message_id)
    assert kept.labels == ("SENT",), "what we send comes back as nobody's message"


async def test_gmail_a_reply_joins_the_mailboxs_thread() -> None:
    fake = gmail_fake.Gmail()
    asked = b"Message-ID: <CAF1@mail.example.com>\r\nFrom: ada@example.com\r\n\r\nWhere is it?"
    fake.add(gmail_fake.Mail("m-1", asked, fake.now - 100, thread="18c0"))
    mail = structs.replace(MAIL, in_reply_to="<CAF1@mail.example.com>")
    assert isinstance(await send_mail(fake, mail), Delivered)
    assert fake.mails["sent-1"].thread == "18c0"
    elsewhere = structs.replace(MAIL, in_reply_to="<unknown@mail.example.com>")
    assert isinstance(await send_mail(fake, elsewhere), Delivered)
    assert fake.mails["sent-2"].thread == "sent-2"


async def test_gmail_a_mail_that_may_be_ours_under_another_id_leaves_a_doubt() -> None:
    fake = gmail_fake.Gmail(renames=True)
    fake.lose_answer()
    assert isinstance(await send_mail(fake), Unknown)
    found = await api(GMAIL, fake).find(gmail.PROVIDER, MAIL)
    assert isinstance(found, Unknown)
    other = structs.replace(MAIL, to_address="grace@example.com")
    assert await api(GMAIL, fake).find(gmail.PROVIDER, other) is None


async def test_gmail_throttling_within_a_look_is_no_trouble_of_the_account() -> None:
    fake = gmail_fake.Gmail()
    await send_mail(fake)
    listed = {"messages": [{"id": "sent-1"}], "resultSizeEstimate": 1}
    fake.trouble.append(JSONResponse(listed))
    fake.misbehave(403, '{"error": {"errors": [{"reason": "rateLimitExceeded"}]}}')
    outcome = await api(GMAIL, fake).find(gmail.PROVIDER, MAIL)
    assert isinstance(outcome, Failed)
    assert outcome.trouble is Trouble.PROVIDER


async def test_gmail_a_mail_deleted_while_it_is_looked_for_is_passed_over() -> None:
    fake = gmail_fake.Gmail()
    await send_mail(fake)
    fake.mails["sent-1"].is_gone = True
    assert await api(GMAIL, fake).find(gmail.PROVIDER, MAIL) is None


async def test_gmail_looks_through_pages_and_beyond_them_says_that_it_does_not_know() -> None:
    fake = gmail_fake.Gmail(page_size=3)
    await send_mail(fake)
    for number in range(6):
        noise = structs.replace(MAIL, message_id=f"<noise-{number}@lantern-oak.example>")
        await send_mail(fake, noise)
        fake.mails[f"sent-{number + 2}"].at += 1 + number
    found = await api(GMAIL, fake).find(gmail.PROVIDER, MAIL)
    assert found == Delivered("found among the sent mails", "sent-1")
    fake.page_size = 1
    assert isinstance(await api(GMAIL, fake).find(gmail.PROVIDER, MAIL), Unknown)


async def test_gmail_a_refresh_token_that_has_ended_is_the_accounts_trouble() -> None:
    fake = gmail_fake.Gmail()
    outcome = await api(GMAIL, fake, REFRESH="of-last-week").send(gmail.PROVIDER, MAIL)
    assert outcome == Failed("no token was given (401)", True, None, Trouble.ACCOUNT)


async def test_gmail_a_mail_that_cannot_be_built_is_never_sent() -> None:
    fake = gmail_fake.Gmail()
    outcome = await send_mail(fake, structs.replace(MAIL, subject="a\r\nBcc: eve@example.com"))
    assert isinstance(outcome, Failed)
    assert (outcome.is_recoverable, outcome.trouble) == (False, Trouble.MESSAGE)
    assert fake.tried == 0


# ------------------------------------------------------------------------------------- webhooks

POST = a_post(outgoing_webhook.PROVIDER, thread="case-17", answers="case-17/3")


async def test_a_webhook_says_what_where_and_why_in_one_payload() -> None:
    fake = receiver.Receiver()
    assert isinstance(await api(WEBHOOK, fake).send(outgoing_webhook.PROVIDER, POST), Delivered)
    (told,) = fake.posted
    assert (told["type"], told["timestamp"]) == ("notice.answered", "2026-11-24T08:00:00Z")
    assert told["data"] == {
        "id": POST.key, "occasion": "answered", "is_automatic": False, "to": "ada@example.com",
        "thread": "case-17", "answers": "case-17/3", "subject": "Your lamp", "text": POST.text,
        "html": "", "language": "en",
    }  # fmt: skip


async def test_while_secrets_are_exchanged_either_of_them_proves_a_webhook() -> None:
    settings = outgoing_webhook.Settings(
        url=f"{desk.BASE}/signalbox", secret="env:SECRET", secret_before="env:BEFORE"
    )
    before = receiver.Receiver.secret_before
    for keys in ([before], [receiver.Receiver.secret]):
        fake = receiver.Receiver(keys=keys)
        sending = api(WEBHOOK, fake, settings, BEFORE=before)
        assert isinstance(await sending.send(outgoing_webhook.PROVIDER, POST), Delivered)
        assert len(fake.signatures[0].split(" ")) == 2


async def test_our_own_gateway_believes_our_webhooks() -> None:
    """The same rules at both ends: what we send, we would take."""
    body = outgoing_webhook.payload(POST)
    secret = receiver.Receiver.secret
    key = base64.b64decode(secret.removeprefix("whsec_"))
    now = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
    at = int(now.timestamp())
    headers = {
        b"webhook-id": POST.key.encode(),
        b"webhook-timestamp": str(at).encode(),
        b"webhook-signature": outgoing_webhook.sign(key, POST.key, at, body).encode(),
    }
    found = standard_webhooks.verify(headers, body, {"shop": [secret.encode()]}, now)
    assert found == ("shop", POST.key)


@pytest.mark.parametrize("secret", ["whsec_!!!", "whsec_" + base64.b64encode(b"short").decode()])
async def test_a_secret_that_is_none_is_the_accounts_trouble(secret: str) -> None:
    fake = receiver.Receiver()
    outcome = await api(WEBHOOK, fake, SECRET=secret).send(outgoing_webhook.PROVIDER, POST)
    assert isinstance(outcome, Failed)
    assert (outcome.is_recoverable, outcome.trouble) == (True, Trouble.ACCOUNT)
    assert fake.tried == 0
