"""`signalbox policy check`: every mistake in the policy folder, and where a sample message would go."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from services.ingest.core.policy import Channels
    from services.notifier.core.policy import Policy as NotifyPolicy
    from services.router.core.assignment.requirement import Requirement, Step
    from services.router.core.policy.policy import Policy as RoutingPolicy
    from services.sla.core.policy import Policy as SlaPolicy
    from services.sla.core.state import Facts

app = typer.Typer(help="Who gets what, and when.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Who gets what, and when."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that cannot work (`error`) or will hardly be meant (`warning`), and where it stands."""

    level: Literal["error", "warning"]
    file: str
    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.level}: {self.file}: {self.path}: {self.message}"


@dataclass(slots=True)
class Policies:
    """The policies of all services, as far as they could be read."""

    channels: "Channels | None" = None
    routing: "RoutingPolicy | None" = None
    sla: "SlaPolicy | None" = None
    notify: "NotifyPolicy | None" = None


@app.command()
def causes(
    folder: Annotated[
        Path | None,
        typer.Argument(
            help="The policy folder; SIGNALBOX_POLICY or ./policy where it is left out."
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line, for other tools.")
    ] = False,
) -> None:
    """Print the tags that say why: name, what it counts towards, the desk that usually answers, words by language."""
    import json

    from cli.errors import CommandError
    from cli.places import policy_folder

    policies, _ = examine(folder or policy_folder())
    if policies.routing is None:
        raise CommandError("The policy cannot be read: `signalbox policy check` says why.")
    if policies.routing.causes is None:
        raise CommandError("The policy has no causes.yaml, so any tag goes.")
    known = policies.routing.causes
    for name, cause in known.model.causes.items():
        desk = known.desk_of(name)
        told = {"name": name, "parent": cause.parent, "desk": desk, **cause.description}
        if as_json:
            typer.echo(json.dumps(told, ensure_ascii=False))
            continue
        words = "; ".join(f"{language}: {text}" for language, text in cause.description.items())
        above = f" ({cause.parent})" if cause.parent else ""
        typer.echo(f"{name}{above}  {desk or ''}  {words}")


@app.command()
def check(
    folder: Annotated[
        Path | None,
        typer.Argument(
            help="The policy folder; SIGNALBOX_POLICY or ./policy where it is left out."
        ),
    ] = None,
    subject: Annotated[
        str, typer.Option(help="Subject of the sample message.")
    ] = "Where is my parcel?",
    text: Annotated[
        str, typer.Option(help="Text of the sample message.")
    ] = "It was due on Friday.",
    channel: Annotated[str, typer.Option(help="Channel of the sample message.")] = "email",
    language: Annotated[str, typer.Option(help="Its language, an ISO 639-1 code.")] = "en",
) -> None:
    """Find mistakes: file, path, value, what is allowed. Then print where a sample message would go.

    Exit code 1 where a service would refuse the folder; warnings alone do not change it.
    """
    from cli.places import policy_folder

    where = folder or policy_folder()
    policies, findings = examine(where)
    findings += _check_templates(where, policies)
    for finding in findings:
        typer.echo(str(finding))
    errors = sum(finding.level == "error" for finding in findings)
    typer.echo(
        f"{where}: {errors} errors, {len(findings) - errors} warnings."
        if findings
        else f"{where}: in order."
    )
    if policies.routing is not None and not errors:
        typer.echo("")
        for line in route(policies, channel, language, subject, text):
            typer.echo(line)
    if errors:
        raise typer.Exit(1)


def examine(folder: Path) -> tuple[Policies, list[Finding]]:
    """Read all policies of a folder; return what could be read and all that was found."""
    policies, findings = Policies(), []
    for service, name in (
        ("ingest", "channels"),
        ("router", "routing"),
        ("sla", "sla"),
        ("notifier", "notify"),
    ):
        found, mistakes = _read(folder, service)
        setattr(policies, name, found)
        findings += mistakes
    findings += cross_check(policies)
    return policies, list(dict.fromkeys(findings))


def _read(folder: Path, service: str) -> tuple[Any, list[Finding]]:
    from chassis.errors import PolicyError
    from chassis.policy import PolicyFiles, load
    from cli.parts import policy_files

    files = policy_files(service)
    try:
        if service != "router":
            return load(folder, files), []
        # The service refuses the first error; here all of them are told.
        whole = load(folder, PolicyFiles(files.files, _assemble, files.optional, files.folders))
    except PolicyError as error:
        return None, [Finding("error", error.file, error.path, _said(error.value, error.allowed))]
    from services.router.core.policy.policy_check import check as check_routing

    return whole, [
        Finding(one.level, one.file, one.path, one.message) for one in check_routing(whole)
    ]


def _assemble(parsed: Mapping[str, Any], folder: Path, version: str) -> Any:
    from dataclasses import replace

    from chassis.errors import PolicyError
    from services.router.adapters import KINDS
    from services.router.core.elsewhere import policy as elsewhere_policy
    from services.router.core.policy.policy import assemble
    from services.router.core.policy.policy_model import PolicyMistake

    try:
        policy = assemble(parsed, version, folder)
        return replace(policy, elsewhere=elsewhere_policy.build(parsed, KINDS))
    except PolicyMistake as mistake:
        raise PolicyError(mistake.file, mistake.path, mistake.value, mistake.allowed) from mistake


def _said(value: object, allowed: str) -> str:
    if value is None:
        return allowed
    shown = repr(value)
    return f"{shown if len(shown) <= 120 else shown[:117] + '…'}: {allowed}"


def cross_check(policies: Policies) -> Iterable[Finding]:
    """Return what only shows across the services' files."""
    yield from _check_sla_names(policies)
    yield from _check_sla_rules(policies)
    yield from _check_languages(policies)
    yield from _check_accounts(policies)
    yield from _check_ways(policies)
    yield from _check_causes(policies)
    yield from _check_channels(policies)
    yield from _check_elsewhere(policies)
    yield from _check_pages(policies)
    yield from _check_rehearsals(policies)


def _check_rehearsals(policies: Policies) -> Iterable[Finding]:
    """Say loudly that notices do not leave."""
    if policies.notify is None:
        return
    for name in policies.notify.rehearsals():
        if name == "all":
            message = "DRY RUN: customers are told nothing at all, not even what agents write"
            yield Finding("warning", "notify.yaml", "delivery", message)
        else:
            message = "DRY RUN: nothing leaves by it, not even what agents write"
            yield Finding("warning", "notify.yaml", name, message)


def _check_pages(policies: Policies) -> Iterable[Finding]:
    """Warn of routes for queues that there are none of, and of receivers that nobody is told through."""
    from services.router.core.policy.findings import nearest

    if policies.sla is None:
        return
    used = {name for route in policies.sla.pages.routes for name in route.receivers}
    for name in sorted(policies.sla.pages.receivers.keys() - used):
        yield Finding("warning", "pages.yaml", f"receivers.{name}", "stands in no route")
    if policies.routing is None:
        return
    queues = policies.routing.routing.queues
    for index, route in enumerate(policies.sla.pages.routes):
        for queue in route.when.queue:
            if queue not in queues:
                yield Finding(
                    "warning",
                    "pages.yaml",
                    f"routes.{index}.when.queue",
                    f"{queue!r}: no such queue in routing.yaml{nearest(queue, queues)}",
                )


def _check_templates(folder: Path, policies: Policies) -> Iterable[Finding]:
    """Return the errors that `signalbox templates lint` finds; its warnings are left to it."""
    if policies.notify is None:
        return
    from services.notifier.core.render import FOLDER
    from services.notifier.core.tone import lint
    from services.notifier.handlers import read_templates

    for one in lint(read_templates(folder / FOLDER), tuple(policies.notify.languages)):
        if one.level == "error":
            yield Finding("error", one.file, f"line {one.line}", f"{one.rule}: {one.message}")


def _check_sla_names(policies: Policies) -> Iterable[Finding]:
    if policies.routing is None or policies.sla is None:
        return
    from services.sla.core.policy import policy_names

    names = policy_names(policies.sla)
    for index, rule in enumerate(policies.routing.rules):
        if rule.sla_policy not in names:
            yield Finding(
                "error",
                "routing.yaml",
                f"rules.{index}.then.sla_policy",
                f"{rule.sla_policy!r}: no such policy in sla.yaml; known: {', '.join(sorted(names))}",
            )


def _check_sla_rules(policies: Policies) -> Iterable[Finding]:
    """Rules of `sla.yaml` that no ticket comes to, and queues it names that there are none of."""
    if policies.sla is None:
        return
    from services.sla.core.policy import SLA_FILE, named_queues, unreachable_rules

    for path, why in unreachable_rules(policies.sla):
        yield Finding("warning", SLA_FILE, path, why)
    if policies.routing is None:
        return
    known = policies.routing.routing.queues
    for path, queue in named_queues(policies.sla):
        if queue not in known:
            yield Finding(
                "error",
                SLA_FILE,
                path,
                f"{queue!r}: no such queue in routing.yaml; known: {', '.join(sorted(known))}",
            )


def _check_languages(policies: Policies) -> Iterable[Finding]:
    if policies.routing is None or policies.notify is None:
        return
    for index, language in enumerate(policies.routing.routing.languages):
        if language not in policies.notify.languages:
            yield Finding(
                "warning",
                "notify.yaml",
                "languages",
                f"routing.yaml: languages.{index} is {language}, and there are no templates for it; customers are"
                f" written to in {policies.notify.default_language}",
            )


def _check_accounts(policies: Policies) -> Iterable[Finding]:
    channels = policies.channels
    if channels is None:
        return
    if (
        policies.routing is not None
        and channels.file.domain not in policies.routing.routing.domains
    ):
        known = ", ".join(sorted(policies.routing.routing.domains))
        yield Finding(
            "error",
            "channels.yaml",
            "domain",
            f"{channels.file.domain!r}: no such domain in routing.yaml; known: {known}",
        )
    if policies.notify is None:
        return
    accounts = {*channels.file.mail, *channels.file.forms, *channels.file.messages}
    for name in sorted(policies.notify.sender_by_account):
        if name not in accounts:
            yield Finding(
                "warning",
                "notify.yaml",
                "senders",
                f"{name!r}: no such account in channels.yaml; known: {', '.join(sorted(accounts))}",
            )
    for name, account in channels.file.mail.items():
        if not set(account.addresses) & policies.notify.own_addresses:
            yield Finding(
                "warning",
                "notify.yaml",
                "senders",
                f"no sender has an address of the mail account {name!r}, so replies to our mail do not come back to it",
            )


def _check_ways(policies: Policies) -> Iterable[Finding]:
    """Accounts that notices go out by, and the accounts of the same name that customers write to."""
    if policies.channels is None or policies.notify is None:
        return
    from services.router.core.policy.findings import nearest

    channels, notify = policies.channels, policies.notify
    channel_of = {name: channel for name, (channel, _) in channels.channel_accounts.items()}
    channel_of |= dict.fromkeys(channels.file.mail, "email")
    channel_of |= dict.fromkeys(channels.file.forms, "form")
    channel_of |= {name: one.channel for name, one in channels.file.messages.items()}
    for name, account in notify.accounts.items():
        channel = channel_of.get(name)
        if channel is None and name not in notify.fall_back:
            yield Finding(
                "warning",
                "notify.yaml",
                f"accounts.{name}",
                "no such account in channels.yaml, and it is no fall_back, so nobody is answered by it"
                f"{nearest(name, channel_of)}",
            )
        elif channel is not None and not notify.traits[name].answers(channel):
            answered = ", ".join(sorted(notify.traits[name].channels))
            yield Finding(
                "error",
                "notify.yaml",
                f"accounts.{name}.provider",
                f"{account.provider!r}: answers {answered}, and channels.yaml has {channel} under this name",
            )


def _check_causes(policies: Policies) -> Iterable[Finding]:
    """Warn of causes and tags that no case can have."""
    if policies.routing is None or policies.notify is None or policies.routing.causes is None:
        return
    from services.router.core.policy.findings import nearest

    causes, timing = policies.routing.causes, policies.notify.timing
    named: list[tuple[str, str, Iterable[str]]] = [
        ("next_issue", name, causes.model.causes) for name in timing.next_issues
    ]
    named += [("topics", name, causes.tags) for name in timing.topics]
    for path, name, known in named:
        if name not in known:
            yield Finding(
                "warning",
                "notify.yaml",
                path,
                f"{name!r} does not stand in causes.yaml{nearest(name, known)}",
            )


def _check_channels(policies: Policies) -> Iterable[Finding]:
    """Warn of rules and costs for channels that no adapter of ours has. Posted events may name others."""
    if policies.routing is None:
        return
    from services.ingest.adapters import CHANNELS
    from services.router.core.policy.condition import channels_asked
    from services.router.core.policy.findings import nearest

    routing = policies.routing
    named = [("costs", name) for name in routing.routing.costs if name != "default"]
    for index, rule in enumerate(routing.rules):
        named += [(f"rules.{index}.when", name) for name in channels_asked(rule.when)]
        named += [(f"rules.{index}.then.costs", name) for name in rule.costs]
    for path, name in named:
        if name not in CHANNELS:
            yield Finding(
                "warning",
                "routing.yaml",
                path,
                f"{name!r} is no channel of ours{nearest(name, CHANNELS)}",
            )


def _check_elsewhere(policies: Policies) -> Iterable[Finding]:
    """Warn of agents whose tickets a place could not show, and of users of agents whom the file does not name."""
    from services.router.core.elsewhere.policy import unlisted_agents
    from services.router.core.policy.findings import nearest

    if policies.routing is None or policies.routing.agents is None:
        return
    for name, place in sorted(policies.routing.elsewhere.places.items()):
        for stranger in unlisted_agents(place.settings, policies.routing.agents):
            yield Finding(
                "warning",
                "elsewhere.yaml",
                f"places.{name}.agents.{stranger}",
                "is no agent of agents.yaml; only right if the directory or a table brings them"
                f"{nearest(stranger, policies.routing.agents)}",
            )
        needs_all = getattr(place.settings, "to", "agent") == "agent"
        lacking = sorted(set(policies.routing.agents) - set(place.settings.agents))
        if lacking and needs_all:
            shown = ", ".join(lacking[:10]) + (", …" if len(lacking) > 10 else "")
            yield Finding(
                "warning",
                "elsewhere.yaml",
                f"places.{name}.agents",
                f"has no user for {shown}; what becomes theirs is not shown there",
            )


def route(
    policies: Policies, channel: str, language: str, subject: str, text: str
) -> Iterable[str]:
    """Tell where a message would go, by which rule, and who could answer it."""
    from chassis.clock import SystemClock
    from services.router.core.assignment import requirement as requirements
    from services.router.core.policy import rules
    from services.router.core.tickets.story import own_requirement

    routing = policies.routing
    assert routing is not None
    rule = rules.first_match(
        routing.rules,
        rules.facts(
            channel=channel,
            account="support",
            language=language,
            kind="message",
            is_verified=False,
            is_automatic=False,
            subject=subject,
            text=text,
            now=SystemClock().now(),
        ),
    )
    own_cost = rule.cost_on(channel)
    cost = routing.cost(channel) if own_cost is None else own_cost
    asked = routing.asked_in(rule.queue, own_requirement(rule, language, routing), rule.name)
    yield f"A message by {channel} in {language}, {subject!r}:"
    yield f"  rule       {rule.name}"
    yield f"  queue      {rule.queue} ({routing.routing.queues[rule.queue].desk} desk), priority {rule.priority}, cost {cost}"
    yield f"  asks for   {', '.join(_needs(asked)) or 'nobody in particular'}"
    for step in asked.steps:
        yield f"  later      {_step(step)}"
    if policies.sla is not None:
        from services.sla.core.state import Facts

        desk = routing.routing.queues[rule.queue].desk
        facts = Facts(queue=rule.queue, channel=channel, language=language, desk=desk)
        told = promises(policies.sla, rule.sla_policy, rule.priority, facts)
        yield f"  promises   {', '.join(told)}"
    if routing.agents is not None:
        fit = [
            agent_id
            for agent_id, agent in sorted(routing.agents.items())
            if any(queue in agent.queues for queue in (rule.queue, *asked.queues))
            and agent.capacity >= cost
            and not requirements.shortfalls(asked, agent.languages, agent.skills)
        ]
        yield f"  agents     {', '.join(fit) or 'nobody in agents.yaml, until something relaxes'}"


def _needs(asked: "Requirement") -> Iterable[str]:
    """Say what is asked for, as people would."""
    if asked.language is not None:
        level = f" {asked.language_level}" if asked.language_level > 1 else ""
        yield f"language {asked.language}{level}"
    for need in asked.skills:
        patience = "" if need.relax_after is None else f" for {need.relax_after:g} s"
        yield f"{need.skill} {need.level}{patience}"
    yield from (f"not {skill}" for skill in asked.forbidden)
    yield from (f"also the queue {queue}" for queue in asked.queues)


def _step(step: "Step") -> str:
    """Say when a step of relaxation comes and what it asks less."""
    when = [
        *([f"after {step.share:.0%} of the time left"] if step.share is not None else []),
        *([f"after {step.after:g} s"] if step.after is not None else []),
    ]
    what = [
        *(f"{skill} {level}" for skill, level in step.levels),
        *(f"no {skill}" for skill in step.drop),
        *(["any language"] if step.language else []),
        *(f"also the queue {queue}" for queue in step.queues),
    ]
    return f"{' or '.join(when) or 'after a missed offer'}: {', '.join(what)}"


def promises(
    policy: "SlaPolicy", name: str, priority: int, facts: "Facts | None" = None
) -> Iterable[str]:
    """Yield what is promised to tickets of a priority for which routing named a policy, a target each.

    `facts` is what the rules of `sla.yaml` may ask of such a ticket besides.
    """
    from typing import get_args

    from cli.story import span
    from schemas.sla import TargetKind
    from services.sla.core.state import Facts

    facts = facts or Facts()
    rule = policy.select(name, facts, priority)
    tier = policy.tiers.get(facts.queue, "")
    for kind in get_args(TargetKind):
        target = rule.target(priority, kind, tier)
        if target is not None:
            length = span(target.allowed.total_seconds())
            what = f"tier {tier}" if kind == "tier" else kind.replace("_", " ")
            yield f"{what} in {length} of the calendar {target.calendar}"
