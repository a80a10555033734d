"""One account's API as every provider's module has it: what nobody explains, and what holds for the account as a whole."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, ClassVar

import httpx
import pytest
from pydantic import ValidationError

from services.notifier.adapters import discourse
from services.notifier.adapters.api import AccountApi
from services.notifier.adapters.provider import Answer, Api, Provider
from services.notifier.core.accounts import AccountSettings, SecretReference
from services.notifier.core.delivery import Attempted, Delivered, Failed, Unknown
from services.notifier.core.post import Post, Traits, Trouble
from tests.contract.providers import a_post

URL = "https://vendor.example/messages"


class Settings(AccountSettings):
    EXAMPLE: ClassVar[dict[str, Any]] = {"token": "env:TOKEN"}

    token: SecretReference


def explain(answer: Answer) -> Failed | None:
    """As a vendor that tells how long to wait in the body, with whatever status."""
    wait = answer.body.get("wait") if isinstance(answer.body, dict) else None
    wish = None if wait is None else timedelta(seconds=wait)
    return None if wish is None else Failed("too many calls", True, wish, Trouble.PROVIDER)


async def send(api: Api, post: Post) -> Delivered:
    headers = {"Authorization": f"Bearer {api.secret('token')}"}
    await api.call("POST", URL, is_making=True, headers=headers, json={}, explain=explain)
    return Delivered("taken", "m-1")


PROVIDER = Provider(
    name="vendor",
    settings=Settings,
    traits=Traits(channels=frozenset({"vendor"}), form="text", addressing="address"),
    send=send,
    renew="the token",
)
POST = a_post(PROVIDER)


class Vendor:
    """A vendor with an answer, an account there, and a clock."""

    def __init__(self, answer: Callable[[], httpx.Response], token: str = "t") -> None:
        self.answer = answer
        self.asked = 0
        self.seconds = 1000.0
        client = httpx.AsyncClient(transport=httpx.MockTransport(self._handle))
        settings = Settings(token="env:TOKEN")
        self.api = AccountApi(settings, client, lambda reference: token, now=lambda: self.seconds)

    def _handle(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        return self.answer()

    async def send(self) -> Attempted:
        return await self.api.send(PROVIDER, POST)


@pytest.mark.parametrize("status", [404, 410])
async def test_an_account_whose_address_is_wrong_condemns_no_customer(status: int) -> None:
    """A recipient that cannot be reached is left alone for good; a wrong address is mended."""
    outcome = await Vendor(lambda: httpx.Response(status)).send()
    assert isinstance(outcome, Failed)
    assert (outcome.is_recoverable, outcome.trouble) == (True, Trouble.ACCOUNT)


@pytest.mark.parametrize("status", [200, 400, 403, 429])
async def test_a_wish_for_patience_in_an_answers_body_is_one_to_the_account(status: int) -> None:
    vendor = Vendor(lambda: httpx.Response(status, json={"wait": 600}))
    first = await vendor.send()
    assert isinstance(first, Failed)
    assert first.retry_after == timedelta(seconds=600)
    vendor.answer = lambda: httpx.Response(200, json={})
    vendor.seconds += 590
    second = await vendor.send()
    assert isinstance(second, Failed)
    assert (second.trouble, second.retry_after) == (Trouble.PROVIDER, timedelta(seconds=10))
    assert vendor.asked == 1
    vendor.seconds += 10
    assert isinstance(await vendor.send(), Delivered)


async def test_a_wish_beyond_all_reason_is_not_obeyed_for_the_account() -> None:
    vendor = Vendor(lambda: httpx.Response(400, json={"wait": 400 * 86_400}))
    await vendor.send()
    vendor.answer = lambda: httpx.Response(200, json={})
    vendor.seconds += 6 * 3600
    assert isinstance(await vendor.send(), Delivered)


async def test_a_server_that_says_when_it_is_back_is_left_alone_until_then() -> None:
    vendor = Vendor(lambda: httpx.Response(503, headers={"retry-after": "120"}))
    assert isinstance(await vendor.send(), Unknown)
    vendor.answer = lambda: httpx.Response(200, json={})
    vendor.seconds += 119
    left = await vendor.send()
    assert isinstance(left, Failed)
    assert (left.retry_after, vendor.asked) == (timedelta(seconds=1), 1)
    vendor.seconds += 1
    assert isinstance(await vendor.send(), Delivered)


async def test_a_secret_that_no_header_can_hold_is_the_accounts_trouble_and_never_shown() -> None:
    vendor = Vendor(lambda: httpx.Response(200, json={}), token="g\u00e4nseblume")
    outcome = await vendor.send()
    assert isinstance(outcome, Failed)
    assert (outcome.is_recoverable, outcome.trouble) == (True, Trouble.ACCOUNT)
    assert "nseblume" not in repr(outcome)
    assert vendor.asked == 0


def test_a_name_that_goes_into_a_header_is_refused_in_the_policy_already() -> None:
    given: dict[str, Any] = {"url": "https://forum.shop.example", "api_key": "env:KEY"}
    assert discourse.Settings(**given, username="support-bot").username == "support-bot"
    with pytest.raises(ValidationError):
        discourse.Settings(**given, username="k\u00e4the")
