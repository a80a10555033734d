"""A service's life: what it does while its database is away, and that it ends in time whatever hangs."""

import asyncio
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr

from chassis import lifecycle
from chassis.errors import ConfigurationError
from chassis.health import Health
from chassis.lifecycle import Application
from chassis.settings import Settings, load_settings


def make_settings(dsn: str) -> Settings:
    return Settings(kafka="127.0.0.1:1", database_url=SecretStr(dsn), grace_seconds=1.0)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def application(*ports: tuple[str, int]) -> Application:
    return Application("sla", Path(__file__).parent, (), waiting_ports=ports)


@pytest.mark.parametrize("dsn", ["mysql://u:hunter2@db/x", "postgresql://u:hunter2@db:port/x"])
async def test_a_dsn_that_cannot_be_read_is_refused_in_a_sentence_without_its_password(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGNALBOX_DATABASE_URL", dsn)
    monkeypatch.setenv("SIGNALBOX_KAFKA", "127.0.0.1:1")
    with pytest.raises(ConfigurationError, match="SIGNALBOX_DATABASE_URL") as caught:
        await lifecycle._open_database(
            application(), load_settings(Settings), asyncio.Event(), Health("sla")
        )
    assert "hunter2" not in str(caught.value)


async def test_while_the_database_is_awaited_senders_are_told_to_come_again() -> None:
    port, stopping, health = free_port(), asyncio.Event(), Health("sla")
    waiting = asyncio.create_task(
        lifecycle._open_database(
            application(("127.0.0.1", port)),
            make_settings("postgresql://u@127.0.0.1:1/x"),
            stopping,
            health,
        )
    )

    async def ask() -> bytes:
        async with asyncio.timeout(10):
            while True:
                try:
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    await asyncio.sleep(0.01)
                    continue
                writer.write(b"POST /v1/messages HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                answer = await reader.read()
                writer.close()
                return answer

    answer = await ask()
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 5" in answer.lower()
    assert b"urn:signalbox:problem:unavailable" in answer
    assert "does not answer yet" in (await health.unready())["database"]
    assert health.dead() == {}
    stopping.set()
    assert await asyncio.wait_for(waiting, 10) is None
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind(("127.0.0.1", port))  # Free again, for the part that it belongs to.


class Hanging:
    """A worker, a pool and a tracer that do not end by asking."""

    def __init__(self) -> None:
        self.is_terminated = False
        self.release = threading.Event()

    async def stop(self) -> None:
        await asyncio.sleep(3_600)

    def terminate(self) -> None:
        self.is_terminated = True


async def test_a_stop_ends_within_the_grace_time_whatever_hangs() -> None:
    one = Hanging()
    runtime: Any = SimpleNamespace(
        settings=make_settings("postgresql://u@127.0.0.1:1/x"),
        pool=SimpleNamespace(close=one.stop, terminate=one.terminate),
        tracing=SimpleNamespace(close=lambda: one.release.wait(60)),
    )
    background = asyncio.create_task(one.stop())
    try:
        worker: Any = one
        async with asyncio.timeout(1.5):
            code = await lifecycle._stop(runtime, [worker], [], [background])
    finally:
        one.release.set()
    assert code == 1
    assert one.is_terminated


async def test_a_worker_that_fails_to_stop_does_not_keep_the_others_from_it() -> None:
    stopped: list[str] = []

    async def fails() -> None:
        raise RuntimeError("a surprise")

    async def ends() -> None:
        stopped.append("worker")

    async def closes() -> None:
        stopped.append("pool")

    runtime: Any = SimpleNamespace(
        settings=make_settings("postgresql://u@127.0.0.1:1/x"),
        pool=SimpleNamespace(close=closes),
        tracing=SimpleNamespace(close=lambda: None),
    )
    workers: Any = [SimpleNamespace(stop=fails), SimpleNamespace(stop=ends)]
    assert await lifecycle._stop(runtime, workers, [], []) == 0
    assert stopped == ["worker", "pool"]


HANGS = """
import sys, threading
from pathlib import Path
from chassis import lifecycle
from chassis.settings import Settings, load_settings

def build(settings):
    threading.Thread(target=threading.Event().wait, name="a resolver that hangs").start()
    return lifecycle.Application("sla", Path(sys.argv[1]), ())

sys.exit(lifecycle.run(build, Settings, ["serve"]))
"""


def test_a_thread_that_hangs_does_not_keep_a_stopped_process_alive() -> None:
    """As a resolver does when the broker's name is gone: its thread can be neither cancelled nor joined."""
    process = subprocess.Popen(
        [sys.executable, "-c", HANGS, str(Path(__file__).parent)],
        env={
            "SIGNALBOX_KAFKA": "127.0.0.1:1",
            "SIGNALBOX_DATABASE_URL": "postgresql://u@127.0.0.1:1/x",
            "SIGNALBOX_HTTP_PORT": str(free_port()),
            "SIGNALBOX_LOG_FORMAT": "json",
        },
        cwd=Path(__file__).parents[3],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if b"database_unreachable" in line:
                break
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.wait()
