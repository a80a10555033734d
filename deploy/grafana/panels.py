"""What a dashboard is made of, as data, and how Grafana wants it written.

A board is rows of panels; a panel says what it shows (`description`), in which unit, by which queries. Everything else (the data source
as a variable, the grid, legends, colours) is the same everywhere and stands here once.
"""

from dataclasses import dataclass, field
from typing import Any, Final, Literal

from grafana_foundation_sdk.builders import bargauge, common, dashboard, stat, table, timeseries
from grafana_foundation_sdk.builders import prometheus as queries
from grafana_foundation_sdk.models import common as common_model
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import prometheus as query_model

SOURCE: Final = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
HEIGHT: Final = {"figure": 4, "lines": 8, "stacked": 8, "bars": 8, "table": 8}
WIDTH: Final = 24

Kind = Literal["figure", "lines", "stacked", "bars", "table"]


@dataclass(frozen=True, slots=True)
class Query:
    """One question to Prometheus; `legend` names its answers (`{{label}}` is a label's value)."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel. `warn` and `bad` colour a figure from there on; `quiet` says why a demo has nothing to show here.

    `unit` is Grafana's id of it: `s`, `short`, `percentunit`, `reqps`, `ops`, `none`.
    """

    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    kind: Kind = "lines"
    width: int = 12
    warn: float | None = None
    bad: float | None = None
    quiet: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """Panels that belong together, under a heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """A choice at the board's top: the values of `label` of `series`, several or all of them."""

    name: str
    heading: str
    series: str
    label: str


@dataclass(frozen=True, slots=True)
class Board:
    """One dashboard. Its `uid` never changes: links and bookmarks go by it."""

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]
    variables: tuple[Variable, ...] = ()
    since: str = "now-3h"
    tags: tuple[str, ...] = field(default=("signalbox",))

    @property
    def panels(self) -> tuple[Panel, ...]:
        """All panels, in order."""
        return tuple(panel for row in self.rows for panel in row.panels)


def as_grafana(board: Board) -> model.Dashboard:
    """Return the board as Grafana's own model."""
    made = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(board.description)
        .tags(list(board.tags))
        .timezone("browser")
        .time(board.since, "now")
        .refresh("30s")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .readonly()
        .link(
            dashboard.DashboardLink("Signalbox")
            .type(model.DashboardLinkType.DASHBOARDS)
            .tags(["signalbox"])
            .as_dropdown(True)
            .keep_time(True)
            .include_vars(True)
        )
        .with_variable(
            dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus")
        )
    )
    for variable in board.variables:
        made.with_variable(
            dashboard.QueryVariable(variable.name)
            .label(variable.heading)
            .query(f"label_values({variable.series}, {variable.label})")
            .datasource(SOURCE)
            .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(model.VariableSort.ALPHABETICAL_ASC)
            .multi(True)
            .include_all(True)
            .all_value(".*")
            .current(model.VariableOption(selected=True, text="All", value="$__all"))
        )
    number = 0
    for row in board.rows:
        made.with_row(dashboard.Row(row.title))
        for panel in row.panels:
            number += 1
            made.with_panel(_panel(panel).id(number))
    return made.build()


def _panel(panel: Panel) -> Any:
    made: Any
    match panel.kind:
        case "figure":
            made = (
                stat.Panel()
                .graph_mode(common_model.BigValueGraphMode.AREA)
                .color_mode(common_model.BigValueColorMode.VALUE)
                .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
            )
        case "bars":
            made = (
                bargauge.Panel()
                .orientation(common_model.VizOrientation.HORIZONTAL)
                .display_mode(common_model.BarGaugeDisplayMode.BASIC)
                .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
            )
        case "table":
            made = table.Panel()
        case "lines" | "stacked":
            made = _lines(panel.kind == "stacked")
    made = (
        made.title(panel.title)
        .description(panel.description)
        .datasource(SOURCE)
        .unit(panel.unit)
        .height(HEIGHT[panel.kind])
        .span(panel.width)
        .thresholds(_thresholds(panel))
    )
    if panel.unit == "percentunit" and panel.kind == "lines":
        made = made.min(0)
    is_now = panel.kind in ("bars", "table")
    for at, query in enumerate(panel.queries):
        asked = queries.Dataquery().expr(query.expr).ref_id(chr(ord("A") + at)).datasource(SOURCE)
        asked = asked.legend_format(query.legend or "__auto")
        asked = asked.instant() if is_now else asked.range()
        if panel.kind == "table":
            asked = asked.format(query_model.PromQueryFormat.TABLE)
        made = made.with_target(asked)
    return made


def _lines(is_stacked: bool) -> timeseries.Panel:
    made = (
        timeseries.Panel()
        .line_width(1)
        .fill_opacity(40 if is_stacked else 8)
        .show_points(common_model.VisibilityMode.NEVER)
        .axis_soft_min(0)
        .legend(
            common.VizLegendOptions()
            .display_mode(common_model.LegendDisplayMode.TABLE)
            .placement(common_model.LegendPlacement.RIGHT)
            .show_legend(True)
            .calcs(["lastNotNull", "max"])
        )
        .tooltip(
            common.VizTooltipOptions()
            .mode(common_model.TooltipDisplayMode.MULTI)
            .sort(common_model.SortOrder.DESCENDING)
        )
    )
    if is_stacked:
        made.stacking(common.StackingConfig().mode(common_model.StackingMode.NORMAL).group("A"))
    return made


def _thresholds(panel: Panel) -> dashboard.ThresholdsConfig:
    steps = [model.Threshold(color="green", value=None)]
    if panel.warn is not None:
        steps.append(model.Threshold(color="orange", value=panel.warn))
    if panel.bad is not None:
        steps.append(model.Threshold(color="red", value=panel.bad))
    return dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps)
