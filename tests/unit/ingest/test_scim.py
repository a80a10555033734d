"""What identity providers' requests mean: however a user came to be what they are, the agent is the same."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.roster import AgentSet
from services.ingest.core.policy import ScimDomain
from services.ingest.core.scim import (
    AGENT,
    ENTERPRISE,
    USER,
    Document,
    Meaning,
    ScimRefused,
    agent_id_of,
    agent_of,
    display_name_of,
    meaning_of,
    read_replacement,
    read_user,
    with_agent_id,
)
from services.ingest.core.scim_patch import (
    PATCH,
    members_after,
    patched_group,
    patched_user,
    read_operations,
)

RULES = ScimDomain(capacity=80, level=5, groups={"Front line": "queue:service"})
BEGUN = with_agent_id(read_user({"schemas": [USER], "userName": "ada"}), "ada")


def patched(document: Document, *operations: Any) -> Document:
    body = {"schemas": [PATCH], "Operations": list(operations)}
    return with_agent_id(patched_user(document, read_operations(body)), "ada")


def agent(document: Document, *meanings: Meaning) -> AgentSet | None:
    return agent_of("main", "ada", document, meanings, RULES)


def scalar(path: str, values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Operations on one value, in the ways in which providers write them."""
    key = path.rpartition(":")[2] if path.startswith(AGENT) else path
    placed = (
        (lambda value: {AGENT: {key: value}})
        if path.startswith(AGENT)
        else (lambda value: {key: value})
    )
    return st.one_of(
        st.builds(
            lambda op, value: {"op": op, "path": path, "value": value},
            st.sampled_from(["add", "Replace"]),
            values,
        ),
        st.builds(lambda value: {"op": "replace", "value": placed(value)}, values),
        st.builds(lambda value: {"op": "Add", "value": {path: value}}, values),
        st.just({"op": "remove", "path": path}),
    )


NAMES = st.sampled_from(["orders", "payments", "api"])
LEVELS = st.one_of(st.integers(1, 10), st.integers(1, 10).map(str))
SKILLS = st.lists(
    st.fixed_dictionaries({"value": NAMES, "level": LEVELS}),
    min_size=1,
    max_size=3,
    unique_by=lambda one: str(one["value"]),
)
QUEUES = st.lists(st.sampled_from(["service", "technical", "night"]), min_size=1, unique=True)
OPERATIONS = st.one_of(
    scalar("displayName", st.sampled_from(["Ada", "Countess"])),
    scalar("active", st.sampled_from([True, False, "True", "False"])),
    scalar("title", st.just("Head")),
    scalar(f"{AGENT}:capacity", st.one_of(st.integers(0, 200), st.just("40"))),
    scalar(f"{AGENT}:queues", QUEUES),
    scalar(f"{AGENT}:skills", SKILLS),
    st.builds(lambda name: {"op": "remove", "path": f'{AGENT}:skills[value eq "{name}"]'}, NAMES),
    st.builds(
        lambda name, level: {
            "op": "replace",
            "path": f'{AGENT}:skills[value eq "{name}"].level',
            "value": level,
        },
        NAMES,
        LEVELS,
    ),
    st.builds(lambda names: {"op": "Remove", "path": f"{AGENT}:queues", "value": names}, QUEUES),
    st.just({"op": "remove", "path": AGENT}),
)


@settings(max_examples=200)
@given(st.lists(OPERATIONS, max_size=8))
def test_patches_end_in_the_same_agent_as_putting_what_they_end_in(
    operations: list[dict[str, Any]],
) -> None:
    document = BEGUN
    for operation in operations:
        document = patched(document, operation)
    put = with_agent_id(read_replacement({**document, "id": "x", "meta": {}}, BEGUN), "ada")
    assert agent(put) == agent(document)
    # In one request they do what they do one by one, and what is stored reads to itself.
    assert agent(patched(BEGUN, *operations) if operations else BEGUN) == agent(document)
    assert with_agent_id(read_replacement(document, document), "ada") == document


@settings(max_examples=200)
@given(st.lists(OPERATIONS, max_size=8))
def test_an_agent_follows_a_plain_model_of_its_user(operations: list[dict[str, Any]]) -> None:
    document, model = BEGUN, Model()
    for operation in operations:
        document = patched(document, operation)
        model.apply(operation)
    assert agent(document) == model.agent()


class Model:
    """A user as nested dictionaries, patched in the simplest way that could be right."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def apply(self, operation: dict[str, Any]) -> None:
        op: str = operation["op"].lower()
        value: Any = operation.get("value")
        path = operation.get("path")
        if path is None:
            for name, inner in value.items():
                if name == AGENT:
                    for one, given_ in inner.items():
                        self.set(op, one, given_)
                else:
                    self.set(op, name.removeprefix(f"{AGENT}:"), inner)
            return
        path = path.removeprefix(f"{AGENT}:")
        skills = self.values.get("skills", {})
        if path == AGENT:
            for name in ("queues", "skills", "capacity"):
                self.values.pop(name, None)
        elif "[" in path:
            name = path.split('"')[1]
            if op == "remove":
                skills.pop(name, None)
            else:
                # Nothing is there to change: what the filter describes is added.
                skills[name] = int(value)
                self.values["skills"] = skills
        elif op == "remove" and value is not None:
            left = [one for one in self.values.get("queues", []) if one not in value]
            self.values["queues"] = left
        elif op == "remove":
            self.values.pop(path, None)
        else:
            self.set(op, path, value)

    def set(self, op: str, name: str, value: Any) -> None:
        if name == "skills":
            before = self.values.get(name, {}) if op == "add" else {}
            self.values[name] = {**before, **{one["value"]: int(one["level"]) for one in value}}
        elif name == "queues":
            before = self.values.get(name, []) if op == "add" else []
            self.values[name] = [*before, *(one for one in value if one not in before)]
        else:
            self.values[name] = value

    def agent(self) -> AgentSet | None:
        if str(self.values.get("active", True)) == "False":
            return None
        return AgentSet(
            domain="main",
            agent_id="ada",
            name=self.values.get("displayName", "ada"),
            queues=tuple(sorted(self.values.get("queues", ()))),
            skills=dict(sorted(self.values.get("skills", {}).items())),
            capacity=int(self.values.get("capacity", 80)),
        )


IDS = st.sampled_from(["a", "b", "c", "d"])
ENTRIES = st.lists(st.one_of(IDS, st.builds(lambda one: {"value": one}, IDS)), max_size=3)
MEMBERS = st.one_of(
    st.builds(
        lambda op, entries: {"op": op, "path": "members", "value": entries},
        st.sampled_from(["add", "replace", "Add"]),
        ENTRIES,
    ),
    st.builds(lambda entries: {"op": "replace", "value": {"members": entries}}, ENTRIES),
    st.builds(
        lambda entries: {"op": "Remove", "path": "members", "value": entries},
        ENTRIES.filter(bool),
    ),
    st.builds(lambda one: {"op": "remove", "path": f'members[value eq "{one}"]'}, IDS),
    st.just({"op": "remove", "path": "members"}),
)


@given(st.lists(MEMBERS, min_size=1, max_size=8))
def test_a_groups_patches_in_one_request_do_what_they_do_one_by_one(
    operations: list[dict[str, Any]],
) -> None:
    def after(before: frozenset[str], *ops: Any) -> frozenset[str]:
        change = patched_group(read_operations({"schemas": [PATCH], "Operations": list(ops)}))
        return members_after(before, change)

    members = frozenset({"a", "z"})
    for operation in operations:
        before = members
        members = after(members, operation)
        entries = operation.get("value") or []
        entries = entries["members"] if isinstance(entries, dict) else entries
        named = {one["value"] if isinstance(one, dict) else one for one in entries}
        match operation["op"].lower():
            case "add":
                assert members == before | named
            case "replace":
                assert members == named
            case "remove" if "[" in operation["path"]:
                assert members == before - {operation["path"].split('"')[1]}
            case "remove":
                assert members == (before - named if named else frozenset())
    assert after(frozenset({"a", "z"}), *operations) == members


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("queue:service", Meaning("queue", "service", 0)),
        ("Front line", Meaning("queue", "service", 0)),
        ("skill:orders", Meaning("skill", "orders", 5)),
        ("skill:orders:1", Meaning("skill", "orders", 1)),
        ("skill:orders:10", Meaning("skill", "orders", 10)),
        ("language:tr:9", Meaning("language", "tr", 9)),
    ],
)
def test_a_groups_name_says_what_it_gives(name: str, expected: Meaning) -> None:
    assert meaning_of(name, RULES) == expected


@pytest.mark.parametrize(
    "name",
    [
        "service",
        "queue:",
        "queue:Front",
        "queue:a:1",
        "skill:a:0",
        "skill:a:11",
        "language:eng1",
        "front line",
    ],
)
def test_a_groups_name_that_says_nothing_is_refused(name: str) -> None:
    with pytest.raises(ScimRefused, match="displayName"):
        meaning_of(name, RULES)


def test_a_skill_without_a_level_needs_one_that_an_operator_chose() -> None:
    with pytest.raises(ScimRefused, match=r"level in channels\.yaml"):
        meaning_of("skill:orders", ScimDomain())


def test_what_a_user_says_of_themselves_goes_before_groups_and_the_higher_group_counts() -> None:
    document = patched(
        BEGUN,
        {"op": "add", "path": f"{AGENT}:skills", "value": [{"value": "orders", "level": 2}]},
    )
    found = agent(
        document,
        Meaning("skill", "orders", 9),
        Meaning("skill", "api", 7),
        Meaning("skill", "api", 3),
        Meaning("queue", "service", 0),
        Meaning("language", "tr", 8),
    )
    assert found is not None
    assert (found.skills, found.queues, found.languages) == (
        {"api": 7, "orders": 2},
        ("service",),
        {"tr": 8},
    )


def test_without_a_capacity_chosen_an_agent_carries_nothing() -> None:
    found = agent_of("main", "ada", BEGUN, (), ScimDomain())
    assert found is not None
    assert found.capacity == 0


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"displayName": "Countess"}, "Countess"),
        ({"name": {"formatted": "A. Byron", "givenName": "Ada"}}, "A. Byron"),
        ({"name": {"givenName": "Ada", "familyName": "Byron"}}, "Ada Byron"),
        ({}, "ada"),
    ],
)
def test_an_agent_is_called_what_the_user_is(more: dict[str, Any], expected: str) -> None:
    assert display_name_of(read_user({"schemas": [USER], "userName": "ada", **more})) == expected


def test_the_agents_id_is_what_is_said_or_the_users_name_or_scims_id() -> None:
    def made(name: str, **own: Any) -> str:
        return agent_id_of(read_user({"schemas": [USER], "userName": name, AGENT: own}), "scim-1")

    assert made("ada@lantern-oak.example") == "ada@lantern-oak.example"
    assert made("ada@lantern-oak.example", agentId="ada") == "ada"
    assert made("Ada Byron") == "scim-1"
    assert made("corp/ada") == "scim-1"


def test_what_is_not_needed_is_not_kept() -> None:
    kept = read_user(
        {
            "schemas": [USER, ENTERPRISE],
            "userName": "ada",
            "password": "x",
            "addresses": [{"locality": "London"}],
            "photos": [{"value": "https://example.com/ada.png"}],
            "x509Certificates": [{"value": "AAAA"}],
            "urn:example:other": {"salary": 1},
            ENTERPRISE: {"department": "Service", "costCenter": "7"},
        }
    )
    assert kept == {
        "schemas": [USER, ENTERPRISE],
        "userName": "ada",
        ENTERPRISE: {"department": "Service", "costCenter": "7"},
    }


def test_of_two_levels_of_one_skill_the_last_counts() -> None:
    levels = [{"value": "orders", "level": level} for level in (9, 4)]
    one_by_one = BEGUN
    for level in levels:
        add = {"op": "add", "path": f"{AGENT}:skills", "value": [level]}
        one_by_one = patched(one_by_one, add)
    at_once = read_user({"schemas": [USER], "userName": "ada", AGENT: {"skills": levels}})
    assert one_by_one[AGENT]["skills"] == at_once[AGENT]["skills"] == levels[1:]


def test_an_empty_manager_is_taken_away_and_a_bare_one_understood() -> None:
    with_one = patched(BEGUN, {"op": "Add", "path": f"{ENTERPRISE}:manager", "value": "m-1"})
    assert with_one[ENTERPRISE] == {"manager": {"value": "m-1"}}
    again = patched(BEGUN, {"op": "Add", "value": {ENTERPRISE: {"manager": "m-1"}}})
    assert again == with_one
    gone = patched(with_one, {"op": "Replace", "path": f"{ENTERPRISE}:manager", "value": ""})
    assert ENTERPRISE not in gone
