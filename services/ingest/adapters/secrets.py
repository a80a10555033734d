"""Secrets by reference: `env:NAME` from the environment, `file:/path` from a mounted file.

A file is read again when it changes, so a secret rotates without a restart. One that is missing opens nothing: what it
guards stays shut, and the metric and a log line say so by the reference, never by the value.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from chassis import logs
from services.ingest import metrics

log = logs.get("ingest.secrets")


class Secrets:
    """Reads secrets when they are asked for, and remembers files by their time of change."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[int, bytes]] = {}

    def get(self, reference: str) -> bytes | None:
        """Return a secret's bytes without surrounding space; None where it is missing or empty."""
        kind, _, name = reference.partition(":")
        if kind == "env":
            found = os.environ.get(name, "").strip().encode()
        else:
            found = self._read(name)
        return found or None

    def _read(self, name: str) -> bytes:
        path = Path(name)
        try:
            changed = path.stat().st_mtime_ns
            known = self._files.get(name)
            if known is None or known[0] != changed:
                known = self._files[name] = (changed, path.read_bytes().strip())
        except OSError:
            self._files.pop(name, None)
            return b""
        return known[1]

    def missing(self, references: Iterable[str]) -> list[str]:
        """Return the references that lead to nothing, tell the metric, and say each once a call."""
        absent = sorted({reference for reference in references if self.get(reference) is None})
        metrics.SECRETS_MISSING.set(len(absent))
        for reference in absent:
            log.warning(
                "secret_missing",
                reference=reference,
                cure="set it, or take what names it out of channels.yaml",
            )
        return absent
