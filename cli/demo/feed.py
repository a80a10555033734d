"""The customers: they send the day's messages, and answer once they were answered."""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import aiosmtplib

from chassis.clock import monotonic
from cli.demo.samples import Sample, digest, form_of, mail_of
from cli.demo.world import World
from cli.errors import CommandError
from cli.gateway import Gateway

PATIENCE_SECONDS: Final = 60.0
ANSWER_SECONDS_MAX: Final = 90.0
"""How long a customer who wants to reply waits for an answer before writing all the same."""

SETTLED: Final = frozenset({"pending", "solved", "closed"})

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message that was accepted: 250 or 202 was said. `input_id` is known where the answer names it."""

    number: str
    digest: str
    input_id: str | None
    is_repeat: bool
    attempts: int


class Feed:
    """Sends each sample once, in order, and again only where nobody said that it was accepted."""

    def __init__(
        self,
        samples: tuple[Sample, ...],
        world: World,
        gateway: Gateway,
        smtp_port: int,
        rate: float,
        now: Callable[[], datetime],
        tell: Tell,
    ) -> None:
        self._world = world
        self._gateway = gateway
        self._smtp_port = smtp_port
        self._pause = 1.0 / rate
        self._now = now
        self._dates: dict[str, datetime] = {}
        self._tell = tell
        self.samples = samples
        self.deliveries: list[Delivery] = []
        self.refused: list[str] = []
        self.waiting: list[Sample] = []
        self._known_inputs: set[str] = set()

    @property
    def repeats(self) -> int:
        """Messages that the gateway knew already by their idempotency key, from an earlier sample."""
        return sum(delivery.is_repeat for delivery in self.deliveries)

    @property
    def promised(self) -> Counter[str]:
        """How often each body was accepted by SMTP, by its digest: so many inputs there must be at least."""
        return Counter(one.digest for one in self.deliveries if one.input_id is None)

    @property
    def input_ids(self) -> frozenset[str]:
        """The inputs that the gateway has named."""
        return frozenset(one.input_id for one in self.deliveries if one.input_id is not None)

    async def run(self) -> None:
        """Send everything."""
        for sample in self.samples:
            await self._send_ready()
            if sample.joins is not None and not self._is_answered(sample):
                self.waiting.append(sample)
                continue
            await self._send(sample)
            await asyncio.sleep(self._pause)
        deadline = monotonic() + ANSWER_SECONDS_MAX
        while self.waiting:
            await self._send_ready()
            if self.waiting and monotonic() > deadline:
                self._tell(f"{self.waiting[0].number} got no answer, and writes again all the same")
                await self._send(self.waiting.pop(0))
            await asyncio.sleep(0.05)

    async def _send_ready(self) -> None:
        for sample in list(self.waiting):
            if self._is_answered(sample):
                self.waiting.remove(sample)
                await self._send(sample)

    def _is_answered(self, sample: Sample) -> bool:
        """Whether the conversation that a sample joins has an answer to everything sent in it so far."""
        first = next(one for one in self.samples if one.number == sample.joins)
        ticket = self._world.ticket_of(first)
        if ticket is None or ticket.status not in SETTLED:
            return False
        before = [
            one for one in self.samples if one.joins == sample.joins and one.number < sample.number
        ]
        sent = {delivery.number for delivery in self.deliveries}
        return all(one.number in sent for one in before) and len(ticket.message_ids) >= 1 + len(
            before
        )

    async def _send(self, sample: Sample) -> None:
        try:
            delivery = await (self._mail(sample) if sample.is_mail else self._form(sample))
        except CommandError as error:
            self.refused.append(f"{sample.number}: {error}")
            self._tell(f"{sample.number} was not accepted: {error}")
            return
        self.deliveries.append(delivery)

    async def _form(self, sample: Sample) -> Delivery:
        form = form_of(sample)
        name = digest(form.body)
        self._world.samples_by_digest.setdefault(name, []).append(sample)
        headers = dict(form.headers)
        accepted = await self._gateway.send(
            "POST",
            form.path,
            form.body,
            idempotency_key=headers.pop("Idempotency-Key", None),
            headers=headers,
        )
        # An answer that was lost makes the second attempt a repeat, and yet it is one delivery.
        is_repeat = accepted.id in self._known_inputs
        self._known_inputs.add(accepted.id)
        return Delivery(sample.number, name, accepted.id, is_repeat, accepted.attempts)

    async def _mail(self, sample: Sample) -> Delivery:
        answered = None
        if sample.joins is not None:
            first = next(one for one in self.samples if one.number == sample.joins)
            ticket = self._world.ticket_of(first)
            answered = self._world.answer_mails.get(ticket.ticket_id) if ticket else None
        # A mail that comes a second time is the same to the byte, its date included.
        written_at = self._dates.setdefault(sample.repeats or sample.number, self._now())
        mail = mail_of(sample, written_at, answered)
        name = digest(mail.body)
        self._world.samples_by_digest.setdefault(name, []).append(sample)
        deadline = monotonic() + PATIENCE_SECONDS
        pause, attempts = 0.1, 0
        while True:
            attempts += 1
            try:
                await self._hand_over(mail.sender, list(mail.recipients), mail.body)
                return Delivery(sample.number, name, None, False, attempts)
            except aiosmtplib.SMTPRecipientsRefused as error:
                why, is_final = _said(error.recipients[0]), error.recipients[0].code >= 500
            except aiosmtplib.SMTPResponseException as error:
                why, is_final = _said(error), error.code >= 500
            except (aiosmtplib.SMTPException, OSError, TimeoutError) as error:
                why, is_final = str(error) or type(error).__name__, False
            if is_final or monotonic() + pause > deadline:
                raise CommandError(f"the mail server did not take {sample.file}: {why}")
            await asyncio.sleep(pause)
            pause = min(pause * 2, 2.0)

    async def _hand_over(self, sender: str, recipients: list[str], body: bytes) -> None:
        client = aiosmtplib.SMTP(
            hostname="127.0.0.1",
            port=self._smtp_port,
            local_hostname="demo.invalid",
            start_tls=False,
            timeout=10,
        )
        async with client:
            await client.sendmail(sender, recipients, body)


def _said(error: aiosmtplib.SMTPResponseException) -> str:
    return f"{error.code} {error.message}"
