"""One account's calls: what each way they can end says of whether they had an effect."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest

from chassis.vendor_api import (
    ANSWER_BYTES_MAX,
    Failure,
    VendorApi,
    VendorFailure,
    new_client,
    retry_after,
)
from chassis.vendor_guard import Guard

URL = "https://vendor.example/messages"
Handler = Callable[[httpx.Request], Any]


class Time:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def api(handler: Handler, time: Time | None = None, **options: Any) -> VendorApi:
    client = httpx.AsyncClient(transport=httpx.MockTransport(handler))
    return VendorApi(client, now=time or Time(), **options)


def answers(*statuses: int, body: str = "{}", **headers: str) -> Handler:
    left = list(statuses)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda request: httpx.Response(
        left.pop(0) if len(left) > 1 else left[0], text=body, headers=named
    )


def raises(error: Exception) -> Handler:
    def handler(request: httpx.Request) -> httpx.Response:
        raise error

    return handler


async def failed(calls: VendorApi) -> VendorFailure:
    with pytest.raises(VendorFailure) as failure:
        await calls.work(lambda: calls.call("POST", URL, json={"text": "secret words"}))
    return failure.value


@pytest.mark.parametrize(
    ("handler", "failure", "may_have_acted"),
    [
        (raises(httpx.ConnectError("x")), Failure.UNREACHABLE, False),
        (raises(httpx.ConnectTimeout("x")), Failure.UNREACHABLE, False),
        (raises(httpx.PoolTimeout("x")), Failure.UNREACHABLE, False),
        (raises(httpx.ReadTimeout("x")), Failure.TIMEOUT, True),
        (raises(httpx.WriteTimeout("x")), Failure.TIMEOUT, True),
        (raises(httpx.ReadError("x")), Failure.BROKEN, True),
        (raises(httpx.RemoteProtocolError("x")), Failure.BROKEN, True),
        (raises(httpx.LocalProtocolError("x")), Failure.ADDRESS, False),
        (raises(httpx.InvalidURL("x")), Failure.ADDRESS, False),
        (answers(400), Failure.STATUS, False),
        (answers(302, location="https://evil.example/"), Failure.STATUS, False),
        (answers(408), Failure.STATUS, True),
        (answers(429), Failure.THROTTLED, False),
        (answers(500), Failure.STATUS, True),
        (answers(503), Failure.STATUS, True),
        (answers(200, body="<html>"), Failure.NOT_JSON, True),
        (answers(200, body="[" * 100_000), Failure.NOT_JSON, True),
        (answers(200, body=" " * (ANSWER_BYTES_MAX + 1)), Failure.TOO_LARGE, True),
    ],
)
async def test_each_way_to_fail_says_whether_the_call_may_have_acted(
    handler: Handler, failure: Failure, may_have_acted: bool
) -> None:
    found = await failed(api(handler))
    assert (found.failure, found.may_have_acted) == (failure, may_have_acted)
    assert "secret words" not in f"{found}{found!r}"


async def test_an_answer_has_its_status_its_headers_and_its_json() -> None:
    calls = api(answers(201, body='{"id": 7}', x_request="r"))
    answer = await calls.call("GET", URL)
    assert (answer.status, answer.headers["X-Request"], answer.body) == (201, "r", {"id": 7})
    nothing = await api(answers(204, body="")).call("DELETE", URL)
    assert (nothing.status, nothing.body) == (204, None)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"x-ratelimit-retry-after": "9"}, 9.0),
        ({"retry-after": "999999999"}, 21_600.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "\u0667"}, None),
        ({}, None),
    ],
)
def test_a_wish_for_patience_is_read_in_both_forms_and_bounded(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert retry_after(headers) == seconds


def test_a_date_without_a_zone_is_one_of_greenwich() -> None:
    at = datetime.now(UTC) + timedelta(seconds=100)
    for text in (format_datetime(at, usegmt=True), at.strftime("%a, %d %b %Y %H:%M:%S -0000")):
        found = retry_after({"retry-after": text})
        assert found is not None
        assert 95 < found <= 100


async def test_after_429_nobody_is_asked_until_the_time_is_over() -> None:
    time, asked = Time(), []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(429 if len(asked) == 1 else 200, headers={"retry-after": "30"})

    calls = api(handler, time)
    assert (await failed(calls)).retry_after == 30
    time.seconds += 29
    left = await failed(calls)
    assert (left.failure, left.retry_after, len(asked)) == (Failure.LEFT_ALONE, 1.0, 1)
    time.seconds += 2
    await calls.call("POST", URL)


async def test_a_vendor_that_refuses_our_token_is_asked_for_another() -> None:
    given: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/token":
            given.append(f"t{len(given)}")
            return httpx.Response(200, json={"access_token": given[-1], "expires_in": "3600"})
        return httpx.Response(401 if len(given) == 1 else 200)

    calls = api(handler)
    for _ in range(2):
        assert await calls.token("https://vendor.example/token", {}) == "t0"
    await failed(calls)
    assert await calls.token("https://vendor.example/token", {}) == "t1"


async def test_a_token_is_asked_for_anew_a_minute_before_it_ends() -> None:
    time, given = Time(), []

    def handler(request: httpx.Request) -> httpx.Response:
        given.append(request)
        return httpx.Response(200, json={"access_token": f"t{len(given)}", "expires_in": 3600})

    calls = api(handler, time)
    assert await calls.token(URL, {}) == "t1"
    time.seconds += 3539
    assert await calls.token(URL, {}) == "t1"
    time.seconds += 1
    assert await calls.token(URL, {}) == "t2"


@pytest.mark.parametrize("body", ["{}", "[]", '{"access_token": 7}', '{"access_token": ""}'])
async def test_an_answer_without_a_token_is_no_token(body: str) -> None:
    with pytest.raises(VendorFailure) as failure:
        await api(answers(200, body=body)).token(URL, {})
    assert failure.value.failure is Failure.NOT_JSON


# ------------------------------------------------------------------------------------- the breaker


async def test_three_failures_in_a_row_open_it_half_a_minute_and_one_call_closes_it() -> None:
    time = Time()
    calls = api(answers(503, 503, 503, 200), time, breaks_on_5xx=True)
    for n in range(3):
        assert not calls.is_open, n
        await failed(calls)
    assert calls.is_open
    left = await failed(calls)
    assert (left.failure, left.retry_after) == (Failure.LEFT_ALONE, 30.0)
    time.seconds += 30
    await calls.work(lambda: calls.call("POST", URL))
    assert not calls.is_open


async def test_while_it_is_tried_again_a_single_call_goes() -> None:
    time, go, asked = Time(), asyncio.Event(), 0

    async def handler(request: httpx.Request) -> httpx.Response:
        nonlocal asked
        asked += 1
        if asked <= 3:
            return httpx.Response(500)
        await go.wait()
        return httpx.Response(200)

    calls = api(handler, time, breaks_on_5xx=True)
    for _ in range(3):
        await failed(calls)
    time.seconds += 30
    probe = asyncio.create_task(calls.work(lambda: calls.call("POST", URL)))
    while asked < 4:
        await asyncio.sleep(0)
    time.seconds += 2
    assert (await failed(calls)).failure is Failure.BUSY
    go.set()
    await probe


async def test_work_that_looks_before_it_fails_counts_as_one_that_failed() -> None:
    """Reading goes on answering while writing is broken: a good answer on the way does not end the count."""

    def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200 if request.method == "GET" else 503)

    calls = api(handler, breaks_on_5xx=True)

    async def job() -> None:
        await calls.call("GET", URL)
        await calls.call("POST", URL)

    for _ in range(3):
        with pytest.raises(VendorFailure):
            await calls.work(job)
    assert calls.is_open


async def test_work_that_waits_for_a_slot_is_not_begun_once_the_account_is_retired() -> None:
    go, asked = asyncio.Event(), 0

    async def handler(request: httpx.Request) -> httpx.Response:
        nonlocal asked
        asked += 1
        await go.wait()
        return httpx.Response(200)

    calls = api(handler, slots=1)
    under_way = asyncio.create_task(calls.work(lambda: calls.call("POST", URL)))
    while not asked:
        await asyncio.sleep(0)
    waiting = asyncio.create_task(failed(calls))
    await asyncio.sleep(0)
    await calls.retire()
    found = await asyncio.wait_for(waiting, 1)
    assert (found.failure, found.may_have_acted, asked) == (Failure.BUSY, False, 1)
    go.set()
    await under_way


async def test_a_closed_client_and_what_cannot_be_encoded_end_as_any_other_failure() -> None:
    calls = api(answers(200))
    unwritable: list[dict[str, Any]] = [
        {"headers": {"X": "k\u00e4y"}},
        {"json": {"text": "\ud800"}},
    ]
    for options in unwritable:
        with pytest.raises(VendorFailure) as found:
            await calls.call("POST", URL, **options)
        assert (found.value.failure, found.value.may_have_acted) == (Failure.ADDRESS, False)
    await calls.retire()
    late = await failed(calls)
    assert (late.failure, late.may_have_acted) == (Failure.BUSY, False)


async def test_a_refusal_is_an_answer_and_opens_nothing() -> None:
    calls = api(answers(400), breaks_on_5xx=True)
    for _ in range(5):
        await failed(calls)
    assert not calls.is_open


# ------------------------------------------------------------------------------------- real time and size


class Drip:
    """A server that answers with a head and then a byte at a time, or as much as is taken."""

    def __init__(self, piece: bytes, pause: float) -> None:
        self.piece, self.pause = piece, pause
        self.port = 0
        self.written = 0
        self.is_over = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n")
        try:
            while True:
                writer.write(self.piece)
                await writer.drain()
                self.written += len(self.piece)
                await asyncio.sleep(self.pause)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self.is_over.set()
            writer.close()


Serve = Callable[[bytes, float], Any]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    listeners: list[asyncio.Server] = []

    async def start(piece: bytes, pause: float) -> Drip:
        made = Drip(piece, pause)
        listener = await asyncio.start_server(made.serve, "127.0.0.1", 0)
        made.port = listener.sockets[0].getsockname()[1]
        listeners.append(listener)
        return made

    yield start
    for listener in listeners:
        listener.close()


@pytest.mark.parametrize(
    ("piece", "pause", "failure"),
    [(b"x", 0.02, Failure.TIMEOUT), (b"x" * 65_536, 0.0, Failure.TOO_LARGE)],
)
async def test_an_endless_answer_is_cut_off_and_its_connection_closed(
    serve: Serve, piece: bytes, pause: float, failure: Failure
) -> None:
    server = await serve(piece, pause)
    seconds = 0.5 if pause else 30.0
    client = new_client(seconds, agent="test", connections=1, guard=Guard(["127.0.0.1"]))
    calls = VendorApi(client, seconds=seconds)
    with pytest.raises(VendorFailure) as found:
        await calls.call("GET", f"http://127.0.0.1:{server.port}/")
    assert found.value.failure is failure
    await asyncio.wait_for(server.is_over.wait(), 10)
    assert server.written < 64 * 1024 * 1024
    await calls.retire()


async def test_an_inner_host_is_refused_with_what_would_allow_it() -> None:
    calls = VendorApi(new_client(5.0, agent="test", connections=1, guard=Guard()))
    found = await failed_at(calls, "http://169.254.169.254/latest/meta-data/")
    assert found.failure is Failure.INNER_HOST
    assert not found.may_have_acted
    assert "SIGNALBOX_INNER_HOSTS" in str(found)
    await calls.retire()


async def failed_at(calls: VendorApi, url: str) -> VendorFailure:
    with pytest.raises(VendorFailure) as found:
        await calls.call("GET", url)
    return found.value
