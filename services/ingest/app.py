"""Composition root of ingest: settings in, the gateway, the mail listeners and the normaliser out."""

import argparse
import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg

from chassis import logs
from chassis.audit import Audit
from chassis.auth_keys import KeyRing
from chassis.auth_tokens import IssuerKeys, TokenVerifier
from chassis.clock import monotonic, pause
from chassis.errors import ConfigurationError
from chassis.lifecycle import Application, Background, Runtime, run
from chassis.policy import PolicyHolder
from chassis.spool import Numberer, Spool
from chassis.stage import Stage
from chassis.web import serve
from services.ingest import feedback, openapi, scim, ticket_view, webchat, webhooks
from services.ingest.adapters import attachments, smtp_in
from services.ingest.adapters.accounts import PublishedKeys, references_of
from services.ingest.adapters.imap import ImapPoller
from services.ingest.adapters.secrets import Secrets
from services.ingest.api import Deps, create_app
from services.ingest.collector import Collector
from services.ingest.core.pace import Pace
from services.ingest.core.policy import Channels
from services.ingest.handlers import POLICY, NormaliserStage
from services.ingest.key_store import KeyWatch
from services.ingest.scim_store import ScimStore
from services.ingest.settings import IngestSettings
from services.ingest.ticket_view_stage import Lookout, TicketViewStage
from services.ingest.webchat_stage import WebchatStage

HOUSEKEEPING_SECONDS = 600.0
POLICY_LOOK_SECONDS = 2.0
STAGES = ("all", "gateway", "normaliser", "webchat", "tickets")

log = logs.get("ingest")


class Gateway:
    """The way in: HTTP, SMTP and IMAP before one spool, and the numberer behind it."""

    def __init__(self, policies: PolicyHolder[Channels], settings: IngestSettings) -> None:
        self._policies = policies
        self._settings = settings
        self._secrets = Secrets()
        self._spool: Spool | None = None
        self._ring = KeyRing()
        self._audit = Audit(settings.workspace)
        issuer = settings.issuer
        self._issuer_keys = (
            IssuerKeys(issuer, settings.inner_host_names) if issuer is not None else None
        )

    async def __call__(self, runtime: Runtime) -> None:
        """Run all of it until the process stops: intake ends first, the spool last."""
        self._secrets.missing(_references(self._policies.current))
        spool = Spool(runtime.pool, self._settings)
        numberer = Numberer(
            runtime.pool, self._settings, runtime.clock, spool, failpoints=runtime.failpoints
        )
        runtime.health.add_turn("numberer", lambda: numberer.last_turn)

        async def topics_problem() -> str | None:
            return numberer.topics_problem

        runtime.add_readiness("topics: gateway", topics_problem)
        chat = self._webchat(runtime, spool)
        provisioning = self._scim(runtime, spool)
        customers = self._feedback(runtime, spool)
        waiters = ticket_view.Waiters(self._settings.dsn, self._settings.request_waiters_max)
        doors = [
            self._http(runtime, spool, chat, provisioning, waiters, customers),
            customers.run(runtime.stopping),
            waiters.run(runtime.stopping),
            scim.follow_policy(provisioning, runtime.stopping),
            chat.run(runtime.stopping),
            self._mailboxes(runtime, spool),
            self._collector(runtime, spool),
            KeyWatch(runtime.pool, self._settings.workspace, self._ring).run(runtime.stopping),
            self._audit.run(runtime.stopping),
        ]
        if self._issuer_keys is not None:
            doors.append(self._issuer_keys.run(runtime.stopping))
        if self._settings.smtp_enabled:
            doors.append(self._smtp(runtime, spool))
        if self._settings.lmtp_listen_port:
            doors.append(self._smtp(runtime, spool, lmtp=True))
        behind = [asyncio.create_task(spool.run()), asyncio.create_task(numberer.run())]
        opened = [asyncio.create_task(door) for door in doors]
        try:
            done, _ = await asyncio.wait([*opened, *behind], return_when=asyncio.FIRST_COMPLETED)
            if runtime.stopping.is_set():
                await asyncio.gather(*opened)
            for task in done:
                task.result()
        finally:
            for task in (*opened, *behind):
                task.cancel()
            await asyncio.gather(*opened, *behind, return_exceptions=True)
            self._audit.flush()

    async def _http(
        self,
        runtime: Runtime,
        spool: Spool,
        chat: webchat.Webchat,
        provisioning: scim.Deps,
        waiters: ticket_view.Waiters,
        customers: feedback.Feedback,
    ) -> None:
        settings = self._settings
        app = create_app(
            Deps(
                spool=spool,
                policies=self._policies,
                clock=runtime.clock,
                secrets=self._secrets,
                workspace=settings.workspace,
                body_bytes_max=settings.gateway_body_bytes_max,
                body_seconds=settings.gateway_body_seconds,
                form_per_minute=settings.gateway_form_per_minute,
                tickets=ticket_view.TicketView(
                    ticket_view.Deps(runtime.pool, waiters, runtime.clock, settings.partitions)
                ),
                provisioned=provisioning.store,
                keys=self._ring,
                tokens=self._tokens(runtime),
                audit=self._audit,
            )
        )
        openapi.mount(app)
        webchat.mount(app, chat)
        scim.mount(app, provisioning)
        feedback.mount(app, customers)
        keys = PublishedKeys()
        webhooks.mount(
            app,
            webhooks.Webhooks(
                spool=spool,
                policies=self._policies,
                clock=runtime.clock,
                secrets=self._secrets,
                keys=keys,
                workspace=settings.workspace,
                body_bytes_max=settings.channel_body_bytes_max,
                body_seconds=settings.gateway_body_seconds,
                public_url=settings.public_url,
                per_account=Pace(settings.channel_per_minute),
                per_address=Pace(settings.channel_per_minute),
            ),
        )
        await serve(
            app,
            settings.gateway_host,
            settings.gateway_port,
            runtime.stopping,
            on_bound=lambda port: log.info(
                "gateway_listening", host=settings.gateway_host, port=port
            ),
            drain_seconds=3.0,
        )

    def _tokens(self, runtime: Runtime) -> TokenVerifier | None:
        issuer = self._settings.issuer
        if issuer is None or self._issuer_keys is None:
            return None
        return TokenVerifier(issuer, self._issuer_keys, runtime.clock)

    def _scim(self, runtime: Runtime, spool: Spool) -> scim.Deps:
        settings = self._settings
        return scim.Deps(
            store=ScimStore(runtime.pool, spool, settings.workspace),
            policies=self._policies,
            clock=runtime.clock,
            public_url=settings.public_url,
            body_seconds=settings.gateway_body_seconds,
        )

    def _feedback(self, runtime: Runtime, spool: Spool) -> feedback.Feedback:
        settings = self._settings
        return feedback.Feedback(
            spool=spool,
            pool=runtime.pool,
            clock=runtime.clock,
            secret=settings.token_secret.get_secret_value().encode(),
            workspace=settings.workspace,
            brand=settings.page_name,
        )

    def _webchat(self, runtime: Runtime, spool: Spool) -> webchat.Webchat:
        settings = self._settings
        return webchat.Webchat(
            webchat.Deps(
                spool=spool,
                policies=self._policies,
                clock=runtime.clock,
                secrets=self._secrets,
                pool=runtime.pool,
                hub=webchat.Hub(settings.dsn),
                secret=settings.token_secret.get_secret_value().encode(),
                workspace=settings.workspace,
                keep_days=settings.webchat_days,
            )
        )

    async def _collector(self, runtime: Runtime, spool: Spool) -> None:
        collector = Collector(
            spool=spool,
            pool=runtime.pool,
            policies=self._policies,
            clock=runtime.clock,
            secrets=self._secrets,
            workspace=self._settings.workspace,
            poll_seconds=self._settings.channel_poll_seconds,
        )
        await collector.run(runtime.stopping)

    async def _smtp(self, runtime: Runtime, spool: Spool, *, lmtp: bool = False) -> None:
        server = await smtp_in.listen(
            spool, self._policies, runtime.clock, self._settings, lmtp=lmtp
        )
        try:
            await runtime.stopping.wait()
        finally:
            await smtp_in.close(server)

    async def _mailboxes(self, runtime: Runtime, spool: Spool) -> None:
        """Keep one poller for each mailbox that the policy in force names; follow its changes."""
        running: dict[str, tuple[object, asyncio.Event, asyncio.Task[None]]] = {}
        try:
            while not runtime.stopping.is_set():
                wanted = {
                    name: account.imap
                    for name, account in self._policies.current.file.mail.items()
                    if account.imap is not None
                }
                for name in [n for n, (source, _, _) in running.items() if wanted.get(n) != source]:
                    _, stop, task = running.pop(name)
                    stop.set()
                    await task
                for name, source in wanted.items():
                    if name not in running:
                        poller = ImapPoller(
                            name,
                            source,
                            spool=spool,
                            pool=runtime.pool,
                            clock=runtime.clock,
                            secrets=self._secrets,
                            workspace=self._settings.workspace,
                            poll_seconds=self._settings.imap_poll_seconds,
                        )
                        stop = asyncio.Event()
                        running[name] = (source, stop, asyncio.create_task(poller.run(stop)))
                for _, _, task in running.values():
                    if task.done():
                        task.result()
                await pause(runtime.stopping, POLICY_LOOK_SECONDS)
        finally:
            for _, stop, _ in running.values():
                stop.set()
            tasks = [task for _, _, task in running.values()]
            if tasks:
                await asyncio.wait(tasks, timeout=5.0)
            for task in tasks:
                task.cancel()


def _references(channels: Channels) -> list[str]:
    file = channels.file
    return [
        *(key.secret for key in file.api_keys),
        *(secret for form in file.forms.values() for secret in form.secrets),
        *(secret for source in file.events.values() for secret in source.secrets),
        *(
            reference
            for _, settings in channels.channel_accounts.values()
            for reference in references_of(settings)
        ),
        *(
            reference
            for mail in file.mail.values()
            if mail.imap is not None
            for reference in mail.imap.references
        ),
    ]


async def _remove_files(
    runtime: Runtime, stage: NormaliserStage, files: attachments.AttachmentStore
) -> None:
    """Delete the files of those who were erased, which nobody else has."""
    async with runtime.pool.acquire() as connection:
        erased = await stage.store.erased_files(connection)
    for erasure_id, named in erased:
        for sha256 in named:
            await files.remove(sha256)
        async with runtime.pool.acquire() as connection:
            await stage.store.files_removed(connection, erasure_id)


def _housekeeping(
    stage: NormaliserStage,
    settings: IngestSettings,
    files: attachments.AttachmentStore | None = None,
) -> Background:
    async def housekeeping(runtime: Runtime) -> None:
        """Forget names and references that are too old to be met again, and files of those who were erased."""
        next_at = monotonic()
        while not runtime.stopping.is_set():
            if monotonic() >= next_at:
                next_at = monotonic() + HOUSEKEEPING_SECONDS
                now = runtime.clock.now()
                try:
                    async with runtime.pool.acquire() as connection:
                        await stage.store.forget(
                            connection,
                            now - timedelta(days=settings.seen_days),
                            now - timedelta(days=settings.thread_days),
                            now - timedelta(days=settings.interaction_days),
                        )
                    if files is not None:
                        await _remove_files(runtime, stage, files)
                except (
                    asyncpg.PostgresError,
                    asyncpg.InterfaceError,
                    OSError,
                    TimeoutError,
                ) as error:
                    log.warning("housekeeping_put_off", error=type(error).__name__)
            await pause(runtime.stopping, 60.0)

    return housekeeping


def application(settings: IngestSettings, stage: str = "all") -> Application:
    """Return ingest, or only its gateway, its normaliser, or one of the stages that keep the gateway informed.

    Raises:
        ConfigurationError: there is no such stage, or the reply tokens have no key.
        PolicyError: `channels.yaml` has a mistake.
    """
    if stage not in STAGES:
        raise ConfigurationError(f"--stage {stage}: ingest has {', '.join(STAGES)}")
    if not settings.token_secret.get_secret_value():
        raise ConfigurationError(
            "SIGNALBOX_TOKEN_SECRET is not set: without it no reply finds its conversation; make one with"
            " `openssl rand -hex 32` and give the notifier the same"
        )
    policies = PolicyHolder(settings.policy, POLICY)
    files = attachments.of_settings(settings) if stage in ("all", "normaliser") else None
    normaliser = NormaliserStage(policies, settings, files)
    stages: list[Stage[Any]] = []
    with_gateway = stage in ("all", "gateway")
    with_normaliser = stage in ("all", "normaliser")
    background: list[Background] = []
    if with_gateway:
        background.append(Gateway(policies, settings))
    if with_normaliser:
        stages.append(normaliser)
        background.append(_housekeeping(normaliser, settings, files))
    if stage in ("all", "webchat"):
        stages.append(WebchatStage(settings.workspace))
    if stage in ("all", "tickets"):
        stages.append(TicketViewStage())
        background.append(Lookout())
    return Application(
        service="ingest",
        sql=Path(__file__).with_name("sql"),
        stages=tuple(stages),
        policies=policies,
        background=tuple(background),
        waiting_ports=((settings.gateway_host, settings.gateway_port),) if with_gateway else (),
    )


def main(argv: Sequence[str]) -> int:
    """Run ingest from the command line; `--stage` says which part of it."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--stage", default="all")
    known, _ = parser.parse_known_args(list(argv))
    build: Callable[[IngestSettings], Application] = partial(application, stage=known.stage)
    return run(build, IngestSettings, argv)
