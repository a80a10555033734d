"""What a key or an access token opens at the gateway: scopes as operators grant them, rights as routes ask for them.

Four scopes are made for people's roles and whole systems; a right's own name is a scope as well, for a key that does one thing.

    ingest    messages, events                 systems that post what customers say
    agent     agents                           somebody who answers customers, as themselves
    lead      agents, roster, notices          a shift lead: whoever's tickets, who is there, what customers are told
    admin     all of them
"""

from collections.abc import Iterable, Mapping
from typing import Final, Literal, get_args

Right = Literal["messages", "events", "agents", "roster", "scim", "notices"]
"""`messages` and `events`: post what customers say. `agents`: speak as an agent (commands, presence, offers), read where
tickets stand. `roster`: set and remove agents. `scim`: provision agents as an identity provider does, and read who was.
`notices`: tell customers something (the notifier's own key for web chat, and systems that ask for a notice)."""
Scope = Literal[
    "ingest", "agent", "lead", "admin",
    "messages", "events", "agents", "roster", "scim", "notices",
]  # fmt: skip

RIGHTS: Final[tuple[Right, ...]] = get_args(Right)
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)

_OPENED: Final[Mapping[str, frozenset[Right]]] = {
    "ingest": frozenset({"messages", "events"}),
    "agent": frozenset({"agents"}),
    "lead": frozenset({"agents", "roster", "notices"}),
    "admin": frozenset(RIGHTS),
    **{right: frozenset({right}) for right in RIGHTS},
}


def opened(scopes: Iterable[str]) -> frozenset[Right]:
    """Return the rights that scopes open; words that are no scope of ours open nothing."""
    return frozenset().union(*(_OPENED.get(scope, frozenset()) for scope in scopes))


def opened_by(right: Right) -> tuple[Scope, ...]:
    """Return the scopes that open a right."""
    return tuple(scope for scope in SCOPES if right in _OPENED[scope])
