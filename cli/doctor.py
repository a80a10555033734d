"""`signalbox doctor`: what is unsafe or missing, each with its cure."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import typer

if TYPE_CHECKING:
    from chassis.settings import Settings
    from services.notifier.core.policy import Policy as NotifyPolicy

SKEW_SECONDS_MAX: Final = 0.5
SECONDS: Final = 15.0
BATCH_BYTES_MIN: Final = 1_048_588
"""A broker's own default; our largest event with its headers fits into it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something found: `error` where data or people are in danger or nothing can work, else `warning`."""

    level: Literal["error", "warning"]
    what: str
    cure: str


def doctor() -> None:
    """Look at Kafka, PostgreSQL, the policy and the ledger; name what is unsafe or missing, and the cure.

    Exit code 1 where something is an error.
    """
    from cli.environment import common

    settings = common()
    findings = asyncio.run(_examine(settings))
    for finding in sorted(findings, key=lambda one: one.level):
        colour = "red" if finding.level == "error" else "yellow"
        typer.secho(f"{finding.level}: {finding.what}", fg=colour)
        typer.echo(f"         {finding.cure}")
    errors = sum(finding.level == "error" for finding in findings)
    typer.echo(
        f"{errors} errors, {len(findings) - errors} warnings." if findings else "All is well."
    )
    if errors:
        raise typer.Exit(1)


async def _examine(settings: "Settings") -> list[Finding]:
    return [
        *await _asked("Kafka", settings.kafka, _kafka, settings),
        *await _asked("PostgreSQL", "SIGNALBOX_DATABASE_URL", _postgres, settings),
        *_policy(settings),
    ]


async def _asked(
    what: str,
    where: str,
    look: Callable[["Settings"], Awaitable[list[Finding]]],
    settings: "Settings",
) -> list[Finding]:
    import asyncpg
    from aiokafka.errors import KafkaError

    try:
        async with asyncio.timeout(2 * SECONDS):
            return await look(settings)
    except (
        KafkaError,
        asyncpg.PostgresError,
        asyncpg.InterfaceError,
        OSError,
        TimeoutError,
    ) as error:
        said = " ".join(str(error).split())[:200] or type(error).__name__
        return [
            Finding(
                "error",
                f"{what} does not answer ({where}): {said}",
                "start it, or correct the setting",
            )
        ]


# ------------------------------------------------------------------------------------------------------- Kafka


async def _kafka(settings: "Settings") -> list[Finding]:
    from aiokafka.admin import AIOKafkaAdminClient
    from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

    from chassis.topics import check_topics
    from schemas.topics import TOPICS

    findings = [
        Finding("error", f"topic {one.topic} {one.problem}", one.cure)
        for one in await check_topics(settings)
    ]
    client = AIOKafkaAdminClient(**settings.kafka_access.options(), request_timeout_ms=10_000)
    await client.start()
    try:
        cluster = await client.describe_cluster()
        brokers = [broker["node_id"] for broker in cluster["brokers"]]
        resources = [ConfigResource(ConfigResourceType.BROKER, str(brokers[0]))]
        existing = set(await client.list_topics())
        ours = [topic for topic in TOPICS if settings.topic(topic.name) in existing]
        resources += [
            ConfigResource(ConfigResourceType.TOPIC, settings.topic(topic.name)) for topic in ours
        ]
        told = _configs(await client.describe_configs(resources))
        described = (
            await client.describe_topics([settings.topic(topic.name) for topic in ours])
            if ours
            else []
        )
    finally:
        await client.close()
    findings += check_broker(told.get(str(brokers[0]), {}), settings.session_timeout_seconds)
    copies = {
        entry["topic"]: min(len(part["replicas"]) for part in entry["partitions"])
        for entry in described
    }
    for topic in ours:
        name = settings.topic(topic.name)
        findings += check_topic(
            topic.name,
            told.get(name, {}),
            copies.get(name, 1),
            len(brokers),
            topic.retention.total_seconds(),
        )
    return findings


def _configs(responses: Any) -> dict[str, dict[str, str]]:
    """Return the configuration of each resource by name, whatever shape the client's answer has."""
    found: dict[str, dict[str, str]] = {}
    for response in responses:
        for resource in response.resources:
            name, entries = resource[3], resource[4]
            found[name] = {entry[0]: entry[1] for entry in entries}
    return found


def check_broker(config: Mapping[str, str], session_timeout_seconds: float) -> list[Finding]:
    """Return what is unsafe about a broker's settings."""
    findings = []
    if config.get("auto.create.topics.enable") == "true":
        findings.append(
            Finding(
                "warning",
                "the broker makes topics that it does not know (auto.create.topics.enable=true): a mistyped name becomes"
                " a topic with the wrong partitions",
                "set auto.create.topics.enable=false; `signalbox topics apply` makes ours",
            )
        )
    if config.get("unclean.leader.election.enable") == "true":
        findings.append(
            Finding(
                "error",
                "a replica that lags may become leader (unclean.leader.election.enable=true): acknowledged events can be lost",
                "set unclean.leader.election.enable=false",
            )
        )
    lowest = _number(config.get("group.min.session.timeout.ms"))
    if lowest is not None and session_timeout_seconds * 1000 < lowest:
        findings.append(
            Finding(
                "error",
                f"SIGNALBOX_SESSION_TIMEOUT_SECONDS is {session_timeout_seconds:g}, and the broker allows no less than"
                f" {lowest / 1000:g} s: no service can join its group",
                "raise the setting, or lower the broker's group.min.session.timeout.ms",
            )
        )
    largest = _number(config.get("message.max.bytes"))
    if largest is not None and largest < BATCH_BYTES_MIN:
        findings.append(
            Finding(
                "error",
                f"the broker takes at most {largest} bytes at once (message.max.bytes): our largest events do not fit",
                f"set message.max.bytes to {BATCH_BYTES_MIN} or more",
            )
        )
    return findings


def check_topic(
    name: str, config: Mapping[str, str], copies: int, brokers: int, retention_seconds: float
) -> list[Finding]:
    """Return what is unsafe about one of our topics."""
    findings = []
    in_sync = _number(config.get("min.insync.replicas")) or 1
    if brokers > 1 and copies < 2:
        findings.append(
            Finding(
                "error",
                f"topic {name} has a single copy on a cluster of {brokers} brokers: it is lost with one disk",
                "give it three copies (kafka-reassign-partitions), or make the topics anew with --replication 3",
            )
        )
    elif copies > 1 and in_sync < 2:
        findings.append(
            Finding(
                "warning",
                f"topic {name} has {copies} copies, and one is enough to acknowledge (min.insync.replicas=1): an event can"
                " be lost with one broker",
                "set min.insync.replicas=2 on the topic",
            )
        )
    elif in_sync > copies:
        findings.append(
            Finding(
                "error",
                f"topic {name} wants {in_sync} copies in sync and has {copies}: nothing can be written",
                "lower min.insync.replicas, or add copies",
            )
        )
    kept = _number(config.get("retention.ms"))
    if kept is not None and 0 <= kept < retention_seconds * 1000:
        findings.append(
            Finding(
                "warning",
                f"topic {name} keeps events for {kept / 86_400_000:.1f} days, {retention_seconds / 86_400:.0f} are meant: a"
                " service that is down for longer loses some",
                f"set retention.ms={int(retention_seconds * 1000)} on the topic",
            )
        )
    if "compact" in config.get("cleanup.policy", ""):
        findings.append(
            Finding(
                "error",
                f"topic {name} is compacted: events with the same key would be removed, and readers would stop at the gap",
                "set cleanup.policy=delete on the topic",
            )
        )
    return findings


def _number(text: str | None) -> int | None:
    with contextlib.suppress(TypeError, ValueError):
        return int(text)  # type: ignore[arg-type]
    return None


# -------------------------------------------------------------------------------------------------- PostgreSQL


async def _postgres(settings: "Settings") -> list[Finding]:
    import asyncpg

    from chassis.clock import SystemClock
    from chassis.migrate import is_current
    from cli.parts import SERVICES, sql_folder

    connection = await asyncpg.connect(settings.dsn, timeout=5)
    try:
        names = (
            "server_version_num",
            "fsync",
            "full_page_writes",
            "synchronous_commit",
            "max_connections",
        )
        told = {
            name: str(await connection.fetchval("SELECT current_setting($1)", name))
            for name in names
        }
        began = time.monotonic()
        here = SystemClock().now()
        there = await connection.fetchval("SELECT clock_timestamp()")
        skew = (there - here).total_seconds() - (time.monotonic() - began) / 2
        findings = [*check_database(told, skew)]
        behind = [
            service
            for service in SERVICES
            if not await is_current(settings.dsn, service, (sql_folder(service),))
        ]
        if behind:
            findings.append(
                Finding(
                    "error",
                    f"the tables of {', '.join(behind)} are not those of this release",
                    "run `signalbox db migrate`",
                )
            )
        for service in SERVICES:
            if service not in behind:
                findings += await _ledger(connection, service)
        if "router" not in behind:
            findings += await _roster(connection, settings)
        return findings
    finally:
        await connection.close()


def check_database(told: Mapping[str, str], skew_seconds: float) -> list[Finding]:
    """Return what is unsafe about a PostgreSQL's settings and its clock against this machine's."""
    findings = []
    if int(told["server_version_num"]) < 170_000:
        findings.append(
            Finding(
                "error",
                f"PostgreSQL {int(told['server_version_num']) // 10_000} is too old",
                "17 or later is needed: a process frozen inside its transaction must lose it (transaction_timeout)",
            )
        )
    findings += [
        Finding(
            "error",
            f"PostgreSQL runs with {name}={told[name]}: a crash of the machine loses what was accepted",
            f"set {name}=on",
        )
        for name in ("fsync", "full_page_writes")
        if told[name] != "on"
    ]
    if told["synchronous_commit"] in ("off", "local"):
        level: Literal["error", "warning"] = (
            "error" if told["synchronous_commit"] == "off" else "warning"
        )
        findings.append(
            Finding(
                level,
                f"PostgreSQL runs with synchronous_commit={told['synchronous_commit']}: what was accepted can be lost with the server",
                "set synchronous_commit=on for Signalbox' user or database",
            )
        )
    if int(told["max_connections"]) < 40:
        findings.append(
            Finding(
                "warning",
                f"PostgreSQL takes {told['max_connections']} connections; four services with SIGNALBOX_DATABASE_POOL=6 want 24,"
                " and twice that while a release rolls",
                "raise max_connections, or lower SIGNALBOX_DATABASE_POOL",
            )
        )
    if abs(skew_seconds) > SKEW_SECONDS_MAX:
        findings.append(
            Finding(
                "warning",
                f"this machine's clock is {abs(skew_seconds):.1f} s {'behind' if skew_seconds > 0 else 'ahead of'} the"
                " database's: timers fire early or late by as much",
                "let both follow the same time server",
            )
        )
    return findings


async def _ledger(connection: Any, service: str) -> list[Finding]:
    await connection.execute(f'SET search_path TO "{service}"')
    halted = await connection.fetch("SELECT stage, task FROM lease WHERE halted IS NOT NULL")
    findings = [
        Finding(
            "error",
            f"{row['stage']}/{row['task']} stands at a gap",
            "`signalbox ledger show` says where, and what to do",
        )
        for row in halted
    ]
    parked = await connection.fetchval("SELECT count(*) FROM parked WHERE resolved_at IS NULL")
    if parked:
        findings.append(
            Finding(
                "warning",
                f"{parked} records of {service} are parked",
                "`signalbox deadletters list` shows them",
            )
        )
    return findings


async def _roster(connection: Any, settings: "Settings") -> list[Finding]:
    """Compare what the rules ask for with the people that the router knows."""
    import json

    from chassis.errors import PolicyError
    from chassis.policy import load
    from cli.parts import policy_files

    try:
        policy = load(settings.policy, policy_files("router"))
    except PolicyError:
        return []  # Told by the policy's own check.
    rows = await connection.fetch("SELECT agent_id, profile, presence FROM router.assignment_agent")
    if not rows:
        return [
            Finding(
                "warning",
                "the router knows no agents",
                "`signalbox roster apply` sets those of agents.yaml",
            )
        ]
    profiles = [json.loads(row["profile"]) for row in rows]
    asked: dict[str, int] = {}
    for rule in policy.rules:
        for need in rule.requirement.skills:
            asked[need.skill] = max(asked.get(need.skill, 0), need.level)
    findings = []
    for skill, level in sorted(asked.items()):
        best = max((profile.get("skills", {}).get(skill, 0) for profile in profiles), default=0)
        if best < level:
            has = (
                "nobody in the roster has it" if best == 0 else f"the best in the roster has {best}"
            )
            findings.append(
                Finding(
                    "warning",
                    f"rules ask for {skill} {level}, and {has}",
                    "train or add somebody, or let the skill relax (routing.yaml)",
                )
            )
    served = {queue for profile in profiles for queue in profile.get("queues", ())}
    findings += [
        Finding(
            "warning",
            f"nobody in the roster serves the queue {queue}",
            "add it to an agent's queues (agents.yaml)",
        )
        for queue in sorted(set(policy.routing.queues) - served)
    ]
    return findings


# ------------------------------------------------------------------------------------------------------ policy


def _policy(settings: "Settings") -> list[Finding]:
    from cli.policy import examine

    policies, found = examine(settings.policy)
    findings = [
        Finding(
            one.level,
            f"{one.file}: {one.path}: {one.message}",
            "mend the file; `signalbox policy check` says when it is good",
        )
        for one in found
    ]
    if policies.notify is not None:
        findings += check_way_out(policies.notify, settings.public_url)
    return findings


def check_way_out(policy: "NotifyPolicy", public_url: str) -> list[Finding]:
    """Return whether customers get mails of a kind that they cannot end."""
    from services.notifier.core.links import without_way_out

    lacking = without_way_out(policy, public_url)
    if not lacking:
        return []
    return [
        Finding(
            "warning",
            f"mails of these occasions have no way out ({', '.join(lacking)}): SIGNALBOX_PUBLIC_URL is no https address",
            "set it to the gateway's address, or turn the occasions off in notify.yaml",
        )
    ]
