"""The sender of pages: one among all processes, which folds what the stage told and tells the receivers.

Who holds the advisory lock is the sender. It writes on the connection that holds the lock and on no other, so a sender that
lost it (a cut connection, a frozen process) can write nothing more; whoever takes over finds each message that was begun and
not confirmed, and tries it again. So a page is told at least once, and twice only where an answer was lost and the receiver
drops no repeats (a mailbox that ignores Message-IDs; Slack without `channels:history`).

Changes are announced (LISTEN) and fold at once; everything else waits for the earliest `due_at` of its receiver, which an index
answers. Each receiver has a worker of its own and, after a failure that passes, a pause of its own: one that is away holds up no other.
Where only one message failed (a mistake of ours, a mail that the server put off), that page waits and the receiver's others do not.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import asyncpg

from chassis import logs
from chassis.clock import Clock, pause
from chassis.ledger import DRIVER_ERRORS
from services.sla import metrics, page_store
from services.sla.adapters import SENDERS
from services.sla.adapters.sending import (
    TOTAL_SECONDS,
    Attempted,
    Delivered,
    Failed,
    Outside,
    Refused,
    new_client,
)
from services.sla.core import page_text, paging
from services.sla.core.pages import Pages, Receiver
from services.sla.core.paging import Page, Saying, Seen

STANDBY_SECONDS: Final = 2.0
"""How often a process that is not the sender tries to become it."""
IDLE_SECONDS: Final = 5.0
"""The longest nap of the sender: it shows its connection, and itself, that it lives."""
TIDY_EVERY: Final = timedelta(hours=1)
FOLD_AT_MOST: Final = 500
"""Changes of one transaction: few, since the clocks of the same process must not wait for a storm to be folded."""
DUE_AT_MOST: Final = 50

SESSION: Final = {
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "idle_session_timeout": "60000",
    "idle_in_transaction_session_timeout": "60000",
}
"""So that the lock of a machine that vanished is free within 20 seconds, and that of a frozen process within a minute."""

log = logs.get("sla.pager")

PolicySource = Callable[[], Pages]


@dataclass(frozen=True, slots=True)
class _Means:
    """What a sender works with: the policy in force, the time, the ways out, and who wakes it."""

    pages: PolicySource
    clock: Clock
    workspace: str
    outside: Outside
    wake: asyncio.Event


class Pager:
    """Tells people on call. `pages` gives the policy in force."""

    def __init__(
        self,
        *,
        dsn: str,
        pages: PolicySource,
        clock: Clock,
        workspace: str,
        console_url: str = "",
        schema: str = "sla",
        outside: Outside | None = None,
    ) -> None:
        self._dsn = dsn
        self._schema = schema
        self._wake = asyncio.Event()
        self._means = _Means(
            pages, clock, workspace, outside or Outside(new_client(), console_url), self._wake
        )
        self.is_sender = False

    async def run(self, stopping: asyncio.Event) -> None:
        """Be the sender whenever nobody else is, until told to stop. A database that is away is waited for."""
        try:
            while not stopping.is_set():
                try:
                    await self._stand_by(stopping)
                except DRIVER_ERRORS as error:
                    log.warning("pager_put_off", error=type(error).__name__)
                await pause(stopping, STANDBY_SECONDS)
        finally:
            await self._means.outside.client.aclose()

    async def _stand_by(self, stopping: asyncio.Event) -> None:
        """Wait for the lock, then be the sender until the connection or the process ends."""
        connection = await asyncpg.connect(
            self._dsn,
            timeout=3,
            command_timeout=30,
            server_settings={
                **SESSION,
                "search_path": self._schema,
                "application_name": "signalbox sla pager",
            },
        )
        try:
            while not stopping.is_set():
                if await connection.fetchval(
                    "SELECT pg_try_advisory_lock($1)", page_store.lock_key()
                ):
                    await self._send(connection, stopping)
                    return
                await pause(stopping, STANDBY_SECONDS)
        finally:
            connection.terminate()

    async def _send(self, connection: asyncpg.Connection, stopping: asyncio.Event) -> None:
        log.info("pager_sends")
        self.is_sender = True
        sender = _Sender(self._means, connection)
        stop = asyncio.create_task(self._wake_at(stopping))
        try:
            await connection.add_listener(page_store.CHANNEL, lambda *_: self._wake.set())
            while not stopping.is_set():
                self._wake.clear()
                seconds = await sender.turn()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await self._wake.wait()
        finally:
            self.is_sender = False
            stop.cancel()
            await sender.close()

    async def _wake_at(self, stopping: asyncio.Event) -> None:
        await stopping.wait()
        self._wake.set()


class _Sender:
    """The time between taking the lock and losing it."""

    def __init__(self, means: _Means, connection: asyncpg.Connection) -> None:
        self._means = means
        self._connection = connection
        self._one = asyncio.Lock()
        """A connection does one thing at a time."""
        self._policy: Pages | None = None
        self._workers: dict[str, asyncio.Task[None]] = {}
        self._quiet_until: dict[str, datetime] = {}
        self._tidied_at: datetime | None = None
        self._shown: set[str] = set()

    async def turn(self) -> float:
        """Fold what is new, start the workers of receivers with something due; return how long there is nothing to do."""
        policy, now = self._means.pages(), self._means.clock.now()
        self._reap()
        async with self._one:
            if policy is not self._policy:
                await self._take_over(policy, now)
            taken, _ = await page_store.fold(self._connection, policy, now, FOLD_AT_MOST)
            waits = await page_store.next_due(self._connection, policy.receivers)
            if taken < FOLD_AT_MOST:
                await self._show(policy, now)
            if self._tidied_at is None or now - self._tidied_at >= TIDY_EVERY:
                await page_store.tidy(self._connection, now)
                self._tidied_at = now
        seconds = IDLE_SECONDS if taken < FOLD_AT_MOST else 0.0
        for receiver, due_at in waits.items():
            ready_at = max(due_at, self._quiet_until.get(receiver, due_at))
            if ready_at <= now:
                self._start(receiver)
            else:
                seconds = min(seconds, (ready_at - now).total_seconds())
        return seconds

    async def close(self) -> None:
        """Let go: what is being sent is found as begun by the next sender."""
        for worker in self._workers.values():
            worker.cancel()
        await asyncio.gather(*self._workers.values(), return_exceptions=True)
        for receiver in self._shown:
            metrics.PAGE_OLDEST_SECONDS.labels(receiver).set(0)

    async def _take_over(self, policy: Pages, now: datetime) -> None:
        gone = await page_store.take_over_policy(self._connection, policy, now)
        self._quiet_until.clear()
        metrics.use_receivers(policy.receivers)
        self._policy = policy
        if gone:
            log.warning(
                "pages_forgotten",
                pages=gone,
                cure="a receiver was taken out of pages.yaml; what it was told of stays open there",
            )

    async def _show(self, policy: Pages, now: datetime) -> None:
        """Show how old the oldest news is that a receiver could not be told."""
        oldest = await page_store.undelivered(self._connection)
        self._shown = set(policy.receivers)
        for receiver in self._shown:
            since = oldest.get(receiver)
            age = 0.0 if since is None else max(0.0, (now - since).total_seconds())
            metrics.PAGE_OLDEST_SECONDS.labels(receiver).set(age)

    # ---------------------------------------------------------------------------------- one receiver

    def _start(self, receiver: str) -> None:
        if receiver not in self._workers:
            self._workers[receiver] = asyncio.create_task(self._work(receiver))

    def _reap(self) -> None:
        """Forget workers that ended.

        Raises:
            Exception: what one of them died of: the connection, or a mistake of ours.
        """
        for receiver, worker in list(self._workers.items()):
            if worker.done():
                del self._workers[receiver]
                worker.result()

    async def _work(self, name: str) -> None:
        """Tell a receiver all that is due, one after the other."""
        try:
            while True:
                policy, now = self._means.pages(), self._means.clock.now()
                receiver = policy.receivers.get(name)
                if receiver is None or self._quiet_until.get(name, now) > now:
                    return
                async with self._one:
                    pages = await page_store.due(self._connection, name, now, DUE_AT_MOST)
                for page in pages:
                    if not await self._tell(policy, receiver, page):
                        return
                if len(pages) < DUE_AT_MOST:
                    return
        finally:
            self._means.wake.set()

    async def _tell(self, policy: Pages, receiver: Receiver, due: Page) -> bool:
        """Do what a page needs now; return whether the receiver takes more."""
        rule, now = paging.rule_of(policy, due), self._means.clock.now()
        async with self._one, self._connection.transaction():
            page = await page_store.page_now(self._connection, due)
            if page is None:
                return True
            seen = await page_store.seen(self._connection, page)
            act = paging.look(page, seen, rule, now)
            if act.saying is None:
                await page_store.put_page(self._connection, act.page)
                return True
            await page_store.put_page(self._connection, paging.begun(act.page, now))
        route = policy.named(page.route)
        message = page_text.message(
            act.saying,
            page,
            seen,
            now,
            workspace=self._means.workspace,
            console_url=self._means.outside.console_url,
            runbook=(route.runbook if route is not None else None) or "",
        )
        attempted = await attempt(message, receiver, self._means.outside)
        return await self._written(page, act.saying, seen, rule, attempted)

    async def _written(
        self,
        before: Page,
        saying: Saying,
        seen: Seen,
        rule: paging.Rule,
        attempted: Attempted,
    ) -> bool:
        now = self._means.clock.now()
        async with self._one, self._connection.transaction():
            page = await page_store.page_now(self._connection, before)
            if page is None:
                return True
            if isinstance(attempted, Delivered):
                ref = attempted.ref or page.ref
                after = paging.delivered(page, saying, seen, rule, now, ref)
            elif isinstance(attempted, Refused):
                problem = f"{attempted.reason}; {attempted.cure}"
                after = paging.refused(page, saying, seen, rule, now, problem)
            else:
                after = paging.failed(
                    page,
                    now,
                    attempted.reason,
                    is_unknown=attempted.is_unknown,
                    was_begun=before.is_begun,
                    retry_after=attempted.retry_after,
                )
            await page_store.put_page(self._connection, after)
        self._told(before, saying, attempted, now, after)
        return isinstance(attempted, Delivered) or is_alone(attempted)

    def _told(
        self, page: Page, saying: Saying, attempted: Attempted, now: datetime, after: Page
    ) -> None:
        """Count an attempt, and say what failed. After a failure that passes the receiver is left alone for a while."""
        receiver = page.receiver
        match attempted:
            case Delivered(remark=remark):
                metrics.PAGES.labels(receiver, "delivered").inc()
                if page.changed_at is not None:
                    delay = (now - page.changed_at).total_seconds()
                    metrics.PAGE_DELAY_SECONDS.labels(receiver).observe(max(0.0, delay))
                log.info("page_delivered", receiver=receiver, saying=saying, page=page.group_key)
                if remark:
                    log.warning("page_delivered_in_part", receiver=receiver, remark=remark)
            case Failed():
                outcome = "unknown" if attempted.is_unknown else "failed"
                metrics.PAGES.labels(receiver, outcome).inc()
                if after.due_at is not None and not is_alone(attempted):
                    self._quiet_until[receiver] = after.due_at
                log.warning(
                    "page_put_off",
                    receiver=receiver,
                    reason=attempted.reason,
                    attempts=after.attempts,
                    again_at=str(after.due_at),
                )
            case Refused():
                metrics.PAGES.labels(receiver, "refused").inc()
                log.error(
                    "page_refused",
                    receiver=receiver,
                    page=page.group_key,
                    reason=attempted.reason,
                    cure=attempted.cure,
                )


def is_alone(attempted: Attempted) -> bool:
    """Whether it was the message that failed and not its receiver, which may be told of other groups meanwhile."""
    return isinstance(attempted, Failed) and attempted.is_of_message


async def attempt(message: page_text.Message, receiver: Any, outside: Outside) -> Attempted:
    """Send one message once. It ends within `TOTAL_SECONDS`, whatever the receiver does."""
    try:
        async with asyncio.timeout(TOTAL_SECONDS):
            return await SENDERS[receiver.kind](message, receiver, outside)
    except TimeoutError:
        return Failed("gave no answer in time", is_unknown=True)
    except Exception as error:
        # A mistake of ours with one message must not keep the others from being told.
        log.exception("page_not_sent", kind=receiver.kind, error=type(error).__name__)
        return Failed(
            f"a mistake of ours: {type(error).__name__}", is_unknown=True, is_of_message=True
        )
