"""Rosters in files: what a table says, what is wrong with it cell by cell, and that writing and reading agree."""

from datetime import UTC
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from chassis.policy import parse, read_yaml
from schemas.roster import AgentSet, Shift
from services.router.core.policy.policy_model import AgentsModel, RoutingModel
from services.router.core.roster_file import (
    COLUMNS,
    agent_events,
    agents_of,
    compare,
    name_mistakes,
    read_table,
    to_document,
    to_table,
)

POLICY = Path(__file__).parents[3] / "policy"
ROUTING: RoutingModel = parse("routing.yaml", read_yaml(POLICY / "routing.yaml"), RoutingModel)
ADA = AgentSet(
    domain="main",
    agent_id="ada",
    name="Ada",
    queues=("service",),
    skills={"orders": 6, "payments": 3},
    languages={"en": 9, "tr": 5},
    capacity=100,
    channel_limits={"chat": 3, "voice": 1},
)
TABLE = """\
agent_id,name,domain,queues,skills,languages,capacity,channel_limits
ada,Ada,main,service,orders:6 payments:3,en:9 tr:5,100,chat:3 voice:1
"""


def agents(text: str, *present: AgentSet, domain: str | None = None) -> tuple[AgentSet, ...]:
    rows, wrong = read_table(text, "agents.csv", ROUTING, domain)
    known = {(agent.domain, agent.agent_id): agent for agent in present}
    found, lacking = agents_of(rows, "agents.csv", known)
    assert (*wrong, *lacking) == ()
    return found


def mistakes(text: str, domain: str | None = None) -> list[str]:
    rows, wrong = read_table(text, "agents.csv", ROUTING, domain)
    _, lacking = agents_of(rows, "agents.csv", {})
    return [str(one) for one in (*wrong, *lacking)]


@pytest.mark.parametrize(
    "text",
    [
        TABLE,
        TABLE.replace(",", ";"),
        TABLE.replace(",", "\t"),
        TABLE.replace("\n", "\r\n") + "\r\n,,,,,,,\r\n",
        TABLE.replace("orders:6 payments:3", '"payments:3, orders:6"'),
        TABLE.replace("agent_id", " Agent_ID "),
        TABLE.replace(",main,", ",,"),
        "sep=;\r\n" + TABLE.replace(",", ";"),
        '"sep=,",,,,,,,\n' + TABLE,
        "SEP=|\n" + TABLE.replace(",", "|"),
        TABLE.replace("\n", ",\n"),
        TABLE.replace("\n", ";;\n").replace(",", ";"),
    ],
    ids=[
        "commas",
        "semicolons",
        "tabs",
        "windows",
        "quoted",
        "header",
        "no domain",
        "sep=;",
        "sep=, as it is saved again",
        "sep=|",
        "a comma at each end",
        "semicolons at each end",
    ],
)
def test_a_table_says_who_the_agents_are(text: str) -> None:
    assert agents(text) == (ADA,)


@pytest.mark.parametrize(
    ("cells", "told"),
    [
        ("a/b,A,main,service,,,1,", "line 2, agent_id: 'a/b': must be 1 to 200 letters"),
        ("bo,,mian,service,,,1,", "line 2, domain: 'mian': no such domain; known: main"),
        ("bo,,main,attic,,,1,", "line 2, queues: 'attic': no such queue; known: leads, service"),
        ("bo,,main,,orders,,1,", "line 2, skills: 'orders': must be NAME:NUMBER, from 1 to 10"),
        ("bo,,main,,orders:11,,1,", "line 2, skills: 'orders:11': must be NAME:NUMBER"),
        ("bo,,main,,order:1,,1,", "line 2, skills: 'order': no such skill; known: "),
        ("bo,,main,,orders:1 orders:2,,1,", "line 2, skills: 'orders:2': orders stands twice"),
        ("bo,,main,,,xx:1,1,", "line 2, languages: 'xx': no such language; known: en"),
        ("bo,,main,,,,many,", "line 2, capacity: 'many': must be a whole number from 0 to 100000"),
        ("bo,,main,,,,,", "line 2, capacity: '': a new agent needs one"),
        ("bo,,main,,,,1,chat", "line 2, channel_limits: 'chat': must be NAME:NUMBER, from 0"),
        ("bo,,main,,,,1,,,x", "line 2: has 10 cells, the header 8"),
        ("bo,,main,,,,1,chat:000000000999999999999", "line 2, channel_limits: 'chat:000000000999"),
        ("bo,,main,,,,1,chat:100001", "must be NAME:NUMBER, from 0 to 100000"),
        ("bo,,main,,,,1,chat:" + "9" * 5_000, "must be NAME:NUMBER, from 0 to 100000"),
        ("bo,,main,,orders:" + "0" * 4_999 + "5,,1,", "must be NAME:NUMBER, from 1 to 10"),
        ("bo,,main,,,,1,chat:\u0663", "must be NAME:NUMBER, from 0 to 100000"),
        (f"bo,{'x' * 201},main,,,,1,", "must be at most 200 characters"),
        ('bo,"open', "line 2: is no row of a table"),
    ],
)
def test_a_wrong_cell_is_told_by_line_column_value_and_cure(cells: str, told: str) -> None:
    (said,) = mistakes(f"{TABLE.splitlines()[0]}\n{cells}\n")
    assert said.startswith("agents.csv: line 2")
    assert told in said


def test_every_wrong_cell_is_told_and_lines_are_counted_as_an_editor_counts_them() -> None:
    text = "agent_id,name,capacity\nada,'A',x\n\nbo,\"two\nlines\",1\nbo,,2\ncy,,-1\n"
    assert mistakes(text) == [
        "agents.csv: line 2, capacity: 'x': must be a whole number from 0 to 100000, such as 100",
        "agents.csv: line 6, agent_id: 'bo': stands in line 4 already",
        "agents.csv: line 7, capacity: '-1': must be a whole number from 0 to 100000, such as 100",
    ]


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ("agent_id,queue", "no such column; known: agent_id, name"),
        ("agent_id,name,Name", "stands twice"),
        ("name,capacity", "needs the column agent_id"),
    ],
)
def test_the_header_is_checked(header: str, told: str) -> None:
    (said,) = mistakes(f"{header}\nada,x,y\n")
    assert "line 1, header" in said
    assert told in said


def test_lines_are_counted_behind_a_first_line_that_names_the_separator() -> None:
    (said,) = mistakes("sep=;\nagent_id;capacity;\nada;1;\nbo;x;\n")
    assert said.startswith("agents.csv: line 4, capacity: 'x'")


def test_an_empty_file_is_told_what_it_lacks() -> None:
    assert "the first line names the columns: agent_id" in mistakes("")[0]


def test_a_domain_that_was_chosen_is_the_only_one() -> None:
    assert agents("agent_id,capacity\nada,1\n", domain="main")[0].domain == "main"
    (said,) = mistakes("agent_id,domain,capacity\nada,other,1\n", domain="main")
    assert "only main is imported (--domain)" in said


def test_a_column_that_is_missing_leaves_what_there_is_and_an_empty_cell_does_not() -> None:
    (found,) = agents("agent_id,skills,capacity\nada,,\n", ADA)
    assert found == ADA.model_copy(update={"skills": {}})
    (change,) = compare({("main", "ada"): ADA}, [found])
    assert (change.kind, change.details) == (
        "changed",
        ("skills orders: 6 → –", "skills payments: 3 → –"),
    )


def test_the_difference_says_who_is_added_changed_removed_and_left_alone() -> None:
    present = {
        (agent.domain, agent.agent_id): agent
        for agent in (
            ADA,
            ADA.model_copy(update={"agent_id": "bo"}),
            ADA.model_copy(update={"agent_id": "cy"}),
            ADA.model_copy(update={"agent_id": "di", "domain": "other"}),
        )
    }
    wanted = [
        ADA,
        ADA.model_copy(update={"agent_id": "bo", "capacity": 80, "queues": ("technical",)}),
        ADA.model_copy(update={"agent_id": "el"}),
    ]
    kinds = {c.key: (c.kind, c.details) for c in compare(present, wanted, remove_from={"main"})}
    assert kinds == {
        ("main", "ada"): ("unchanged", ()),
        ("main", "bo"): (
            "changed",
            ("queues: +technical", "queues: -service", "capacity: 100 → 80"),
        ),
        ("main", "cy"): ("removed", ()),
        ("main", "el"): ("added", ()),
    }
    assert not [c for c in compare(present, wanted) if c.kind == "removed"]
    swapped = ADA.model_copy(update={"queues": ("b", "a")})
    (same,) = compare({("main", "ada"): ADA.model_copy(update={"queues": ("a", "b")})}, [swapped])
    assert same.kind == "unchanged"


def test_an_agents_file_names_what_there_is() -> None:
    file = AgentsModel.model_validate(
        {
            "agents": {
                "ada": {
                    "queues": ["attic"],
                    "skills": {"x": 1},
                    "languages": {"xx": 1},
                    "capacity": 1,
                }
            }
        }
    )
    said = list(name_mistakes(agent_events(file), "new.yaml", ROUTING))
    assert [one.partition(": no such")[0] for one in said] == [
        "new.yaml: agents.ada.queues: 'attic'",
        "new.yaml: agents.ada.skills: 'x'",
        "new.yaml: agents.ada.languages: 'xx'",
    ]


def test_one_agent_in_two_domains_does_not_fit_into_a_yaml_file() -> None:
    with pytest.raises(ValueError, match="--domain"):
        to_document([ADA, ADA.model_copy(update={"domain": "other"})])


NAMES = st.text("abcdefgh<>&\"';=,ışğ й-_", min_size=1, max_size=12).map(str.strip)
LEVELS = st.integers(1, 10)
INSTANTS = st.datetimes(timezones=st.just(UTC))
ROSTERS = st.lists(
    st.builds(
        AgentSet,
        domain=st.just("main"),
        agent_id=st.text("abcXYZ019@._-", min_size=1, max_size=8),
        name=NAMES,
        queues=st.lists(st.sampled_from(sorted(ROUTING.queues)), unique=True).map(tuple),
        skills=st.dictionaries(st.sampled_from(sorted(ROUTING.skills)), LEVELS),
        languages=st.dictionaries(st.sampled_from(sorted(ROUTING.languages)), LEVELS),
        capacity=st.integers(0, 100_000),
        channel_limits=st.dictionaries(st.sampled_from(["chat", "voice"]), st.integers(0, 99)),
        calendar=st.none() | st.just("shop"),
        shifts=st.lists(st.builds(Shift, starts_at=INSTANTS, ends_at=INSTANTS), max_size=2).map(
            tuple
        ),
        auto_accept=st.booleans(),
    ),
    max_size=5,
    unique_by=lambda agent: agent.agent_id,
)


@given(ROSTERS)
def test_a_roster_written_and_read_is_the_same_as_a_table_and_as_yaml(
    roster: list[AgentSet],
) -> None:
    present = {(agent.domain, agent.agent_id): agent for agent in roster}
    for found in (
        agents(to_table(roster)),
        agent_events(
            AgentsModel.model_validate(yaml.safe_load(yaml.safe_dump(to_document(roster))))
        ),
    ):
        assert [
            c.details
            for c in compare(present, found, remove_from={"main"})
            if c.kind != "unchanged"
        ] == []
        assert len(found) == len(roster)


def test_the_table_has_every_field_of_an_agent() -> None:
    assert set(COLUMNS) == set(AgentSet.model_fields)
