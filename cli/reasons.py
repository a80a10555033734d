"""Why nobody else was chosen in a large domain: a record's codes, spelled out by the roster of its time."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from schemas.registry import REGISTRY
from schemas.routing import DecisionRecord

SHOWN_MAX: Final = 200
"""So many people are named one by one; the rest, and all whom the roster itself keeps away, are counted."""


async def spelled_out(connection: Any, rows: Sequence[Any]) -> dict[int, list[str]]:
    """Return the lines about everybody for each of a ticket's routing rows whose record has codes, by the row's place.

    Sets the connection's search path to the router's tables.
    """
    from services.router.core.assignment.explain import expand
    from services.router.roster_history import static_reasons_at

    found: dict[int, list[str]] = {}
    for place, row in enumerate(rows):
        event = REGISTRY[row["type"]].model_validate_json(row["data"])
        record = getattr(event, "record", None)
        if not isinstance(record, DecisionRecord) or not record.codes:
            continue
        await connection.execute("SET search_path = router")
        static = await static_reasons_at(connection, record)
        if static is None:
            found[place] = [f"  nothing is known any more of roster {record.roster_version}"]
        else:
            found[place] = lines(expand(record, static), static.reasons)
    return found


def lines(
    rules_of: Mapping[str, tuple[str, ...]], static: Mapping[str, tuple[str, ...]]
) -> list[str]:
    """Return those whom only the moment kept away by name, and the others by their number for each set of rules."""
    near = [agent_id for agent_id in rules_of if not static[agent_id]]
    far = Counter(", ".join(rules_of[agent_id]) for agent_id in rules_of if static[agent_id])
    said = [f"  {agent_id}: {', '.join(rules_of[agent_id])}" for agent_id in near[:SHOWN_MAX]]
    rest = Counter(", ".join(rules_of[agent_id]) for agent_id in near[SHOWN_MAX:])
    for counted in (rest, far):
        said += [
            f"  {n} × {rules}"
            for rules, n in sorted(counted.items(), key=lambda entry: (-entry[1], entry[0]))
        ]
    return said
