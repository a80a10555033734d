"""Alerts and pages ↔ rows. The stage adds changes in its transaction; everything else is the sender's, and the terminal's to read.

Owns the tables of `0006_pages.sql`. The sender writes on the connection that holds the lock, so one that has lost the lock
can write nothing any more.
"""

import hashlib
import json
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import asyncpg
import msgspec

from chassis.stage import Connection
from services.sla.core import paging
from services.sla.core.alerts import Alert, Change, Fire, Return, settled
from services.sla.core.pages import SEVERITIES, Pages
from services.sla.core.paging import AlertState, Ended, Left, Page, Seen

CHANNEL: Final = "signalbox_sla_pages"
"""What the stage announces changes on, and the sender listens to."""

KEPT: Final = timedelta(days=7)
"""How long alerts stay after their end, and pages after their last message."""

# Most ends are of clocks that nobody was called for.
_ADD: Final = """
INSERT INTO page_change (alert_key, change)
SELECT alert_key, change::jsonb
FROM unnest($1::text[], $2::text[], $3::boolean[], $4::boolean[]) WITH ORDINALITY
    AS given (alert_key, change, has_fired, is_return, place)
WHERE has_fired
   OR EXISTS (SELECT FROM page_alert AS a WHERE a.alert_key = given.alert_key AND (a.ended_at IS NULL OR is_return))
   OR EXISTS (SELECT FROM page_change AS c WHERE c.alert_key = given.alert_key)
ORDER BY place
"""

_TAKE: Final = """
WITH taken AS (
    DELETE FROM page_change WHERE change_id IN (
        SELECT change_id FROM page_change ORDER BY change_id LIMIT $1)
    RETURNING change_id, change::text AS change
)
SELECT change FROM taken ORDER BY change_id
"""

_ALERTS: Final = """
SELECT alert::text AS alert, fired_at, fired_seq, seq, ended_at, note, left_group, left_receivers, left_seq FROM page_alert
WHERE alert_key = ANY($1::text[])
"""

_PUT_ALERTS: Final = """
INSERT INTO page_alert (alert_key, event, severity, group_key, receivers, since, alert, fired_at, fired_seq, seq, ended_at, note,
                        left_group, left_receivers, left_seq)
SELECT alert_key, event, severity, group_key,
       ARRAY(SELECT jsonb_array_elements_text(alert::jsonb -> 'receivers')),
       since, alert::jsonb, fired_at, fired_seq, seq, ended_at, note, gone::jsonb ->> 'group_key',
       CASE WHEN gone IS NOT NULL THEN ARRAY(SELECT jsonb_array_elements_text(gone::jsonb -> 'receivers')) END,
       (gone::jsonb ->> 'fired_seq')::bigint
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::text[], $7::timestamptz[],
            $8::bigint[], $9::bigint[], $10::timestamptz[], $11::text[], $12::text[])
    AS given (alert_key, event, severity, group_key, since, alert, fired_at, fired_seq, seq, ended_at, note, gone)
ON CONFLICT (alert_key) DO UPDATE SET
    event = excluded.event, severity = excluded.severity, group_key = excluded.group_key,
    receivers = excluded.receivers, since = excluded.since, alert = excluded.alert, fired_at = excluded.fired_at,
    fired_seq = excluded.fired_seq, seq = excluded.seq, ended_at = excluded.ended_at, note = excluded.note,
    left_group = excluded.left_group, left_receivers = excluded.left_receivers, left_seq = excluded.left_seq
"""

_PAGE: Final = """
SELECT group_key, receiver, family, labels::text AS labels, route, episode, number, is_told, is_begun, changed_at, news_at, sent_at,
       told_seq, told_firing, severity, content, ref, attempts, refused_at, problem, due_at
FROM page
"""

_PAGES_OF: Final = _PAGE + "WHERE group_key = ANY($1::text[])"
_PAGE_NOW: Final = _PAGE + "WHERE group_key = $1 AND receiver = $2"
_DUE: Final = _PAGE + "WHERE receiver = $1 AND due_at <= $2 ORDER BY due_at LIMIT $3"
_ALL: Final = _PAGE + "ORDER BY receiver, sent_at DESC NULLS FIRST, group_key"

_NEXT_DUE: Final = """
SELECT r.receiver, (SELECT min(due_at) FROM page AS p WHERE p.receiver = r.receiver AND p.due_at IS NOT NULL) AS due_at
FROM unnest($1::text[]) AS r (receiver)
"""

_PUT_PAGE: Final = """
INSERT INTO page (group_key, receiver, family, labels, route, episode, number, is_told, is_begun, changed_at, news_at, sent_at,
                  told_seq, told_firing, severity, content, ref, attempts, refused_at, problem, due_at)
VALUES ($1, $2, $3, $4::text::jsonb, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)
ON CONFLICT (group_key, receiver) DO UPDATE SET
    route = excluded.route, episode = excluded.episode, number = excluded.number, is_told = excluded.is_told,
    is_begun = excluded.is_begun, changed_at = excluded.changed_at, news_at = excluded.news_at, sent_at = excluded.sent_at,
    told_seq = excluded.told_seq, told_firing = excluded.told_firing, severity = excluded.severity,
    content = excluded.content, ref = excluded.ref, attempts = excluded.attempts, refused_at = excluded.refused_at,
    problem = excluded.problem, due_at = excluded.due_at
"""

_FIRING: Final = """
SELECT event, severity, count(*) AS n, min(since) AS since, count(*) FILTER (WHERE fired_seq > $3) AS news, max(seq) AS seq
FROM page_alert WHERE group_key = $1 AND ended_at IS NULL AND receivers @> ARRAY[$2] GROUP BY event, severity
"""
_TOP: Final = """
SELECT alert::text AS alert FROM page_alert
WHERE group_key = $1 AND ended_at IS NULL AND receivers @> ARRAY[$2] ORDER BY since, alert_key LIMIT $3
"""
_ENDED: Final = """
SELECT alert::text AS alert, note, seq, count(*) OVER () AS n FROM page_alert
WHERE group_key = $1 AND ended_at IS NOT NULL AND receivers @> ARRAY[$2] AND fired_seq <= $3 AND seq > $3
ORDER BY seq DESC LIMIT $4
"""
_MOVED: Final = """
SELECT alert::text AS alert, fired_seq, count(*) OVER () AS n FROM page_alert
WHERE left_group = $1 AND left_receivers @> ARRAY[$2] AND left_seq <= $3 AND fired_seq > $3
  AND NOT (group_key = $1 AND receivers @> ARRAY[$2])
ORDER BY fired_seq DESC LIMIT $4
"""
_LAST_ENDED: Final = """
SELECT max(seq) FROM page_alert WHERE group_key = $1 AND ended_at IS NOT NULL AND receivers @> ARRAY[$2]
"""

_FORGET_RECEIVERS: Final = "DELETE FROM page WHERE receiver <> ALL($1::text[])"
_RETRY_REFUSED: Final = """
UPDATE page SET due_at = least(due_at, $1), refused_at = NULL WHERE problem <> '' AND due_at IS NOT NULL
"""
_FORGET_ALERTS: Final = "DELETE FROM page_alert WHERE ended_at < $1"
_FORGET_PAGES: Final = "DELETE FROM page WHERE due_at IS NULL AND (sent_at < $1 OR sent_at IS NULL)"
_TROUBLED: Final = """
SELECT receiver, min(changed_at) AS since FROM page
WHERE (problem <> '' OR attempts > 0) AND changed_at IS NOT NULL GROUP BY receiver
"""
_STANDING: Final = """
SELECT alert::text AS alert, fired_at FROM page_alert WHERE ended_at IS NULL ORDER BY since, alert_key LIMIT $1
"""
_UNTOLD: Final = """
SELECT DISTINCT ON (a.group_key, r.receiver) a.alert::text AS alert, r.receiver
FROM page_alert AS a CROSS JOIN unnest(a.receivers) AS r (receiver)
WHERE a.ended_at IS NULL AND r.receiver = ANY($1::text[])
  AND NOT EXISTS (SELECT FROM page AS p WHERE p.group_key = a.group_key AND p.receiver = r.receiver)
ORDER BY a.group_key, r.receiver, a.since, a.alert_key
"""
_OLDEST_CHANGE: Final = """
SELECT (change ->> 'at')::timestamptz FROM page_change ORDER BY change_id LIMIT 1
"""
_ALL_STANDING: Final = """
SELECT alert::text AS alert, fired_at FROM page_alert WHERE ended_at IS NULL ORDER BY since, alert_key
"""
_COUNT_STANDING: Final = "SELECT count(*) FROM page_alert WHERE ended_at IS NULL"


# ----------------------------------------------------------------------------------- by the stage


async def add_changes(connection: Connection, changes: Iterable[Change]) -> None:
    """Write what a batch fired and ended, and wake the sender when the transaction is committed."""
    some = settled(changes)
    fired = {one.alert_key for one in some if isinstance(one, Fire)}
    done = await connection.execute(
        _ADD,
        [one.alert_key for one in some],
        [_json(one) for one in some],
        [one.alert_key in fired for one in some],
        [isinstance(one, Return) for one in some],
    )
    if done != "INSERT 0 0":
        await connection.execute("SELECT pg_notify($1, '')", CHANNEL)


# ---------------------------------------------------------------------------------- by the sender


async def fold(
    connection: Connection, pages: Pages, now: datetime, at_most: int
) -> tuple[int, int]:
    """Fold the oldest changes into the alerts, in one transaction; return how many there were and how many were news."""
    async with connection.transaction():
        rows = await connection.fetch(_TAKE, at_most)
        taken: list[Change] = [msgspec.json.decode(row["change"], type=Change) for row in rows]
        if not taken:
            return 0, 0
        before = await alerts_of(connection, sorted({one.alert_key for one in taken}))
        after, moved = dict(before), []
        seqs = await connection.fetch(
            "SELECT nextval('page_seq') AS seq FROM generate_series(1, $1)", len(taken)
        )
        for change, row in zip(taken, seqs, strict=True):
            old = after.get(change.alert_key)
            new = paging.fold(old, change, row["seq"])
            if new is not None and new is not old:
                after[change.alert_key] = new
                moved += [new.alert] if old is None else [old.alert, new.alert]
        changed = [one for key, one in after.items() if one is not before.get(key)]
        if changed:
            await _put_alerts(connection, changed)
            await _touch(connection, pages, moved, now)
        return len(taken), len(changed)


async def alerts_of(connection: Connection, keys: Sequence[str]) -> dict[str, AlertState]:
    """The alerts of these keys, as they stand."""
    rows = await connection.fetch(_ALERTS, keys)
    found = [
        AlertState(
            alert=_alert(row),
            fired_at=row["fired_at"],
            fired_seq=row["fired_seq"],
            seq=row["seq"],
            ended_at=row["ended_at"],
            note=row["note"],
            left=None
            if row["left_group"] is None
            else Left(row["left_group"], tuple(row["left_receivers"]), row["left_seq"]),
        )
        for row in rows
    ]
    return {one.alert.alert_key: one for one in found}


async def _put_alerts(connection: Connection, states: Sequence[AlertState]) -> None:
    await connection.execute(
        _PUT_ALERTS,
        [one.alert.alert_key for one in states],
        [one.alert.event for one in states],
        [one.alert.severity for one in states],
        [one.alert.group_key for one in states],
        [one.alert.since for one in states],
        [_json(one.alert) for one in states],
        [one.fired_at for one in states],
        [one.fired_seq for one in states],
        [one.seq for one in states],
        [one.ended_at for one in states],
        [one.note for one in states],
        [None if one.left is None else _json(one.left) for one in states],
    )


async def _touch(
    connection: Connection, rules: Pages, alerts: Sequence[Alert], now: datetime
) -> None:
    """Have the pages looked at whose groups have changed. Few, however many alerts there are."""
    groups = {(one.group_key, one.route, one.receivers, one.severity): one for one in alerts}
    rows = await connection.fetch(_PAGES_OF, sorted({key for key, *_ in groups}))
    pages = {(page.group_key, page.receiver): page for page in map(_page, rows)}
    touched: dict[tuple[str, str], Page] = {}
    for alert in groups.values():
        for page in paging.pages_of(alert, pages | touched):
            touched[page.group_key, page.receiver] = paging.touched(
                page, paging.rule_of(rules, page), now, alert.severity
            )
    for page in touched.values():
        await put_page(connection, page)


async def seen(connection: Connection, page: Page) -> Seen:
    """What a page's group holds now, against what its receiver was told.

    Several statements agree, since nobody but the sender that asks writes alerts.
    """
    whose = (page.group_key, page.receiver)
    firing = await connection.fetch(_FIRING, *whose, page.told_seq)
    top = await connection.fetch(_TOP, *whose, paging.TOP)
    ended = await connection.fetch(_ENDED, *whose, page.told_seq, paging.TOP)
    moved = await connection.fetch(_MOVED, *whose, page.told_seq, paging.TOP)
    last_ended = await connection.fetchval(_LAST_ENDED, *whose)
    counts: dict[Any, int] = {}
    for row in firing:
        counts[row["event"]] = counts.get(row["event"], 0) + row["n"]
    seqs = [*(row["seq"] for row in firing), *(row["fired_seq"] for row in moved)]
    seqs += [] if last_ended is None else [last_ended]
    present = {row["severity"] for row in firing}
    return Seen(
        firing=sum(counts.values()),
        severity=next((one for one in reversed(SEVERITIES) if one in present), None),
        since=min((row["since"] for row in firing), default=None),
        events=tuple(sorted(counts.items())),
        top=tuple(map(_alert, top)),
        news=sum(row["news"] for row in firing),
        ended=ended[0]["n"] if ended else 0,
        gone=tuple(Ended(_alert(row), row["note"]) for row in ended),
        seq=max(seqs, default=page.told_seq),
        moved=moved[0]["n"] if moved else 0,
        elsewhere=tuple(map(_alert, moved)),
    )


async def due(connection: Connection, receiver: str, now: datetime, at_most: int) -> list[Page]:
    """The pages of a receiver that are to be looked at, the longest due first."""
    return [_page(row) for row in await connection.fetch(_DUE, receiver, now, at_most)]


async def next_due(connection: Connection, receivers: Iterable[str]) -> dict[str, datetime]:
    """When each receiver's pages are to be looked at next; those without any are left out."""
    rows = await connection.fetch(_NEXT_DUE, list(receivers))
    return {row["receiver"]: row["due_at"] for row in rows if row["due_at"] is not None}


async def page_now(connection: Connection, page: Page) -> Page | None:
    """A page as it stands by now."""
    row = await connection.fetchrow(_PAGE_NOW, page.group_key, page.receiver)
    return None if row is None else _page(row)


async def put_page(connection: Connection, page: Page) -> None:
    """Write a page."""
    await connection.execute(
        _PUT_PAGE,
        page.group_key,
        page.receiver,
        page.family,
        json.dumps(page.group, ensure_ascii=False),
        page.route,
        page.episode,
        page.number,
        page.is_told,
        page.is_begun,
        page.changed_at,
        page.news_at,
        page.sent_at,
        page.told_seq,
        page.told_firing,
        page.severity,
        page.content,
        page.ref,
        page.attempts,
        page.refused_at,
        page.problem,
        page.due_at,
    )


async def take_over_policy(connection: Connection, rules: Pages, now: datetime) -> int:
    """Forget the pages of receivers that are gone, try at once what was refused, and have those that came back told what stands.

    Returns how many pages were forgotten.
    """
    done = await connection.execute(_FORGET_RECEIVERS, list(rules.receivers))
    await connection.execute(_RETRY_REFUSED, now)
    for row in await connection.fetch(_UNTOLD, list(rules.receivers)):
        for page in paging.pages_of(_alert(row), {}):
            if page.receiver == row["receiver"]:
                await put_page(connection, paging.touched(page, paging.rule_of(rules, page), now))
    return int(done.rpartition(" ")[2])


async def tidy(connection: Connection, now: datetime) -> None:
    """Forget what ended long ago."""
    await connection.execute(_FORGET_ALERTS, now - KEPT)
    await connection.execute(_FORGET_PAGES, now - KEPT)


async def undelivered(connection: Connection) -> dict[str, datetime]:
    """The oldest change of each receiver that attempts to tell it have failed."""
    return {row["receiver"]: row["since"] for row in await connection.fetch(_TROUBLED)}


async def oldest_change(connection: Connection) -> datetime | None:
    """When the oldest change was told that no sender has folded yet; None where there is none. Any process may ask."""
    found: datetime | None = await connection.fetchval(_OLDEST_CHANGE)
    return found


# -------------------------------------------------------------------------------- by the terminal


async def standing(
    connection: Connection, at_most: int
) -> tuple[list[tuple[Alert, datetime]], int]:
    """The oldest alerts that fire, each with when it was noticed, and how many there are in all."""
    rows = await connection.fetch(_STANDING, at_most)
    count = await connection.fetchval(_COUNT_STANDING)
    return [(_alert(row), row["fired_at"]) for row in rows], int(count)


async def all_standing(connection: Connection) -> AsyncIterator[tuple[Alert, datetime]]:
    """All alerts that fire, the oldest first, each with when it was noticed."""
    async with connection.transaction():
        async for row in connection.cursor(_ALL_STANDING, prefetch=500):
            yield _alert(row), row["fired_at"]


async def all_pages(connection: Connection) -> list[Page]:
    """What each receiver was told, and is yet to be told."""
    return [_page(row) for row in await connection.fetch(_ALL)]


def _json(value: Alert | Change | Left) -> str:
    return msgspec.json.encode(value).decode()


def _alert(row: asyncpg.Record) -> Alert:
    return msgspec.json.decode(row["alert"], type=Alert)


def _page(row: asyncpg.Record) -> Page:
    fields = dict(row)
    fields["group"] = json.loads(fields.pop("labels"))
    return Page(**fields)


def lock_key() -> int:
    """The number of the advisory lock that makes one process the sender."""
    digest = hashlib.sha256(CHANNEL.encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
