"""A notifier as a process, a vendor that knows keys, one that knows none, and a mail server: the stand for the notifier's attacks.

The tickets' events are written to their topic as the router would, numbered without gaps. What left is read where it arrived: at
the vendors, which are on sockets of the test's own process and outlive every kill. What the notifier believes is read in its table.
"""

import asyncio
import base64
import contextlib
import shutil
import signal
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import yaml

from schemas import tickets
from tests.fakes.receiver import Receiver
from tests.fakes.served import Served, served
from tests.fakes.telegram import Telegram
from tests.faults.harness import PARTITIONS, Member
from tests.faults.nursery import NOTIFIER
from tests.faults.stand import ROOT, Stand
from tests.integration.kit import until

STAGE: Final = "notifier"
CHAT: Final = 55501

KEYED, UNKEYED, MAIL = "outgoing_webhook", "telegram", "smtp"
PROVIDERS: Final = (KEYED, UNKEYED, MAIL)


@dataclass
class Mails:
    """A mail server that takes every mail. While `holds` is set, the answer to a mail's content waits."""

    texts: list[str] = field(default_factory=list)
    holds: bool = False
    held: int = 0
    port: int = 0
    let_go: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        writer.write(b"220 mx.example\r\n")
        content: list[str] | None = None
        with contextlib.suppress(ConnectionError):
            while raw := await reader.readline():
                line = raw.decode().rstrip("\r\n")
                if content is not None:
                    if line != ".":
                        content.append(line)
                        continue
                    self.texts.append("\n".join(content))
                    content = None
                    if self.holds:
                        self.held += 1
                        await self.let_go.wait()
                    writer.write(b"250 2.0.0 queued\r\n")
                    continue
                verb = line[:4].upper()
                content = [] if verb == "DATA" else None
                said = {"DATA": b"354 go on\r\n", "QUIT": b"221 bye\r\n"}
                writer.write(said.get(verb, b"250 fine\r\n"))
                if verb == "QUIT":
                    break
        writer.close()

    def release(self) -> None:
        """Let go of what is held, and hold nothing any more."""
        self.holds = False
        self.let_go.set()
        self.let_go = asyncio.Event()


@dataclass
class Case:
    """A conversation with one answer to it, by one provider; `words` are found in nothing else."""

    provider: str
    conversation_id: str
    ticket_id: str
    words: str


@dataclass
class Notifiers(Stand):
    """The slot of the notifier, its broker and database, its vendors, and what was asked of it."""

    SERVICE = NOTIFIER
    SOURCE = "signalbox/router.tickets/{partition}"
    END_SECONDS = 60.0

    mails: Mails = field(default_factory=Mails)
    receiver: Receiver = field(default_factory=Receiver)
    telegram: Telegram = field(default_factory=Telegram)
    cases: list[Case] = field(default_factory=list)
    _member: Member | None = None

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Notifiers"]:
        """The vendors, the topics and the tables; no notifier yet."""
        async with self._prepared():
            listener = await asyncio.start_server(self.mails.serve, "127.0.0.1", 0)
            self.mails.port = listener.sockets[0].getsockname()[1]
            try:
                async with (
                    served(self.receiver.server()) as self.hook,
                    served(self.telegram.server()) as self.bot,
                ):
                    self._write_policy()
                    yield self
            finally:
                self.mails.release()
                listener.close()
                if self._member is not None:
                    self._member.send(signal.SIGKILL)
                    await self.ended()

    def _write_policy(self) -> None:
        """The example policy with two accounts, where nothing but an agent's answer is told."""
        shutil.copytree(ROOT / "policy", self.policy)
        path = self.policy / "notify.yaml"
        policy = yaml.safe_load(path.read_text(encoding="utf-8"))
        policy["occasions"] = {
            name: name == "answered" for name in [*policy.get("occasions", {}), "answered"]
        }
        policy["occasions"].pop("answered", None)
        policy["digest"] = {"occasions": []}
        policy["articles"] = {"source": "none"}
        policy["accounts"] = {
            "shop": {
                "provider": KEYED,
                "url": f"{self.hook.url}/signalbox",
                "secret": "env:SIGNALBOX_TEST_HOOK",
            },
            "bot": {"provider": UNKEYED, "url": self.bot.url, "token": "env:SIGNALBOX_TEST_BOT"},
        }
        policy["fall_back"] = []
        path.write_text(yaml.safe_dump(policy, allow_unicode=True), encoding="utf-8")

    # -- the process -----------------------------------------------------------------------------------------

    @property
    def member(self) -> Member:
        """The notifier that was started last."""
        assert self._member is not None
        return self._member

    def start(self, failpoints: str = "") -> Member:
        """Start a notifier; the last one is gone."""
        self._member = self._born(
            "only",
            failpoints,
            SIGNALBOX_TOKEN_SECRET=base64.b64encode(bytes(range(33))).decode(),
            SIGNALBOX_SMTP_HOST="127.0.0.1",
            SIGNALBOX_SMTP_PORT=str(self.mails.port),
            SIGNALBOX_SMTP_TLS="none",
            SIGNALBOX_INNER_HOSTS="127.0.0.1",
            SIGNALBOX_TEST_HOOK=self.receiver.secret,
            SIGNALBOX_TEST_BOT=self.telegram.token,
        )
        return self._member

    async def ended(self) -> None:
        """Wait until the notifier's process is gone."""
        await self._gone(self.member)

    async def staffed(self) -> None:
        """Wait until every task of the notices belongs to the notifier that was started last."""

        async def is_owner() -> bool:
            assert self.member.exit_code is None, "the notifier has ended"
            rows = await self.rows("SELECT owner FROM lease WHERE stage = $1", STAGE)
            owners = {row["owner"].rpartition(":")[2] for row in rows}
            return len(rows) == PARTITIONS and owners == {str(self.member.pid)}

        await until("every task belongs to the notifier", is_owner, 90)

    # -- the world -------------------------------------------------------------------------------------------

    async def answer(self, provider: str) -> Case:
        """Let a customer have a ticket on a provider's channel, and an agent answer it."""
        number = len(self.cases) + 1
        case = Case(
            provider=provider,
            conversation_id=str(uuid.UUID(int=self.rng.getrandbits(128), version=4)),
            ticket_id=f"t-{number}",
            words=f"Answer number {number} is here.",
        )
        self.cases.append(case)
        now = datetime.now(UTC).isoformat()
        about = {"ticket_id": case.ticket_id, "conversation_id": case.conversation_id, "at": now}
        opened = {
            **tickets.TicketOpened.EXAMPLE, **about, "version": 1, "reference": f"SB-{number:07}",
            "message_id": str(uuid.UUID(int=number)), "occurred_at": now,
            "contact": self._contact(provider, number), "vendor_thread": str(CHAT),
        }  # fmt: skip
        answered = {
            **tickets.TicketAnswered.EXAMPLE, **about, "version": 2, "command_id": f"c-{number}",
            "text": case.words, "occurred_at": now,
        }  # fmt: skip
        for event in (
            tickets.TicketOpened.model_validate(opened),
            tickets.TicketAnswered.model_validate(answered),
        ):
            await (await self._tell(event, case.conversation_id))
        return case

    def _contact(self, provider: str, number: int) -> dict[str, Any]:
        channel, account, kind, address = {
            KEYED: ("kiosk", "shop", "vendor_id", f"customer-{number}"),
            UNKEYED: ("telegram", "bot", "vendor_id", str(CHAT)),
            MAIL: ("email", "support", "email", f"customer-{number}@example.com"),
        }[provider]
        return {
            "customer_id": f"customer-{number}", "name": "Ada", "address": address,
            "address_kind": kind, "channel": channel, "account": account, "language": "en",
            "is_verified": True,
        }  # fmt: skip

    # -- looking ---------------------------------------------------------------------------------------------

    def arrived(self, case: Case) -> int:
        """Return how often an answer has arrived where it was sent."""
        match case.provider:
            case "outgoing_webhook":
                return sum(case.words in one.text for one in self.receiver.sent)
            case "telegram":
                return sum(case.words in one.text for one in self.telegram.sent)
            case _:
                return sum(case.words in text for text in self.mails.texts)

    async def statuses(self) -> dict[str, str]:
        """Return what the notifier believes of each ticket's answer."""
        rows = await self.rows("SELECT ticket_id, status FROM notice WHERE occasion = 'answered'")
        return {row["ticket_id"]: row["status"] for row in rows}

    async def settled(self, seconds: float = 90.0) -> dict[str, str]:
        """Wait until every answer has come to an end, and return which."""

        async def are() -> bool:
            found = await self.statuses()
            return len(found) == len(self.cases) and "requested" not in found.values()

        await until("every answer has come to an end", are, seconds)
        return await self.statuses()

    def hold(self, provider: str) -> None:
        """Let a vendor take messages and say nothing."""
        self._vendor(provider).holds = True

    def held(self, provider: str) -> int:
        """Return how many answers a vendor holds back, or has."""
        return self._vendor(provider).held

    def release(self) -> None:
        """Let every vendor answer again."""
        for provider in PROVIDERS:
            self._vendor(provider).release()

    def _vendor(self, provider: str) -> Served | Mails:
        vendors: dict[str, Served | Mails] = {
            KEYED: self.hook, UNKEYED: self.bot, MAIL: self.mails,
        }  # fmt: skip
        return vendors[provider]
