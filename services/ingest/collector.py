"""What the gateway fetches itself: channels that are polled, and deliveries whose content is read back from the vendor.

One process looks into an account at a time (a lease in `channel_cursor`). What a look brings is spooled first and the
cursor moved after, so a crash in between repeats and loses nothing; repeats have the same names. A delivery to be read
back is a row that the normaliser wrote in its own transaction; it is tried with growing pauses for a week, and then
counts as it came, or is parked. A vendor's failure slows its own account and no other.
"""

import asyncio
import os
import secrets as randomness
import socket
from collections.abc import Mapping
from datetime import timedelta
from typing import Final

import asyncpg
import httpx

from chassis import logs
from chassis.clock import Clock, pause
from chassis.errors import InvalidEvent, Unavailable
from chassis.ledger import DATABASE_ERRORS
from schemas import ids
from schemas.inbound import InboundReceived
from services.ingest import adapters, metrics
from services.ingest.adapters import intake
from services.ingest.adapters.accounts import SecretSource, resolved
from services.ingest.adapters.api import ApiProblem, VendorApi, new_client
from services.ingest.adapters.channel import (
    FETCHED,
    Channel,
    ChannelSettings,
    Fetched,
    ParseError,
    delivery_of,
)
from services.ingest.adapters.intake import FrontDoor, PolicySource

LEASE_SECONDS: Final = 60.0
TURN_SECONDS: Final = 1.0
URL_LENGTH_MAX: Final = 500
PAGES_MAX: Final = 50
"""Pages of one account taken in one turn; then the others have theirs."""
PAUSE_MAX_SECONDS: Final = 900.0
READ_BACK_PAUSE_MAX_SECONDS: Final = 3600.0
READ_BACK_ROWS: Final = 20
READ_BACK_LIFE: Final = timedelta(days=7)

TAKE_DUE: Final = """
    INSERT INTO channel_cursor AS c (channel, account, owner, lease_until)
    VALUES ($1, $2, $3, clock_timestamp() + make_interval(secs => $4))
    ON CONFLICT (channel, account) DO UPDATE
       SET owner = excluded.owner, lease_until = excluded.lease_until
     WHERE (c.owner = excluded.owner OR c.lease_until < clock_timestamp()) AND c.due_at <= clock_timestamp()
    RETURNING cursor, failures
"""
MOVE: Final = """
    UPDATE channel_cursor
       SET cursor = $4, looked_at = clock_timestamp(), failures = 0, problem = NULL,
           due_at = clock_timestamp() + make_interval(secs => $5),
           lease_until = clock_timestamp() + make_interval(secs => $6)
     WHERE channel = $1 AND account = $2 AND owner = $3
"""
FAIL: Final = """
    UPDATE channel_cursor
       SET failures = failures + 1, problem = $4, due_at = clock_timestamp() + make_interval(secs => $5)
     WHERE channel = $1 AND account = $2 AND owner = $3
"""
TAKE_READ_BACKS: Final = """
    UPDATE read_back SET due_at = clock_timestamp() + make_interval(secs => $2)
     WHERE input_id IN (SELECT input_id FROM read_back WHERE due_at <= clock_timestamp()
                         ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED)
    RETURNING input_id, channel, account, delivery, attempts, created_at
"""
PUT_OFF: Final = """
    UPDATE read_back
       SET attempts = attempts + 1, problem = $2, due_at = clock_timestamp() + make_interval(secs => $3)
     WHERE input_id = $1
"""
DONE: Final = "DELETE FROM read_back WHERE input_id = $1"
WAITING: Final = """
    SELECT count(*) AS waiting,
           coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::float AS oldest
      FROM read_back
"""

log = logs.get("ingest.collector")


class Collector:
    """Looks into the accounts of the policy in force, and reads back what waits for it."""

    def __init__(
        self,
        *,
        spool: FrontDoor,
        pool: asyncpg.Pool,
        policies: PolicySource,
        clock: Clock,
        secrets: SecretSource,
        workspace: str,
        poll_seconds: float = 60.0,
        client: httpx.AsyncClient | None = None,
    ) -> None:
        self._spool = spool
        self._pool = pool
        self._policies = policies
        self._clock = clock
        self._secrets = secrets
        self._workspace = workspace
        self._poll_seconds = poll_seconds
        self._client = client or new_client()
        self._owner = f"{socket.gethostname()}/{os.getpid()}/{randomness.token_hex(4)}"
        self._apis: dict[str, tuple[ChannelSettings, dict[str, str], VendorApi]] = {}

    async def run(self, stopping: asyncio.Event) -> None:
        """Look and read back until told to stop. A database that is away is waited for."""
        try:
            while not stopping.is_set():
                try:
                    busy = await self.turn()
                except (*DATABASE_ERRORS, Unavailable) as error:
                    log.warning("collector_put_off", error=type(error).__name__)
                    busy = False
                if not busy:
                    await pause(stopping, TURN_SECONDS)
        finally:
            await self._client.aclose()

    async def turn(self) -> bool:
        """Do what is due now; return whether there may be more at once."""
        looks = [
            self._look(channel, account, settings)
            for account, (name, settings) in self._policies.current.channel_accounts.items()
            if (channel := adapters.CHANNELS.get(name)) is not None
            and channel.poll is not None
            and isinstance(settings, ChannelSettings)
            and channel.polls(settings)
        ]
        found = await asyncio.gather(*looks, self._read_backs())
        return any(found)

    # ------------------------------------------------------------------------------------- polling

    async def _look(self, channel: Channel, account: str, settings: ChannelSettings) -> bool:
        row = await self._pool.fetchrow(TAKE_DUE, channel.name, account, self._owner, LEASE_SECONDS)
        if row is None:
            return False
        assert channel.poll is not None
        api = self._api(account, settings)
        cursor = row["cursor"]
        has_more = False
        try:
            for _ in range(PAGES_MAX):
                page = await channel.poll(api, cursor, self._clock.now())
                for item in page.items:
                    await self._take_in(channel, account, item)
                seconds = 0.0 if page.more else self._seconds(settings)
                moved = await self._pool.execute(
                    MOVE, channel.name, account, self._owner, page.cursor, seconds, LEASE_SECONDS
                )
                if moved != "UPDATE 1":
                    return False  # Another process has the account now.
                cursor, has_more = page.cursor, page.more
                if not has_more:
                    break
        except ApiProblem as problem:
            await self._failed(channel.name, account, problem, row["failures"])
            return False
        except ParseError as error:
            await self._failed(
                channel.name, account, ApiProblem("bad_answer"), row["failures"], error.detail
            )
            return False
        metrics.LOOKS.labels(channel.name, "done").inc()
        metrics.LAST_LOOK.labels(channel.name, account).set(self._clock.now().timestamp())
        return has_more

    def _seconds(self, settings: ChannelSettings) -> float:
        own = getattr(settings, "poll_seconds", None)
        return float(own) if own is not None else self._poll_seconds

    async def _failed(
        self,
        channel: str,
        account: str,
        problem: ApiProblem,
        failures: int,
        detail: str | None = None,
    ) -> None:
        pause = problem.retry_after or min(5.0 * 2.0 ** min(failures, 20), PAUSE_MAX_SECONDS)
        metrics.LOOKS.labels(channel, _outcome(problem)).inc()
        log.warning(
            "channel_not_looked_into",
            channel=channel,
            account=account,
            problem=problem.reason,
            status=problem.status,
            detail=detail,
            again_in_seconds=pause,
        )
        await self._pool.execute(FAIL, channel, account, self._owner, problem.reason, pause)

    # ---------------------------------------------------------------------------------- reading back

    async def _read_backs(self) -> bool:
        rows = await self._pool.fetch(TAKE_READ_BACKS, READ_BACK_ROWS, LEASE_SECONDS)
        await asyncio.gather(*(self._read_back(row) for row in rows))
        told = await self._pool.fetchrow(WAITING)
        if told is not None:
            metrics.READ_BACK_WAITING.set(told["waiting"])
            metrics.READ_BACK_OLDEST.set(told["oldest"])
        return len(rows) == READ_BACK_ROWS

    async def _read_back(self, row: asyncpg.Record) -> None:
        received = InboundReceived.model_validate_json(row["delivery"])
        try:
            items = await self._fetch(received)
        except ApiProblem as problem:
            await self._not_read(row, received, problem)
            return
        for item in items:
            channel = adapters.CHANNELS[received.channel]
            await self._take_in(channel, received.account, item, correlation=received.input_id)
        await self._pool.execute(DONE, row["input_id"])
        metrics.LOOKS.labels(received.channel, "done").inc()

    async def _fetch(self, received: InboundReceived) -> tuple[Fetched, ...]:
        channel = adapters.CHANNELS.get(received.channel)
        found = self._policies.current.channel_accounts.get(received.account)
        if channel is None or channel.read_back is None or found is None:
            raise ApiProblem("no_secret")
        settings = found[1]
        if not isinstance(settings, ChannelSettings) or not channel.reads_back(settings):
            raise ApiProblem("no_secret")
        stored = await self._stored(received)
        try:
            delivery = delivery_of(received, stored, settings=settings)
            return await channel.read_back(self._api(received.account, settings), delivery)
        except ParseError:
            raise ApiProblem("bad_answer") from None

    async def _not_read(
        self, row: asyncpg.Record, received: InboundReceived, problem: ApiProblem
    ) -> None:
        metrics.LOOKS.labels(received.channel, _outcome(problem)).inc()
        age = self._clock.now() - row["created_at"]
        if problem.reason == "missing" or age > READ_BACK_LIFE:
            mark = adapters.GONE if problem.reason == "missing" else adapters.FAILED
            await self._put(
                received.model_copy(
                    update={
                        "input_id": ids.derive("input", self._workspace, received.input_id, mark),
                        "headers": {**received.headers, FETCHED: mark},
                        "verified": False,
                    }
                ),
                await self._body(received),
                "",
                f"unread/{received.input_id}",
                received.input_id,
            )
            await self._pool.execute(DONE, row["input_id"])
            return
        pause = problem.retry_after or min(
            2.0 * 2.0 ** min(row["attempts"], 20), READ_BACK_PAUSE_MAX_SECONDS
        )
        log.warning(
            "not_read_back",
            channel=received.channel,
            account=received.account,
            input_id=received.input_id,
            problem=problem.reason,
            status=problem.status,
            attempts=row["attempts"] + 1,
            again_in_seconds=pause,
        )
        await self._pool.execute(PUT_OFF, row["input_id"], problem.reason, pause)

    async def _stored(self, received: InboundReceived) -> bytes | None:
        """Return the body that lies beside the event, where it does."""
        if received.body_ref is None:
            return None
        value: bytes | None = await self._pool.fetchval(
            "SELECT value FROM blob WHERE ref = $1", received.body_ref
        )
        return value

    async def _body(self, received: InboundReceived) -> bytes:
        stored = await self._stored(received)
        try:
            return delivery_of(received, stored).body
        except ParseError:
            return b""

    # ------------------------------------------------------------------------------------------ both

    def _api(self, account: str, settings: ChannelSettings) -> VendorApi:
        """Return the account's API; a new one where its settings or secrets changed, so that old tokens end."""
        known = resolved(settings, self._secrets)
        kept = self._apis.get(account)
        if kept is None or kept[0] != settings or kept[1] != known:
            kept = (settings, known, VendorApi(settings, known, self._client))
            self._apis[account] = kept
        return kept[2]

    async def _take_in(
        self, channel: Channel, account: str, item: Fetched, *, correlation: str | None = None
    ) -> None:
        digest = intake.digest(item.body)
        name = f"fetched/{channel.name}/{account}/{item.kind}/{item.name}/{digest[:16]}"
        received = InboundReceived(
            input_id=intake.named_id("input", self._workspace, name, digest),
            channel=channel.name,
            account=account,
            method="FETCH",
            url=f"{item.kind}/{item.name}"[:URL_LENGTH_MAX],
            headers={"content-type": "application/json", FETCHED: item.kind},
            received_at=self._clock.now(),
            verified=True,
        )
        await self._put(received, item.body, item.correspondent, name, correlation)

    async def _put(
        self,
        received: InboundReceived,
        body: bytes,
        about: str,
        name: str,
        correlation: str | None,
    ) -> None:
        way = "read_back" if correlation is not None else "poll"
        item = intake.inbound_item(
            received,
            body,
            about,
            self._workspace,
            idempotency=(name, intake.digest(body)),
            correlation=correlation,
        )
        try:
            result = await self._spool.put(item)
        except InvalidEvent as error:
            log.error(  # noqa: TRY400 - a sentence is enough
                "fetched_unstorable",
                channel=received.channel,
                account=received.account,
                problem=error.detail,
                cure="look at it at the vendor; it was passed over",
            )
            return
        (metrics.ACCEPTED if result.stored else metrics.REPEATED).labels(way).inc()


def _outcome(problem: ApiProblem) -> str:
    names: Mapping[str, str] = {
        "throttled": "throttled",
        "unauthorized": "unauthorized",
        "forbidden": "unauthorized",
        "no_secret": "unauthorized",
        "missing": "gone",
    }
    return names.get(problem.reason, "failed")
