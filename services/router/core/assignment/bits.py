"""Sets of small whole numbers as integers, one bit a member, and orders that can be asked for their first within such a set.

One `&` of two sets of 10,000 costs about 0.2 µs, so who is able, there and free is worked out anew for every ticket instead
of being kept in lists. Three things are avoided, since they cost twenty times as much on numbers of that size: `~x`, `-x` and
counting the bits. `a without b` is therefore written `a ^ (a & b)`, and members are listed from the highest down.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, TypeAlias

Bits: TypeAlias = int
"""A set of small whole numbers."""

Key: TypeAlias = tuple[Any, ...]

BLOCK = 100
"""Half of the most that a block of an order holds: small enough to search, large enough that few blocks are asked."""


def members(bits: Bits) -> Iterator[int]:
    """Yield the members, the highest first."""
    while bits:
        highest = bits.bit_length() - 1
        yield highest
        bits ^= 1 << highest


def few(bits: Bits, limit: int) -> list[int] | None:
    """Return the members in rising order, or None where there are more than `limit`."""
    found: list[int] = []
    while bits:
        if len(found) == limit:
            return None
        highest = bits.bit_length() - 1
        found.append(highest)
        bits ^= 1 << highest
    found.reverse()
    return found


def without(bits: Bits, others: Bits) -> Bits:
    """Return the members that are not among `others`."""
    return bits ^ (bits & others)


class Entry(NamedTuple):
    """A member of a ranking with its key."""

    key: Key
    member: int


class Ranking:
    """Members in the order of their keys, in blocks; each block knows the set of its members.

    So the first that lies in a given set is found without looking at those before it: blocks that share no member with
    the set are passed over whole. No two members may have the same key.
    """

    __slots__ = ("_blocks", "_keys", "_lasts", "_sets")

    def __init__(self, entries: Iterable[tuple[Key, int]] = ()) -> None:
        ordered = sorted(Entry(*entry) for entry in entries)
        self._blocks = [ordered[n : n + BLOCK] for n in range(0, len(ordered), BLOCK)]
        self._lasts = [block[-1] for block in self._blocks]
        self._sets = [sum(1 << entry.member for entry in block) for block in self._blocks]
        self._keys = {entry.member: entry.key for entry in ordered}

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[Entry]:
        for block in self._blocks:
            yield from block

    def get(self, member: int) -> Key | None:
        """Return a member's key, or None where it is none."""
        return self._keys.get(member)

    def put(self, member: int, key: Key) -> None:
        """Give a member, new or old, a key."""
        old = self._keys.get(member)
        if old is not None:
            if old == key:
                return
            self.drop(member)
        entry = Entry(key, member)
        self._keys[member] = key
        if not self._blocks:
            self._blocks.append([entry])
            self._lasts.append(entry)
            self._sets.append(1 << member)
            return
        at = min(bisect_left(self._lasts, entry), len(self._blocks) - 1)
        block = self._blocks[at]
        insort(block, entry)
        self._lasts[at] = block[-1]
        self._sets[at] |= 1 << member
        if len(block) > 2 * BLOCK:
            self._split(at)

    def _split(self, at: int) -> None:
        block = self._blocks[at]
        for place, part in ((at, block[:BLOCK]), (at + 1, block[BLOCK:])):
            part_set = sum(1 << entry.member for entry in part)
            if place == at:
                self._blocks[at], self._lasts[at], self._sets[at] = part, part[-1], part_set
            else:
                self._blocks.insert(place, part)
                self._lasts.insert(place, part[-1])
                self._sets.insert(place, part_set)

    def drop(self, member: int) -> None:
        """Forget a member, if it is one."""
        key = self._keys.pop(member, None)
        if key is None:
            return
        entry = Entry(key, member)
        at = bisect_left(self._lasts, entry)
        block = self._blocks[at]
        del block[bisect_left(block, entry)]
        if block:
            self._lasts[at] = block[-1]
            self._sets[at] ^= 1 << member
            if len(block) < BLOCK // 2:
                self._merge(max(0, at - 1))
        else:
            del self._blocks[at], self._lasts[at], self._sets[at]

    def _merge(self, at: int) -> None:
        # Members move on to later keys and leave blocks behind that hold next to nothing.
        blocks = self._blocks
        if at + 1 == len(blocks) or len(blocks[at]) + len(blocks[at + 1]) > BLOCK + BLOCK // 2:
            return
        blocks[at : at + 2] = [blocks[at] + blocks[at + 1]]
        self._lasts[at : at + 2] = [blocks[at][-1]]
        self._sets[at : at + 2] = [self._sets[at] | self._sets[at + 1]]

    def walk(self, within: Bits) -> Iterator[Entry]:
        """Yield the members that lie in `within`, in order. The ranking must not change meanwhile."""
        if not within:
            return
        for block, block_set in zip(self._blocks, self._sets, strict=True):
            hits = block_set & within
            if hits:
                yield from self._hits(block, hits)

    def _hits(self, block: list[Entry], hits: Bits) -> Iterator[Entry]:
        # Where many match, one of the first does; where few match, listing them is quicker than testing all.
        for n, entry in enumerate(block):
            if n == 4:
                break
            if hits >> entry.member & 1:
                yield entry
                hits ^= 1 << entry.member
                if not hits:
                    return
        keys = self._keys
        yield from sorted([Entry(keys[member], member) for member in members(hits)])

    def first(self, within: Bits) -> Entry | None:
        """Return the first member that lies in `within`, or None."""
        return next(self.walk(within), None)


class Line:
    """Keys in order, in blocks, so that adding and taking out anywhere costs the same however long it is."""

    __slots__ = ("_blocks", "_n")
    BLOCK = 512

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        ordered = sorted(keys)
        self._n = len(ordered)
        self._blocks = [ordered[n : n + self.BLOCK] for n in range(0, self._n, self.BLOCK)]

    def __len__(self) -> int:
        return self._n

    def __iter__(self) -> Iterator[Any]:
        for block in self._blocks:
            yield from block

    @property
    def first(self) -> Any | None:
        """The first key, or None."""
        return self._blocks[0][0] if self._blocks else None

    def _block_of(self, key: Key) -> int:
        if len(self._blocks) == 1:
            return 0
        return max(0, bisect_right(self._blocks, key, key=lambda block: block[0]) - 1)

    def add(self, key: Key) -> None:
        """Put a key in its place."""
        self._n += 1
        if not self._blocks:
            self._blocks.append([key])
            return
        at = self._block_of(key)
        block = self._blocks[at]
        insort(block, key)
        if len(block) > 2 * self.BLOCK:
            self._blocks[at : at + 1] = [block[: self.BLOCK], block[self.BLOCK :]]

    def remove(self, key: Key) -> None:
        """Take a key out that is there."""
        at = self._block_of(key) if self._blocks else 0
        block = self._blocks[at] if self._blocks else []
        place = bisect_left(block, key)
        assert block[place : place + 1] == [key], f"{key} is not in the line"
        del block[place]
        self._n -= 1
        if not block:
            del self._blocks[at]


class Planes:
    """A whole number from 0 for each member, kept as the sets of those whose number has a bit: smallest first to find."""

    __slots__ = ("numbers", "planes")

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.planes: list[Bits] = []

    def set(self, member: int, number: int) -> None:
        """Give a member its number."""
        if member >= len(self.numbers):
            self.numbers.extend([0] * (member + 1 - len(self.numbers)))
        changed = self.numbers[member] ^ number
        if not changed:
            return
        self.numbers[member] = number
        while changed.bit_length() > len(self.planes):
            self.planes.append(0)
        bit = 1 << member
        for place in members(changed):
            self.planes[place] ^= bit


def least(within: Bits, planes: list[Bits]) -> Bits:
    """Return those of `within` whose number in `planes` (lowest bit first) is the smallest."""
    for plane in reversed(planes):
        zero = within ^ (within & plane)
        if zero:
            within = zero
    return within


def add(left: list[Bits], right: list[Bits]) -> list[Bits]:
    """Return the sums, member by member, of two numbers in planes."""
    total: list[Bits] = []
    carry = 0
    for n in range(max(len(left), len(right))):
        a = left[n] if n < len(left) else 0
        b = right[n] if n < len(right) else 0
        either = a ^ b
        total.append(either ^ carry)
        carry = (a & b) | (carry & either)
    if carry:
        total.append(carry)
    return total


def times(planes: list[Bits], factor: int) -> list[Bits]:
    """Return the numbers in planes, each multiplied by a whole number from 0."""
    total: list[Bits] = []
    for shift in members(factor):
        total = add(total, [0] * shift + planes)
    return total


def from_thermometer(at_least: list[Bits]) -> list[Bits]:
    """Return levels in planes; `at_least[n]` is the set of those whose level is n or more (n from 1; entry 0 is not read)."""
    planes: list[Bits] = []
    step = 1
    while step < len(at_least):
        plane = 0
        for level in range(step, len(at_least), step):
            plane ^= at_least[level]
        planes.append(plane)
        step *= 2
    return planes
