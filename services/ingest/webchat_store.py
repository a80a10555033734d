"""Web chat's tables: what visitors said and were answered, how far each side has read, and who is typing.

A session's row is locked while a message gets its number, so numbers are committed in order and whoever has seen number
n has seen all before it. Every change is announced on `CHANNEL` by PostgreSQL itself, at commit, to all replicas.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec

from chassis.ledger import DocumentStore
from chassis.stage import Connection

STAGE: Final = "ingest.webchat"
CHANNEL: Final = "signalbox_webchat"
"""The NOTIFY channel. A payload is `m` (messages or marks) or `t` (an agent types), a space, and the session's id."""

HISTORY_MAX: Final = 100
"""Messages that a returning visitor is shown."""

PAGE_MAX: Final = 200

_TOUCH: Final = """
INSERT INTO webchat_session (session_id, workspace, account, last_n, created_at, seen_at)
VALUES ($1, $2, $3, 0, $4, $4)
ON CONFLICT (session_id) DO NOTHING
"""
_NUMBER: Final = (
    "UPDATE webchat_session SET last_n = last_n + 1 WHERE session_id = $1 RETURNING last_n"
)
_KNOWN: Final = """
SELECT n, text, at FROM webchat_message WHERE session_id = $1 AND direction = $2 AND name = $3
"""
_ADD: Final = """
INSERT INTO webchat_message (session_id, n, direction, name, author, text, at) VALUES ($1, $2, $3, $4, $5, $6, $7)
"""
_LATEST: Final = """
SELECT n, direction, name, author, text, at, read_at
  FROM (SELECT * FROM webchat_message WHERE session_id = $1 ORDER BY n DESC LIMIT $2) AS latest
 ORDER BY n
"""
_AFTER: Final = """
SELECT n, direction, name, author, text, at, read_at FROM webchat_message
 WHERE session_id = $1 AND n > $2 ORDER BY n LIMIT $3
"""
_SEEN: Final = """
SELECT coalesce(max(n), 0) FROM webchat_message
 WHERE session_id = $1 AND direction = 'in' AND read_at IS NOT NULL
"""
_READ_BY_VISITOR: Final = """
UPDATE webchat_message SET read_at = $3
 WHERE session_id = $1 AND n <= $2 AND direction = 'out' AND read_at IS NULL
"""
_READ_BY_AGENT: Final = """
UPDATE webchat_message SET read_at = $2
 WHERE session_id = $1 AND direction = 'in' AND read_at IS NULL AND at <= $2
"""
_PRESENT: Final = "UPDATE webchat_session SET seen_at = $2 WHERE session_id = $1 AND seen_at < $2"
_TYPING: Final = "UPDATE webchat_session SET typing_at = $2, seen_at = $2 WHERE session_id = $1"
_LINK: Final = """
INSERT INTO webchat_conversation (conversation_id, session_id, at) VALUES ($1, $2, $3)
ON CONFLICT (conversation_id) DO NOTHING
"""
_VISITOR: Final = """
SELECT s.session_id, s.account, s.seen_at, s.typing_at,
       count(m.n) FILTER (WHERE m.direction = 'out' AND m.read_at IS NULL) AS unread,
       max(m.read_at) FILTER (WHERE m.direction = 'out') AS read_at
  FROM webchat_conversation c
  JOIN webchat_session s USING (session_id)
  LEFT JOIN webchat_message m USING (session_id)
 WHERE c.conversation_id = $1 AND s.workspace = $2
 GROUP BY s.session_id
"""
_THEIRS: Final = """
SELECT EXISTS (SELECT FROM webchat_session WHERE session_id = $1 AND workspace = $2 AND account = $3)
"""
_FORGET: Final = "DELETE FROM webchat_session WHERE workspace = $1 AND seen_at < $2"
_NOTIFY: Final = "SELECT pg_notify($1, $2)"


class Chat(msgspec.Struct, frozen=True):
    """A conversation that takes place in a web chat: whose session, on which account, and its open tickets."""

    session_id: str
    account: str
    tickets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OpenedRow:
    """A conversation began in a session."""

    conversation_id: str
    session_id: str
    account: str
    at: datetime


@dataclass(frozen=True, slots=True)
class AnswerRow:
    """An agent answered; `command_id` names it, so that it stands once."""

    session_id: str
    account: str
    command_id: str
    author: str
    text: str
    at: datetime


@dataclass(frozen=True, slots=True)
class SeenRow:
    """An agent has before them what the visitor wrote until `at`."""

    session_id: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Shown:
    """A message as a widget is shown it. `is_mine`: the visitor's own. `name` is the widget's id of it, or the answer's."""

    n: int
    is_mine: bool
    name: str
    author: str
    text: str
    at: datetime
    is_read: bool

    def as_json(self) -> dict[str, Any]:
        """Return it as the widget's protocol has it."""
        return {
            "n": self.n,
            "mine": self.is_mine,
            "id": self.name,
            "author": self.author,
            "text": self.text,
            "at": self.at.isoformat(),
            "read": self.is_read,
        }


class Clash(Exception):
    """The same name was used before for another text."""


class WebchatStore(DocumentStore[Chat]):
    """The stage's conversations as documents, and what widgets are shown as rows."""

    def __init__(self, workspace: str) -> None:
        super().__init__(STAGE, Chat)
        self._workspace = workspace

    async def save_rows(self, connection: Connection, rows: Sequence[tuple[int, Any]]) -> None:
        """Write what the stage decided, in order."""
        for _, row in rows:
            match row:
                case OpenedRow():
                    await self._touch(connection, row.session_id, row.account, row.at)
                    await connection.execute(_LINK, row.conversation_id, row.session_id, row.at)
                case AnswerRow():
                    await self._touch(connection, row.session_id, row.account, row.at)
                    await self._add(
                        connection,
                        row.session_id,
                        "out",
                        row.command_id,
                        row.author,
                        row.text,
                        row.at,
                    )
                case SeenRow():
                    done = await connection.execute(_READ_BY_AGENT, row.session_id, row.at)
                    if done != "UPDATE 0":
                        await connection.execute(_NOTIFY, CHANNEL, f"m {row.session_id}")
                case _:
                    raise TypeError(f"web chat has no table for {type(row).__name__}")

    async def add_visitors(
        self,
        connection: Connection,
        session_id: str,
        account: str,
        client_id: str,
        text: str,
        at: datetime,
    ) -> tuple[int, datetime]:
        """Show a visitor's message in their own history; return its number and time. Repeats get the first ones.

        Raises:
            Clash: that id stands for another text.
        """
        async with connection.transaction():
            await self._touch(connection, session_id, account, at)
            return await self._add(connection, session_id, "in", client_id, "", text, at)

    async def is_theirs(self, connection: Connection, session_id: str, account: str) -> bool:
        """Whether a visitor of that account has said something in the session, and it is not forgotten."""
        found: bool = await connection.fetchval(_THEIRS, session_id, self._workspace, account)
        return found

    async def add_notice(
        self, connection: Connection, session_id: str, notice_id: str, text: str, at: datetime
    ) -> tuple[int, datetime]:
        """Show the visitor a notice; return its number and time. Repeats get the first ones.

        Raises:
            Clash: that id stands for another text.
        """
        async with connection.transaction():
            return await self._add(connection, session_id, "out", notice_id, "", text, at)

    async def _touch(
        self, connection: Connection, session_id: str, account: str, at: datetime
    ) -> None:
        await connection.execute(_TOUCH, session_id, self._workspace, account, at)

    async def _add(
        self,
        connection: Connection,
        session_id: str,
        direction: str,
        name: str,
        author: str,
        text: str,
        at: datetime,
    ) -> tuple[int, datetime]:
        # The number first: it locks the session, so nobody else adds this name meanwhile.
        number: int = await connection.fetchval(_NUMBER, session_id)
        known = await connection.fetchrow(_KNOWN, session_id, direction, name)
        if known is not None:
            if known["text"] != text:
                raise Clash
            return known["n"], known["at"]
        await connection.execute(_ADD, session_id, number, direction, name, author, text, at)
        await connection.execute(_NOTIFY, CHANNEL, f"m {session_id}")
        return number, at

    async def shown(self, connection: Connection, session_id: str, after: int) -> list[Shown]:
        """Return the messages after number `after`, oldest first; after 0 the latest `HISTORY_MAX`."""
        rows = (
            await connection.fetch(_AFTER, session_id, after, PAGE_MAX)
            if after > 0
            else await connection.fetch(_LATEST, session_id, HISTORY_MAX)
        )
        return [
            Shown(
                row["n"],
                row["direction"] == "in",
                row["name"],
                row["author"],
                row["text"],
                row["at"],
                row["read_at"] is not None,
            )
            for row in rows
        ]

    async def seen_up_to(self, connection: Connection, session_id: str) -> int:
        """Return the number of the visitor's latest message that an agent had before them; 0 for none."""
        found: int = await connection.fetchval(_SEEN, session_id)
        return found

    async def read_up_to(
        self, connection: Connection, session_id: str, number: int, at: datetime
    ) -> None:
        """Remember that the visitor has read the answers up to `number`."""
        await connection.execute(_READ_BY_VISITOR, session_id, number, at)

    async def present(self, connection: Connection, session_id: str, at: datetime) -> None:
        """Remember that the visitor's widget is there."""
        await connection.execute(_PRESENT, session_id, at)

    async def visitor_types(self, connection: Connection, session_id: str, at: datetime) -> None:
        """Remember that the visitor is typing."""
        await connection.execute(_TYPING, session_id, at)

    async def agent_types(self, connection: Connection, conversation_id: str) -> bool:
        """Tell the visitor's widgets that an agent is typing; return whether the conversation is a web chat."""
        row = await self.visitor(connection, conversation_id)
        if row is not None:
            await connection.execute(_NOTIFY, CHANNEL, f"t {row['session_id']}")
        return row is not None

    async def visitor(self, connection: Connection, conversation_id: str) -> Any | None:
        """Return what is known of the visitor behind a conversation: presence, typing, unread answers."""
        return await connection.fetchrow(_VISITOR, conversation_id, self._workspace)

    async def forget(self, connection: Connection, before: datetime) -> None:
        """Delete sessions whose visitors have not been there since."""
        await connection.execute(_FORGET, self._workspace, before)
