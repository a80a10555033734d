"""`elsewhere.yaml`: what is taken, and that every mistake is named by file, path, value and what is allowed."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from chassis import policy
from chassis.errors import PolicyError
from chassis.policy import PolicyFiles
from cli.policy import examine
from services.router.adapters import KINDS
from services.router.core.elsewhere import policy as elsewhere_policy
from services.router.core.elsewhere.policy import (
    CHANNELS_FILE,
    ELSEWHERE_FILE,
    SECRET_FIELD,
    SECRET_REFERENCE,
    ChannelNamesModel,
    Desk,
    ElsewhereModel,
    Messenger,
    Places,
    unlisted_agents,
)
from services.router.core.policy.policy_model import (
    AGENTS_FILE,
    ROUTING_FILE,
    AgentsModel,
    PolicyMistake,
    RoutingModel,
)

EXAMPLE = Path(__file__).parents[3] / "policy"

CHANNELS = """
mail: {support: {addresses: [support@lantern-oak.example]}}
channels:
  desk: {channel: zendesk, secret: 'env:X'}
  chat: {channel: intercom}
"""
ZENDESK = """
    vendor: zendesk
    account: desk
    url: https://lantern-oak.zendesk.com/
    client_id: signalbox
    client_secret: env:SIGNALBOX_ZENDESK
"""
SLACK = """
    vendor: slack
    token: file:/run/secrets/slack
"""
TRELLO = """
    vendor: trello
    key: env:KEY
    token: env:TOKEN
    board: 5f0aa1bb22cc33dd44ee55ff
    lists: {assigned: 5f0aa1bb22cc33dd44ee5502}
"""


def read(folder: Path, text: str) -> Places:
    """Read a policy folder that has this `elsewhere.yaml` beside the example's roster and rules."""
    for name in (ROUTING_FILE, AGENTS_FILE):
        (folder / name).write_text((EXAMPLE / name).read_text("utf-8"), "utf-8")
    (folder / CHANNELS_FILE).write_text(CHANNELS, "utf-8")
    (folder / ELSEWHERE_FILE).write_text(text, "utf-8")

    def build(parsed: Any, _: Path, __: str) -> Places:
        try:
            return elsewhere_policy.build(parsed, KINDS)
        except PolicyMistake as mistake:
            raise PolicyError(
                mistake.file, mistake.path, mistake.value, mistake.allowed
            ) from mistake

    files: dict[str, type[BaseModel]] = {
        ROUTING_FILE: RoutingModel, AGENTS_FILE: AgentsModel,
        CHANNELS_FILE: ChannelNamesModel, ELSEWHERE_FILE: ElsewhereModel,
    }  # fmt: skip
    return policy.load(folder, PolicyFiles(files, build))


def place(text: str, more: str = "") -> str:
    return f"places:\n  one:{text}{more}"


def test_the_example_is_in_order_and_tells_nobody() -> None:
    model = policy.parse(ELSEWHERE_FILE, policy.read_yaml(EXAMPLE / ELSEWHERE_FILE), ElsewhereModel)
    assert elsewhere_policy.build({ELSEWHERE_FILE: model}, KINDS).places == {}
    assert elsewhere_policy.build({}, KINDS).places == {}


def test_the_examples_comments_are_places_that_work(tmp_path: Path) -> None:
    lines = (EXAMPLE / ELSEWHERE_FILE).read_text("utf-8").splitlines()
    start = lines.index("places: {}")
    text = "\n".join(["places:", *(line.removeprefix("#") for line in lines[start + 1 :])])
    found = read(tmp_path, text)
    assert {name: one.vendor for name, one in found.places.items()} == {
        "desk": "zendesk", "team": "slack", "board": "trello",
    }  # fmt: skip


def test_a_place_is_read_with_its_vendors_settings(tmp_path: Path) -> None:
    found = read(
        tmp_path, place(ZENDESK, "    agents: {ada: '256'}\n    groups: {technical: '31'}\n")
    )
    one = found.places["one"].settings
    assert isinstance(one, Desk)
    assert (one.account, one.agents, one.groups) == ("desk", {"ada": "256"}, {"technical": "31"})
    assert one.url == "https://lantern-oak.zendesk.com"  # type: ignore[attr-defined]
    team = read(tmp_path, place(SLACK)).places["one"].settings
    assert isinstance(team, Messenger)
    assert (team.to, team.tell) == ("agent", ("offered", "assigned"))


@pytest.mark.parametrize(
    ("text", "path", "allowed"),
    [
        (place("\n    vendor: jira\n"), "places.one.vendor", "must be one of freshdesk, gorgias"),
        (place(ZENDESK, "    agents: {ada: 'Ada L'}\n"), "places.one.agents.ada", "String should match"),
        (place(ZENDESK, "    agents: {ada: 'U0ADA'}\n"), "places.one.agents.ada", "must be a user's id or mail address"),
        (place(ZENDESK, "    groups: {techical: '31'}\n"), "places.one.groups", "no such queue in routing.yaml"),
        (place(ZENDESK, "    groups: {technical: tier2}\n"), "places.one.groups.technical", "must be a group's id"),
        (place(ZENDESK.replace("account: desk", "account: chat")), "places.one.account", "no such account of the channel zendesk in channels.yaml; known: desk"),
        (place(ZENDESK.replace("https://", "http://")), "places.one.url", "must be an https address"),
        (place(ZENDESK.replace("https://", "https://u:p@")), "places.one.url", "without user, password"),
        (place(ZENDESK.replace("env:SIGNALBOX_ZENDESK", "s3cret")), "places.one.client_secret", "such as env:ZENDESK_CLIENT_SECRET or file:/run/secrets/client_secret"),
        (place(ZENDESK.replace("    client_id: signalbox\n", "")), "places.one", "needs client_id and client_secret"),
        (place(ZENDESK, "    tags: x\n"), "places.one.tags", "is not known here; known: vendor, account"),
        (place("\n    vendor: slack\n"), "places.one.token", "is required"),
        (place(SLACK, "    to: '#support'\n"), "places.one.to", "must be `agent`, or a channel's id"),
        (place(SLACK, "    tell: [solved]\n"), "places.one.tell.0", "String should match"),
        (place(SLACK, "    agents: {ada: ada.l}\n"), "places.one.agents.ada", "must be a member's id"),
        (place(SLACK, "    queues: [billing]\n"), "places.one.queues.0", "no such queue in routing.yaml"),
        (place(SLACK, "    accounts: [suport]\n"), "places.one.accounts.0", "no such account in channels.yaml; known: chat, desk, support"),
        (place(TRELLO.replace("5f0aa1bb22cc33dd44ee5502", "Doing")), "places.one.lists", "must be a list's id"),
        (place(TRELLO, "    agents: {ada: 'ada@x.example'}\n"), "places.one.agents.ada", "must be a member's id"),
        ("link: https://desk.example/tickets\n", "link", "must be an address with {reference}"),
        ("link: 'https://desk.example/{ref}'\n", "link", "must be an address with {reference}"),
        ("link: 'http://desk.example/{reference}'\n", "link", "must be an https address"),
        ("news_hours: 0\n", "news_hours", "greater than 0"),
        ("retry: {delays_seconds: []}\n", "retry.delays_seconds", "at least 1"),
        ("retry: {attempts: 3}\n", "retry.attempts", "unknown key; known here: delays_seconds"),
        ("plcaes: {}\n", "plcaes", "unknown key; known here: link"),
    ],
)  # fmt: skip
def test_a_mistake_is_refused_with_its_path_and_what_is_allowed(
    tmp_path: Path, text: str, path: str, allowed: str
) -> None:
    with pytest.raises(PolicyError) as refused:
        read(tmp_path, text)
    assert refused.value.file == ELSEWHERE_FILE
    assert refused.value.path == path
    assert allowed in refused.value.allowed


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (place(ZENDESK.replace("env:SIGNALBOX_ZENDESK", "S3CRET")), "places.one.client_secret"),
        (place(ZENDESK, "    api_token: S3CRET\n"), "places.one.api_token"),
        (place(ZENDESK, "    apikey: S3CRET\n"), "places.one.apikey"),
        (place(ZENDESK.replace("https://", "https://u:S3CRET@")), "places.one.url"),
        (place(ZENDESK.replace("https://", "u:S3CRET@")), "places.one.url"),
        (place(ZENDESK.replace(".com/", ".com/?key=S3CRET")), "places.one.url"),
        (place(ZENDESK.replace("client_id: signalbox", "email: S3CRET")), "places.one"),
        (place(TRELLO.replace("env:KEY", "S3CRET")), "places.one.key"),
        (place(TRELLO.replace("env:TOKEN", "S3CRET")), "places.one.token"),
        (place(TRELLO.replace("board: 5f0aa1bb22cc33dd44ee55ff", "key2: S3CRET")), "places.one.board"),
    ],
)  # fmt: skip
def test_what_may_be_a_secret_is_repeated_in_no_refusal(
    tmp_path: Path, text: str, path: str
) -> None:
    with pytest.raises(PolicyError) as refused:
        read(tmp_path, text)
    assert refused.value.path == path
    error: BaseException | None = refused.value
    while error is not None:
        assert "S3CRET" not in f"{error}{getattr(error, 'value', '')}"
        error = error.__cause__


def test_every_field_that_refers_to_a_secret_has_a_name_that_says_so() -> None:
    for vendor, kind in KINDS.items():
        properties = kind.model_json_schema()["properties"]
        found = {name for name, one in properties.items() if SECRET_REFERENCE.pattern in str(one)}
        found |= {
            name
            for name, one in properties.items()
            if any(SECRET_REFERENCE.pattern == part.get("pattern") for part in one.get("anyOf", ()))
            or one.get("pattern") == SECRET_REFERENCE.pattern
        }
        assert found, vendor
        assert {name for name in found if not SECRET_FIELD.search(name)} == set(), vendor


def test_an_agent_who_is_known_from_elsewhere_than_the_file_may_have_a_user(tmp_path: Path) -> None:
    found = read(tmp_path, place(ZENDESK, "    agents: {olga: '256', ada: '257'}\n"))
    settings = found.places["one"].settings
    assert settings.agents == {"olga": "256", "ada": "257"}
    assert unlisted_agents(settings, {"ada", "grace"}) == ["olga"]


def test_the_check_warns_of_users_of_agents_whom_the_file_does_not_name(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(EXAMPLE, tmp_path / "policy"))
    slip = "    agents: {adda: U0ADA, 'f3b0': U0OLGA, ada: U0ADA2}\n"
    (folder / ELSEWHERE_FILE).write_text(place(SLACK, slip), "utf-8")
    _, findings = examine(folder)
    assert [one for one in findings if one.level == "error"] == []
    told = {one.path: one.message for one in findings if one.file == ELSEWHERE_FILE}
    assert "Is 'ada' meant?" in told["places.one.agents.adda"]
    assert "only right if the directory or a table brings them" in told["places.one.agents.f3b0"]
    assert "places.one.agents.ada" not in told


def test_an_account_has_one_helpdesk(tmp_path: Path) -> None:
    text = f"places:\n  one:{ZENDESK}  two:{ZENDESK}"
    with pytest.raises(PolicyError, match="an account's tickets have one helpdesk; one has them"):
        read(tmp_path, text)


def test_hubspots_teams_cannot_be_set_and_that_is_said(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    text = place(
        "\n    vendor: hubspot\n    account: desk\n    access_token: env:T\n    groups: {technical: '1'}\n"
    )
    with pytest.raises(PolicyError, match="HubSpot's teams cannot be set"):
        read(tmp_path, text)
