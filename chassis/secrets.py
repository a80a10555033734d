"""Secrets by reference: `env:NAME` from the environment, `file:/path` from a mounted file, read anew each time.

So a secret rotates without a restart. What a missing one means, each who asks for it knows.
"""

import os
from pathlib import Path


def read_secret(reference: str) -> str | None:
    """Return a secret without surrounding space; None where it is missing, empty or no text."""
    kind, _, name = reference.partition(":")
    if kind == "env":
        return os.environ.get(name, "").strip() or None
    try:
        return Path(name).read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None
