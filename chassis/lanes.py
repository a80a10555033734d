"""Effects that wait to be begun: those of one key in order, and each lane with room of its own.

A lane is what hangs together: the effects that go to one provider's account, say. One that hangs fills its own lane and no
other. Nothing here looks at the whole queue, however long it has grown.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from chassis.stage import Effect

EFFECTS_AT_ONCE: Final = 8
"""Effects of a lane that a task has under way at once."""

EFFECTS_AT_ONCE_MAX: Final = 64
"""Effects of all its lanes together: eight lanes may hang before another one feels it."""


class EffectQueue:
    """A task's effects, waiting. `lane` names an effect's lane; without it all are in one.

    Only the first effect of a key is ready, and only while none of the key is under way; it is so from `take` (or `hold`) until
    `release` or `extendleft`.
    """

    def __init__(self, lane: Callable[[Effect], str] | None = None) -> None:
        self._lane = lane or _one_lane
        self._by_key: dict[str, deque[tuple[int, Effect]]] = {}
        self._ready: dict[str, dict[str, None]] = {}
        self._under_way: dict[str, str] = {}
        """Keys with an effect under way, and its lane."""
        self._busy: Counter[str] = Counter()
        self._length = 0
        self._newest = 0
        self._oldest = 0

    def append(self, effect: Effect) -> None:
        """Let an effect wait behind all others of its key and its lane."""
        self._newest += 1
        waiting = self._by_key.setdefault(effect.key, deque())
        waiting.append((self._newest, effect))
        self._length += 1
        if len(waiting) == 1:
            self._make_ready(effect.key)

    def extend(self, effects: Iterable[Effect]) -> None:
        """Let effects wait, in order."""
        for effect in effects:
            self.append(effect)

    def extendleft(self, effects: Iterable[Effect]) -> None:
        """Put effects back that were taken and not begun, each before all that waits."""
        for effect in effects:
            self._oldest -= 1
            self._end(effect.key)
            self._unready(effect.key)
            self._by_key.setdefault(effect.key, deque()).appendleft((self._oldest, effect))
            self._length += 1
            self._make_ready(effect.key, is_first=True)

    def take(self, running: Mapping[str, str]) -> list[Effect]:
        """Take out those that may be begun now, lane by lane in turn; none of a key in `running`."""
        chosen: list[Effect] = []
        lanes = deque(lane for lane in self._ready if self._busy[lane] < EFFECTS_AT_ONCE)
        while lanes and self._busy.total() < EFFECTS_AT_ONCE_MAX:
            lane = lanes.popleft()
            key = next((key for key in self._ready.get(lane, ()) if key not in running), None)
            if key is None:
                continue
            chosen.append(self._take_first(lane, key))
            if self._busy[lane] < EFFECTS_AT_ONCE:
                lanes.append(lane)
        return chosen

    def has_any(self) -> bool:
        """Whether one may be begun now."""
        return self._busy.total() < EFFECTS_AT_ONCE_MAX and any(
            self._busy[lane] < EFFECTS_AT_ONCE for lane in self._ready
        )

    def hold(self, effect: Effect) -> None:
        """Note that an effect is under way that was not taken from here."""
        self._unready(effect.key)
        self._begin(effect.key, self._lane(effect))

    def release(self, key: str) -> None:
        """Note that the effect of a key has ended."""
        self._end(key)
        self._make_ready(key)

    def popleft(self) -> Effect:
        """Take the oldest out, whatever is under way.

        Raises:
            IndexError: nothing waits.
        """
        if not self._by_key:
            raise IndexError("no effect waits")
        key = min(self._by_key, key=lambda one: self._by_key[one][0][0])
        self._unready(key)
        effect = self._pop(key)
        self._make_ready(key)
        return effect

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Effect]:
        """Yield those that wait, oldest first."""
        waiting = sorted(
            (one for several in self._by_key.values() for one in several), key=lambda one: one[0]
        )
        return iter([effect for _, effect in waiting])

    def _take_first(self, lane: str, key: str) -> Effect:
        self._unready(key)
        effect = self._pop(key)
        self._begin(key, lane)
        return effect

    def _pop(self, key: str) -> Effect:
        waiting = self._by_key[key]
        effect = waiting.popleft()[1]
        if not waiting:
            del self._by_key[key]
        self._length -= 1
        return effect

    def _begin(self, key: str, lane: str) -> None:
        self._end(key)
        self._under_way[key] = lane
        self._busy[lane] += 1

    def _end(self, key: str) -> None:
        lane = self._under_way.pop(key, None)
        if lane is not None:
            self._busy[lane] -= 1
            if not self._busy[lane]:
                del self._busy[lane]

    def _make_ready(self, key: str, *, is_first: bool = False) -> None:
        waiting = self._by_key.get(key)
        if not waiting or key in self._under_way:
            return
        lane = self._lane(waiting[0][1])
        others = self._ready.pop(lane, {}) if is_first else self._ready.setdefault(lane, {})
        if is_first:
            self._ready[lane] = {key: None, **others}
        else:
            others[key] = None

    def _unready(self, key: str) -> None:
        waiting = self._by_key.get(key)
        if not waiting:
            return
        lane = self._lane(waiting[0][1])
        keys = self._ready.get(lane)
        if keys is not None:
            keys.pop(key, None)
            if not keys:
                del self._ready[lane]


def _one_lane(effect: Effect) -> str:
    del effect
    return ""
