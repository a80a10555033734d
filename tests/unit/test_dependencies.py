"""What a fresh install brings along is what the services import."""

import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OURS = ("schemas", "hours", "chassis", "services", "cli", "bench")
ONLY_HERE = ("local", "testing")
"""Parts of the chassis for development, with an extra of their own."""
BROUGHT = {"pydantic_core": "pydantic", "starlette": "fastapi", "yarl": "aiohttp"}
"""What a dependency has in its own interface, and brings along."""

IMPORT = re.compile(
    r"^\s*(?:from (\w+)[\w.]* import |import (\w+)[\w.]*(?: as \w+)?(?:  #.*)?$)", re.MULTILINE
)


def test_all_that_a_service_imports_is_a_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {_normal(re.split(r"[\s\[<>=!~;]", one)[0]) for one in project["dependencies"]}
    distributions = packages_distributions()
    missing = {
        module: path
        for path in _sources()
        for module in _imported(path)
        if module not in sys.stdlib_module_names
        and module not in OURS
        and BROUGHT.get(module) not in declared
        and not declared & {_normal(name) for name in distributions.get(module, [module])}
    }
    assert missing == {}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _sources() -> Iterator[Path]:
    for package in OURS[:4]:
        for path in (ROOT / package).rglob("*.py"):
            if path.relative_to(ROOT / package).parts[0] not in ONLY_HERE:
                yield path


def _imported(path: Path) -> Iterator[str]:
    """Read by lines: all the trees would take ten times as long."""
    for found in IMPORT.finditer(path.read_text()):
        yield found[1] or found[2]
