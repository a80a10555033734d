"""The gateway's pages behind the links of notices, at work in this process on a real PostgreSQL."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg

from chassis.ledger import open_pool
from chassis.migrate import migrate
from chassis.spool import Spool
from schemas import link_token
from schemas.feedback import AnyFeedbackEvent, SurveyKind
from schemas.link_token import Link, SurveyLink, WishLink
from schemas.notifications import Category
from schemas.payload import REGISTRY
from services.ingest import feedback
from services.ingest.paths import Paths
from tests.integration.kit import make_settings

SQL = Path(feedback.__file__).with_name("sql")
SECRET = b"a secret of at least thirty-two characters"
NOW = datetime(2026, 11, 25, 8, 0, tzinfo=UTC)
CONVERSATION = "b1c9f1c2-55a0-5a0e-9d1e-7c6d6a0f7f01"
TICKET = "3c59dc04-8e88-5024-9be8-079a5c74d079"
RECIPIENT = "4b7c2d9e-3b0e-5a51-8a44-7a5d3f2f4a10"


class HandClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.at = NOW

    def now(self) -> datetime:
        return self.at


@dataclass
class Door:
    """What a test sees of the gateway from the inside."""

    app: Paths
    pool: asyncpg.Pool
    clock: HandClock
    feedback: feedback.Feedback

    def pass_time(self, passed: timedelta) -> None:
        self.clock.at += passed

    async def events(self) -> list[AnyFeedbackEvent]:
        """What was accepted, oldest first."""
        rows = await self.pool.fetch("SELECT envelope, value FROM spool ORDER BY id")
        return [
            REGISTRY[json.loads(row["envelope"])["type"]].model_validate_json(row["value"])  # type: ignore[misc]
            for row in rows
        ]

    async def keys(self) -> set[str]:
        """What the accepted events are keyed by."""
        return {
            bytes(row["key"]).decode() for row in await self.pool.fetch("SELECT key FROM spool")
        }

    async def rows(self) -> list[Any]:
        return list(await self.pool.fetch("SELECT * FROM survey_answer ORDER BY survey_id"))


def path_of(link: Link) -> str:
    """Where a link leads, as a notice has it."""
    where = feedback.SURVEYS if isinstance(link, SurveyLink) else feedback.WISHES
    return where.format(token=link_token.make(SECRET, "default", link))


def survey_path(
    score: int | None = 2, kind: SurveyKind = "csat", language: str = "en", ticket: str = TICKET
) -> str:
    return path_of(SurveyLink(CONVERSATION, ticket, kind, score, language, NOW))


def wish_path(category: Category = "follow_up", language: str = "en") -> str:
    return path_of(WishLink(CONVERSATION, RECIPIENT, category, language, NOW))


@contextlib.asynccontextmanager
async def door(database: str) -> AsyncIterator[Door]:
    """The pages on `database`, until the block ends."""
    await migrate(database, "ingest", [SQL])
    pool = await open_pool(database, "ingest", 6, "test gateway")
    spool = Spool(pool, make_settings("127.0.0.1:1", database, ""))
    clock = HandClock()
    made = feedback.Feedback(
        spool=spool, pool=pool, clock=clock, secret=SECRET, brand="Lantern & Oak <Lamps>"
    )
    access: Any = None  # None of these paths needs a right.
    app = Paths(access, lambda request, response: response)
    feedback.mount(app, made)
    spooling = asyncio.create_task(spool.run())
    try:
        yield Door(app, pool, clock, made)
    finally:
        spooling.cancel()
        await asyncio.gather(spooling, return_exceptions=True)
        await pool.close()
