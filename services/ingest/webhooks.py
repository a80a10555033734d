"""Vendors' webhooks: `/v1/channels/{channel}/{account}`, with a secret segment after it where a vendor signs nothing.

In this order: the account, the rate, the body under its limit, the proof of origin on the raw bytes, the media type, the
adapter's reading of it (422 where it cannot be read), the spool, the vendor's own answer. A token never gets further than
the proof: the stored address has no query and no segment, the stored headers are those the adapter names.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from fastapi import Request
from starlette.responses import Response

from chassis import logs
from chassis.auth import proved
from chassis.clock import Clock, monotonic
from chassis.errors import InvalidEvent, Unavailable
from chassis.spool import SpoolItem
from schemas import ids
from schemas.inbound import InboundReceived
from services.ingest import adapters, metrics
from services.ingest.adapters import intake
from services.ingest.adapters.accounts import PublishedKeys, SecretSource, resolved
from services.ingest.adapters.channel import (
    FETCHED,
    Answer,
    Channel,
    ChannelSettings,
    Delivery,
    Parsed,
    ParseError,
    Verdict,
)
from services.ingest.adapters.channel import Request as VendorRequest
from services.ingest.adapters.form import media_type
from services.ingest.adapters.intake import FrontDoor, PolicySource
from services.ingest.answers import Problem, client_of, kept_headers, read_body, too_many
from services.ingest.core.pace import Pace
from services.ingest.paths import Paths

PATHS: Final = ("/v1/channels/{channel}/{account}", "/v1/channels/{channel}/{account}/{token}")
HEADERS_KEPT: Final = frozenset({b"content-type", b"user-agent"})
PARSE_IN_LOOP_BYTES: Final = 64 * 1024
HANDSHAKES: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that only ask whether somebody is there: no published key is needed to answer them."""
COUNTERS: Final = metrics.Way("channels")
METHODS: Final = ("GET", "HEAD", "POST", "PUT", "OPTIONS")

log = logs.get("ingest.webhooks")


@dataclass(slots=True)
class Webhooks:
    """The route's body, with what it stands on. Limits are requests a minute of one account, and of one address."""

    spool: FrontDoor
    policies: PolicySource
    clock: Clock
    secrets: SecretSource
    keys: PublishedKeys
    workspace: str
    body_bytes_max: int
    body_seconds: float
    public_url: str = ""
    per_account: Pace = field(default_factory=lambda: Pace(30_000))
    per_address: Pace = field(default_factory=lambda: Pace(12_000))

    async def __call__(self, request: Request) -> Response:
        """Answer one request of a vendor, whatever becomes of it."""
        began = monotonic()
        channel_name = request.path_params["channel"]
        channel = adapters.CHANNELS.get(channel_name)
        try:
            response, is_stored = await self._take(request, channel)
        except Problem as problem:
            COUNTERS.refused(problem.reason)
            self._count_refusal(channel, problem.reason)
            return problem.response()
        except InvalidEvent as error:
            COUNTERS.refused("invalid")
            self._count_refusal(channel, "invalid")
            return Problem(422, "invalid", "The request is not valid", error.detail).response()
        except Unavailable:
            COUNTERS.unavailable.inc()
            assert channel is not None
            return _http(channel.unavailable, request.method)
        if is_stored is not None:
            COUNTERS.answered(monotonic() - began, is_repeated=not is_stored)
        return response

    def _count_refusal(self, channel: Channel | None, reason: str) -> None:
        name = channel.name if channel is not None else "unknown"
        metrics.CHANNEL_REFUSED.labels(name, reason).inc()

    async def _take(
        self, request: Request, channel: Channel | None
    ) -> tuple[Response, bool | None]:
        account = request.path_params["account"]
        settings = self._settings(channel, account)
        if channel is None or settings is None or channel.verify is None:
            raise Problem(404, "not_found", "Not found", "there is no such account")
        self._pace(request, channel.name, account)
        body = await read_body(request, self.body_bytes_max, self.body_seconds)
        verdict = await self._verdict(request, channel, settings, body)
        if not verdict.accepted:
            COUNTERS.refused(verdict.reason)
            self._count_refusal(channel, verdict.reason)
            return _http(verdict.respond, request.method), None
        if not verdict.is_delivery:
            metrics.HANDSHAKES.labels(channel.name).inc()
            return _http(verdict.respond, request.method), None
        self._check_type(request, channel)
        is_stored = await self._store(request, channel, account, settings, verdict, body)
        return _http(verdict.respond, request.method), is_stored

    def _settings(self, channel: Channel | None, account: str) -> ChannelSettings | None:
        found = self.policies.current.channel_accounts.get(account)
        if channel is None or found is None or found[0] != channel.name:
            return None
        assert isinstance(found[1], ChannelSettings)
        return found[1]

    def _pace(self, request: Request, channel: str, account: str) -> None:
        now = self.clock.now().timestamp()
        wait = self.per_address.take(client_of(request), now)
        if wait == 0.0:
            wait = self.per_account.take((channel, account), now)
        if wait > 0:
            raise too_many("this account is posted to too often", wait)

    async def _verdict(
        self, request: Request, channel: Channel, settings: ChannelSettings, body: bytes
    ) -> Verdict:
        secrets = resolved(settings, self.secrets)
        asked = VendorRequest(request.method, self._url(request), _headers(request), body)
        url = channel.keys_url(settings) if request.method not in HANDSHAKES else None
        if url is not None:
            keys = await self.keys.get(url)
            if keys is None:
                raise Unavailable("the vendor's published keys")
            secrets["jwks"] = keys
        verdict = adapters.verify(channel, asked, secrets, self.clock.now())
        if url is not None and verdict.reason == "unknown_key":
            secrets["jwks"] = await self.keys.get(url, fresh=True) or ""
            verdict = adapters.verify(channel, asked, secrets, self.clock.now())
        return verdict

    def _url(self, request: Request) -> str:
        """Return the address as the vendor knows it: the configured public one, or as the request says."""
        scope = request.scope
        path: bytes = (scope.get("raw_path") or scope["path"].encode()).partition(b"?")[0]
        query: bytes = scope.get("query_string", b"")
        tail = path.decode("latin-1") + (f"?{query.decode('latin-1')}" if query else "")
        if self.public_url:
            return self.public_url.rstrip("/") + tail
        host = request.headers.get("host") or "localhost"
        return f"{scope.get('scheme', 'http')}://{host}{tail}"

    def _check_type(self, request: Request, channel: Channel) -> None:
        given = media_type(request.headers.get("content-type", ""))
        if "*/*" in channel.media_types or not given or given in channel.media_types:
            return
        raise Problem(
            415,
            "unsupported_type",
            "Unsupported media type",
            f"Content-Type: must be one of {', '.join(sorted(channel.media_types))}",
            field="Content-Type",
        )

    async def _store(
        self,
        request: Request,
        channel: Channel,
        account: str,
        settings: ChannelSettings,
        verdict: Verdict,
        body: bytes,
    ) -> bool:
        kept = channel.scrub(body)
        wanted = channel.headers_kept
        headers = kept_headers(
            request,
            lambda name: (
                name in HEADERS_KEPT
                or (name.decode("latin-1") in wanted and name != FETCHED.encode())
            ),
        )
        now = self.clock.now()
        digest = intake.digest(body)
        name = f"channel/{channel.name}/{account}/{verdict.name}/{digest[:16]}"
        input_id = (
            intake.named_id("input", self.workspace, name, digest)
            if verdict.name is not None
            else intake.new_id()
        )
        delivery = Delivery(
            channel=channel.name,
            account=account,
            body=kept,
            received_at=now,
            method=request.method,
            url=f"/v1/channels/{channel.name}/{account}",
            headers=headers,
            verified=verdict.verified,
            input_id=input_id,
            own_addresses=self.policies.current.own_addresses,
            settings=settings,
        )
        parsed = await _read(delivery)
        received = InboundReceived(
            input_id=input_id,
            channel=channel.name,
            account=account,
            method=request.method,
            url=delivery.url,
            headers=headers,
            received_at=now,
            verified=verdict.verified,
        )
        items = [
            intake.inbound_item(
                received,
                kept,
                correspondent(parsed),
                self.workspace,
                idempotency=(name, digest) if verdict.name is not None else None,
                traceparent=intake.traceparent_of(request.headers.get("traceparent")),
            ),
            *self._unread(received, parsed),
        ]
        if len(items) == 1:
            return (await self.spool.put(items[0])).stored
        results = await asyncio.gather(*(self.spool.put(item) for item in items))
        return results[0].stored

    def _unread(self, received: InboundReceived, parsed: Parsed) -> list[SpoolItem]:
        """Return each part that cannot be read as an input of its own, which the normaliser parks with its bytes."""
        items = []
        for index, (problem, part) in enumerate(parsed.unread):
            log.warning(
                "part_not_read", channel=received.channel, account=received.account, problem=problem
            )
            input_id = ids.derive("input", self.workspace, received.input_id, str(index))
            headers = {**received.headers, FETCHED: adapters.UNREAD}
            own = received.model_copy(update={"input_id": input_id, "headers": headers})
            name = f"part/{input_id}"
            items.append(
                intake.inbound_item(
                    own,
                    part,
                    "",
                    self.workspace,
                    idempotency=(name, intake.digest(part)),
                    correlation=received.input_id,
                )
            )
        return items


async def _read(delivery: Delivery) -> Parsed:
    """Read a delivery as the normaliser will, so that what cannot be read is told to its sender.

    Raises:
        Problem: 422 with the field that is wrong.
    """
    try:
        if len(delivery.body) > PARSE_IN_LOOP_BYTES:
            return await asyncio.to_thread(adapters.parse, delivery)
        return adapters.parse(delivery)
    except ParseError as error:
        raise Problem(
            422, "invalid", "The request is not valid", error.detail, field=error.field
        ) from None


def correspondent(parsed: Parsed) -> str:
    """Return what keeps a delivery in order with its like: the one thread or sender it is about, else the account."""
    about = {message.thread or message.sender.address for message in parsed.messages}
    return about.pop() if len(about) == 1 else ""


def _headers(request: Request) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for raw_name, raw_value in request.scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def _http(answer: Answer, method: str) -> Response:
    headers: dict[str, Any] = dict(answer.headers)
    body = "" if method == "HEAD" else answer.body
    return Response(body, answer.status, headers)


def mount(app: Paths, webhooks: Webhooks) -> None:
    """Add the vendors' paths to the gateway."""
    vendor = proved("the vendor's signature or secret, on the raw bytes, by the channel's adapter")
    for path in PATHS:
        app.add(path, METHODS, webhooks, vendor)
