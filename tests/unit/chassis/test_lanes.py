"""Which effect is begun next: a key's in order, each lane with room of its own."""

import random
from collections import Counter

import pytest

from chassis.lanes import EFFECTS_AT_ONCE, EFFECTS_AT_ONCE_MAX, EffectQueue
from chassis.stage import Effect


def lane_of(effect: Effect) -> str:
    return str(effect.payload["lane"])


def effect(number: int, key: str, lane: str = "a") -> Effect:
    return Effect(f"e{number}", key, {"lane": lane})


def ids(effects: list[Effect]) -> list[str]:
    return [one.id for one in effects]


def test_a_lane_that_hangs_fills_its_own_room_and_no_others() -> None:
    queue = EffectQueue(lane_of)
    queue.extend(effect(n, f"k{n}", "hangs") for n in range(1000))
    queue.extend(effect(n, f"k{n}", "works") for n in range(1000, 1003))
    begun = queue.take({})
    assert Counter(map(lane_of, begun)) == {"hangs": EFFECTS_AT_ONCE, "works": 3}
    queue.append(effect(2000, "k2000", "works"))
    assert ids(queue.take({})) == ["e2000"]
    assert not queue.has_any()


def test_an_effect_that_ends_makes_room_for_the_next_of_its_lane() -> None:
    queue = EffectQueue(lane_of)
    queue.extend(effect(n, f"k{n}") for n in range(EFFECTS_AT_ONCE + 2))
    queue.take({})
    assert queue.take({}) == []
    queue.release("k3")
    assert queue.has_any()
    assert ids(queue.take({})) == [f"e{EFFECTS_AT_ONCE}"]


def test_all_lanes_together_have_an_end() -> None:
    queue = EffectQueue(lane_of)
    queue.extend(effect(n, f"k{n}", f"lane-{n % 100}") for n in range(1000))
    assert len(queue.take({})) == EFFECTS_AT_ONCE_MAX
    assert not queue.has_any()


def test_many_lanes_are_served_in_turn() -> None:
    queue = EffectQueue(lane_of)
    queue.extend(effect(n, f"k{n}", f"lane-{n // 20}") for n in range(400))
    assert Counter(map(lane_of, queue.take({}))).most_common()[-1][1] >= 3


def test_effects_of_a_key_keep_their_order_over_all_lanes() -> None:
    queue = EffectQueue(lane_of)
    queue.extend([effect(1, "k", "a"), effect(2, "k", "b"), effect(3, "k", "a")])
    assert ids(queue.take({})) == ["e1"]
    assert queue.take({}) == []
    queue.release("k")
    assert ids(queue.take({})) == ["e2"]
    queue.release("k")
    assert ids(queue.take({})) == ["e3"]
    assert len(queue) == 0


def test_what_is_put_back_comes_before_what_waits() -> None:
    queue = EffectQueue(lane_of)
    queue.extend([effect(1, "k"), effect(2, "k"), effect(3, "other")])
    taken = queue.take({})
    assert ids(taken) == ["e1", "e3"]
    queue.extendleft(taken[::-1])
    assert ids(list(queue)) == ["e1", "e3", "e2"]
    assert ids(queue.take({})) == ["e1", "e3"]


def test_a_key_with_an_effect_under_way_elsewhere_waits() -> None:
    queue = EffectQueue(lane_of)
    queue.hold(effect(1, "k"))
    queue.append(effect(2, "k"))
    assert not queue.has_any()
    assert queue.take({}) == []
    queue.release("k")
    assert ids(queue.take({})) == ["e2"]


def test_an_empty_queue_has_no_oldest() -> None:
    with pytest.raises(IndexError):
        EffectQueue().popleft()


@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_lost_begun_twice_or_out_of_order_whatever_comes_between(seed: int) -> None:
    chance = random.Random(seed)
    queue = EffectQueue(lane_of)
    running: dict[str, Effect] = {}
    begun: dict[str, list[int]] = {}
    told = 0
    for _ in range(600):
        match chance.randrange(4):
            case 0 | 1:
                told += 1
                queue.append(effect(told, f"k{chance.randrange(30)}", f"l{chance.randrange(4)}"))
            case 2:
                taken = queue.take({key: one.id for key, one in running.items()})
                back = [one for one in taken if chance.random() < 0.3]
                queue.extendleft(back[::-1])
                for one in taken:
                    if one not in back:
                        assert one.key not in running
                        running[one.key] = one
                        begun.setdefault(one.key, []).append(int(one.id[1:]))
            case _ if running:
                key = chance.choice(sorted(running))
                del running[key]
                queue.release(key)
        lanes = Counter(lane_of(one) for one in running.values())
        assert max(lanes.values(), default=0) <= EFFECTS_AT_ONCE
    while queue or running:
        for key in list(running):
            del running[key]
            queue.release(key)
        for one in queue.take({}):
            running[one.key] = one
            begun.setdefault(one.key, []).append(int(one.id[1:]))
    assert sum(map(len, begun.values())) == told
    assert all(numbers == sorted(numbers) for numbers in begun.values())
