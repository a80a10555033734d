"""What every benchmark prints: figures, the limits of the same run, their ratios, and the settings they hold for."""

import math
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import msgspec
from rich.console import Console
from rich.table import Table


@dataclass(slots=True)
class Report:
    """One benchmark's outcome. `ratios` are figures over limits, so they survive other hardware."""

    bench: str
    figures: dict[str, float] = field(default_factory=dict)
    limits: dict[str, float] = field(default_factory=dict)
    ratios: dict[str, float] = field(default_factory=dict)
    settings: dict[str, str | int | float] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return one JSON object on one line."""
        return msgspec.json.encode(asdict(self)).decode()

    def show(self, console: Console) -> None:
        """Print a small table for people."""
        table = Table(title=f"signalbox bench {self.bench}", title_justify="left")
        table.add_column("what")
        table.add_column("value", justify="right")
        for title, values in (
            ("figures", self.figures),
            ("limits of this run", self.limits),
            ("ratios", self.ratios),
        ):
            table.add_section()
            table.add_row(f"[bold]{title}", "")
            for name, value in values.items():
                table.add_row(f"  {name}", f"{value:,.3g}" if abs(value) < 100 else f"{value:,.0f}")
        console.print(table)
        console.print(
            ", ".join(f"{name} {value}" for name, value in self.settings.items()), style="dim"
        )


def machine() -> dict[str, str | int | float]:
    """Return what the figures depend on besides the code."""
    return {
        "cpus": os.cpu_count() or 0,
        "python": platform.python_version(),
        "system": platform.system(),
    }


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that `share` (0 to 1) of `values` do not exceed; NaN where there are none."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, math.ceil(share * len(ordered)) - 1))]
