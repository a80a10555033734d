"""What the chart renders, as it is kept for review: one file a set of values, without what is kept elsewhere already.

Rules, dashboards, the example policy and the tests' scripts are files of the repository; a golden that repeated them would
change with each of them and tell nothing. So they are replaced by a word on where they come from.
"""

from pathlib import Path
from typing import Any, Final

import yaml

CHART: Final = Path(__file__).with_name("signalbox")
SETS: Final = CHART / "ci"
GOLDENS: Final = SETS / "rendered"
NAMES: Final = tuple(sorted(path.stem for path in SETS.glob("*.yaml")))


def shown(manifest: str) -> str:
    """Return a rendered manifest as it is kept, in the order of kinds and names."""
    objects = [one for one in yaml.safe_load_all(manifest) if one]
    for one in objects:
        _shorten(one)
    objects.sort(key=lambda one: (one["kind"], one["metadata"]["name"]))
    return "---\n".join(yaml.safe_dump(one, sort_keys=False, width=110) for one in objects)


def _shorten(one: Any) -> None:
    name = one["metadata"]["name"]
    match one["kind"]:
        case "PrometheusRule":
            one["spec"] = f"(deploy/prometheus/rules/{name.rpartition('-')[2]}.yaml)"
        case "ConfigMap" if "-policy" in name:
            one["data"] = "(files of the policy folder)"
        case "ConfigMap" if "-dashboard-" in name:
            one["data"] = {key: f"(deploy/grafana/dashboards/{key})" for key in one["data"]}
        case "Deployment":
            template = one["spec"]["template"]
            annotations = template["metadata"]["annotations"]
            if "checksum/policy" in annotations:
                annotations["checksum/policy"] = "(of the policy folder)"
        case "Pod":
            for container in one["spec"]["containers"]:
                container["command"][-1] = "(files/probe)"
        case _:
            pass
