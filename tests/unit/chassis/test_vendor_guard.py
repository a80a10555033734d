"""Which addresses may be called: judged when connecting, for the very address that is connected to."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from chassis.vendor_api import new_client
from chassis.vendor_guard import Guard, InnerAddress, is_inner
from chassis.vendor_transport import InnerHost, VendorTransport


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1",
        "100.64.0.1", "100.100.100.200", "169.254.169.254", "169.254.170.2", "168.63.129.16",
        "192.0.0.192", "192.0.2.1", "198.18.0.1", "224.0.0.1", "239.255.255.250", "240.0.0.1",
        "255.255.255.255", "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254",
        "ff02::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:10.0.0.1", "::127.0.0.1",
        "64:ff9b::a00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::7f00:1", "2002:7f00:1::", "2002:a9fe:a9fe::1",
        "2001:0:a9fe:a9fe::1", "2001:db8::1", "192.88.99.1", "2002:c058:6301::", "fec0::1", "feff::1",
        "3fff::1", "5f00::1", "no-address", "",
    ],
)  # fmt: skip
def test_an_address_that_is_not_public_is_inner(address: str) -> None:
    assert is_inner(address)


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "93.184.215.14", "172.32.0.1", "100.128.0.1", "2606:4700::6810:84e5", "64:ff9b::808:808"],
)  # fmt: skip
def test_a_public_address_is_not(address: str) -> None:
    assert not is_inner(address)


class Names:
    """A name server whose answers change from one question to the next."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "[::1]", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "169.254.169.254", "LOCALHOST.", "evil.example"],
)  # fmt: skip
async def test_a_host_that_leads_inside_is_refused_by_name_and_without_its_address(
    host: str,
) -> None:
    guard = Guard(resolve=Names(["10.9.8.7"]))
    with pytest.raises(InnerAddress) as refused:
        await guard.addresses(host, 443)
    assert "SIGNALBOX_INNER_HOSTS" in str(refused.value)
    assert "10.9.8.7" not in str(refused.value)


async def test_one_inner_address_among_others_is_enough() -> None:
    guard = Guard(resolve=Names(["93.184.215.14", "10.0.0.1"]))
    with pytest.raises(InnerAddress):
        await guard.addresses("mixed.example", 443)


async def test_a_named_inner_host_may_lead_inside_and_nothing_like_it() -> None:
    guard = Guard(["desk.inner.example", "127.0.0.1"], resolve=Names(["10.0.0.1"]))
    assert await guard.addresses("Desk.inner.example.", 443) == ["10.0.0.1"]
    assert await guard.addresses("127.0.0.1", 443) == ["127.0.0.1"]
    for host in ("inner.example", "x.desk.inner.example", "127.0.0.2"):
        with pytest.raises(InnerAddress):
            await guard.addresses(host, 443)


# ------------------------------------------------------------------------------------- real sockets


class Server:
    """A port on this machine that answers each request with the same bytes, and counts."""

    def __init__(self) -> None:
        self.connections = 0
        self.requests: list[bytes] = []
        self.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
        self.then_close = False
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]
                body = await reader.readexactly(int(size or 0))
                self.requests.append(head + body)
                writer.write(self.answer)
                await writer.drain()
                if self.then_close:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    listener = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = listener.sockets[0].getsockname()[1]
    yield made
    listener.close()


def client(guard: Guard, **options: Any) -> httpx.AsyncClient:
    transport = VendorTransport(guard, connections=4)
    return httpx.AsyncClient(transport=transport, timeout=5.0, **options)


async def test_a_name_that_is_bound_anew_after_it_was_judged_leads_nowhere_else(
    server: Server,
) -> None:
    """Each connection is one look-up: what was judged is what is connected to."""
    names = Names(["93.184.215.14"], ["127.0.0.1"])
    guard = Guard(resolve=names)
    assert await guard.addresses("rebinds.example", 80) == ["93.184.215.14"]
    async with client(guard) as http:
        with pytest.raises(InnerHost):
            await http.get(f"http://rebinds.example:{server.port}/")
    assert server.connections == 0


async def test_the_address_that_was_judged_is_connected_to_with_one_look_up(server: Server) -> None:
    names = Names(["127.0.0.1"], ["10.255.255.1"])
    async with client(Guard(["named.example"], resolve=names)) as http:
        answer = await http.post(f"http://named.example:{server.port}/x", json={"a": 1})
    assert answer.json() == {}
    assert names.asked == ["named.example"]
    assert f"host: named.example:{server.port}".encode() in server.requests[0].lower()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "2130706433", "[::ffff:127.0.0.1]"])
async def test_an_address_in_the_place_of_a_name_is_judged_as_well(
    server: Server, host: str
) -> None:
    async with client(Guard()) as http:
        with pytest.raises(InnerHost):
            await http.get(f"http://{host}:{server.port}/")
    assert server.connections == 0


async def test_a_name_server_that_hangs_holds_up_no_other_client_and_nothing_went_out(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, under_way, asks = threading.Event(), threading.Event(), socket.getaddrinfo

    def getaddrinfo(host: str, *args: Any, **options: Any) -> Any:
        if host != "hangs.example":
            return asks(host, *args, **options)
        under_way.set()
        go.wait(60)
        raise socket.gaierror("nobody knows")

    # The loop's own threads are few as well, on a small machine.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr("chassis.vendor_guard.LOOK_UP_SECONDS", 1.0)
    guard = Guard(["localhost"])
    try:
        async with client(guard) as slow, client(guard) as good:
            stuck = [
                asyncio.create_task(slow.post("http://hangs.example/", json={})) for _ in range(8)
            ]
            while not under_way.is_set():
                await asyncio.sleep(0.01)
            answer = await good.post(f"http://localhost:{server.port}/", json={})
            assert answer.status_code == 200
            assert not go.is_set()
            for outcome in await asyncio.gather(*stuck, return_exceptions=True):
                assert isinstance(outcome, httpx.ConnectError), outcome
    finally:
        go.set()


async def test_a_connection_is_used_again(server: Server) -> None:
    async with client(Guard(["127.0.0.1"])) as http:
        for _ in range(3):
            await http.post(f"http://127.0.0.1:{server.port}/", json={})
    assert (server.connections, len(server.requests)) == (1, 3)


async def test_a_request_that_the_server_takes_and_never_answers_may_have_arrived(
    server: Server,
) -> None:
    """It is no connection that could not be made: whoever reads it so sends the message twice."""
    server.answer, server.then_close = b"", True
    async with client(Guard(["127.0.0.1"])) as http:
        with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
            await http.post(f"http://127.0.0.1:{server.port}/", json={})
    assert len(server.requests) == 1


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
async def test_a_request_on_a_kept_connection_that_is_taken_and_never_answered_goes_out_once(
    server: Server, method: str
) -> None:
    """A method that may be repeated by its definition is no exception: a helpdesk takes a comment by PUT."""
    async with client(Guard(["127.0.0.1"])) as http:
        await http.post(f"http://127.0.0.1:{server.port}/", json={})
        server.answer, server.then_close = b"", True
        with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
            await http.request(method, f"http://127.0.0.1:{server.port}/")
    assert (server.connections, len(server.requests)) == (1, 2)


async def test_an_answer_that_breaks_off_may_have_arrived(server: Server) -> None:
    server.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n{"
    server.then_close = True
    async with client(Guard(["127.0.0.1"])) as http:
        with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
            await http.post(f"http://127.0.0.1:{server.port}/", json={})


async def test_a_port_that_nobody_listens_on_was_never_reached(server: Server) -> None:
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    listener.close()
    await listener.wait_closed()
    async with client(Guard(["127.0.0.1"])) as http:
        with pytest.raises(httpx.ConnectError):
            await http.post(f"http://127.0.0.1:{port}/", json={})


async def test_a_header_that_would_break_out_is_never_written(server: Server) -> None:
    async with client(Guard(["127.0.0.1"])) as http:
        with pytest.raises(httpx.LocalProtocolError):
            await http.get(f"http://127.0.0.1:{server.port}/", headers={"X": "a\r\nEvil: b"})
    assert server.requests == []


async def test_an_address_arrives_with_its_escapes_as_they_were(server: Server) -> None:
    path = "/a%2Fb%7E%2e%2e%2Fc?x=a%2Bb%20c+d"
    async with client(Guard(["127.0.0.1"])) as http:
        await http.get(f"http://127.0.0.1:{server.port}{path}")
    assert server.requests[0].startswith(f"GET {path} HTTP/1.1\r\n".encode())


async def test_a_vendor_sees_our_name_in_every_call(server: Server) -> None:
    guard = Guard(["127.0.0.1"])
    async with new_client(5.0, agent="signalbox-test", connections=1, guard=guard) as http:
        for _ in range(2):
            await http.post(f"http://127.0.0.1:{server.port}/", json={})
    assert b"user-agent: signalbox-test" in server.requests[1].lower()
