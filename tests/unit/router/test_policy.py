"""`routing.yaml` and `agents.yaml`: what is refused, what is found, and the examples that the demo runs."""

from pathlib import Path

import pytest
import yaml

from chassis.errors import PolicyError
from chassis.policy import PolicyHolder
from services.router.core.policy.policy import assemble
from services.router.core.policy.policy_check import check
from services.router.core.policy.policy_model import PolicyMistake
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
    assert messages == [
        "nobody in agents.yaml could ever take a ticket of 'API' in tr, ru",
        "nobody in agents.yaml could ever take an escalated ticket of 'everything else' in tr, ru",
    ]


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


# ------------------------------------------------------------------------- rules and requirements


def rules(*then_or_when: str) -> str:
    """The stories' policy with a first rule made of these lines below its name."""
    lines = "".join(f"    {line}\n" for line in then_or_when)
    return changed("rules:\n", f"rules:\n  - name: first\n{lines}")


def then(more: str) -> str:
    return rules("when: {words: [x]}", f"then: {{queue: technical, {more}}}")


def when(condition: str) -> str:
    return rules(f"when: {{{condition}}}", "then: {queue: labs}")


@pytest.mark.parametrize(
    ("text", "path", "allowed"),
    [
        (then("skills: {apii: {level: 4}}"), "rules.0.then.skills.apii", "Is 'api' meant?"),
        (then("preferred: {ordrs: 4}"), "rules.0.then.preferred.ordrs", "Is 'orders' meant?"),
        (then("forbidden: [orderz]"), "rules.0.then.forbidden", "Is 'orders' meant?"),
        (then("also_queues: [lab]"), "rules.0.then.also_queues", "Is 'labs' meant?"),
        (then("also_queues: [technical]"), "rules.0.then.also_queues", "labs, service"),
        (
            then("skills: {api: {}}, preferred: {api: 3}"),
            "rules.0.then.preferred.api",
            "asked for or preferred",
        ),
        (
            then("skills: {api: {}}, forbidden: [api]"),
            "rules.0.then.forbidden",
            "nobody could take",
        ),
        (
            then("skills: {api: {level: 4}}, steps: [{levels: {api: 2}}]"),
            "rules.0.then.steps.0",
            "after_seconds: 120",
        ),
        (
            then("skills: {api: {level: 4}}, steps: [{after_seconds: 60, levels: {api: 4}}]"),
            "rules.0.then.steps.0.levels.api",
            "give 1 to 3",
        ),
        (
            then("skills: {api: {level: 1}}, steps: [{after_seconds: 60, levels: {api: 1}}]"),
            "rules.0.then.steps.0.levels.api",
            "drop: [api]",
        ),
        (
            then("skills: {api: {level: 4}}, steps: [{after_seconds: 60, drop: [orders]}]"),
            "rules.0.then.steps.0.drop",
            "known: api",
        ),
        (
            then("skills: {api: {required: true}}, steps: [{after_seconds: 60, drop: [api]}]"),
            "rules.0.then.steps.0.drop",
            "never relaxes",
        ),
        (
            then("language: {required: true}, steps: [{after_seconds: 60, language: true}]"),
            "rules.0.then.steps.0.language",
            "never relaxes",
        ),
        (
            then("language: {asked: false}, steps: [{after_seconds: 60, language: true}]"),
            "rules.0.then.steps.0.language",
            "not asked for",
        ),
        (
            then(
                "steps: [{after_seconds: 60, queues: [labs]}, {after_seconds: 59, language: true}]"
            ),
            "rules.0.then.steps.1.after_seconds",
            "at least the 60",
        ),
        (
            then("steps: [{after_seconds: 60, queues: [lab]}]"),
            "rules.0.then.steps.0.queues",
            "Is 'labs' meant?",
        ),
        (when("language: [de]"), "rules.0.when.language", "en, ru, tr"),
        (
            when("queue_length: {queue: lab, at_least: 1}"),
            "rules.0.when.queue_length.queue",
            "labs",
        ),
        (when("hours: {calendar: shop}"), "rules.0.when.hours.calendar", "calendars.yaml; add one"),
        (when("words: ['!?']"), "rules.0.when.words", "letters or digits"),
        (when(r"matches: ['a', '(?<=a)b']"), "rules.0.when.matches.1", "looking behind"),
        (
            when(r"any: [{words: [x]}, {not: {matches: ['(a)\1']}}]"),
            "rules.0.when.any.1.not.matches.0",
            "list the texts",
        ),
        (
            when("not: {not: {not: {not: {words: [x]}}}}"),
            "rules.0.when.not.not.not.not",
            "4 deep at most",
        ),
        (when("any: [{language: [de]}]"), "rules.0.when.any.0.language", "en, ru, tr"),
        (
            changed("{desk: service}", "{desk: service, preset: {forbidden: [orderz]}}"),
            "queues.service.preset.forbidden",
            "Is 'orders' meant?",
        ),
        (
            changed("{desk: service}", "{desk: service, preset: {language: {asked: false}}}"),
            "queues.service.preset.language.asked",
            "a rule's to say",
        ),
    ],
)
def test_a_rule_that_cannot_work_is_refused_with_its_path_and_what_would_do(
    text: str, path: str, allowed: str
) -> None:
    with pytest.raises(PolicyMistake) as caught:
        read_policy(text)
    assert (caught.value.file, caught.value.path) == ("routing.yaml", path)
    assert allowed in caught.value.allowed


def test_a_queue_of_another_domain_is_not_asked_as_well() -> None:
    text = then("also_queues: [labs]").replace("{main: {}}", "{main: {}, east: {}}")
    text = text.replace("labs: {desk: technical}", "labs: {desk: technical, domain: east}")
    with pytest.raises(PolicyMistake, match="another queue of the domain main: service"):
        read_policy(text)


@pytest.mark.parametrize(
    ("text", "path", "example"),
    [
        (when("percent: 0"), "rules.0.when.percent", "percent: 5"),
        (when("percent: 101"), "rules.0.when.percent", "percent: 5"),
        (when("percent: many"), "rules.0.when.percent", "percent: 5"),
        (when("rating: 2"), "rules.0.when.rating", "rating: {at_most: 2}"),
        (when("rating: {}"), "rules.0.when.rating", "at_least"),
        (when("reopens: {at_least: 3, at_most: 2}"), "rules.0.when.reopens", "change them over"),
        (when("queue_length: 100"), "rules.0.when.queue_length", "{queue: service, at_least: 100}"),
        (when("queue_length: {at_least: 1}"), "rules.0.when.queue_length.queue", "queue: service"),
        (when("hours: shop"), "rules.0.when.hours", "hours: {calendar: shop, open: false}"),
        (when("matches: '[0-9]'"), "rules.0.when.matches", "matches: ["),
        (when("customer: gold"), "rules.0.when.customer", "tier: [gold]"),
        (when("visibility: [secret]"), "rules.0.when.visibility.0", "visibility: [public]"),
        (when("desk: [sales]"), "rules.0.when.desk.0", "desk: [technical]"),
        (when("address_kind: [fax]"), "rules.0.when.address_kind.0", "address_kind: [phone]"),
        (when("any: {words: [x]}"), "rules.0.when.any", "any: [{channel: [chat]}"),
        (when("not: [x]"), "rules.0.when.not", "not: {contains: [newsletter]}"),
        (when("not: {percent: 0}"), "rules.0.when.not.percent", "percent: 5"),
        (then("skills: [api]"), "rules.0.then.skills", "skills: {api: {level: 4"),
        (then("skills: {api: {level: 11}}"), "rules.0.then.skills.api.level", "equal to 10"),
        (then("preferred: {api: 0}"), "rules.0.then.preferred.api", "preferred: {orders: 5}"),
        (then("steps: [{after_seconds: 60}]"), "rules.0.then.steps.0", "levels: {api: 2}"),
        (
            then("steps: [{after_seconds: 0, language: true}]"),
            "rules.0.then.steps.0.after_seconds",
            "after_seconds: 120",
        ),
        (
            then("steps: [{share_of_time_left: 2, language: true}]"),
            "rules.0.then.steps.0.share_of_time_left",
            "share_of_time_left: 0.5",
        ),
        (then("cost: {chat: 1}"), "rules.0.then.cost", "cost: 20"),
        (then("costs: {chat: -1}"), "rules.0.then.costs.chat", "costs: {chat: 10, voice: 100}"),
        (then("tags: [Two Words]"), "rules.0.then.tags.0", "tags: [refund]"),
        (then("known_agent: 120"), "rules.0.then.known_agent", "patience_seconds: 120"),
        (
            then("known_agent: {half_life_hours: 0}"),
            "rules.0.then.known_agent.half_life_hours",
            "half_life_hours: 72",
        ),
        (
            then("language: {required: true, relax_after_seconds: 9}"),
            "rules.0.then.language",
            "never relaxes",
        ),
    ],
)
def test_a_value_of_the_wrong_form_is_refused_with_an_example_of_a_right_one(
    text: str, path: str, example: str
) -> None:
    with pytest.raises(PolicyError) as caught:
        read_policy(text)
    assert caught.value.path.startswith(path)
    assert example in caught.value.allowed


def test_an_unknown_key_below_a_group_is_told_with_those_that_may_stand_there() -> None:
    with pytest.raises(PolicyError) as caught:
        read_policy(when("not: {wordz: [x]}"))
    assert caught.value.path == "rules.0.when.not.wordz"
    assert {"any", "not", "words"} <= set(caught.value.allowed.partition(": ")[2].split(", "))


@pytest.mark.parametrize(
    ("text", "path", "says"),
    [
        (when("percent: 100"), "rules.0.when.percent", "takes everybody"),
        (when("customer: {orders: {at_least: 6}}"), "rules.0.when", "counted to 5"),
        (when("not: {}"), "rules.0.when.not", "empty group"),
        (when("any: [{}, {words: [x]}]"), "rules.0.when.any.0", "empty group"),
        (when("words: [x], not: {contains: [x]}"), "rules.0.when", "what `not` forbids"),
        (
            changed(
                "rules:\n",
                "rules:\n  - {name: a, when: {percent: 5, words: [api]}, then: {queue: labs}}\n",
            )
            .replace("when: {words: [api]}", "when: {percent: 50, words: [api], channel: [chat]}")
            .replace(
                "  - name: everything",
                "  - {name: b, when: {words: [api now], channel: [chat], percent: 50}, then: {queue: labs}}\n  - name: everything",
            ),
            "",
            "",
        ),
        (
            then("skills: {api: {level: 4}}, steps: [{after_seconds: 29, levels: {api: 2}}]"),
            "rules.0.then.steps.0.after_seconds",
            "before one offer",
        ),
        (
            then("known_agent: {patience_seconds: 4}"),
            "rules.0.then.known_agent.at_least_seconds",
            "nobody is ever waited for",
        ),
        (then("forbidden: [api]"), "rules.0", "could ever take"),
        (then("skills: {orders: {level: 6, required: true}}"), "rules.0", "could ever take"),
        (
            then("skills: {orders: {level: 7, required: true}}, also_queues: [service]"),
            "rules.0",
            "could ever take",
        ),
        (
            changed(
                "{desk: service}", "{desk: service, preset: {skills: {api: {required: true}}}}"
            ),
            "rules.1",
            "could ever take a ticket of 'everything else'",
        ),
    ],
)
def test_a_rule_that_will_hardly_be_meant_is_found(text: str, path: str, says: str) -> None:
    findings = found(text)
    if not path:
        assert findings == []
    else:
        assert any(f[1] == path and says in f[2] for f in findings), findings


@pytest.mark.parametrize(
    "text",
    [
        then("skills: {orders: {level: 6, required: true}}, also_queues: [service]"),
        then("skills: {orders: {level: 9}}, steps: [{after_seconds: 60, drop: [orders]}]"),
        then(
            "skills: {orders: {level: 6, required: true}},"
            " steps: [{after_seconds: 60, queues: [service]}]"
        ),
        then("skills: {orders: {level: 6, required: true}}").replace(
            "rules:\n",
            "assignment: {lending: {technical: {open_at: 9, close_at: 2, lenders: [service]}}}\nrules:\n",
        ),
        then("preferred: {api: 10}"),
        then("forbidden: [trainee]").replace("[orders, api]", "[orders, api, trainee]"),
    ],
)
def test_r3_a_ticket_that_somebody_can_take_in_the_end_is_not_called_unmatchable(text: str) -> None:
    assert found(text) == []


def test_a_file_of_calendars_that_cannot_be_used_is_refused_under_its_own_name(
    tmp_path: Path,
) -> None:
    folder = folder_with(tmp_path, None)
    (folder / "calendars.yaml").write_text("calendars: {shop: {timezone: Mars}}", encoding="utf-8")
    with pytest.raises(PolicyError) as caught:
        PolicyHolder(folder, POLICY)
    assert (caught.value.file, caught.value.path) == ("calendars.yaml", "calendars.shop.timezone")


def test_a_tag_of_a_rule_that_no_cause_knows_is_refused_where_there_are_causes(
    tmp_path: Path,
) -> None:
    folder = folder_with(tmp_path, None)
    (folder / "routing.yaml").write_text(then("tags: [refnd]"), encoding="utf-8")
    (folder / "causes.yaml").write_text(
        "causes: {refund: {description: {en: a, tr: b, ru: c}}}", encoding="utf-8"
    )
    with pytest.raises(PolicyError, match="Is 'refund' meant"):
        PolicyHolder(folder, POLICY)
