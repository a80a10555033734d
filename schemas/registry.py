"""All payloads in one place: importing this module fills the register."""

from schemas import (
    commands,
    deadletters,
    inbound,
    messages,
    notifications,
    roster,
    routing,
    sla,
    tickets,
)
from schemas.payload import REGISTRY, Payload

__all__ = ["MODULES", "REGISTRY", "Payload"]

MODULES = (inbound, messages, commands, roster, routing, tickets, sla, notifications, deadletters)
