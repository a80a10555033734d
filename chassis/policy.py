"""The policy folder: read, checked, reloaded. A wrong one is refused with file, path, value and what is allowed.

Each service declares which files it reads, as pydantic models (`services/<name>/core/policy.py`), and a cross-check.
The folder's version is a digest of the files' bytes; every decision records it. A reload that fails leaves the last
good policy in force, says so in a metric and a log line, and tries again when the files change again.
"""

import asyncio
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from chassis import logs, metrics
from chassis.errors import PolicyError

POLL_SECONDS = 1.0
"""How often the files are looked at. A ConfigMap changes by a swapped link, which file events miss on some mounts."""

FILE_BYTES_MAX = 4 * 1024 * 1024

P = TypeVar("P")
log = logs.get("policy")


@dataclass(frozen=True, slots=True)
class PolicyFiles(Generic[P]):
    """How a service reads its policy: which files, as what, and how they become its policy object.

    `build` gets the parsed files by name, the folder and its version, and raises `PolicyError` for what only shows
    across files. Files in `optional` may be absent.
    """

    files: Mapping[str, type[BaseModel]]
    build: Callable[[Mapping[str, Any], Path, str], P]
    optional: frozenset[str] = frozenset()
    folders: tuple[str, ...] = ()


class _Loader(yaml.SafeLoader):
    """YAML 1.1 without its surprises: `on`, `off`, `yes`, `no`, `09:30` and `0123` stay words, doubled keys are refused."""


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, regexp)
        for tag, regexp in resolvers
        if tag
        not in {
            "tag:yaml.org,2002:bool",
            "tag:yaml.org,2002:float",
            "tag:yaml.org,2002:int",
            "tag:yaml.org,2002:timestamp",
        }
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(?:true|false)$"), list("tf"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile("^-?(?:0|[1-9][0-9]*)$"), list("-0123456789")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^-?(?:0|[1-9][0-9]*)\.[0-9]+$"), list("-0123456789")
)


def _no_doubles(loader: Any, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"{key!r} stands twice", key_node.start_mark
            )
        seen[key] = loader.construct_object(value_node, deep=True)
    return seen


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _no_doubles)

_FastLoader: Any = None
"""The same on libyaml, ten times as fast; None where PyYAML was built without it."""
if yaml.__with_libyaml__:
    _FastLoader = type(
        "_FastLoader",
        (yaml.CSafeLoader,),
        {"yaml_implicit_resolvers": _Loader.yaml_implicit_resolvers},
    )
    _FastLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _no_doubles)


def read_yaml(path: Path) -> Any:
    """Read one file.

    Raises:
        PolicyError: it is missing, too large, or no YAML; says the line.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise PolicyError(
            path.name, "file", str(path), "does not exist; see `policy/` for an example"
        ) from None
    except OSError as error:
        raise PolicyError(
            path.name, "file", str(path), f"cannot be read: {error.strerror}"
        ) from None
    if len(raw) > FILE_BYTES_MAX:
        raise PolicyError(path.name, "file", f"{len(raw)} bytes", f"at most {FILE_BYTES_MAX} bytes")
    if _FastLoader is not None:
        try:
            return yaml.load(raw, Loader=_FastLoader)  # noqa: S506 - a SafeLoader with stricter mappings
        except (yaml.YAMLError, RecursionError, UnicodeDecodeError):
            pass  # The slow one says better where it is.
    try:
        return yaml.load(raw, Loader=_Loader)  # noqa: S506 - as above
    except (yaml.YAMLError, RecursionError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark is not None else "file"
        raise PolicyError(
            path.name, where, getattr(error, "problem", None) or "unreadable", "must be YAML"
        ) from None


def parse(name: str, content: Any, kind: type[BaseModel]) -> Any:
    """Turn a file's content into its model.

    Raises:
        PolicyError: the first thing that does not fit, with its path and value.
    """
    try:
        return kind.model_validate({} if content is None else content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = ".".join(str(part) for part in first["loc"]) or "(whole file)"
        value = first.get("input")
        if first["type"] == "extra_forbidden":
            known = ", ".join(sorted(_fields_at(kind, first["loc"][:-1])))
            raise PolicyError(name, path, value, f"unknown key; known here: {known}") from None
        example = _example_at(kind, first["loc"])
        shown = f"; for example {example}" if example else ""
        if first["type"] == "missing":
            raise PolicyError(name, path, None, f"is required{shown}") from None
        raise PolicyError(name, path, value, f"{first['msg']}{shown}") from None


def _fields_at(kind: type[BaseModel], loc: tuple[int | str, ...]) -> set[str]:
    """Return the keys that may stand at a path, as they are written."""
    model: Any = kind
    for part in loc:
        field = _field_at(model, part)
        model = _model_in(field.annotation if field is not None else model) or model
    return {field.alias or name for name, field in model.model_fields.items()}


def _example_at(kind: type[BaseModel], loc: tuple[int | str, ...]) -> str:
    """Return an example of what may stand at a path: the innermost that the fields on it give, else an empty text."""
    model: Any = kind
    example = ""
    for part in loc:
        field = _field_at(model, part)
        if field is not None:
            example = str(field.examples[0]) if field.examples else example
            model = _model_in(field.annotation) or model
    return example


def _field_at(model: Any, part: int | str) -> FieldInfo | None:
    fields = getattr(model, "model_fields", {})
    return next((one for name, one in fields.items() if part in (one.alias or name, name)), None)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the model that an annotation holds: itself, in a list or a mapping, or beside None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (_model_in(one) for one in getattr(annotation, "__args__", ()))
    return next((one for one in inner if one is not None), None)


def folder_version(folder: Path) -> str:
    """Return the digest (12 hex digits) of all files below `folder`, names included."""
    digest = hashlib.sha256()
    for path in sorted(_files(folder)):
        digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def _files(folder: Path) -> Iterator[Path]:
    """Every file below `folder`, through links too: in a mounted ConfigMap all that has a name is a link, folders included.

    The hidden folders that a ConfigMap swaps (`..data`) are left out, and so is a folder that links back to one above it.
    """
    for at, folders, names in os.walk(folder, followlinks=True):
        here = Path(at).resolve()
        above = {here, *here.parents}
        folders[:] = [
            name
            for name in folders
            if not name.startswith("..") and Path(at, name).resolve() not in above
        ]
        for name in names:
            path = Path(at, name)
            if not name.startswith("..") and path.is_file():
                yield path


def load(folder: Path, files: PolicyFiles[P]) -> P:
    """Read and check a service's policy.

    Raises:
        PolicyError: the first mistake found.
    """
    if not folder.is_dir():
        raise PolicyError(
            str(folder), "folder", str(folder), "does not exist; set SIGNALBOX_POLICY"
        )
    parsed: dict[str, Any] = {}
    for name, kind in files.files.items():
        if name in files.optional and not (folder / name).exists():
            continue
        parsed[name] = parse(name, read_yaml(folder / name), kind)
    return files.build(parsed, folder, folder_version(folder))


@dataclass(frozen=True, slots=True)
class _Good(Generic[P]):
    """A changed policy that may be taken over."""

    policy: P
    version: str
    before: str


class PolicyHolder(Generic[P]):
    """The policy in force. `current` is replaced as a whole, between two decisions, when a good one has arrived."""

    def __init__(self, folder: Path, files: PolicyFiles[P]) -> None:
        self._folder = folder
        self._files = files
        self._seen = folder_version(folder) if folder.is_dir() else ""
        self.current: P = load(folder, files)
        metrics.POLICY_INFO.labels(self._seen).set(1)

    async def watch(self) -> None:
        """Look for changes until cancelled. Files are read and checked in a thread: decisions go on meanwhile."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            self._take(await asyncio.to_thread(self._look))

    def reload(self) -> bool:
        """Take over a changed folder if it is good; return whether the policy changed."""
        return self._take(self._look())

    def _look(self) -> "_Good[P] | None":
        """Return the folder's policy if it changed and is good. Says what is wrong with one that is not, once."""
        try:
            version = folder_version(self._folder)
        except OSError as error:
            log.warning("policy_unreadable", error=str(error))
            return None
        if version == self._seen:
            return None
        before, self._seen = self._seen, version
        try:
            return _Good(load(self._folder, self._files), version, before)
        except PolicyError as error:
            metrics.POLICY_RELOADS.labels("refused").inc()
            log.error(  # noqa: TRY400 - the sentence says it; a traceback would not help
                "policy_refused",
                version=version,
                kept=before,
                file=error.file,
                path=error.path,
                allowed=error.allowed,
            )
        except Exception as error:
            # A file that vanished half-way, or a mistake of ours: the watch goes on all the same.
            metrics.POLICY_RELOADS.labels("refused").inc()
            log.exception(
                "policy_refused", version=version, kept=before, error=type(error).__name__
            )
        return None

    def _take(self, found: "_Good[P] | None") -> bool:
        if found is None:
            return False
        self.current = found.policy
        version, before = found.version, found.before
        metrics.POLICY_RELOADS.labels("accepted").inc()
        metrics.POLICY_INFO.clear()
        metrics.POLICY_INFO.labels(version).set(1)
        log.info("policy_accepted", version=version, before=before)
        return True
