"""The cast: simulated agents who accept what they are offered, answer it, hand it up, and sometimes do not.

They know what anybody could know: the events on the topics, and the gateway's HTTP. What they write is in the samples.
"""

import asyncio
import random
from collections.abc import Callable
from typing import Final

from cli.demo.samples import Sample
from cli.demo.world import Ticket, World
from cli.errors import CommandError
from cli.gateway import Gateway, Refused
from schemas.payload import Payload
from schemas.routing import OfferMade
from schemas.tickets import CommandRefused, TicketStatusChanged

DECLINED: Final = frozenset({6, 21, 37})
"""Which offers of the day are declined, by their number."""

MISSED: Final = frozenset({12})
"""Which are not answered at all, so that they expire."""

LOOK_SECONDS_MAX: Final = 5.0

GENERIC: Final = {
    "en": "Thank you for writing to us. We have looked into it and will write to you again by noon tomorrow.",
    "tr": "Bize yazdığınız için teşekkür ederiz. Konuyu inceledik, yarın öğlene kadar size yeniden yazacağız.",
    "ru": "Спасибо, что написали нам. Мы во всём разобрались и завтра до полудня напишем вам ещё раз.",
}
"""What is answered to a message that is none of the samples."""

Tell = Callable[[str], None]


class Cast:
    """All simulated agents. `hear` is a hearer of the world."""

    def __init__(self, world: World, gateway: Gateway, seed: int, tell: Tell) -> None:
        self._world = world
        self._gateway = gateway
        self._chance = random.Random(seed)  # noqa: S311 - a play, and it can be played again
        self._tell = tell
        self._offers = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.declined = 0
        self.missed = 0

    def hear(self, event: Payload) -> None:
        """Let the agent whom an event concerns act on it, in a while."""
        match event:
            case OfferMade():
                self._offers += 1
                self._act(self._answer_offer(event, self._offers))
            case TicketStatusChanged(status="assigned") if event.agent_id is not None:
                self._act(self._work(event.ticket_id, event.agent_id))
            case CommandRefused():
                self._tell(f"{event.command} of {event.agent_id} was refused: {event.reason}")

    def _act(self, doing: "asyncio.Future[None] | object") -> None:
        task = asyncio.ensure_future(self._guarded(doing))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, doing: object) -> None:
        try:
            await doing  # type: ignore[misc]
        except CommandError as error:
            self._tell(str(error))

    async def stop(self) -> None:
        """Send everybody home."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _answer_offer(self, offer: OfferMade, number: int) -> None:
        if number in MISSED:
            self.missed += 1
            self._tell(f"{offer.agent_id} is on the phone and does not see an offer")
            return
        await asyncio.sleep(self._chance.uniform(0.2, 0.8))
        answer = "decline" if number in DECLINED else "accept"
        body = {"domain": offer.domain, "agent_id": offer.agent_id, "ticket_id": offer.ticket_id}
        if answer == "decline":
            self.declined += 1
            body["reason"] = "about to leave for a meeting"
        try:
            await self._gateway.send(
                "POST",
                f"/v1/offers/{offer.reservation_id}/{answer}",
                body,
                idempotency_key=f"{offer.reservation_id}-{answer}",
            )
        except Refused as error:
            self._tell(str(error))

    async def _work(self, ticket_id: str, agent_id: str) -> None:
        """Read, think, and answer or hand up."""
        await asyncio.sleep(self._chance.uniform(0.4, 1.6))
        ticket = self._world.tickets.get(ticket_id)
        if ticket is None:
            return
        sample = await self._look_up(ticket)
        path = f"/v1/conversations/{ticket.conversation_id}/tickets/{ticket_id}"
        key = f"{ticket_id}-{len(ticket.message_ids)}-{agent_id}"
        if sample is not None and sample.action == "escalate" and ticket.desk == "service":
            body = {
                "agent_id": agent_id,
                "reason": f"The front line cannot solve this: {sample.what}"[:500],
                "facts": dict(sample.facts),
            }
            await self._gateway.send("POST", f"{path}/escalate", body, idempotency_key=f"{key}-up")
            return
        language = ticket.language or "en"
        text = (
            sample.reply
            if sample is not None and sample.reply
            else GENERIC.get(language, GENERIC["en"])
        )
        reply = {
            "agent_id": agent_id,
            "text": text,
            "language": sample.language if sample is not None and sample.reply else language,
            "solves": sample is not None and sample.action == "solve",
        }
        await self._gateway.send("POST", f"{path}/reply", reply, idempotency_key=f"{key}-reply")

    async def _look_up(self, ticket: Ticket) -> Sample | None:
        """Return the sample that the newest message of a ticket was; topics are read one by one, so wait a moment."""
        for _ in range(int(LOOK_SECONDS_MAX / 0.1)):
            newest = ticket.message_ids[-1]
            if newest in self._world.input_of_message:
                found = self._world.sample_of_message(newest)
                if found is not None:
                    return found
            await asyncio.sleep(0.1)
        return None
