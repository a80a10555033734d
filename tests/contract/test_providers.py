"""Every provider against a fake of its vendor: what each shows is told in `tests/contract/providers`."""

import asyncio
import inspect
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec import structs
from starlette.responses import Response

from services.notifier import adapters
from services.notifier.adapters import KINDS, PROVIDERS
from services.notifier.adapters.api import AccountApi
from services.notifier.core.delivery import Attempted, Delivered, Failed, Unknown
from services.notifier.core.post import Traits, Trouble
from services.notifier.core.state import Mail
from tests.contract.providers import OTHER_KEY, ProviderCase, VendorError, cases
from tests.fakes import desk

CASES = cases()
TRICKY = "{{ 7 * 7 }} ${x} {% raw %} %s %(a)s \\n <b>&amp;</b> \"'` \u00e7\u011f\u0131\u015f \u041f\u0440\u0438\u0432\u0435\u0442 \U0001f6cb"
"""Words that an engine, a shell, a query or a page might take for its own."""


class Time:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class Body(httpx.AsyncByteStream):
    """A body that comes in pieces: `pieces` of them, each after a pause in seconds."""

    def __init__(self, piece: bytes, pieces: int, pause: float = 0.0) -> None:
        self._piece, self._pieces, self._pause = piece, pieces, pause
        self.given = 0
        self.is_closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self.given < self._pieces:
            await asyncio.sleep(self._pause)
            self.given += 1
            yield self._piece

    async def aclose(self) -> None:
        self.is_closed = True


@dataclass
class Wire(httpx.AsyncBaseTransport):
    """The way to the fake; the body of the answer to the next call that writes may be another."""

    app: Any
    body: Body | None = None
    instead: bytes | None = None
    """What is answered to everything but a token's request."""
    raised: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.paths.append(request.url.path)
        if self.instead is not None and "token" not in request.url.path.rsplit("/", 1)[-1]:
            return httpx.Response(200, content=self.instead)
        answer = await httpx.ASGITransport(app=self.app).handle_async_request(request)
        written = request.method in ("POST", "PUT", "PATCH") and answer.status_code < 300
        if self.body is None or not written or "token" in request.url.path.rsplit("/", 1)[-1]:
            return answer
        return httpx.Response(answer.status_code, stream=self.body)


class World:
    """A case with a fake of its own, its account's API, and a clock."""

    def __init__(self, case: ProviderCase, **secrets: str) -> None:
        self.case = case
        self.fake = case.fake()
        self.time = Time()
        self.secrets: dict[str, str] = dict(case.secrets)
        self.wire = Wire(self.fake.server())
        self.api = self.connect()

    def connect(self, seconds: float = 20.0) -> AccountApi:
        client = httpx.AsyncClient(transport=self.wire, follow_redirects=False)
        settings, secrets = self.case.settings, lambda reference: self.secrets.get(reference)
        self.api = AccountApi(settings, client, secrets, seconds=seconds, now=self.time)
        return self.api

    async def send(self, post: Any = None) -> Attempted:
        return await self.api.send(self.case.provider, post or self.case.post)

    async def find(self, post: Any = None) -> Attempted | None:
        return await self.api.find(self.case.provider, post or self.case.post)

    @property
    def is_keyed(self) -> bool:
        return self.case.provider.traits.is_keyed


def with_text(post: Any, text: str) -> Any:
    html = f"<p>{text}</p>" if post.html else ""
    return structs.replace(post, text=text, html=html)


def with_key(post: Any, key: str) -> Any:
    if isinstance(post, Mail):
        return structs.replace(post, message_id=f"<sb.token.{key}@lantern-oak.example>")
    return structs.replace(post, key=key)


def worlds(which: Callable[[Traits], bool]) -> Any:
    """A fixture with a world for each provider whose traits are so."""
    chosen = [case for case in CASES if which(case.provider.traits)]

    def world_of(request: pytest.FixtureRequest) -> World:
        return World(request.param)

    return pytest.fixture(world_of, params=chosen, ids=lambda case: case.name)


world = worlds(lambda traits: True)
keyed = worlds(lambda traits: traits.is_keyed)
unkeyed = worlds(lambda traits: not traits.is_keyed)
finding = worlds(lambda traits: traits.can_find)
bounded = worlds(lambda traits: traits.text_max <= 200_000)


def test_every_provider_has_a_case() -> None:
    assert {case.name for case in CASES} >= set(PROVIDERS) - {"smtp"}


def test_a_provider_says_what_it_needs_in_words(world: World) -> None:
    provider = world.case.provider
    assert provider.settings.EXAMPLE, "an example for the documents"
    provider.settings.model_validate(provider.settings.EXAMPLE)
    assert provider.renew.strip()
    assert provider.traits.channels
    assert inspect.iscoroutinefunction(provider.send)
    assert PROVIDERS[provider.name] is provider
    assert KINDS[provider.name] == (provider.settings, provider.traits)


def test_a_provider_is_registered_under_the_name_of_its_module_and_none_is_forgotten() -> None:
    folder = Path(adapters.__file__).parent
    written = {
        path.stem
        for path in folder.glob("*.py")
        if "\nPROVIDER: " in path.read_text(encoding="utf-8")
    }
    assert sorted(PROVIDERS) == sorted(written)
    assert [PROVIDERS[name].name for name in PROVIDERS] == list(PROVIDERS)
    for name in ("smtp", "sending", "carrier_pigeon"):
        assert name not in PROVIDERS
        assert PROVIDERS.get(name) is None


ASKED = """
import sys
import services.notifier.app
from services.notifier import adapters

def imported():
    names = [name.rpartition(".")[2] for name in sys.modules if name.startswith(adapters.__name__ + ".")]
    return sorted(set(names) & set(adapters.PROVIDERS))

assert "slack" in adapters.KINDS and len(sorted(adapters.KINDS)) == len(adapters.PROVIDERS)
assert imported() == [], imported()
adapters.KINDS["slack"]
assert imported() == ["slack"], imported()
"""


def test_a_provider_costs_a_start_nothing_until_an_account_is_at_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ASKED], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr


# ------------------------------------------------------------------------------------- once


async def test_a_post_arrives_once_with_its_exact_words_where_it_belongs(world: World) -> None:
    outcome = await world.send()
    assert isinstance(outcome, Delivered), outcome
    (sent,) = world.fake.sent
    assert sent.to == world.case.where(world.case.post)
    assert sent.text == world.case.said(world.case.post)
    assert outcome.message_id == sent.id


async def test_a_repeat_with_the_same_key_makes_no_second_message(keyed: World) -> None:
    assert isinstance(await keyed.send(), Delivered)
    assert isinstance(await keyed.send(), Delivered)
    assert len(keyed.fake.sent) == 1


@pytest.mark.parametrize("status", [None, 500, 502, 503, 504])
async def test_a_keyed_message_whose_answer_was_lost_is_sent_again_and_there_once(
    keyed: World, status: int | None
) -> None:
    keyed.fake.lose_answer(status)
    lost = await keyed.send()
    assert isinstance(lost, Failed), lost
    assert (lost.is_recoverable, lost.trouble) == (True, Trouble.PROVIDER)
    assert isinstance(await keyed.send(), Delivered)
    assert len(keyed.fake.sent) == 1


@pytest.mark.parametrize("status", [None, 500, 502, 503, 504])
async def test_without_a_key_a_lost_answer_leaves_it_unknown(
    unkeyed: World, status: int | None
) -> None:
    unkeyed.fake.lose_answer(status)
    assert isinstance(await unkeyed.send(), Unknown)
    assert len(unkeyed.fake.sent) == 1


async def test_a_message_that_never_arrived_is_never_called_delivered(world: World) -> None:
    world.fake.lose_write()
    outcome = await world.send()
    assert isinstance(outcome, Failed if world.is_keyed else Unknown), outcome
    assert world.fake.sent == []


async def test_a_message_that_is_never_answered_has_an_end(world: World) -> None:
    world.connect(seconds=0.3)
    world.fake.hang(is_done=True)
    outcome = await world.send()
    assert isinstance(outcome, Failed if world.is_keyed else Unknown), outcome
    assert len(world.fake.sent) == 1


async def test_what_was_sent_is_found_and_what_was_not_is_not(finding: World) -> None:
    assert await finding.find() is None
    finding.fake.lose_answer()
    await finding.send()
    found = await finding.find()
    assert isinstance(found, Delivered), found
    assert found.message_id == finding.fake.sent[0].id
    other = with_key(with_text(finding.case.post, "Something else."), OTHER_KEY)
    assert await finding.find(other) is None
    assert len(finding.fake.sent) == 1


async def test_a_look_that_fails_says_nothing_of_the_message(finding: World) -> None:
    await finding.send()
    finding.fake.misbehave(503)
    outcome = await finding.find()
    assert isinstance(outcome, (Failed, Unknown)), outcome
    assert not isinstance(outcome, Failed) or outcome.is_recoverable


NOTHING_SAID = (
    b"{}",
    b"",
    b'{"data": {}}',
    b'{"errors": [{"title": "Authorization Error", "detail": "not shown"}]}',
    b'{"meta": {}, "errors": []}',
)


@pytest.mark.parametrize("body", NOTHING_SAID, ids=lambda body: body.decode()[:16] or "empty")
async def test_an_answer_that_says_nothing_never_says_that_nothing_was_sent(
    finding: World, body: bytes
) -> None:
    await finding.send()
    finding.wire.instead = body
    outcome = await finding.find()
    assert isinstance(outcome, (Failed, Unknown)), outcome
    assert not isinstance(outcome, Failed) or outcome.is_recoverable


# ------------------------------------------------------------------------------------- refusals


async def test_a_vendor_that_asks_for_patience_is_left_alone_for_as_long(world: World) -> None:
    world.fake.refuse_write(429, retry_after="7")
    outcome = await world.send()
    assert isinstance(outcome, Failed), outcome
    assert (outcome.is_recoverable, outcome.trouble) == (True, Trouble.PROVIDER)
    assert outcome.retry_after == timedelta(seconds=7)
    tried = world.fake.tried
    world.time.seconds += 6.9
    again = await world.send()
    assert isinstance(again, Failed)
    assert again.retry_after is not None
    assert again.retry_after < timedelta(seconds=1)
    assert world.fake.tried == tried
    world.time.seconds += 0.2
    assert isinstance(await world.send(), Delivered)


async def test_a_date_is_understood_as_a_wish_for_patience_too(world: World) -> None:
    at = datetime.now(UTC) + timedelta(seconds=100)
    world.fake.refuse_write(429, retry_after=format_datetime(at, usegmt=True))
    outcome = await world.send()
    assert isinstance(outcome, Failed), outcome
    assert outcome.retry_after is not None
    assert timedelta(seconds=80) < outcome.retry_after <= timedelta(seconds=101)
    assert world.fake.sent == []


@pytest.mark.parametrize("status", [401, 403])
async def test_refused_credentials_are_the_accounts_trouble_and_the_message_waits(
    world: World, status: int
) -> None:
    world.fake.refuse_write(status)
    outcome = await world.send()
    assert isinstance(outcome, Failed), outcome
    assert (outcome.is_recoverable, outcome.trouble) == (True, Trouble.ACCOUNT)
    given = getattr(world.fake, "tokens_given", 0)
    assert isinstance(await world.send(), Delivered)
    if world.case.has_tokens:
        assert world.fake.tokens_given == given + 1, "the old token was forgotten"


async def test_a_missing_and_a_wrong_secret_are_the_accounts_trouble_and_shown_to_nobody(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    for reference in world.case.secrets:
        for value in (None, "not-it-" + "0" * 25):
            if value is None:
                world.secrets.pop(reference)
            else:
                world.secrets[reference] = value
            world.connect()
            outcome = await world.send()
            assert isinstance(outcome, Failed), (reference, outcome)
            assert (outcome.is_recoverable, outcome.trouble) == (True, Trouble.ACCOUNT), reference
            assert "not-it" not in f"{outcome!r}{caplog.text}"
            world.secrets[reference] = world.case.secrets[reference]
    assert world.fake.sent == []


@pytest.mark.parametrize("status", [500, 503])
async def test_a_server_that_fails_before_it_did_anything_is_no_success(
    world: World, status: int
) -> None:
    world.fake.refuse_write(status, retry_after="9")
    outcome = await world.send()
    assert isinstance(outcome, Failed if world.is_keyed else Unknown), outcome
    if isinstance(outcome, Failed):
        assert outcome.is_recoverable
        assert outcome.retry_after == timedelta(seconds=9)


@pytest.mark.parametrize("status", [400, 409, 422])
async def test_a_refusal_that_nobody_explains_is_the_messages_trouble(
    world: World, status: int
) -> None:
    world.fake.refuse_write(status)
    outcome = await world.send()
    assert isinstance(outcome, Failed), outcome
    assert outcome.reason
    assert world.fake.sent == []


NAMES_THE_PERSON = frozenset({"x"})
"""Whose calls name the person, so that what is not there is them."""


@pytest.mark.parametrize("status", [404, 410])
async def test_an_address_that_is_wrong_condemns_nobody_whom_it_does_not_name(
    world: World, status: int
) -> None:
    world.fake.refuse_write(status)
    outcome = await world.send()
    assert isinstance(outcome, Failed), outcome
    is_said = world.case.name == "apple_messages" and status == 410
    if not is_said and world.case.name not in NAMES_THE_PERSON:
        assert outcome.trouble in (Trouble.ACCOUNT, Trouble.WINDOW)
        assert outcome.is_recoverable == (outcome.trouble is Trouble.ACCOUNT)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_nobody_is_followed_elsewhere_with_our_credentials(world: World, status: int) -> None:
    world.fake.refuse_write(status, location=f"{desk.BASE}/elsewhere")
    tried = world.fake.tried
    outcome = await world.send()
    assert isinstance(outcome, Failed), outcome
    assert world.fake.sent == []
    assert world.fake.tried == tried + 1


def _errors() -> list[tuple[ProviderCase, VendorError]]:
    return [(case, error) for case in CASES for error in case.errors]


@pytest.mark.parametrize(
    ("case", "error"),
    _errors(),
    ids=[f"{case.name}-{n}-{error.status}" for n, (case, error) in enumerate(_errors())],
)
async def test_the_vendors_own_errors_are_understood(
    case: ProviderCase, error: VendorError
) -> None:
    world = World(case)
    world.fake.write_trouble.append(Response(error.body, error.status, dict(error.headers)))
    outcome = await world.send()
    if error.is_unknown:
        assert isinstance(outcome, Unknown), outcome
        return
    assert isinstance(outcome, Failed), outcome
    assert (outcome.trouble, outcome.is_recoverable) == (error.trouble, error.is_recoverable)
    assert world.fake.sent == []


# ------------------------------------------------------------------------------------- answers


@pytest.mark.parametrize("body", ["<html>maintenance</html>", "[", "\ufffd"])
async def test_an_answer_that_is_no_json_is_no_answer(world: World, body: str) -> None:
    world.fake.after_write.append(Response(body, 200))
    outcome = await world.send()
    if world.is_keyed or world.case.is_quiet:
        assert isinstance(outcome, (Failed, Delivered)), outcome
        assert not isinstance(outcome, Failed) or outcome.is_recoverable
    else:
        assert isinstance(outcome, Unknown), outcome


async def test_an_answer_without_end_is_cut_off(world: World) -> None:
    """Ten gigabytes are announced by nobody: they come, and the connection is closed before nine megabytes."""
    world.wire.body = Body(b" " * 65_536, 163_840)
    outcome = await world.send()
    assert isinstance(outcome, Failed if world.is_keyed else Unknown), outcome
    assert world.wire.body.given * 65_536 < 9 * 1024 * 1024
    assert world.wire.body.is_closed


async def test_an_answer_that_comes_a_byte_at_a_time_is_cut_off(world: World) -> None:
    world.connect(seconds=0.3)
    world.wire.body = Body(b" ", 100_000, pause=0.02)
    outcome = await world.send()
    assert isinstance(outcome, Failed if world.is_keyed else Unknown), outcome
    assert world.wire.body.is_closed


# ------------------------------------------------------------------------------------- words


async def test_the_longest_text_arrives_whole(world: World) -> None:
    longest = min(world.case.provider.traits.text_max, 60_000)
    room = len(with_text(world.case.post, "").html)
    post = with_text(world.case.post, "a" * (longest - room))
    outcome = await world.send(post)
    assert isinstance(outcome, Delivered), outcome
    assert "".join(sent.text for sent in world.fake.sent) == world.case.said(post)


async def test_a_text_beyond_the_longest_is_never_cut_silently(bounded: World) -> None:
    longest = bounded.case.provider.traits.text_max
    post = with_text(bounded.case.post, "word " * (longest // 5 + 2))
    outcome = await bounded.send(post)
    if bounded.case.splits:
        assert isinstance(outcome, Delivered), outcome
        assert len(bounded.fake.sent) > 1
        joined = "".join(sent.text for sent in bounded.fake.sent)
        assert joined.split() == bounded.case.said(post).split() or joined.count("word") == (
            post.text.count("word")
        )
    else:
        assert isinstance(outcome, Failed), outcome
        assert (outcome.is_recoverable, outcome.trouble) == (False, Trouble.MESSAGE)
        assert bounded.fake.sent == []


async def test_words_that_look_like_code_arrive_as_they_are(world: World) -> None:
    post = with_text(world.case.post, TRICKY)
    outcome = await world.send(post)
    assert isinstance(outcome, Delivered), outcome
    assert [sent.text for sent in world.fake.sent] == [world.case.said(post)]


async def test_an_id_that_is_a_place_above_leads_nowhere(world: World) -> None:
    name = world.case.field_of(world.case.post)
    usual = World(world.case)
    await usual.send()
    for place in ("..", "."):
        await world.send(structs.replace(world.case.post, **{name: place}))
    assert set(world.wire.paths) <= set(usual.wire.paths)


async def test_an_id_with_slashes_and_dots_leads_nowhere_else(world: World) -> None:
    name = world.case.field_of(world.case.post)
    post = structs.replace(world.case.post, **{name: f"../{world.case.where(world.case.post)}"})
    outcome = await world.send(post)
    assert not isinstance(outcome, Delivered) or world.fake.sent[-1].to.startswith("../"), outcome


async def test_no_secret_and_no_words_stand_in_any_outcome(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever a vendor says, even if it quotes what it was told."""
    words = "WORDS-OF-THE-CUSTOMER"
    post = with_text(world.case.post, words)
    shown = [repr(world.api), repr(world.case.provider)]
    for status in (400, 401, 403, 404, 409, 422, 429, 500):
        world.connect()
        quoted = " ".join([words, *world.secrets.values()])
        world.fake.refuse_write(status, f'{{"error": "{quoted}", "message": "{quoted}"}}')
        shown.append(repr(await world.send(post)))
    text = " ".join(shown) + caplog.text
    assert words not in text
    for value in world.secrets.values():
        assert value not in text


# ------------------------------------------------------------------------------------- the breaker


async def test_a_vendor_that_fails_three_times_in_a_row_is_left_alone_and_then_tried_by_one(
    world: World,
) -> None:
    for _ in range(3):
        world.fake.refuse_write(503)
        await world.send()
    assert world.api.http.is_open
    tried = world.fake.tried
    left = await world.send()
    assert isinstance(left, Failed), left
    assert (left.is_recoverable, left.trouble) == (True, Trouble.PROVIDER)
    assert world.fake.tried == tried
    world.time.seconds += 31
    assert isinstance(await world.send(), Delivered)
    assert not world.api.http.is_open
