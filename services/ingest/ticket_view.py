"""The gateway's word on tickets: where one stands, what does not fit there, and what became of a request.

A command or an answer to an offer that surely cannot fit any more is refused (409), with where the ticket stands now or who
has it. Everything else is stored and answered 202 as soon as it is durable; whoever sends `Prefer: wait=N` (RFC 7240) is told
what the router made of it, as far as it comes within N seconds. Where the view is behind, where something is under way that
may move the ticket, or where nothing is known of it, the view says nothing: the router is the judge.
"""

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

import asyncpg
from fastapi import Request
from starlette.responses import Response

from chassis import logs
from chassis.batch import partition_of
from chassis.clock import Clock, monotonic, pause
from chassis.errors import Unavailable
from chassis.ledger import DRIVER_ERRORS
from chassis.stage import Connection
from schemas.commands import Command
from schemas.roster import OfferAccepted, OfferDeclined
from services.ingest import announcements, metrics
from services.ingest import ticket_view_store as store
from services.ingest.answers import Problem, as_json
from services.ingest.core import ticket_view as core
from services.ingest.core.ticket_view import Answerable, Settled, Standing
from services.ingest.ticket_view_store import Asked
from services.ingest.ticket_view_store import Request as Known

WAIT_SECONDS_MAX: Final = 10
"""The longest that anybody waits; who prefers longer is answered after this."""

CATCH_UP_SECONDS: Final = 0.5
"""How long an outcome is held back for the ticket to be seen where the outcome puts it, at most. A router's decision is published
at once, so whatever follows the first of its events is there by then."""

SURE_SECONDS: Final = 1.5
"""How long a command that seems not to fit is held back until the view holds all that was published when it came. The stage
says so every half second; where it does not, the router judges."""

HEADER_LENGTH_MAX: Final = 1_000

_WAIT: Final = re.compile(r'wait\s*=\s*"?(\d{1,9})"?')
_TAG: Final = re.compile(r'(W/)?"([\x21\x23-\x7e]*)"')

log = logs.get("ingest.tickets")


# ---------------------------------------------------------------------------------------- who waits for what


class Waiters:
    """Requests that somebody here waits for, and the announcements of them, heard on one connection.

    An announcement only says where to look. One that is lost costs whoever waits the rest of their time, no more: they look
    once more at its end.
    """

    def __init__(self, dsn: str, most: int) -> None:
        self._dsn = dsn
        self._most = most
        self._woken: dict[str, set[asyncio.Event]] = {}
        self._count = 0
        self.is_closed = False

    @contextlib.contextmanager
    def watch(self, request_id: str) -> Iterator[asyncio.Event | None]:
        """Listen for a request's outcome; None where too many listen here already, or the process stops."""
        if self._count >= self._most or self.is_closed:
            yield None
            return
        self._count += 1
        metrics.TICKET_WAITERS.set(self._count)
        try:
            with self.listen(request_id) as woken:
                yield woken
        finally:
            self._count -= 1
            metrics.TICKET_WAITERS.set(self._count)

    @contextlib.contextmanager
    def listen(self, name: str) -> Iterator[asyncio.Event]:
        """Listen for what is announced under a name; any number may, so nobody should for long."""
        woken = asyncio.Event()
        self._woken.setdefault(name, set()).add(woken)
        try:
            yield woken
        finally:
            left = self._woken[name]
            left.discard(woken)
            if not left:
                del self._woken[name]

    def hear(self, name: str) -> None:
        """Take an announcement."""
        for one in self._woken.get(name, ()):
            one.set()

    def wake_all(self) -> None:
        """Have everybody look."""
        for waiting in self._woken.values():
            for one in waiting:
                one.set()

    async def run(self, stopping: asyncio.Event) -> None:
        """Listen until the process stops, with a new connection whenever the old one is gone; then let everybody go."""
        await announcements.listen(self._dsn, store.CHANNEL, self, stopping, log, "tickets_deaf")


# ------------------------------------------------------------------------------------- what a request prefers


def wait_of(request: Request) -> float | None:
    """Return how long whoever asks prefers to wait, in seconds; None where they do not. What cannot be read is no wish."""
    said = ",".join(request.headers.getlist("prefer"))[:HEADER_LENGTH_MAX]
    for preference in said.lower().split(","):
        found = _WAIT.fullmatch(preference.partition(";")[0].strip())
        if found is not None:
            # Of a preference that stands twice the first counts.
            return float(min(int(found[1]), WAIT_SECONDS_MAX)) or None
    return None


class Expected(NamedTuple):
    """`If-Match`: the versions that the ticket may have; `is_any`: any, as long as there is one."""

    versions: frozenset[int]
    is_any: bool = False


def expected_of(request: Request) -> Expected | None:
    """Return the versions of a ticket that whoever asks has before them, None where they do not say.

    Raises:
        Problem: 422; `If-Match` is no list of entity tags as the gateway gives them.
    """
    given = request.headers.getlist("if-match")
    if not given:
        return None
    said = ",".join(given).strip()
    if said == "*":
        return Expected(frozenset(), is_any=True)
    versions = set()
    for tag in said.split(","):
        found = _TAG.fullmatch(tag.strip())
        if found is None or len(said) > HEADER_LENGTH_MAX:
            raise Problem(
                422,
                "invalid",
                "The request is not valid",
                'If-Match: must be the ETag of the ticket, such as "7", or *',
                field="If-Match",
            )
        if not found[1] and found[2].isdigit() and len(found[2]) <= 15:
            versions.add(int(found[2]))
    return Expected(frozenset(versions))


# ------------------------------------------------------------------------------------------------- the view


class Later(Response):
    """An answer that is durable as it stands, 202, for whoever prefers to wait for what comes of it."""

    settle: Callable[[], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Deps:
    """What the view stands on. `partitions` are those of the topics."""

    pool: asyncpg.Pool
    waiters: Waiters
    clock: Clock
    partitions: int


class Found(NamedTuple):
    """What a look found: the request, its ticket, and the offer it answers."""

    request: Known | None
    ticket: Standing | None
    offer: Answerable | None


class _NotYet(Exception):
    """A command seems not to fit, but not all that was published at `asked_at` is in view: it has to be looked at again."""

    def __init__(self, asked_at: datetime) -> None:
        super().__init__()
        self.asked_at = asked_at


@dataclass(slots=True)
class _Patience:
    """How long a command may be held back until it can be judged. `asked_at` is when it came, by the database's clock."""

    is_left: bool
    asked_at: datetime | None = None


class TicketView:
    """Asked by the gateway's routes before they store a request, and after."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps

    # -- reading

    async def ticket(self, conversation_id: str, ticket_id: str) -> Standing:
        """Return where a ticket stands.

        Raises:
            Problem: 404; no such ticket of that conversation has come into view.
            Unavailable: the database does not answer.
        """
        try:
            async with self._deps.pool.acquire(timeout=3) as connection:
                found = await store.standing(connection, ticket_id)
        except DRIVER_ERRORS:
            raise Unavailable("the database") from None
        if found is None or found.conversation_id != conversation_id:
            raise Problem(
                404,
                "not_found",
                "Not found",
                "ticket_id: no such ticket of that conversation is known here",
                field="ticket_id",
            )
        return found

    # -- before a request is stored

    async def admit(
        self, request: Request, asked: Asked, event: Command | OfferAccepted | OfferDeclined
    ) -> None:
        """Let a request pass to the router, written down so that its outcome will be known, or refuse it.

        A database that does not answer lets it pass: if it stays away, storing it fails and says so.

        Raises:
            Problem: 409 it cannot fit any more, 412 the ticket has moved on, 422 its name was used for another request.
        """
        expected = expected_of(request)
        is_awaited = wait_of(request) is not None
        patience, deadline = _Patience(is_left=True), monotonic() + SURE_SECONDS
        with self._deps.waiters.listen(store.VIEW) as woken:
            while True:
                woken.clear()
                left = deadline - monotonic()
                patience.is_left = left > 0 and not self._deps.waiters.is_closed
                try:
                    async with self._deps.pool.acquire(timeout=3) as connection:
                        await self._admit(
                            connection, asked, event, expected, patience, is_awaited=is_awaited
                        )
                except _NotYet as early:
                    patience.asked_at = early.asked_at
                    await pause(woken, left)
                    continue
                except DRIVER_ERRORS as error:
                    metrics.TICKET_UNJUDGED.labels("away").inc()
                    log.warning("ticket_view_away", error=type(error).__name__)
                return

    async def _admit(
        self,
        connection: Connection,
        asked: Asked,
        event: Command | OfferAccepted | OfferDeclined,
        expected: Expected | None,
        patience: _Patience,
        *,
        is_awaited: bool,
    ) -> None:
        kept: Known | None = None
        if asked.name is not None:
            has_passed, kept = await self._recall(connection, asked, is_awaited=is_awaited)
            if has_passed:
                return
        found = await self._look(connection, asked)
        if expected is not None:
            _check_expected(expected, found.ticket)
        refused, found = await self._judge(connection, asked, event, found, patience)
        if kept is not None and refused is not None and kept.reason == refused.reason:
            problem = _refused(asked, _settled(asked, kept), found)
            problem.headers["Idempotent-Replayed"] = "true"
            raise problem
        if kept is not None:
            await store.ask_again(connection, asked.request_id, refused, is_awaited=is_awaited)
        # Nobody can repeat a request without a name, so its refusal need not be kept.
        elif refused is None or asked.name is not None:
            is_first = await store.ask(connection, asked, refused, is_awaited=is_awaited)
            if not is_first and (await self._recall(connection, asked, is_awaited=is_awaited))[0]:
                return  # It came twice at once, and the other was let pass.
        if refused is not None:
            raise _refused(asked, refused, found)

    async def _recall(
        self, connection: Connection, asked: Asked, *, is_awaited: bool
    ) -> tuple[bool, Known | None]:
        """Return whether the request was let pass before, and its refusal if it was refused here."""
        known = await store.request(connection, asked.request_id, asked.name)
        if known is None:
            digest = await store.digest_of(connection, asked.name) if asked.name else None
            return digest is not None, None  # Whether it is the same, storing it finds out.
        if known.digest != asked.digest:
            raise Problem(
                422,
                "conflict",
                "The key was used before",
                "Idempotency-Key: was used before for another request; use a new one",
                field="Idempotency-Key",
            )
        if known.is_refused_here:
            return False, known
        if known.outcome is None:
            await store.repeat(connection, asked.request_id, is_awaited=is_awaited)
        return True, None

    async def _look(self, connection: Connection, asked: Asked) -> Found:
        """Look at what a request is about. Of a ticket that is not of the conversation or the offer it names nothing is told."""
        known = await store.request(connection, asked.request_id)
        ticket = await store.standing(connection, asked.ticket_id)
        if asked.reservation_id is None:
            is_its = ticket is not None and ticket.conversation_id == asked.conversation_id
            return Found(known, ticket if is_its else None, None)
        offer = await store.answerable(connection, asked.reservation_id, asked.agent_id)
        is_its = offer is not None and offer.ticket_id == asked.ticket_id
        return Found(known, ticket if is_its else None, offer)

    async def _judge(
        self,
        connection: Connection,
        asked: Asked,
        event: Command | OfferAccepted | OfferDeclined,
        found: Found,
        patience: _Patience,
    ) -> tuple[Settled | None, Found]:
        """Return why the request cannot fit, None where it may, and what that was judged by.

        An offer's end is sure however far behind the view is. Where a ticket stands is sure only if all is in view that was
        published when the request came (its sender may have seen it), and nothing that is under way may move the ticket. All of
        that is looked at together, at one moment.

        Raises:
            _NotYet: it has to be looked at again when more is in view.
        """
        now = self._deps.clock.now()
        if not isinstance(event, Command):
            offer = found.offer
            reason = offer and core.answer_refusal(offer, asked.agent_id, asked.action)
            if offer is None or reason is None:
                return None, found
            refused = Settled(asked.request_id, asked.ticket_id, now, reason)
            return refused._replace(winner_id=offer.winner_id, winner_at=offer.winner_at), found
        if found.ticket is None:
            metrics.TICKET_UNJUDGED.labels("unknown").inc()
            return None, found
        if core.refusal(found.ticket, event, now) is None:
            return None, found
        asked_at = patience.asked_at or await store.now(connection)
        task = partition_of(asked.conversation_id, self._deps.partitions)
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            current_at = await store.current_at(connection, task)
            unsure = await store.unsure(connection, asked.ticket_id)
            found = await self._look(connection, asked)
            traces = await store.traces(connection, asked.ticket_id)
        ticket = found.ticket
        if current_at is None or (ticket is not None and core.is_torn(ticket, traces)):
            unsure = unsure or "behind"
        reason = None if ticket is None else core.refusal(ticket, event, now)
        if unsure is None and reason is not None and current_at is not None:
            if current_at < asked_at and patience.is_left:
                raise _NotYet(asked_at)
            unsure = "behind" if current_at < asked_at else None
        if unsure is not None:
            metrics.TICKET_UNJUDGED.labels(unsure).inc()
        if unsure is not None or ticket is None or reason is None:
            return None, found
        return Settled(asked.request_id, asked.ticket_id, now, reason, ticket.status), found

    # -- after it was stored

    def answer(self, request: Request, asked: Asked, accepted: Response) -> Response:
        """Return the answer to a request that is stored: as it is, or one that waits for the outcome."""
        wait = wait_of(request)
        if wait is None:
            return accepted
        later = Later(accepted.body, accepted.status_code, accepted.headers)

        async def settle() -> Response:
            return await self._settle(asked, accepted, wait)

        later.settle = settle
        return later

    async def _settle(self, asked: Asked, accepted: Response, wait: float) -> Response:
        applied = {"Preference-Applied": f"wait={wait:g}"}
        replayed = accepted.headers.get("Idempotent-Replayed")
        if replayed is not None:
            applied["Idempotent-Replayed"] = replayed
        with self._deps.waiters.watch(asked.request_id) as woken:
            if woken is None:
                metrics.TICKET_WAITS.labels("turned_away").inc()
                return accepted
            found = await self._wait(asked, woken, monotonic() + wait)
        known = found.request if found is not None else None
        if found is None or known is None or known.outcome is None:
            metrics.TICKET_WAITS.labels("time_over").inc()
            accepted.headers.update(applied)
            return accepted
        metrics.TICKET_WAITS.labels(known.outcome).inc()
        if known.outcome == "refused":
            problem = _refused(asked, _settled(asked, known), found)
            problem.headers.update(applied)
            return problem.response()
        body: dict[str, Any] = {"id": asked.request_id, "outcome": "done"}
        if found.ticket is not None:
            body["ticket"] = as_body(found.ticket)
        return as_json(body, 200, applied)

    async def _wait(self, asked: Asked, woken: asyncio.Event, deadline: float) -> Found | None:
        """Return what is known once the outcome is, or when the time is over; None where the database is away."""
        found = None
        while True:
            woken.clear()
            try:
                async with self._deps.pool.acquire(timeout=3) as connection:
                    found = await self._look(connection, asked)
            except DRIVER_ERRORS as error:
                log.warning("ticket_wait_given_up", error=type(error).__name__)
                return found
            if found.request is None or _is_complete(asked, found):
                return found
            if found.request.outcome is not None:
                deadline = min(deadline, monotonic() + CATCH_UP_SECONDS)
            left = deadline - monotonic()
            if left <= 0 or self._deps.waiters.is_closed:
                return found
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await woken.wait()


def _is_complete(asked: Asked, found: Found) -> bool:
    """Whether the outcome is known, and the ticket seen where it puts it.

    `routing` tells of an accept before `tickets` does, so the ticket has to be with whoever has it now. What is done of a
    command may be told by several events, and nobody knows which is the last; nor whether a decline moves the ticket at all.
    """
    known, ticket = found.request, found.ticket
    if known is None or known.outcome is None:
        return False
    if asked.action != core.ACCEPT:
        return known.outcome == "refused"
    holder = asked.agent_id if known.outcome == "done" else known.winner_id
    return holder is None or (ticket is not None and ticket.assignee_id == holder)


def _check_expected(expected: Expected, ticket: Standing | None) -> None:
    """Refuse a request for a ticket that has moved on from what its sender has before them.

    Versions only rise, so a higher one is sure; a lower one means that the view is behind, and the router judges.

    Raises:
        Problem: 412.
    """
    if ticket is None or expected.is_any or ticket.version in expected.versions:
        return
    if any(version > ticket.version for version in expected.versions):
        metrics.TICKET_UNJUDGED.labels("behind").inc()
        return
    metrics.TICKET_CONFLICTS.labels("version_changed").inc()
    raise Problem(
        412,
        "moved_on",
        "The ticket has moved on",
        "If-Match: the ticket has moved on since that version; look at it again",
        field="If-Match",
        headers={"ETag": etag(ticket)},
        members={"reason": "version_changed", "ticket": as_body(ticket)},
    )


def _settled(asked: Asked, known: Known) -> Settled:
    assert known.settled_at is not None
    return Settled(
        asked.request_id,
        asked.ticket_id,
        known.settled_at,
        known.reason,
        known.state,
        winner_id=known.winner_id,
        winner_at=known.winner_at,
    )


def _refused(asked: Asked, refused: Settled, found: Found) -> Problem:
    reason = refused.reason or ""
    name = reason.partition(":")[0]
    metrics.TICKET_CONFLICTS.labels(name if name in metrics.CONFLICTS else "other").inc()
    members: dict[str, Any] = {"id": asked.request_id, "reason": reason, "at": _text(refused.at)}
    if refused.state is not None:
        members["state"] = refused.state
    if asked.reservation_id is not None:
        members["winner_id"] = refused.winner_id
        members["winner_at"] = _text(refused.winner_at)
        members["expires_at"] = _text(found.offer.expires_at if found.offer is not None else None)
    members["ticket"] = None if found.ticket is None else as_body(found.ticket)
    what = "the answer comes too late" if asked.reservation_id else "the command does not fit"
    return Problem(
        409,
        "moved_on",
        "The ticket has moved on",
        f"{asked.action}: {what} ({name}); nothing was changed by it",
        headers={} if found.ticket is None else {"ETag": etag(found.ticket)},
        members=members,
    )


def etag(ticket: Standing) -> str:
    """Return a ticket's entity tag: its version."""
    return f'"{ticket.version}"'


def as_body(ticket: Standing) -> dict[str, Any]:
    """Return where a ticket stands as answers have it."""
    return {
        "ticket_id": ticket.ticket_id,
        "conversation_id": ticket.conversation_id,
        "status": ticket.status,
        "version": ticket.version,
        "assignee": ticket.assignee_id,
        "queue": ticket.queue,
        "priority": ticket.priority,
        "since": _text(ticket.since),
        "merged_into": None
        if ticket.into_ticket_id is None
        else {
            "conversation_id": ticket.into_conversation_id,
            "ticket_id": ticket.into_ticket_id,
        },
        "promises": _promises(ticket),
    }


def _promises(ticket: Standing) -> list[dict[str, Any]]:
    """Return what agents promised and have not kept yet; of a merged ticket nothing, since it is kept where it goes on."""
    promises: list[dict[str, Any]] = []
    if ticket.into_ticket_id is None and ticket.update_by is not None:
        promises.append({"what": core.UPDATE, "by": _text(ticket.update_by), "not_before": None})
    if ticket.into_ticket_id is None and ticket.callback_by is not None:
        promises.append(
            {
                "what": core.CALLBACK,
                "by": _text(ticket.callback_by),
                "not_before": _text(ticket.callback_not_before),
            }
        )
    return promises


def _text(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()
