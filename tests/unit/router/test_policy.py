"""`routing.yaml` and `agents.yaml`: what is refused, what is found, and the examples that the demo runs."""

from pathlib import Path

import pytest
import yaml

from chassis.errors import PolicyError
from chassis.policy import PolicyHolder
from services.router.core.policy import assemble
from services.router.core.policy_check import check
from services.router.core.policy_model import PolicyMistake
from services.router.core.roster_file import agent_events
from services.router.handlers import POLICY
from tests.unit.router.stories import AGENTS_YAML, ROUTING_YAML, parsed, read_policy

EXAMPLES = Path(__file__).parents[3] / "policy"
CATCH_ALL = "  - name: everything else\n    then: {queue: service, skills: {orders: {level: 2}}}\n"


def changed(before: str, after: str) -> str:
    assert before in ROUTING_YAML
    return ROUTING_YAML.replace(before, after)


@pytest.mark.parametrize(
    ("text", "path", "allowed"),
    [
        (changed("default_language: en", "default_language: de"), "default_language", "en, ru, tr"),
        (
            changed("{desk: service}", "{desk: service, domain: east}"),
            "queues.service.domain",
            "main",
        ),
        (
            changed("queue: technical,", "queue: attic,"),
            "rules.0.then.queue",
            "labs, service, technical",
        ),
        (
            changed("{api: {level: 4", "{magic: {level: 4"),
            "rules.0.then.skills.magic",
            "api, orders",
        ),
        (changed("to_queue: technical", "to_queue: attic"), "escalation.to_queue", "labs"),
        (changed("default: 10,", ""), "costs.default", "required"),
        (changed("orders: 60", "magic: 60"), "relaxation.skill_seconds.magic", "api, orders"),
        (changed("name: API", "name: everything else"), "rules.1.name", "two rules"),
        (
            changed("to_queue: technical", "to_queue: service"),
            "escalation.to_queue",
            "technical desk",
        ),
        (changed(CATCH_ALL, ""), "rules.0", "no conditions"),
        (changed("when: {words: [api]}", "when: {}"), "rules.1", "never reached"),
    ],
)
def test_what_cannot_work_is_refused_with_its_path_and_what_is_allowed(
    text: str, path: str, allowed: str
) -> None:
    with pytest.raises(PolicyMistake) as caught:
        read_policy(text)
    assert (caught.value.file, caught.value.path) == ("routing.yaml", path)
    assert allowed in caught.value.allowed


@pytest.mark.parametrize(
    ("before", "after", "path"),
    [
        ("queues: [service]", "queues: [attic]", "agents.ada.queues"),
        ("{orders: 6}", "{magic: 6}", "agents.ada.skills.magic"),
        (
            "{en: 9, tr: 5, ru: 5}, capacity: 100}\n  nils",
            "{de: 9}, capacity: 100}\n  nils",
            "agents.ada.languages.de",
        ),
        ("name: Ada,", "name: Ada, domain: east,", "agents.ada.domain"),
    ],
)
def test_an_agent_of_things_that_do_not_exist_is_refused(
    before: str, after: str, path: str
) -> None:
    assert before in AGENTS_YAML
    with pytest.raises(PolicyMistake) as caught:
        read_policy(agents_yaml=AGENTS_YAML.replace(before, after))
    assert (caught.value.file, caught.value.path) == ("agents.yaml", path)


def test_an_agent_serves_queues_of_their_own_domain_only() -> None:
    routing = changed("domains: {main: {}}", "domains: {main: {}, east: {}}")
    agents = AGENTS_YAML.replace("name: Ada,", "name: Ada, domain: east,")
    with pytest.raises(PolicyMistake, match="belongs to the domain main"):
        read_policy(routing, agents)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (changed("required: true", "required: true, relax_after_seconds: 9"), "never relaxes"),
        (changed("{raise_priority_to: 1}", "{}"), "does nothing"),
        (changed("max_declines: 3", "max_declines: 0"), "greater than or equal to 1"),
        (changed("window_hours: 72", "window_hours: 72, window_days: 3"), "unknown key"),
    ],
)
def test_values_out_of_range_are_refused(text: str, error: str) -> None:
    with pytest.raises(PolicyError, match=error):
        read_policy(text)


def found(text: str = ROUTING_YAML, agents: str | None = AGENTS_YAML) -> list[tuple[str, str, str]]:
    return [(f.level, f.path, f.message) for f in check(assemble(parsed(text, agents), "v1"))]


def test_a_policy_in_order_has_no_findings() -> None:
    assert found() == []


@pytest.mark.parametrize(
    ("text", "level", "path", "says"),
    [
        (
            changed(
                "rules:\n", "rules:\n  - {name: APIs, when: {words: [api]}, then: {queue: labs}}\n"
            ),
            "warning",
            "rules.1",
            "matches all that it does",
        ),
        (changed(CATCH_ALL, ""), "error", "rules.0", "last rule"),
        (changed("{words: [api]}", "{is_automatic: true}"), "warning", "rules.0", "automatic"),
        (
            changed("orders: 60", "orders: 29"),
            "warning",
            "rules.1.then.skills.orders",
            "before one offer",
        ),
        (
            changed("labs: {desk", "attic: {desk: service}\n  labs: {desk"),
            "warning",
            "queues.attic",
            "nobody",
        ),
        (changed("[orders, api]", "[orders, api, magic]"), "warning", "skills.magic", "nobody"),
        (changed("{level: 4, req", "{level: 10, req"), "warning", "rules.0", "could ever take"),
        (changed("chat: 20", "voice: 101"), "warning", "costs.voice", "can carry"),
    ],
)
def test_what_will_hardly_be_meant_is_found(text: str, level: str, path: str, says: str) -> None:
    findings = found(text)
    assert any(f[:2] == (level, path) and says in f[2] for f in findings), findings


def test_r3_a_language_that_nobody_with_the_skill_speaks_is_found_before_a_customer_does() -> None:
    agents = AGENTS_YAML.replace(
        "api: 9}, languages: {en: 9, tr: 5, ru: 5}", "api: 9}, languages: {en: 9}"
    )
    messages = [f[2] for f in found(agents=agents)]
    assert messages == ["nobody in agents.yaml could ever take a ticket of 'API' in tr, ru"]


def test_without_agents_yaml_nothing_is_said_of_people() -> None:
    assert found(changed("[orders, api]", "[orders, api, magic]"), agents=None) == []


def test_the_example_policy_is_in_order() -> None:
    policy = PolicyHolder(EXAMPLES, POLICY).current
    assert check(policy) == ()
    assert policy.agent_name("ada") == "Ada"


def test_the_example_names_sla_policies_that_exist() -> None:
    policy = PolicyHolder(EXAMPLES, POLICY).current
    known = yaml.safe_load((EXAMPLES / "sla.yaml").read_text(encoding="utf-8"))["policies"]
    assert {rule.sla_policy for rule in policy.rules} <= set(known)


def test_the_file_of_agents_becomes_one_event_each() -> None:
    events = agent_events(parsed()["agents.yaml"])
    assert [(e.agent_id, e.domain, e.capacity) for e in events] == [
        ("ada", "main", 100),
        ("nils", "main", 100),
    ]
    assert events == agent_events(parsed()["agents.yaml"])


def folder_with(tmp_path: Path, sla_yaml: str | None) -> Path:
    (tmp_path / "routing.yaml").write_text(ROUTING_YAML, encoding="utf-8")
    if sla_yaml is not None:
        (tmp_path / "sla.yaml").write_text(sla_yaml, encoding="utf-8")
    return tmp_path


def test_a_rule_that_names_an_sla_policy_that_is_not_there_is_refused_at_start(
    tmp_path: Path,
) -> None:
    folder = folder_with(tmp_path, "policies: {standard: {}, gold: {}}\nelse: 1\n")
    with pytest.raises(PolicyError) as caught:
        PolicyHolder(folder, POLICY)
    mistake = caught.value
    assert (mistake.file, mistake.path) == ("routing.yaml", "rules.0.then.sla_policy")
    assert mistake.value == "urgent"
    assert mistake.allowed == "no such policy in sla.yaml; known: gold, standard"


@pytest.mark.parametrize("sla_yaml", [None, "policies: {standard: {}, urgent: {}}\nelse: 1\n"])
def test_sla_names_are_compared_only_where_there_are_some(
    tmp_path: Path, sla_yaml: str | None
) -> None:
    assert PolicyHolder(folder_with(tmp_path, sla_yaml), POLICY).current.agents is None
