"""Given a state, when an event comes, then these events follow: a core's rules as sentences.

    given(decide, Reserved(queue="billing", assignee_id="ada", expires_at=at("09:00:30")))
        .when(Tick(), now=at("09:00:29")).then_nothing()
        .when(Tick(), now=at("09:00:30")).then(TicketRequeued(queue="billing", at=at("09:00:30")))
        .then_state(Waiting(queue="billing"))

`decide` is called as `decide(state, event, now=…, **context)`. It answers with an object that has `events` and, unless
it changes the state in place, `state`; or with a pair of both. The state that it returns is the next `when`'s.
"""

import copy
import difflib
import pprint
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, Self

_NOT_GIVEN: Any = object()


class Case:
    """A state, and what the last event made of it. Made by `given`; every check returns the case itself."""

    def __init__(self, decide: Callable[..., Any], state: Any, context: dict[str, Any]) -> None:
        self._decide = decide
        self._context = context
        self._before: Any = _NOT_GIVEN
        self._told = "nothing has happened yet"
        self.state = state
        """The state as it is now."""
        self.events: tuple[Any, ...] = ()
        """What the last `when` emitted, in order."""
        self.decision: Any = None
        """What `decide` answered last, as it was."""

    def when(self, event: Any, now: datetime, **context: Any) -> Self:
        """Let `event` happen at `now`; `context` replaces what `given` was told, for this event and later ones."""
        self._context |= context
        self._before = copy.deepcopy(self.state)
        self._told = f"{type(event).__name__} at {now.isoformat()}"
        self.decision = self._decide(self.state, event, now=now, **self._context)
        self.state, self.events = _read(self.decision, self.state)
        return self

    def then(self, *events: Any) -> Self:
        """Exactly these events were emitted, in this order.

        Raises:
            AssertionError: others were; shows the difference.
        """
        self._need_event()
        if self.events != events:
            raise AssertionError(
                f"after {self._told} the events differ:\n" + _difference(events, self.events)
            )
        return self

    def then_nothing(self) -> Self:
        """No event was emitted and the state is what it was.

        Raises:
            AssertionError: something happened.
        """
        self.then()
        if self.state != self._before:
            raise AssertionError(
                f"after {self._told} nothing was to happen, and the state changed:\n"
                + _difference([self._before], [self.state])
            )
        return self

    def then_state(self, expected: Any = _NOT_GIVEN, **fields: Any) -> Self:
        """The state equals `expected`, or has these fields.

        Raises:
            AssertionError: it does not.
        """
        if expected is not _NOT_GIVEN and self.state != expected:
            raise AssertionError(
                f"after {self._told} the state differs:\n" + _difference([expected], [self.state])
            )
        _check_fields(f"after {self._told} the state", self.state, fields)
        return self

    def then_decision(self, **fields: Any) -> Self:
        """The decision besides has these fields: `ignored="already_told"`, `timers={…}` and the like.

        Raises:
            AssertionError: it has not.
        """
        self._need_event()
        _check_fields(f"after {self._told} the decision", self.decision, fields)
        return self

    def _need_event(self) -> None:
        if self._before is _NOT_GIVEN:
            raise AssertionError("a `when` comes before its `then`")


def given(decide: Callable[..., Any], state: Any, **context: Any) -> Case:
    """Begin with a state; `context` goes to every call of `decide` by name (a policy, rules)."""
    return Case(decide, state, context)


def _read(decision: Any, state: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return the state and events of an answer; an answer without a state has changed the old one in place."""
    if hasattr(decision, "events"):
        return getattr(decision, "state", state), tuple(decision.events)
    if isinstance(decision, tuple) and len(decision) == 2 and isinstance(decision[1], Iterable):
        return decision[0], tuple(decision[1])
    raise TypeError(
        f"decide answered {type(decision).__name__}: neither an object with `events` nor a pair (state, events)"
    )


def _check_fields(what: str, found: Any, fields: dict[str, Any]) -> None:
    for name, expected in fields.items():
        if not hasattr(found, name):
            raise AssertionError(f"{what} is a {type(found).__name__} and has no field {name!r}")
        if getattr(found, name) != expected:
            raise AssertionError(
                f"{what} has another {name}:\n" + _difference([expected], [getattr(found, name)])
            )


def _difference(expected: Iterable[Any], found: Iterable[Any]) -> str:
    """Return both as text, line by line: `-` was expected and is missing, `+` is there and was not expected."""
    return "\n".join(difflib.ndiff(_lines(expected), _lines(found)))


def _lines(items: Iterable[Any]) -> list[str]:
    return [line for item in items for line in pprint.pformat(item, width=96).splitlines()] or [
        "(nothing)"
    ]
