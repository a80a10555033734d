"""`signalbox roster import` and `export`: the difference is shown, a wrong file sends nothing, and twice is once."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli import roster as command
from cli.main import app
from schemas.roster import AgentSet

POLICY = Path(__file__).parents[3] / "policy"
ADA = AgentSet(
    domain="main",
    agent_id="ada",
    name="Ada",
    queues=("service",),
    skills={"orders": 6},
    languages={"en": 9},
    capacity=100,
)
BO = ADA.model_copy(update={"agent_id": "bo", "name": "Bo"})
CY = ADA.model_copy(update={"agent_id": "cy", "name": "Cy"})
TABLE = """\
agent_id;name;queues;skills;languages;capacity
ada;Ada;service;orders:6;en:9;100
bo;Bo;service technical;orders:7;en:9;100
di;Di;technical;api:5;tr:8;80
"""


class Router:
    """The router's tables and the gateway, as far as a command sees them."""

    def __init__(self) -> None:
        self.present = {("main", agent.agent_id): agent for agent in (ADA, BO, CY)}
        self.provisioned: set[tuple[str, str]] = set()
        self.sent: list[tuple[str, str]] = []

    async def read(self, dsn: str, workspace: str) -> Any:
        return dict(self.present), self.provisioned

    async def send(self, url: str, key: str, due: Any) -> None:
        for change in due:
            self.sent.append((change.kind, change.key[1]))
            if change.kind == "removed":
                del self.present[change.key]
            else:
                self.present[change.key] = change.agent


@pytest.fixture
def router(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Router:
    shutil.copytree(POLICY, tmp_path / "policy")
    for name, value in (
        ("SIGNALBOX_POLICY", str(tmp_path / "policy")),
        ("SIGNALBOX_KAFKA", "127.0.0.1:1"),
        ("SIGNALBOX_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none"),
        ("SIGNALBOX_API_KEY_CONSOLE", "key"),
        ("COLUMNS", "200"),
    ):
        monkeypatch.setenv(name, value)
    made = Router()
    monkeypatch.setattr(command, "_present", made.read)
    monkeypatch.setattr(command, "_send", made.send)
    return made


def run(*words: str, typed: str = "") -> tuple[int, str]:
    done = CliRunner().invoke(app, ["roster", *words], input=typed)
    told = done.output + (str(done.exception) if done.exception is not None else "")
    return done.exit_code, told


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "agents.csv"
    path.write_text(TABLE, encoding="utf-8-sig")
    return path


def test_the_difference_is_shown_asked_about_and_sent(router: Router, table: Path) -> None:
    code, said = run("import", str(table), typed="y\n")
    assert code == 0, said
    assert "1 added, 1 changed, 0 removed, 1 unchanged." in said
    assert "queues: +technical; skills orders: 6 → 7" in said
    assert "the router has them" in said
    assert router.sent == [("changed", "bo"), ("added", "di")]
    code, said = run("import", str(table))
    assert code == 0
    assert "0 added, 0 changed, 0 removed, 3 unchanged." in said
    assert len(router.sent) == 2


def test_no_is_no_and_a_dry_run_asks_nothing(router: Router, table: Path) -> None:
    assert run("import", str(table), typed="n\n")[0] != 0
    code, said = run("import", str(table), "--dry-run")
    assert code == 0
    assert "Nothing was changed" in said
    assert router.sent == []


def test_agents_that_are_missing_go_only_when_told_so(router: Router, table: Path) -> None:
    code, said = run("import", str(table), "--remove-missing", "--yes")
    assert code == 0, said
    assert ("removed", "cy") in router.sent
    empty = table.with_name("empty.csv")
    empty.write_text("agent_id,capacity\n", encoding="utf-8")
    code, said = run("import", str(empty), "--remove-missing", "--domain", "main", "--yes")
    assert code != 0
    assert "would remove everybody" in said


def test_whom_an_identity_provider_looks_after_is_left_to_it(router: Router, table: Path) -> None:
    router.provisioned = {("main", "cy")}
    code, said = run("import", str(table), "--remove-missing", "--yes")
    assert code == 0, said
    assert "1 agents that are not in the file stay" in said
    assert ("main", "cy") in router.present
    router.provisioned = {("main", "ada")}
    table.write_text(TABLE.replace("orders:6", "orders:1"), encoding="utf-8")
    code, said = run("import", str(table), "--yes")
    assert code != 0
    assert "ada: an identity provider looks after them (SCIM)" in said
    # Nor does whoever was let go there come back by a file.
    router.provisioned = {("main", "di")}
    router.sent.clear()
    del router.present["main", "di"]
    code, said = run("import", str(table), "--yes")
    assert code != 0
    assert "di: an identity provider looks after them (SCIM)" in said
    assert router.sent == []


def test_a_wrong_cell_sends_nothing(router: Router, table: Path) -> None:
    table.write_text(TABLE.replace("api:5", "apis:5").replace(";80", ";lots"), encoding="utf-8")
    code, said = run("import", str(table), "--yes")
    assert code != 0
    assert "agents.csv: line 4, skills: 'apis': no such skill; known: " in said
    assert "agents.csv: line 4, capacity: 'lots': must be a whole number" in said
    assert "2 things are wrong, so nothing was sent" in said
    assert router.sent == []


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("agents.csv", b"agent_id,name\nada,\xdf\n", "line 2 is not UTF-8"),
        ("agents.xlsx", b"", "must end in .csv, .yaml or .yml"),
        ("agents.yaml", b"agents: {ada: {queues: [attic], capacity: 1}}", "'attic': no such queue"),
        ("agents.yaml", b"agents: {ada: {queues: [service]}}", "agents.ada.capacity"),
        ("agents.yaml", b"agents: {a/b: {queues: [], capacity: 1}}", "without a space or a slash"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_why(
    router: Router, tmp_path: Path, name: str, content: bytes, told: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    code, said = run("import", str(path), "--yes")
    assert code != 0
    assert told in said
    assert router.sent == []


@pytest.mark.parametrize(
    "content", ["agents: [1]", "agents: ada", "agents: {ada: [1]}", "agents:", "- agents", "", "7"]
)
@pytest.mark.parametrize("domain", [(), ("--domain", "main")])
def test_a_yaml_file_of_another_form_is_told_what_it_is_to_be(
    router: Router, tmp_path: Path, content: str, domain: tuple[str, ...]
) -> None:
    path = tmp_path / "agents.yaml"
    path.write_text(content, encoding="utf-8")
    code, said = run("import", str(path), "--yes", *domain)
    assert code != 0 or "0 added, 0 changed, 0 removed" in said
    assert "Error" not in said.replace("PolicyError", "")
    assert router.sent == []


async def test_an_agents_id_stands_in_a_path_as_it_is_written_there() -> None:
    """An id may hold signs that mean something in an address: none of them leads to somebody else."""
    sent: list[tuple[str, str]] = []

    class Door:
        async def send(self, method: str, path: str, body: Any) -> None:
            sent.append((method, path))

    odd = ADA.model_copy(update={"agent_id": "ada?x=1#2%41"})
    await command.set_agents(Door(), (odd,), "available")  # type: ignore[arg-type]
    assert sent == [
        ("PUT", "/v1/agents/ada%3Fx%3D1%232%2541"),
        ("POST", "/v1/agents/ada%3Fx%3D1%232%2541/presence"),
    ]


def test_a_domain_that_there_is_not_is_told(router: Router, table: Path) -> None:
    code, said = run("import", str(table), "--domain", "mian")
    assert code != 0
    assert "known: main" in said


@pytest.mark.parametrize("form", ["csv", "yaml"])
def test_what_is_exported_is_imported_without_a_change(
    router: Router, tmp_path: Path, form: str
) -> None:
    code, said = run("export", f"--{form}")
    assert code == 0
    path = tmp_path / f"out.{form}"
    path.write_text(said, encoding="utf-8")
    code, said = run("import", str(path), "--remove-missing", "--yes")
    assert code == 0, said
    assert "0 added, 0 changed, 0 removed, 3 unchanged." in said


def test_export_asks_for_one_form(router: Router) -> None:
    assert "--csv or --yaml" in run("export")[1]


def test_an_agent_of_the_routers_table_is_read_whole() -> None:
    row = {
        "domain": "main",
        "agent_id": "ada",
        "name": "Ada",
        "capacity": 100,
        "profile": '{"queues": ["service"], "skills": {"orders": 6}, "languages": {"en": 9}, "limits": {"chat": 3}, "place": 4}',
        "duty": '{"calendar": "shop", "auto_accept": true, "on_shift": false}',
    }
    assert command.agent_of_row(row) == ADA.model_copy(
        update={"channel_limits": {"chat": 3}, "calendar": "shop", "auto_accept": True}
    )
