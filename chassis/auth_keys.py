"""API keys that are stored as digests: made once, shown once, and found again without ever being kept.

A key is `sbk_<id>_<secret>`: the id finds its row, the secret is 256 random bits, so that one SHA-256 is digest enough (slow
hashes are for what people make up). The table is held in memory and compared there, in constant time.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from chassis.auth import Caller, NotProved
from schemas.scopes import opened

PREFIX: Final = b"sbk_"
"""Every key begins so: scanners of secrets know one by it."""
_KEY: Final = re.compile(rb"sbk_([0-9a-f]{12})_([0-9a-f]{64})")
_NOBODY: Final = bytes(32)


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key as the table has it. `digest` is SHA-256 of the secret; `agent_id` the one agent it speaks as, None: any."""

    key_id: str
    name: str
    digest: bytes
    scopes: tuple[str, ...]
    domains: tuple[str, ...] = ()
    agent_id: str | None = None
    expires_at: datetime | None = None

    def caller(self) -> Caller:
        """Return who shows it."""
        return Caller(
            "key",
            self.name,
            f"{self.name}/{self.key_id}",
            opened(self.scopes),
            self.agent_id,
            self.domains,
        )


def new_key() -> tuple[str, str, bytes]:
    """Return a fresh key: its id, the whole of it to be shown once, and the digest to be kept."""
    key_id, secret = secrets.token_hex(6), secrets.token_hex(32)
    return key_id, f"sbk_{key_id}_{secret}", digest_of(secret.encode())


def digest_of(secret: bytes) -> bytes:
    """Return what is kept of a secret."""
    return hashlib.sha256(secret).digest()


class KeyRing:
    """The keys in force, and which of them were used since that was last written down."""

    def __init__(self) -> None:
        self._keys: dict[bytes, tuple[StoredKey, Caller]] = {}
        self._used: dict[str, datetime] = {}
        self.is_loaded = False
        """Whether the table has been read at all; before that nobody can be told that a key is unknown."""

    def load(self, keys: Iterable[StoredKey]) -> None:
        """Take these keys in place of all."""
        self._keys = {key.key_id.encode(): (key, key.caller()) for key in keys}
        self.is_loaded = True

    def find(self, shown: bytes, now: datetime) -> Caller:
        """Return whose key this is.

        Raises:
            NotProved: nobody's, or it has expired.
        """
        found = _KEY.fullmatch(shown)
        key_id, secret = found.groups() if found is not None else (b"", b"")
        key, caller = self._keys.get(key_id, (None, None))
        # Also where there is no such id, so that an answer takes as long.
        is_right = hmac.compare_digest(digest_of(secret), key.digest if key else _NOBODY)
        if key is None or caller is None or not is_right:
            raise NotProved("the key is not known")
        if key.expires_at is not None and now >= key.expires_at:
            raise NotProved("the key has expired", is_stale=True)
        self._used[key.key_id] = now
        return caller

    def take_used(self) -> dict[str, datetime]:
        """Return when each key was last used that was used since this was last asked."""
        used, self._used = self._used, {}
        return used
