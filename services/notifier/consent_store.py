"""The tables of what people want and of dead addresses, and how a batch learns what its recipients are known for.

Rows are written in the transaction of the decision that they come from. What was said later counts, in whatever order it comes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from chassis.stage import Connection
from schemas.notifications import Category
from services.notifier.core.audience import recipient_key
from services.notifier.core.known import UNVERIFIED, Known, Told, Undeliverable, Wish, dead_name
from services.notifier.core.policy import MAIL, Policy
from services.notifier.core.reason import CATEGORIES, category_of

Source = Literal["link", "word", "agent", "vendor"]

# One statement, since a batch waits for each way to the server and back. Recipients are looked up by their index, each costs as
# many rows as a cap allows, however much there ever was. What is limited to no row is not begun. How crowded the hour is takes the
# notices of an hour, none where nobody is concerned: what is older than that, seen from the newest, is older than that now.
_KNOWN: Final = """
SELECT 'told' AS what, wanted.hash AS name, told.notice_id AS detail, told.occasion AS said, told.requested_at AS at,
       NULL::timestamptz AS until, NULL::boolean AS is_out
  FROM unnest($1::text[]) AS wanted(hash)
 CROSS JOIN LATERAL (
       SELECT notice_id, occasion, requested_at FROM notice
        WHERE recipient_hash = wanted.hash AND occasion <> 'answered' AND requested_at IS NOT NULL
        ORDER BY requested_at DESC LIMIT $2
       ) AS told
UNION ALL
SELECT 'told', wanted.hash, told.notice_id, told.occasion, told.requested_at, NULL, NULL
  FROM unnest($1::text[]) AS wanted(hash)
 CROSS JOIN unnest($3::int[], $4::text[], $5::boolean[]) AS cap(count, occasions, is_among)
 CROSS JOIN LATERAL (
       SELECT notice_id, occasion, requested_at FROM notice
        WHERE recipient_hash = wanted.hash AND occasion <> 'answered' AND requested_at IS NOT NULL
          AND (occasion = ANY(string_to_array(cap.occasions, ','))) = cap.is_among
        ORDER BY requested_at DESC LIMIT cap.count
       ) AS told
UNION ALL
SELECT 'wish', recipient_hash, source, category, at, NULL, is_out FROM opt_out
 WHERE recipient_hash = ANY($1::text[])
UNION ALL
SELECT 'dead', recipient_hash, NULL, reason, at, until, NULL FROM undeliverable
 WHERE recipient_hash = ANY($6::text[])
UNION ALL
(SELECT 'unverified', NULL, NULL, occasion, requested_at, NULL, NULL FROM notice
  WHERE to_unverified AND occasion <> 'answered' AND requested_at IS NOT NULL
  ORDER BY requested_at DESC LIMIT $7)
UNION ALL
(SELECT 'crowded', NULL, NULL, NULL, requested_at, NULL, NULL FROM notice
  WHERE occasion <> 'answered' AND requested_at IS NOT NULL
    AND requested_at > (SELECT max(requested_at) - interval '1 hour' FROM notice
                         WHERE $9 > 0 AND occasion <> 'answered' AND requested_at IS NOT NULL)
  ORDER BY requested_at DESC OFFSET $8 LIMIT $9)
"""
"""For each category with a cap, for surveys and for what follows a low rating: how many count, the occasions with commas between, and whether it is those or
all others."""

_SAVE_WISHES: Final = """
INSERT INTO opt_out AS o (recipient_hash, category, is_out, at, source)
SELECT DISTINCT ON (n.hash, n.category) n.hash, n.category, n.is_out, n.at, n.source
  FROM unnest($1::text[], $2::text[], $3::boolean[], $4::timestamptz[], $5::text[]) WITH ORDINALITY
       AS n(hash, category, is_out, at, source, position)
 ORDER BY n.hash, n.category, n.at DESC, n.position DESC
    ON CONFLICT (recipient_hash, category) DO UPDATE
   SET is_out = excluded.is_out, at = excluded.at, source = excluded.source
 WHERE o.at <= excluded.at
   AND NOT (excluded.source = 'word' AND NOT excluded.is_out AND NOT o.is_out)
"""
"""A word that takes nothing back, since nothing was ended, leaves a consent that was given otherwise."""

_SAVE_UNDELIVERABLE: Final = """
INSERT INTO undeliverable AS u (recipient_hash, reason, at, until)
SELECT DISTINCT ON (n.hash) n.hash, n.reason, n.at, n.until
  FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::timestamptz[]) AS n(hash, reason, at, until)
 ORDER BY n.hash, n.until DESC NULLS FIRST, n.at DESC
    ON CONFLICT (recipient_hash) DO UPDATE
   SET reason = excluded.reason, at = greatest(u.at, excluded.at),
       until = CASE WHEN u.until IS NULL OR excluded.until IS NULL THEN NULL ELSE greatest(u.until, excluded.until) END
"""
"""Dead for good stays so; of two times the later one counts."""

REASON_LENGTH_MAX: Final = 300


@dataclass(frozen=True, slots=True)
class WishSaid:
    """A recipient wants no more of a category, or wants it (again). `recipient` is as `Route.recipient` has it.

    With `is_name` it is the recipient's name in the tables already (`audience.recipient_key`).
    """

    recipient: str
    category: Category
    is_out: bool
    at: datetime
    source: Source
    is_name: bool = False


@dataclass(frozen=True, slots=True)
class FoundDead:
    """Nothing reaches the recipient, until `until` (None: for good). `reason` is what the server or vendor said.

    With `is_name`, `recipient` is its name in the tables already.
    """

    recipient: str
    reason: str
    at: datetime
    until: datetime | None
    is_name: bool = False


class ConsentStore:
    """The tables of one workspace."""

    def __init__(self, workspace: str) -> None:
        self._workspace = workspace

    async def load(
        self,
        connection: Connection,
        policy: Policy,
        recipients: Iterable[str],
        *,
        with_unverified: bool = True,
    ) -> Known:
        """Return what is known of `recipients` (as `plan.recipients` names them), as far as the policy's caps look back.

        `with_unverified` is needed where any of them is unproved.
        """
        known = Known(self._workspace)
        keys = sorted({known.key(recipient) for recipient in recipients})
        providers = {account.provider for account in policy.accounts.values()} | {MAIL}
        names = sorted({dead_name(provider, key) for provider in providers for key in keys})
        caps = [(cap.count, *_occasions(one)) for one, cap in policy.category_caps.items()]
        if "survey" not in policy.occasions_off:
            caps.append((1, ["survey"], True))  # When they were asked last, however long ago.
        if "recovery" not in policy.occasions_off:
            caps.append((1, ["recovery"], True))
        total = policy.automatic_total_per_hour
        rows = await connection.fetch(
            _KNOWN,
            keys,
            max(policy.unverified_recipient_per_hour, policy.verified_recipient_per_hour),
            [count for count, _, _ in caps],
            [",".join(occasions) for _, occasions, _ in caps],
            [is_among for _, _, is_among in caps],
            names,
            policy.unverified_total_per_hour if with_unverified else 0,
            max(0, total - 1),
            min(1, total) if keys else 0,
        )
        _take(known, keys, rows)
        return known

    async def save(
        self, connection: Connection, wishes: Sequence[WishSaid], dead: Sequence[FoundDead]
    ) -> None:
        """Write what was said and what was found. Security can be asked not to come, and comes all the same: no row says it."""
        kept = [wish for wish in wishes if wish.category != "security"]
        if kept:
            await connection.execute(
                _SAVE_WISHES,
                [self._name(wish) for wish in kept],
                [wish.category for wish in kept],
                [wish.is_out for wish in kept],
                [wish.at for wish in kept],
                [wish.source for wish in kept],
            )
        if dead:
            await connection.execute(
                _SAVE_UNDELIVERABLE,
                [self._name(one) for one in dead],
                [one.reason[:REASON_LENGTH_MAX] for one in dead],
                [one.at for one in dead],
                [one.until for one in dead],
            )

    def _name(self, said: WishSaid | FoundDead) -> str:
        return said.recipient if said.is_name else recipient_key(self._workspace, said.recipient)


def remember(known: Known, said: WishSaid | FoundDead) -> None:
    """Let later inputs of the batch know what this one has said."""
    key = said.recipient if said.is_name else known.key(said.recipient)
    match said:
        case WishSaid():
            before = known.wishes.get(key, {})
            old = before.get(said.category)
            takes_back = said.source == "word" and not said.is_out
            if old is not None and (old.at > said.at or (takes_back and not old.is_out)):
                return
            wish = Wish(said.is_out, said.at, said.source)
            known.wishes[key] = {**before, said.category: wish}
        case FoundDead():
            known.undeliverable[key] = Undeliverable(said.reason, said.at, said.until)


def _take(known: Known, keys: Sequence[str], rows: Iterable[Any]) -> None:
    """Put what was read where it belongs. A notice that is among a category's and among all counts once."""
    told: dict[str, dict[str, Told]] = {key: {} for key in keys}
    for row in rows:
        name, said, at = row["name"], row["said"], row["at"]
        match row["what"]:
            case "told":
                told[name][row["detail"]] = Told(at, category_of(said))
                if said == "survey":
                    known.note_survey(name, at)
                if said == "recovery":
                    known.note_recovery(name, at)
            case "wish":
                wish = Wish(row["is_out"], at, row["detail"])
                known.wishes[name] = {**known.wishes.get(name, {}), said: wish}
            case "dead":
                known.undeliverable[name] = Undeliverable(said, at, row["until"])
            case "unverified":
                known.told.setdefault(UNVERIFIED, []).append(Told(at, category_of(said)))
            case _:
                known.crowded_at = at
    for key, found in told.items():
        known.told[key] = sorted(found.values())
    known.told.get(UNVERIFIED, []).sort()


def _occasions(category: Category) -> tuple[list[str], bool]:
    """Return occasions, and whether the category is those (true) or all others (false): `service` is what is nothing else."""
    if category == "service":
        return sorted(CATEGORIES), False
    return sorted(name for name, one in CATEGORIES.items() if one == category), True
