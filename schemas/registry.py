"""All payloads in one place: importing this module fills the register."""

from schemas import (
    commands,
    customers,
    deadletters,
    elsewhere,
    feedback,
    inbound,
    merging,
    messages,
    notifications,
    roster,
    routing,
    sla,
    submissions,
    tickets,
)
from schemas.payload import REGISTRY, Payload

__all__ = ["MODULES", "REGISTRY", "Payload"]

MODULES = (
    inbound,
    submissions,
    messages,
    customers,
    commands,
    feedback,
    merging,
    roster,
    routing,
    elsewhere,
    tickets,
    sla,
    notifications,
    deadletters,
)


def _put_in_order() -> None:
    """Put the register into the order of `MODULES`, and within one as written, whoever imported what first.

    What is generated from it is then the same wherever it is generated.
    """
    places = {module.__name__: place for place, module in enumerate(MODULES)}
    ours = sorted(REGISTRY.items(), key=lambda item: places.get(item[1].__module__, len(places)))
    REGISTRY.clear()
    REGISTRY.update(ours)


_put_in_order()
