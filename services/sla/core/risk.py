"""How likely it is that a first answer comes after its deadline.

Owns the formula, and nothing of when it is asked (`targets`). Pure.

Two witnesses are heard for a ticket that has waited `a` and has `d` of open time left:

- **the waits of such tickets**, given that this one has waited `a` already: the share that waited longer than `a + d`
  among those that waited at least `a`;
- **the queue**: `n` tickets are served before this one (more urgent, or as urgent and older) and answers come at the rate
  of the queue's last hour, as far as that was open. Taking them for a Poisson process, as is usual for the departures of a busy queue
  with many servers (Burke 1956), the answer is late if no more than `n` are given within `d`.

The queue knows better the more answers its rate was measured by, so it counts for `k / (k + 10)` with `k` answers in the
hour, and the waits for the rest. One that knows nothing is not heard; if both know nothing there is no probability, and
nobody is warned by it.
"""

import math
from typing import Final

from services.sla.core.waits import LEVELS, Cell, QueueState

EQUAL_ANSWERS: Final = 10
"""So many answers in the last hour make the queue's word count as much as that of past waits."""

_SMALL: Final = 1e-9
"""Differences of shares are rounded."""


def probability_late(
    waited: float, left: float, cell: Cell | None, queue: QueueState | None, ahead: int
) -> float | None:
    """The probability that a ticket which waited `waited` open seconds is not answered within `left` more; None: unknown."""
    if left <= 0:
        return 1.0
    by_waits = None if cell is None else late_by_waits(cell, waited, left)
    by_queue = None if queue is None else late_by_queue(queue, left, ahead)
    if queue is None or by_queue is None:
        return by_waits
    if by_waits is None:
        return by_queue
    weight = queue.answers / (queue.answers + EQUAL_ANSWERS)
    return weight * by_queue + (1 - weight) * by_waits


def late_by_waits(cell: Cell, waited: float, left: float) -> float | None:
    """What past waits say; None for one that has waited longer than nearly all of them: they know nothing of it."""
    survive = 1 - cell.share_before(waited)
    if survive <= 1 - LEVELS[-1] + _SMALL:
        return None
    return min((1 - cell.share_within(waited + left)) / survive, 1.0)


def late_by_queue(queue: QueueState, left: float, ahead: int) -> float | None:
    """What the queue's present pace says; None where nobody was answered of late."""
    if queue.answers == 0 or queue.open_seconds <= 0:
        return None
    return poisson_at_most(ahead, queue.answers / queue.open_seconds * left)


def poisson_at_most(n: int, mean: float) -> float:
    """The probability of at most `n` events where `mean` are expected; `mean` is finite and above zero."""
    # Terms further than this from the mean are too small to see.
    reach = 12 * math.sqrt(mean) + 12
    if n >= mean + reach:
        return 1.0
    # In logarithms: e to the minus mean is zero for a busy queue and a long time.
    log_mean = math.log(mean)
    first = max(0, math.floor(mean - reach))
    terms = (math.exp(k * log_mean - mean - math.lgamma(k + 1)) for k in range(first, n + 1))
    return min(math.fsum(terms), 1.0)
