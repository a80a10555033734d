"""Mail by IMAP: mailboxes are read by polling, woken by IDLE where the server has it; nothing in them is changed.

Login is by password, or by XOAUTH2 with an access token (Google's page on the mechanism: the first answer is
`user=` address, 0x01, `auth=Bearer ` token, 0x01, 0x01; a refusal comes as a challenge that an empty answer closes).

Facts from RFC 3501 (UID, UIDVALIDITY, BODY.PEEK), RFC 2177 (IDLE, renewed before 29 minutes) and imapclient's
documentation. The cursor (UIDVALIDITY and last UID) moves only after the mails before it are durable, so a crash reads
some again; an input's id derives from account, folder, UIDVALIDITY and UID, so again is the same. Where UIDVALIDITY
changes the mailbox is read from two days before the last look; mails met twice are known by their Message-ID.

One process reads a mailbox at a time: the cursor's row is a lease. Errors are met with growing pauses, never with an end.
"""

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

import asyncpg
import httpx
from imapclient import IMAPClient
from imapclient.exceptions import IMAPClientError, LoginError

from chassis import logs
from chassis.clock import Clock
from chassis.errors import InvalidEvent, Unavailable
from schemas import ids
from schemas.inbound import InboundReceived
from services.ingest import metrics
from services.ingest.adapters import email, intake
from services.ingest.adapters.api import ApiProblem, VendorApi, new_client
from services.ingest.adapters.channel import ChannelSettings
from services.ingest.adapters.intake import FrontDoor
from services.ingest.adapters.mime import MAIL_BYTES_MAX
from services.ingest.adapters.secrets import Secrets
from services.ingest.core.policy import ImapSource

FETCH_MAILS: Final = 20
"""Mails fetched, stored and passed by the cursor at a time."""

CONNECT_SECONDS: Final = 20.0
READ_SECONDS: Final = 60.0
IDLE_SLICE_SECONDS: Final = 1.0
"""How long one wait inside IDLE lasts: a stop is noticed that late at most."""

LEASE_SECONDS: Final = 90.0
PAUSE_SECONDS: Final = (1.0, 60.0)
OVERLAP: Final = timedelta(days=2)

TAKE_LEASE: Final = """
    INSERT INTO mailbox_cursor (account, folder, uidvalidity, last_uid, owner, lease_until)
    VALUES ($1, $2, 0, 0, $3, clock_timestamp() + make_interval(secs => $4))
    ON CONFLICT (account, folder) DO UPDATE
       SET owner = excluded.owner, lease_until = excluded.lease_until
     WHERE mailbox_cursor.owner = excluded.owner OR mailbox_cursor.lease_until < clock_timestamp()
    RETURNING uidvalidity, last_uid, at
"""
MOVE_CURSOR: Final = """
    UPDATE mailbox_cursor SET uidvalidity = $4, last_uid = $5, at = clock_timestamp(),
           lease_until = clock_timestamp() + make_interval(secs => $6)
     WHERE account = $1 AND folder = $2 AND owner = $3
"""
LEAVE: Final = "UPDATE mailbox_cursor SET lease_until = '-infinity' WHERE account = $1 AND folder = $2 AND owner = $3"

DATABASE_ERRORS: Final = (asyncpg.PostgresError, asyncpg.InterfaceError)

T = TypeVar("T")
log = logs.get("ingest.imap")


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a mailbox has been read. UIDVALIDITY 0 means: never looked at."""

    uidvalidity: int
    last_uid: int
    at: datetime


class LeaseLost(Exception):
    """Another process reads this mailbox now."""


def xoauth2(user: str, token: str) -> str:
    """Return what a client says first in XOAUTH2, before it is put into base64."""
    return f"user={user}\x01auth=Bearer {token}\x01\x01"


def login_xoauth2(client: IMAPClient, user: str, token: str) -> None:
    """Log in with an access token; the server's challenge after a refusal is answered with nothing, as it wants.

    Raises:
        LoginError: the server refuses the token.
    """

    def answer(challenge: bytes | None) -> str:
        return "" if challenge else xoauth2(user, token)

    client.sasl_login("XOAUTH2", answer)


class ImapPoller:
    """Reads one mailbox until told to stop."""

    def __init__(
        self,
        account: str,
        source: ImapSource,
        *,
        spool: FrontDoor,
        pool: asyncpg.Pool,
        clock: Clock,
        secrets: Secrets,
        workspace: str,
        poll_seconds: float,
        new_client: Callable[[], httpx.AsyncClient] = new_client,
    ) -> None:
        self.account = account
        self._new_client = new_client
        self._tokens: VendorApi | None = None
        self.source = source
        self._spool = spool
        self._pool = pool
        self._clock = clock
        self._secrets = secrets
        self._workspace = workspace
        self._poll_seconds = float(source.poll_seconds or poll_seconds)
        self._owner = f"{socket.gethostname()}:{os.getpid()}"

    async def run(self, stopping: asyncio.Event) -> None:
        """Read the mailbox until `stopping` is set."""
        pause = PAUSE_SECONDS[0]
        while not stopping.is_set():
            reason, detail = "", ""
            try:
                await self._session(stopping)
            except LoginError:
                reason, detail = "login", "the server refuses user and password, or token"
            except Unavailable as error:
                reason, detail = "unavailable", str(error)
            except DATABASE_ERRORS as error:
                reason, detail = "unavailable", type(error).__name__
            except IMAPClientError as error:
                reason, detail = "protocol", type(error).__name__
            except (OSError, ssl.SSLError, TimeoutError) as error:
                reason, detail = "connection", type(error).__name__
            except LeaseLost:
                log.info("mailbox_elsewhere", account=self.account)
            if reason:
                metrics.IMAP_ERRORS.labels(reason).inc()
                log.warning(
                    "imap_failed",
                    account=self.account,
                    host=self.source.host,
                    reason=reason,
                    detail=detail,
                    wait_seconds=pause,
                )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), pause if reason else self._poll_seconds)
            pause = min(pause * 2, PAUSE_SECONDS[1]) if reason else PAUSE_SECONDS[0]
        with contextlib.suppress(*DATABASE_ERRORS, OSError, TimeoutError):
            await self._pool.execute(LEAVE, self.account, self.source.folder, self._owner)

    async def _session(self, stopping: asyncio.Event) -> None:
        """One connection: look, wait, look again, until an error or the stop."""
        await self._take_lease()
        secret = await self._login_secret()
        try:
            client = await asyncio.to_thread(self._connect, secret)
        except LoginError:
            self._forget_token()
            raise
        try:
            while not stopping.is_set():
                cursor = await self._take_lease()
                await self.look(client, cursor)
                await self._wait(client, stopping)
        finally:
            with contextlib.suppress(IMAPClientError, OSError):
                await asyncio.to_thread(client.logout)

    async def _login_secret(self) -> str:
        """Return the password, or an access token that was asked for with the refresh token.

        Raises:
            LoginError: a secret is missing, or no token is given out for it.
            OSError: the issuer of tokens cannot be reached now.
        """
        source = self.source
        if source.auth == "password":
            password = self._secrets.get(source.password) if source.password is not None else None
            if password is None:
                raise LoginError("no password")
            return password.decode("utf-8", "surrogateescape")
        oauth = source.oauth
        refresh = self._secrets.get(oauth.refresh_token) if oauth is not None else None
        if oauth is None or refresh is None:
            raise LoginError("no refresh token")
        form = {
            "grant_type": "refresh_token",
            "refresh_token": refresh.decode("utf-8", "surrogateescape"),
            "client_id": oauth.client_id,
        }
        if oauth.client_secret is not None:
            secret = self._secrets.get(oauth.client_secret)
            if secret is None:
                raise LoginError("no client secret")
            form["client_secret"] = secret.decode("utf-8", "surrogateescape")
        if oauth.scope:
            form["scope"] = oauth.scope
        if self._tokens is None:
            self._tokens = VendorApi(ChannelSettings(), {}, self._new_client())
        try:
            return await self._tokens.token(oauth.token_url, form)
        except ApiProblem as problem:
            if problem.is_final or problem.reason in ("unauthorized", "forbidden"):
                raise LoginError("no access token for this refresh token") from None
            raise ConnectionError(f"the issuer of tokens: {problem.reason}") from None

    def _forget_token(self) -> None:
        if self._tokens is not None:
            self._tokens.forget_tokens()

    def _connect(self, secret: str) -> IMAPClient:
        source = self.source
        client = IMAPClient(
            source.host,
            port=source.port,
            ssl=source.security == "tls",
            use_uid=True,
            timeout=CONNECT_SECONDS,
        )
        try:
            if source.security == "starttls":
                client.starttls(ssl.create_default_context())
            if source.auth == "xoauth2":
                login_xoauth2(client, source.user, secret)
            else:
                client.login(source.user, secret)
            client.socket().settimeout(READ_SECONDS)
        except BaseException:
            with contextlib.suppress(IMAPClientError, OSError):
                client.shutdown()
            raise
        return client

    async def _take_lease(self) -> Cursor:
        try:
            row = await self._pool.fetchrow(
                TAKE_LEASE, self.account, self.source.folder, self._owner, LEASE_SECONDS
            )
        except OSError as error:
            raise Unavailable("the database") from error
        if row is None:
            raise LeaseLost
        return Cursor(row["uidvalidity"], row["last_uid"], row["at"])

    async def look(self, client: IMAPClient, cursor: Cursor) -> int:
        """Take in what is new; return how many mails that were."""
        # A fresh SELECT each time: some servers show new mail to a session only then. Read-only: flags stay.
        selected = await self._call(client.select_folder, self.source.folder, True)
        validity = int(selected[b"UIDVALIDITY"])
        last = cursor.last_uid if cursor.uidvalidity == validity else 0
        criteria: list[Any] = ["UID", f"{last + 1}:*"]
        if cursor.uidvalidity == 0 and self.source.start == "new":
            found = await self._call(client.search, ["ALL"])
            await self._move(validity, max(found, default=0))
            return 0
        if cursor.uidvalidity not in (0, validity):
            log.warning(
                "uidvalidity_changed", account=self.account, before=cursor.uidvalidity, now=validity
            )
            criteria = ["SINCE", (cursor.at - OVERLAP).date()]
        # `n:*` always names the last mail, even where its UID is below n.
        wanted = sorted(uid for uid in await self._call(client.search, criteria) if uid > last)
        for start in range(0, len(wanted), FETCH_MAILS):
            group = wanted[start : start + FETCH_MAILS]
            await self._take(client, validity, group)
            await self._move(validity, group[-1])
        if not wanted and cursor.uidvalidity != validity:
            await self._move(validity, 0)
        metrics.IMAP_LAST_LOOK.labels(self.account).set(self._clock.now().timestamp())
        return len(wanted)

    async def _take(self, client: IMAPClient, validity: int, uids: list[int]) -> None:
        sizes = await self._call(client.fetch, uids, ["RFC822.SIZE"])
        for uid in uids:
            size = int(sizes.get(uid, {}).get(b"RFC822.SIZE", 0))
            if size > MAIL_BYTES_MAX:
                metrics.IMAP_ERRORS.labels("too_large").inc()
                log.error(
                    "mail_too_large",
                    account=self.account,
                    folder=self.source.folder,
                    uid=uid,
                    size=size,
                    cure="look at it in the mailbox; it was left there and passed over",
                )
                continue
            # One at a time: twenty large mails at once are a gigabyte.
            fetched = await self._call(client.fetch, [uid], ["BODY.PEEK[]"])
            raw = fetched.get(uid, {}).get(b"BODY[]")
            if isinstance(raw, bytes):  # Absent where somebody deleted it in between.
                try:
                    await self._store(raw, validity, uid)
                except InvalidEvent as error:
                    metrics.IMAP_ERRORS.labels("unstorable").inc()
                    log.error(  # noqa: TRY400 - a sentence is enough
                        "mail_unstorable",
                        account=self.account,
                        folder=self.source.folder,
                        uid=uid,
                        problem=error.detail,
                        cure="look at it in the mailbox; it was left there and passed over",
                    )

    async def _store(self, raw: bytes, validity: int, uid: int) -> None:
        place = f"imap/{self.account}/{self.source.folder}/{validity}/{uid}"
        received = InboundReceived(
            input_id=ids.derive("input", self._workspace, place),
            channel="email",
            account=self.account,
            method="IMAP",
            url=place,
            received_at=self._clock.now(),
        )
        result = await self._spool.put(
            intake.inbound_item(
                received,
                raw,
                email.sender_address(raw),
                self._workspace,
                idempotency=(place, intake.digest(raw)),
            )
        )
        (metrics.ACCEPTED if result.stored else metrics.REPEATED).labels("imap").inc()

    async def _move(self, validity: int, uid: int) -> None:
        status = await self._pool.execute(
            MOVE_CURSOR, self.account, self.source.folder, self._owner, validity, uid, LEASE_SECONDS
        )
        if status != "UPDATE 1":
            raise LeaseLost

    async def _wait(self, client: IMAPClient, stopping: asyncio.Event) -> None:
        """Wait until something may have come: until the server says so (IDLE), or for the poll's time."""
        until = asyncio.get_running_loop().time() + min(self._poll_seconds, LEASE_SECONDS / 2)
        if not await self._call(client.has_capability, "IDLE"):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(
                    stopping.wait(), max(0.0, until - asyncio.get_running_loop().time())
                )
            return
        await self._call(client.idle)
        try:
            while not stopping.is_set() and asyncio.get_running_loop().time() < until:
                said = await asyncio.to_thread(client.idle_check, IDLE_SLICE_SECONDS)
                if any(len(one) > 1 and one[1] in (b"EXISTS", b"RECENT") for one in said):
                    break
        finally:
            await self._call(client.idle_done)

    async def _call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call the blocking client in a thread; the socket's own timeout bounds it."""
        return await asyncio.to_thread(function, *arguments)
