"""Vendors that take every message after a fixed time: what `signalbox bench notifier` sends its notices to.

Run as `python -m bench.vendor_sink HTTP_PORT SMTP_PORT SECONDS`. A post's first path segment names the account; each account is
answered from so many places (`PLACES`), the mail server from its own, and what comes beyond waits for one: so a vendor has a
limit of its own. Accounts whose names begin with `instant` are answered at once.

A keyed post (`webhook-id`) is taken once, and a repeat of it is answered and counted. One without a key is Telegram's
`sendMessage`, and every one that comes is taken. Mails are taken at the end of their content.

    GET  /counts           for each account: recipients reached, those reached twice, repeats, refusals, calls while told to wait
    GET  /arrivals/NAME    when a message to each recipient first arrived, in seconds since 1970
    POST /mode/NAME/MODE   `fine`; `hang`: takes and never answers; `busy`: says 429 with Retry-After, again and again
"""

import asyncio
import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import uvloop

from bench.mail_sink import ANSWERS, END
from chassis.clock import monotonic, now_seconds

PLACES: Final = 8
MAIL: Final = "mail"
"""The name of the mail server's account."""
BUSY_SECONDS: Final = 5.0
"""How long a busy vendor wishes to be left alone."""
BUSY_GRACE_SECONDS: Final = 1.0
"""What comes so soon after the wish was on its way already."""
BUSY_AFTER: Final = 20
"""Messages that a busy vendor takes between two refusals."""


@dataclass(slots=True)
class Account:
    """What came to one account, and how it behaves."""

    seconds: float
    mode: str = "fine"
    arrived: dict[str, list[float]] = field(default_factory=dict)
    keys: set[str] = field(default_factory=set)
    repeats: int = 0
    refused: int = 0
    early: int = 0
    places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(PLACES))
    let_go: asyncio.Event = field(default_factory=asyncio.Event)
    busy_since: float = 0.0
    until_busy: int = 0

    def behave(self, mode: str) -> None:
        """Behave so from now on; what hung is answered."""
        self.mode, self.until_busy = mode, 0
        if mode != "hang":
            self.let_go.set()
            self.let_go = asyncio.Event()

    def is_refused(self) -> bool:
        """Whether a call is refused as one too many. Counts those that come although they were told to wait."""
        if self.mode != "busy":
            return False
        since = monotonic() - self.busy_since
        if since >= BUSY_SECONDS:
            if self.until_busy > 0:
                self.until_busy -= 1
                return False
            self.busy_since, self.until_busy = monotonic(), BUSY_AFTER
        elif since > BUSY_GRACE_SECONDS:
            self.early += 1
        self.refused += 1
        return True

    def take(self, recipient: str, key: str | None) -> None:
        """Note a message; a key that was seen makes it a repeat."""
        if key is not None:
            if key in self.keys:
                self.repeats += 1
                return
            self.keys.add(key)
        self.arrived.setdefault(recipient, []).append(now_seconds())

    async def answer(self) -> None:
        """Return when it is time for the answer."""
        if self.mode == "hang":
            await self.let_go.wait()
        elif self.seconds:
            async with self.places:
                await asyncio.sleep(self.seconds)

    def counts(self) -> dict[str, int]:
        """Return what came, in numbers."""
        return {
            "arrived": len(self.arrived),
            "twice": sum(len(times) > 1 for times in self.arrived.values()),
            "repeats": self.repeats,
            "refused": self.refused,
            "early": self.early,
        }


class Vendors:
    """All accounts, over HTTP and SMTP."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.accounts: dict[str, Account] = defaultdict(lambda: Account(seconds))

    def account(self, name: str) -> Account:
        """Return an account; one that was never heard of begins now."""
        if name.startswith("instant") and name not in self.accounts:
            self.accounts[name] = Account(0.0)
        return self.accounts[name]

    # -- HTTP --------------------------------------------------------------------------------------------------------

    async def serve_http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                first, *lines = head.decode("latin-1").split("\r\n")
                method, path, _ = first.split(" ")
                headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines)}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                answer = await self._answer(method, path.strip("/").split("/"), headers, body)
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(
        self, method: str, path: list[str], headers: dict[str, str], body: bytes
    ) -> bytes:
        match method, path:
            case "GET", ["counts"]:
                return _http({name: one.counts() for name, one in self.accounts.items()})
            case "GET", ["arrivals", name]:
                arrived = self.account(name).arrived
                return _http({recipient: times[0] for recipient, times in arrived.items()})
            case "POST", ["mode", name, mode]:
                self.account(name).behave(mode)
                return _http({})
            case "POST", [name, *_]:
                return await self._post(self.account(name), headers, json.loads(body))
            case _:
                return _http({}, "404 Not Found")

    async def _post(self, account: Account, headers: dict[str, str], body: object) -> bytes:
        if account.is_refused():
            wait = round(BUSY_SECONDS)
            return _http({}, "429 Too Many Requests", f"Retry-After: {wait}\r\n")
        fields = body if isinstance(body, dict) else {}
        recipient = str(fields["chat_id"] if "chat_id" in fields else fields["data"]["to"])
        account.take(recipient, headers.get("webhook-id"))
        await account.answer()
        return _http({"ok": True, "result": {"message_id": len(account.arrived)}})

    # -- SMTP --------------------------------------------------------------------------------------------------------

    async def serve_smtp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection: one line of a command, one answer (RFC 5321); of a content only the end is looked for."""
        account, recipient = self.account(MAIL), ""
        writer.write(b"220 sink\r\n")
        try:
            while line := await reader.readline():
                verb = line[:4].upper()
                if verb == b"RCPT":
                    recipient = line.partition(b"<")[2].partition(b"@")[0].decode("ascii")
                writer.write(ANSWERS.get(verb, b"250 fine\r\n"))
                if verb == b"QUIT":
                    break
                if verb == b"DATA":
                    await reader.readuntil(END)
                    account.take(recipient, None)
                    await account.answer()
                    writer.write(b"250 taken\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def _http(body: object, status: str = "200 OK", more: str = "") -> bytes:
    content = json.dumps(body).encode()
    head = (
        f"HTTP/1.1 {status}\r\n{more}Content-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


async def serve(http_port: int, smtp_port: int, seconds: float) -> None:
    """Take messages on the loopback address until terminated."""
    vendors = Vendors(seconds)
    http = await asyncio.start_server(vendors.serve_http, "127.0.0.1", http_port)
    await asyncio.start_server(vendors.serve_smtp, "127.0.0.1", smtp_port)
    await http.serve_forever()


def main(argv: Sequence[str]) -> int:
    """Serve on the given ports, answering after so many seconds."""
    if len(argv) != 3:
        print("usage: python -m bench.vendor_sink HTTP_PORT SMTP_PORT SECONDS", file=sys.stderr)
        return 2
    uvloop.run(serve(int(argv[0]), int(argv[1]), float(argv[2])))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
