"""Service level objectives: what each counts, how much is allowed, and the rules that follow from it.

`python -m deploy.prometheus.slo` writes `rules/slo.yaml`; `--check` compares. docs/slo.md says why each is as it is.

Every objective has the same four alerts: two that page (14.4 times the allowance over an hour, 6 times over six hours) and two that
write a ticket (3 times over a day, the allowance itself over three days), each only while a shorter window agrees, so that it ends
soon after the trouble does. The factors and windows are those of Google's SRE Workbook, chapter 5, table 5-8. A share of few events says
nothing: so many bad ones (`floor`) must have been counted in the long window.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

RULES: Final = Path(__file__).parent / "rules" / "slo.yaml"


@dataclass(frozen=True, slots=True)
class Burn:
    """One speed at which an allowance is used up: `factor` times as fast as thirty days last."""

    factor: float
    long: str
    short: str
    severity: str
    follows: str


BURNS: Final = (
    Burn(14.4, "1h", "5m", "page", "at this pace an allowance of thirty days lasts two"),
    Burn(6, "6h", "30m", "page", "at this pace an allowance of thirty days lasts five"),
    Burn(3, "1d", "2h", "ticket", "at this pace an allowance of thirty days lasts ten"),
    Burn(
        1, "3d", "6h", "ticket", "at this pace nothing of the allowance is left after thirty days"
    ),
)
SOON: Final = ("5m", "30m", "1h")
LATER: Final = ("2h", "6h", "1d", "3d", "30d")
"""Looked at every other minute, since they move slowly and cost more."""


@dataclass(frozen=True, slots=True)
class Objective:
    """What is promised of the service itself.

    `share` of the events are to be good. `total` and `bad` are PromQL for the events of a window and the bad ones among them, with
    `{window}` where it goes. `only` is a condition, with `{short}`, without which nothing is to be alerted.
    """

    name: str
    alert: str
    service: str
    share: float
    total: str
    bad: str
    floor: int
    summary: str
    what: str
    only: str = ""


def _slower_than(series: str, seconds: str) -> tuple[str, str]:
    total = f"sum(increase({series}_count[{{window}}]))"
    within = f'sum(increase({series}_bucket{{{{le="{seconds}"}}}}[{{window}}]))'
    return total, f"{total} - {within}"


def _minutes(name: str) -> tuple[str, str]:
    series = f"signalbox_slo:{name}:minute"
    return f"count_over_time({series}[{{window}}])", f"sum_over_time({series}[{{window}}])"


_OFFERS = _slower_than("signalbox_router_wait_seconds", "60.0")
_BREACHES = _slower_than("signalbox_sla_breach_detection_seconds", "1.0")
_NOTICES = _minutes("notices_late")
_BACKLOG = _minutes("backlog_old")

MINUTES: Final = {
    "notices_late": 'max(signalbox_notifier_oldest_unsent_seconds{status="requested"}) > bool 60',
    "backlog_old": (
        "clamp_max(\n"
        "  (max(signalbox_outbox_age_seconds) > bool 30)\n"
        "  +\n"
        "  (max(signalbox:lag:seconds) > bool 60 or vector(0)),\n"
        "  1\n"
        ")"
    ),
}
"""What is no event can be good or bad for a minute: 1 in a bad one."""

OBJECTIVES: Final = (
    Objective(
        name="gateway",
        alert="SignalboxGatewayUnavailable",
        service="ingest",
        share=0.999,
        total=(
            "sum(increase(signalbox_ingest_accepted_total[{window}]))"
            " + sum(increase(signalbox_ingest_repeated_total[{window}]))"
            " + sum(increase(signalbox_ingest_unavailable_total[{window}]))"
        ),
        bad="sum(increase(signalbox_ingest_unavailable_total[{window}]))",
        floor=10,
        summary="The gateway turns senders away",
        what="of what was sent to the gateway was put off with 503 or 451",
    ),
    Objective(
        name="offers",
        alert="SignalboxOffersLate",
        service="router",
        share=0.95,
        total=_OFFERS[0],
        bad=_OFFERS[1],
        floor=10,
        summary="Tickets wait for an offer although people are there",
        what="of the offers came more than a minute after the ticket did",
        only="min_over_time(signalbox_slo:agents:available[{short}]) > 0",
    ),
    Objective(
        name="detection",
        alert="SignalboxBreachesSeenLate",
        service="sla",
        share=0.99,
        total=_BREACHES[0],
        bad=_BREACHES[1],
        floor=5,
        summary="Broken promises are noticed late",
        what="of the breaches were noticed more than a second after their deadline",
    ),
    Objective(
        name="notices",
        alert="SignalboxNoticesLate",
        service="notifier",
        share=0.99,
        total=_NOTICES[0],
        bad=_NOTICES[1],
        floor=3,
        summary="Customers are told late",
        what="of the minutes had a notice that had waited for a minute to be sent",
    ),
    Objective(
        name="backlog",
        alert="SignalboxBacklogOld",
        service="all",
        share=0.995,
        total=_BACKLOG[0],
        bad=_BACKLOG[1],
        floor=3,
        summary="Events wait for the services",
        what="of the minutes had events that had waited half a minute for Kafka, or a minute for their reader",
    ),
)

_HEAD = """\
# Generated by `python -m deploy.prometheus.slo`. Change it there.
# What is promised of the services themselves, and alerts on how fast the allowance is used up. docs/slo.md says what each counts.
# deploy/prometheus/tests/slo.yaml shows each fire and not fire.
#
# The rules read signalbox:lag:seconds, which chassis.yaml records: load both.
groups:
  # The share that is meant to be good. Here an installation that promises something else says so.
  - name: signalbox-slo-objectives
    rules:
"""


def _block(text: str, indent: int) -> str:
    return "\n".join(" " * indent + line if line else line for line in text.splitlines())


def _record(name: str, expr: str, labels: str = "") -> str:
    tail = f"\n        labels: {{{labels}}}" if labels else ""
    return f"      - record: {name}\n        expr: |-\n{_block(expr, 10)}{tail}\n"


def _windowed(windows: tuple[str, ...]) -> str:
    parts = []
    for window in windows:
        for objective in OBJECTIVES:
            label = f"slo: {objective.name}"
            for kind, expr in (("total", objective.total), ("bad", objective.bad)):
                parts.append(
                    _record(
                        f"signalbox_slo:{kind}:increase_{window}",
                        expr.format(window=window),
                        label,
                    )
                )
        parts.append(
            _record(
                f"signalbox_slo:bad:share_{window}",
                f"signalbox_slo:bad:increase_{window}\n/\n"
                f"(signalbox_slo:total:increase_{window} > 0)",
            )
        )
    return "".join(parts)


def _alert(objective: Objective, burn: Burn) -> str:
    chosen = f'{{slo="{objective.name}"}}'
    allowed = f"{burn.factor:g} * (1 - signalbox_slo:objective:share)"
    conditions = [
        f"signalbox_slo:bad:share_{burn.long}{chosen} > {allowed}",
        f"signalbox_slo:bad:share_{burn.short}{chosen} > {allowed}",
        f"signalbox_slo:bad:increase_{burn.long}{chosen} >= {objective.floor}",
    ]
    expr = "\nand\n".join(conditions)
    if objective.only:
        # An hour at least, so that the night's tickets do not page whoever comes in the morning.
        short = burn.short if burn.short.endswith("h") else "1h"
        expr += f"\nand on ()\n{objective.only.format(short=short)}"
    page = f"docs/runbooks/{objective.alert}.md"
    return f"""\
      - alert: {objective.alert}
        expr: |-
{_block(expr, 10)}
        labels:
          severity: {burn.severity}
          service: {objective.service}
          window: {burn.long}
        annotations:
          summary: "{objective.summary}"
          description: >-
            {{{{ $value | humanizePercentage }}}} {objective.what}, in the last {burn.long}, and it goes on: {burn.follows}.
          runbook_url: {page}
"""


def rules() -> str:
    """Return the file's text."""
    parts = [_HEAD]
    parts += [
        _record("signalbox_slo:objective:share", f"vector({one.share:g})", f"slo: {one.name}")
        for one in OBJECTIVES
    ]
    parts.append("\n  - name: signalbox-slo-minutes\n    interval: 1m\n    rules:\n")
    parts += [_record(f"signalbox_slo:{name}:minute", expr) for name, expr in MINUTES.items()]
    parts.append(
        _record(
            "signalbox_slo:agents:available",
            "sum(max by (domain) (signalbox_router_available_agents))",
        )
    )
    parts.append("\n  - name: signalbox-slo-soon\n    interval: 1m\n    rules:\n")
    parts.append(_windowed(SOON))
    parts.append("\n  - name: signalbox-slo-later\n    interval: 2m\n    rules:\n")
    parts.append(_windowed(LATER))
    parts.append("\n  - name: signalbox-slo-alerts\n    interval: 1m\n    rules:\n")
    parts.append("\n".join(_alert(one, burn) for one in OBJECTIVES for burn in BURNS))
    return "".join(parts)


def main() -> int:
    """Write the rules, or with `--check` say whether they are as they would be written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    if parser.parse_args().check:
        is_same = RULES.read_text(encoding="utf-8") == rules()
        if not is_same:
            sys.stderr.write(f"{RULES.name} is not what `python -m deploy.prometheus.slo` writes\n")
        return 0 if is_same else 1
    RULES.write_text(rules(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
