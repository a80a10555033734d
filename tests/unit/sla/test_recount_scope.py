"""Which conversations a walk visits: those that a change of calendars can concern, and everything whenever that is not known."""

from typing import Any, cast

from chassis.stage import Connection
from services.sla.recount_scope import HISTORY_MAX, Parts, Scope


class Tables:
    """A connection that knows how far the task's walk has come, and remembers which calendars were asked for."""

    def __init__(self, revision: str | None, walk: int = 1, *, is_done: bool = True) -> None:
        self.stored = None if revision is None else (revision, walk, is_done)
        self.asked: list[Any] = []

    async def fetchrow(self, sql: str, *given: Any) -> Any:
        del sql, given
        return self.stored

    async def fetch(self, sql: str, *given: Any) -> list[dict[str, str]]:
        self.asked.append(given[4] if "calendar" in sql else "everything")
        return [{"key": "c1"}]


async def visited(scope: Scope, tables: Tables, after: str = "") -> Any:
    """The calendars whose conversations are visited next, or everything; nothing where nothing is asked."""
    tables.asked.clear()
    await scope.keys(cast(Connection, tables), 0, after, 500)
    return tables.asked[0] if tables.asked else []


def scope_of(*revisions: tuple[str, str, str]) -> Scope:
    """A process under whose eyes revisions followed each other: name, digest of the calendar `shop`, of the rest."""
    scope = Scope("sla")
    for name, shop, rest in revisions:
        scope.in_force(name, Parts({"shop": shop, "night": "n1"}, rest))
    return scope


async def test_after_a_change_of_a_calendar_only_its_conversations_are_visited() -> None:
    scope = scope_of(("A", "s1", "r"), ("B", "s2", "r"))
    assert await visited(scope, Tables("A")) == ["shop"]


async def test_a_walk_goes_on_with_what_it_began_with() -> None:
    scope = scope_of(("A", "s1", "r"), ("B", "s2", "r"))
    assert await visited(scope, Tables("A", 4)) == ["shop"]
    assert await visited(scope, Tables("B", 5, is_done=False), "c1") == ["shop"]


async def test_a_walk_that_another_process_began_goes_through_everything() -> None:
    scope = scope_of(("A", "s1", "r"), ("B", "s2", "r"))
    assert await visited(scope, Tables("B", 5, is_done=False), "c1") == "everything"
    assert await visited(scope, Tables("A", 4)) == ["shop"]
    assert await visited(scope, Tables("B", 7, is_done=False), "c1") == "everything"


async def test_everything_is_visited_after_a_revision_that_was_in_force_before_this_process() -> (
    None
):
    scope = scope_of(("B", "s2", "r"))
    assert await visited(scope, Tables("A")) == "everything"
    assert await visited(scope, Tables(None)) == "everything"


async def test_other_rules_and_orders_concern_everything() -> None:
    scope = scope_of(("A", "s1", "r"), ("B", "s2", "order 1"))
    assert await visited(scope, Tables("A")) == "everything"


async def test_a_calendar_that_came_or_went_has_changed() -> None:
    scope = scope_of(("A", "s1", "r"))
    scope.in_force("B", Parts({"shop": "s1"}, "r"))
    assert await visited(scope, Tables("A")) == ["night"]
    scope.in_force("C", Parts({"shop": "s1", "night": "n1"}, "r"))
    assert await visited(scope, Tables("B")) == ["night"]


async def test_what_a_walk_left_in_the_middle_was_about_is_visited_by_the_next() -> None:
    scope = scope_of(("A", "s1", "r"), ("B", "s2", "r"))
    assert await visited(scope, Tables("A", 1)) == ["shop"]
    scope.in_force("C", Parts({"shop": "s2", "night": "n2"}, "r"))
    assert await visited(scope, Tables("B", 2, is_done=False)) == ["night", "shop"]


async def test_hours_that_come_back_before_the_walk_was_done_are_visited_all_the_same() -> None:
    scope = scope_of(("A", "s1", "r"), ("B", "s2", "r"))
    assert await visited(scope, Tables("A", 1)) == ["shop"]
    scope.in_force("A", Parts({"shop": "s1", "night": "n1"}, "r"))
    assert await visited(scope, Tables("B", 2, is_done=False)) == ["shop"]


async def test_a_walk_begun_again_for_a_revision_between_visits_what_that_one_changed_as_well() -> (
    None
):
    scope = scope_of(("A", "s1", "r"), ("B", "s2", "r"))
    assert await visited(scope, Tables("A", 1)) == ["shop"]
    scope.in_force("C", Parts({"shop": "s2", "night": "n2"}, "r"))
    scope.in_force("B", Parts({"shop": "s2", "night": "n1"}, "r"))
    assert await visited(scope, Tables("B", 2, is_done=False)) == ["night", "shop"]
    assert await visited(scope, Tables("B", 3, is_done=False), "c1") == ["night", "shop"]


async def test_what_was_in_force_for_a_moment_between_two_walks_counts_as_changed() -> None:
    scope = scope_of(("A", "s1", "r"), ("B", "s2", "r"))
    scope.in_force("C", Parts({"shop": "s1", "night": "n2"}, "r"))
    # Nothing was walked under B; some were decided under it, and their shop has other hours again.
    assert await visited(scope, Tables("A")) == ["night", "shop"]


async def test_a_change_of_nothing_that_counts_visits_nothing() -> None:
    scope = scope_of(("A", "s1", "r"), ("B", "s1", "r"))
    assert await visited(scope, Tables("A")) == []


async def test_only_so_many_revisions_are_remembered() -> None:
    scope = scope_of(*((f"r{n}", f"s{n}", "r") for n in range(HISTORY_MAX + 1)))
    assert await visited(scope, Tables("r0")) == "everything"
    assert await visited(scope, Tables("r1")) == ["shop"]
