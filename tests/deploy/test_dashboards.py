"""Grafana's dashboards: the files are what the code writes, and what every panel and every board owes its reader is there."""

import json
from pathlib import Path
from typing import Any

import pytest

from deploy.grafana import boards, build
from deploy.grafana.panels import Board, Panel, Query, Row
from deploy.test.draw_dashboards import page, spoken
from deploy.test.prometheus_stand import Answers

ROOT = Path(__file__).parents[2]
BY_UID = pytest.mark.parametrize("board", boards.ALL, ids=lambda board: board.uid)


def made(board: Board) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(build.files()[f"{board.uid}.json"])
    return found


def test_the_files_are_what_the_boards_say() -> None:
    there = {path.name: path.read_text(encoding="utf-8") for path in build.FOLDER.glob("*.json")}
    assert there == build.files(), "run: python -m deploy.grafana.build"


def test_the_boards_keep_the_ids_that_links_go_by() -> None:
    assert [board.uid for board in boards.ALL] == [
        "signalbox-overview",
        "signalbox-routing",
        "signalbox-sla",
        "signalbox-channels",
        "signalbox-ledger",
        "signalbox-golden",
    ]


@BY_UID
def test_every_panel_says_what_it_shows_and_in_which_unit(board: Board) -> None:
    for panel in made(board)["panels"]:
        if panel["type"] == "row":
            continue
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["targets"], panel["title"]


@BY_UID
def test_nothing_asks_another_source_than_the_one_that_is_chosen(board: Board) -> None:
    content = made(board)
    (source,) = (one for one in content["templating"]["list"] if one["type"] == "datasource")
    assert (source["name"], source["query"]) == ("datasource", "prometheus")
    asked = [panel for panel in content["panels"] if panel["type"] != "row"]
    asked += [target for panel in asked for target in panel["targets"]]
    asked += [one for one in content["templating"]["list"] if one["type"] == "query"]
    assert {one["datasource"]["uid"] for one in asked} == {"${datasource}"}


@BY_UID
def test_panels_do_not_lie_on_each_other_nor_share_a_title(board: Board) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in made(board)["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
    titles = [panel.title for panel in board.panels]
    assert len(titles) == len(set(titles))


@BY_UID
def test_the_page_on_dashboards_shows_each(board: Board) -> None:
    page_text = (ROOT / "docs" / "dashboards.md").read_text(encoding="utf-8")
    picture = f"pictures/dashboard-{board.uid.removeprefix('signalbox-')}.png"
    assert f"({picture})" in page_text
    assert (ROOT / "docs" / picture).is_file()
    assert f"`{board.uid}`" in page_text


@pytest.mark.parametrize(
    ("value", "unit", "said"),
    [
        (0.25, "s", "250 ms"),
        (0.0, "s", "0 s"),
        (90.0, "s", "90 s"),
        (180.0, "s", "3 min"),
        (172_800.0, "s", "2 d"),
        (0.955, "percentunit", "95.5 %"),
        (12_345.0, "short", "12,345"),
        (2.5, "reqps", "2.5 /s"),
    ],
)
def test_a_picture_names_values_as_people_read_them(value: float, unit: str, said: str) -> None:
    assert spoken(value, unit) == said


def test_a_picture_draws_what_was_answered_and_says_why_a_panel_is_empty() -> None:
    there = Query("x", "{{queue}} <b>")
    absent = Query("y")
    board = Board(
        "sample",
        "Sample",
        "For a test.",
        (
            Row(
                "Row",
                (
                    Panel("Lines", "Some.", "s", (there,)),
                    Panel("Nothing", "None.", "s", (absent,), quiet="No vendor writes."),
                ),
            ),
        ),
    )
    answers: dict[str, dict[Query, tuple[Answers, ...]]] = {
        "Lines": {there: (Answers({"queue": "billing"}, ((0.0, 1.0), (60.0, 3.0))),)},
        "Nothing": {absent: ()},
    }
    drawn = page(board, answers, (0.0, 60.0))
    assert "billing &lt;b&gt;" in drawn
    assert "No vendor writes." in drawn
    assert drawn.count("<polyline") == 1
