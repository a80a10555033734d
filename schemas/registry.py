"""All payloads in one place: importing this module fills the register."""

from schemas import (
    commands,
    customers,
    deadletters,
    inbound,
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
    roster,
    routing,
    tickets,
    sla,
    notifications,
    deadletters,
)
