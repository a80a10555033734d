"""Sending by accounts: a client for each, trouble told once, and nothing left open."""

import asyncio
from typing import Any

import httpx
import pytest
from aiosmtpd.smtp import AuthResult
from msgspec import structs

from chassis.metrics import REGISTRY
from services.notifier.adapters import gmail, outgoing_webhook
from services.notifier.adapters.sending import Sending
from services.notifier.adapters.smtp import SmtpOptions, SmtpProvider
from services.notifier.core.accounts import Account
from services.notifier.core.delivery import Absent, Delivered, Failed, Unknown
from services.notifier.core.post import Trouble
from tests.contract.providers import a_post
from tests.contract.providers.gmail import CASE as GMAIL
from tests.contract.providers.gmail import MAIL
from tests.contract.test_smtp_provider import CountingSMTP, MailServer
from tests.fakes import desk, receiver
from tests.fakes import gmail as gmail_fake

POST = a_post(outgoing_webhook.PROVIDER)
HOOK, BOX = "outgoing_webhook", "gmail"


class Time:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class Stand:
    """Accounts at a receiver of webhooks and at Gmail, and a notifier's way to them."""

    def __init__(self, name: str) -> None:
        self.shop, self.box = f"shop of {name}", f"box of {name}"
        """Accounts of this test alone: the series are the process'."""
        self.receiver = receiver.Receiver()
        self.gmail = gmail_fake.Gmail()
        self.secrets = {"env:SECRET": receiver.Receiver.secret, "env:GM": self.gmail.client_secret}
        self.secrets["env:REFRESH"] = self.gmail.refresh_token
        settings = structs_of(GMAIL.settings, client_secret="env:GM")
        self.accounts = {
            self.shop: Account(HOOK, hook()),
            self.box: Account(BOX, settings),
        }
        self.clients: list[httpx.AsyncClient] = []
        self.time = Time()
        self.sending = Sending(
            SmtpProvider(SmtpOptions("127.0.0.1", 1)),
            lambda: self.accounts,
            self.client,
            secrets=lambda reference: self.secrets.get(reference),
            now=self.time,
        )

    def client(self) -> httpx.AsyncClient:
        apps = {"/signalbox": self.receiver.server()}
        other = self.gmail.server()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await apps.get(scope["path"], other)(scope, receive, send)

        self.clients.append(desk.client(app))
        return self.clients[-1]

    def closed(self) -> list[bool]:
        return [client.is_closed for client in self.clients]

    def value(self, name: str, *labels: str) -> float:
        names = ("provider", "account")[: len(labels)]
        found = REGISTRY.get_sample_value(name, dict(zip(names, labels, strict=True)))
        return found or 0.0


def hook(**changes: Any) -> outgoing_webhook.Settings:
    given = {"url": f"{desk.BASE}/signalbox", "secret": "env:SECRET"} | changes
    return outgoing_webhook.Settings(**given)


def structs_of(settings: Any, **changes: Any) -> Any:
    return type(settings)(**{**settings.model_dump(), **changes})


@pytest.fixture
def stand(request: pytest.FixtureRequest) -> Stand:
    return Stand(request.node.name)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """What is logged, as (event, values)."""
    lines: list[tuple[str, dict[str, Any]]] = []

    class Log:
        def error(self, event: str, **values: Any) -> None:
            lines.append((event, values))

        info = error

    monkeypatch.setattr("services.notifier.adapters.sending.log", Log())
    return lines


async def test_each_account_has_one_client_of_its_own(stand: Stand) -> None:
    for _ in range(3):
        assert isinstance(await stand.sending.send(HOOK, stand.shop, POST), Delivered)
    assert isinstance(await stand.sending.send(BOX, stand.box, MAIL), Delivered)
    assert len(stand.clients) == 2


async def test_credentials_that_fail_are_told_once_with_what_to_renew_and_taken_back(
    stand: Stand, told: list[tuple[str, dict[str, Any]]]
) -> None:
    right = stand.secrets.pop("env:REFRESH")
    for _ in range(3):
        outcome = await stand.sending.send(BOX, stand.box, MAIL)
        assert isinstance(outcome, Failed)
        assert (outcome.trouble, outcome.is_recoverable) == (Trouble.ACCOUNT, True)
    ((event, values),) = told
    assert (event, values["account"], values["provider"]) == ("account_trouble", stand.box, BOX)
    assert values["cure"] == gmail.PROVIDER.renew
    assert stand.value("signalbox_notifier_account_trouble", BOX, stand.box) == 1.0
    stand.secrets["env:REFRESH"] = right
    assert isinstance(await stand.sending.send(BOX, stand.box, MAIL), Delivered)
    assert told[1] == ("account_works_again", {"provider": BOX, "account": stand.box})
    assert stand.value("signalbox_notifier_account_trouble", BOX, stand.box) == 0.0
    stand.secrets.pop("env:REFRESH")
    stand.accounts[stand.box] = Account(BOX, structs_of(GMAIL.settings, client_id="other"))
    await stand.sending.send(BOX, stand.box, MAIL)
    assert [event for event, _ in told].count("account_trouble") == 2, "it is news again"


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
async def test_a_login_that_our_mail_server_refuses_is_told_once_for_all_senders_and_ends_with_any(
    told: list[tuple[str, dict[str, Any]]],
) -> None:
    """Senders share the server and its login: their channels' accounts are not what has to be renewed."""
    server, is_right = MailServer(), False
    listener = await asyncio.get_running_loop().create_server(
        lambda: CountingSMTP(
            server,
            authenticator=lambda *_: AuthResult(success=is_right, handled=is_right),
            auth_require_tls=False,
            auth_required=True,
        ),
        "127.0.0.1",
        0,
    )
    port, host = listener.sockets[0].getsockname()[1], "127.0.0.1"
    options = SmtpOptions(host, port, tls="none", user="signalbox", password="old")
    sending = Sending(SmtpProvider(options), dict, httpx.AsyncClient)

    def shown(account: str) -> float | None:
        labels = {"provider": "smtp", "account": account}
        return REGISTRY.get_sample_value("signalbox_notifier_account_trouble", labels)

    for account in ("support", "contact", "shop-telegram", "support"):
        outcome = await sending.send("smtp", account, MAIL)
        assert isinstance(outcome, Failed)
        assert outcome.trouble is Trouble.ACCOUNT
    ((event, values),) = told
    assert (event, values["provider"], values["account"]) == ("account_trouble", "smtp", host)
    assert "SIGNALBOX_SMTP_PASSWORD" in values["cure"]
    assert (shown(host), shown("support")) == (1.0, None)
    await sending.follow_policy()
    assert shown(host) == 1.0, "no policy names the mail server"
    is_right = True
    assert isinstance(await sending.send("smtp", "contact", MAIL), Delivered)
    assert told[1] == ("account_works_again", {"provider": "smtp", "account": host})
    assert shown(host) == 0.0
    await sending.close()
    listener.close()
    await listener.wait_closed()


@pytest.mark.parametrize("account", ["nobody", "box"])
async def test_an_account_that_is_not_there_or_elsewhere_lets_its_messages_wait(
    stand: Stand, account: str
) -> None:
    name = stand.box if account == "box" else account
    outcome = await stand.sending.send(HOOK, name, POST)
    assert isinstance(outcome, Failed)
    assert (outcome.trouble, outcome.is_recoverable) == (Trouble.ACCOUNT, True)
    assert f"accounts.{name}" in outcome.reason
    assert stand.clients == []


async def test_changed_settings_are_used_at_once_and_the_old_client_is_closed(
    stand: Stand,
) -> None:
    await stand.sending.send(HOOK, stand.shop, POST)
    stand.accounts[stand.shop] = Account(HOOK, hook(secret_before="env:SECRET"))
    assert isinstance(await stand.sending.send(HOOK, stand.shop, POST), Delivered)
    assert len(stand.receiver.signatures[-1].split(" ")) == 2
    assert stand.closed() == [True, False]


async def test_settings_that_change_as_the_service_ends_leave_no_message_unknown(
    stand: Stand,
) -> None:
    """The old client takes its time to close; meanwhile the service closes all there are."""
    await stand.sending.send(HOOK, stand.shop, POST)
    closing, go, close = asyncio.Event(), asyncio.Event(), stand.clients[0].aclose

    async def slowly() -> None:
        closing.set()
        await go.wait()
        await close()

    stand.clients[0].aclose = slowly  # type: ignore[method-assign]
    stand.accounts[stand.shop] = Account(HOOK, hook(secret_before="env:SECRET"))
    sending = asyncio.create_task(stand.sending.send(HOOK, stand.shop, POST))
    await closing.wait()
    await stand.sending.close()
    go.set()
    assert isinstance(await sending, Delivered)
    assert stand.closed() == [True, True]


async def test_an_account_that_has_left_the_policy_keeps_no_connection(stand: Stand) -> None:
    await stand.sending.send(HOOK, stand.shop, POST)
    del stand.accounts[stand.shop]
    await stand.sending.follow_policy()
    assert stand.closed() == [True]


async def test_a_send_that_is_under_way_when_the_service_ends_is_finished_first(
    stand: Stand,
) -> None:
    stand.receiver.hangs = False
    sending = asyncio.create_task(stand.sending.send(HOOK, stand.shop, POST))
    await stand.receiver.hung.wait()
    await stand.sending.close()
    assert stand.closed() == [False]
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert stand.closed() == [True]
    assert isinstance(await stand.sending.send(HOOK, stand.shop, POST), Delivered)
    assert stand.closed() == [True, True], "what comes later has a client for itself alone"


async def test_the_breakers_state_is_shown(stand: Stand) -> None:
    for _ in range(3):
        stand.receiver.refuse_write(503)
        await stand.sending.send(HOOK, stand.shop, POST)
    assert stand.value("signalbox_notifier_provider_open", HOOK, stand.shop) == 1.0
    stand.time.seconds += 30
    assert isinstance(await stand.sending.send(HOOK, stand.shop, POST), Delivered)
    assert stand.value("signalbox_notifier_provider_open", HOOK, stand.shop) == 0.0


async def test_the_breaker_of_an_account_that_has_left_is_not_shown_any_more(stand: Stand) -> None:
    for _ in range(3):
        stand.receiver.refuse_write(503)
        await stand.sending.send(HOOK, stand.shop, POST)
    del stand.accounts[stand.shop]
    await stand.sending.follow_policy()
    assert stand.value("signalbox_notifier_provider_open", HOOK, stand.shop) == 0.0


async def test_what_was_sent_is_found_and_what_was_not_is_surely_absent(stand: Stand) -> None:
    assert await stand.sending.find(BOX, stand.box, MAIL) == Absent()
    stand.gmail.lose_answer()
    assert isinstance(await stand.sending.send(BOX, stand.box, MAIL), Unknown)
    assert isinstance(await stand.sending.find(BOX, stand.box, MAIL), Delivered)
    assert isinstance(await stand.sending.find("smtp", "", MAIL), Unknown)


async def test_a_lookup_that_succeeds_ends_no_trouble_of_sending(
    stand: Stand, told: list[tuple[str, dict[str, Any]]]
) -> None:
    """It proves no more than that the account may read."""
    stand.gmail.refuse_write(403)
    outcome = await stand.sending.send(BOX, stand.box, MAIL)
    assert isinstance(outcome, Failed)
    assert outcome.trouble is Trouble.ACCOUNT
    assert await stand.sending.find(BOX, stand.box, MAIL) == Absent()
    assert stand.value("signalbox_notifier_account_trouble", BOX, stand.box) == 1.0
    assert isinstance(await stand.sending.send(BOX, stand.box, MAIL), Delivered)
    assert isinstance(await stand.sending.find(BOX, stand.box, MAIL), Delivered)
    assert [event for event, _ in told] == ["account_trouble", "account_works_again"]


async def test_one_account_that_hangs_holds_up_no_other(stand: Stand) -> None:
    stand.receiver.hangs_always = True
    hanging = [
        asyncio.create_task(
            stand.sending.send(HOOK, stand.shop, structs.replace(POST, key=f"key-{n}"))
        )
        for n in range(8)
    ]
    await stand.receiver.hung.wait()
    for _ in range(5):
        assert isinstance(await stand.sending.send(BOX, stand.box, MAIL), Delivered)
    assert not any(one.done() for one in hanging)
    for one in hanging:
        one.cancel()
    await asyncio.gather(*hanging, return_exceptions=True)


async def test_only_a_keyed_provider_may_be_asked_twice(stand: Stand) -> None:
    assert stand.sending.is_repeatable(HOOK)
    assert not stand.sending.is_repeatable(BOX)
    assert not stand.sending.is_repeatable("smtp")
    assert (stand.sending.can_find(BOX), stand.sending.can_find(HOOK)) == (True, False)


async def test_a_mail_goes_to_nobody_who_takes_posts_and_the_other_way_round(stand: Stand) -> None:
    for provider, account, message in (
        (HOOK, stand.shop, MAIL),
        (BOX, stand.box, POST),
        ("smtp", "", POST),
    ):
        outcome = await stand.sending.send(provider, account, message)
        assert isinstance(outcome, Failed)
        assert (outcome.is_recoverable, outcome.trouble) == (False, Trouble.MESSAGE)
    assert (stand.receiver.tried, stand.gmail.tried) == (0, 0)
