"""What the polls of review channels share: a cursor that looks back over some days, and knows what it has shown.

Vendors list reviews by their time, the newest first, or in no order at all. A bare "newer than the last one" loses what
appears late (a review held for moderation, two in one microsecond) and misses edits and replies. So each look goes back
to a *floor*, some days before the newest thing seen, and the cursor remembers by a short digest which version of each
thing has been shown. What is longer ago than the floor is not looked at again.
"""

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, NamedTuple, TypeVar

import msgspec

from services.ingest.adapters.api import ApiProblem
from services.ingest.adapters.channel import Fetched, Page

SHOWN_MAX: Final = 2_000
"""Versions remembered for each source; beyond that the floor rises."""
PAGES_MAX: Final = 10_000
"""Pages of one walk: a vendor whose pages never end is left there, and looked at anew next time."""
T = TypeVar("T")

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Item(NamedTuple):
    """One thing in a vendor's list. `version` changes with its content; `make` gets whether an earlier version was shown."""

    name: str
    version: str
    at: datetime
    make: Callable[[bool], Fetched]


class Mark(msgspec.Struct):
    """How far one source has been seen. Times are microseconds since 1970; `shown` holds digest → (version, time)."""

    floor: int = 0
    newest: int = 0
    is_baseline: bool = False
    shown: dict[str, tuple[str, int]] = {}


class Walk(msgspec.Struct):
    """Where a look stands that needs several pages: the source's place in the list, and the vendor's page."""

    source: int = 0
    page: str = ""
    pages: int = 0


class Cursor(msgspec.Struct):
    """What is stored between looks."""

    marks: dict[str, Mark] = {}
    walk: Walk | None = None


Ask = Callable[[str, str], Awaitable[tuple[Sequence[Item], str]]]
"""Ask for a page of a source (`""`: the first); returns its items and the next page's name, `""` where there is none."""


def _micro(at: datetime) -> int:
    return (at - EPOCH) // timedelta(microseconds=1)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:12]


def _read(cursor: str | None) -> Cursor:
    if cursor is None:
        return Cursor()
    try:
        return msgspec.json.decode(cursor, type=Cursor)
    except msgspec.MsgspecError:
        raise ApiProblem("bad_cursor", is_final=True) from None


def _write(cursor: Cursor) -> str:
    return msgspec.json.encode(cursor).decode()


def _take(
    mark: Mark, items: Sequence[Item], lookback: int, *, is_ordered: bool
) -> tuple[list[Fetched], bool]:
    """Take a page into `mark`; returns what is new, and whether the source has been seen as far back as is needed."""
    mark.newest = max([mark.newest, *(_micro(item.at) for item in items)])
    floor = mark.newest - lookback if mark.is_baseline else mark.floor
    fresh: list[Fetched] = []
    for item in items:
        at, name, version = _micro(item.at), _digest(item.name), _digest(item.version)
        known = mark.shown.get(name)
        if at < floor or (known is not None and known[0] == version):
            continue
        if not mark.is_baseline:
            fresh.append(item.make(known is not None))
        mark.shown[name] = (version, at)
    is_done = is_ordered and any(_micro(item.at) < floor for item in items)
    return fresh, is_done


def _close(mark: Mark, lookback: int) -> None:
    """End a look: raise the floor, and forget what lies below it."""
    mark.floor = max(mark.floor, mark.newest - lookback)
    mark.is_baseline = False
    kept = sorted(mark.shown.items(), key=lambda entry: entry[1][1], reverse=True)
    if len(kept) > SHOWN_MAX:
        mark.floor = max(mark.floor, kept[SHOWN_MAX - 1][1][1])
    mark.shown = {name: entry for name, entry in kept[:SHOWN_MAX] if entry[1] >= mark.floor}


async def look(
    cursor: str | None,
    sources: Sequence[str],
    ask: Ask,
    *,
    start: Literal["new", "all"],
    days: int,
    is_ordered: Callable[[str], bool] = lambda _: True,
) -> Page:
    """Return one page of one source, and a cursor that goes on from there.

    Raises:
        ApiProblem: the vendor's API gave no answer; or the cursor is none of ours (`bad_cursor`).
    """
    state = _read(cursor)
    if not sources:
        return Page((), _write(state))
    walk = state.walk or Walk()
    if walk.source >= len(sources):
        walk = Walk()
    source = sources[walk.source]
    lookback = days * 86_400_000_000
    try:
        items, following = await ask(source, walk.page)
    except ApiProblem as problem:
        if not (walk.page and problem.is_final):
            raise
        # Pages' names do not live for ever: the next look begins this source again.
        state.walk = Walk(walk.source)
        return Page((), _write(state))
    mark = state.marks.setdefault(source, Mark(is_baseline=start == "new"))
    fresh, is_done = _take(mark, items, lookback, is_ordered=is_ordered(source))
    if is_done or following in ("", walk.page) or walk.pages >= PAGES_MAX:
        _close(mark, lookback)
        following_source = walk.source + 1
        state.walk = Walk(following_source) if following_source < len(sources) else None
    else:
        state.walk = Walk(walk.source, following, walk.pages + 1)
    state.marks = {name: state.marks[name] for name in sources if name in state.marks}
    return Page(tuple(fresh), _write(state), more=state.walk is not None)
