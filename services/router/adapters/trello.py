"""Trello: a card for each ticket, in the list of how it stands, with the member who has it.

Sources: Atlassian's reference for Trello on creating, getting and updating a card, on the cards of a board as a nested
resource (`filter`, `since`, `before`, `limit`), on authorization by header and on rate limits (100 requests in 10 s a
token; 429 without `Retry-After`; `/1/members/` 100 in 900 s). Believed and not confirmed: that `idMembers` is taken as
one text with commas, and that `since` counts by when a card was made.

Creating takes no idempotency key. The last line of a card's description is its marker, and a card that may have been made
is looked for on the board by it before another is. The board's own cards are read rather than searched: a search's index
is behind. Nothing was tried against a live board.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import msgspec
from pydantic import StringConstraints, field_validator

from services.router.adapters.api import (
    PlaceApi,
    Problem,
    Vendor,
    called,
    later,
    refuse,
    segment,
    setting,
    shaped,
    unknown,
)
from services.router.core.elsewhere.calls import Call, Card
from services.router.core.elsewhere.decide import Done
from services.router.core.elsewhere.policy import ApiAddress, Board, Lists, SecretReference
from services.router.core.elsewhere.state import Reason

LOOK_BACK: Final = timedelta(minutes=5)
PAGE: Final = 1000
PAGES_MAX: Final = 10
_ID: Final = re.compile(r"^[0-9a-f]{24}$")


class Settings(Board):
    """A Trello board: the key of a Power-Up, a token of the member in whose name we write, the board's and its lists' ids."""

    USER = r"^(?:[0-9a-f]{24}|[a-z0-9_]{3,100})$"
    USER_SAID = "a member's id (24 hexadecimal digits) or username"

    url: ApiAddress = "https://api.trello.com"
    key: SecretReference
    token: SecretReference
    board: Annotated[str, StringConstraints(pattern=r"^(?:[0-9a-f]{24}|[A-Za-z0-9]{8})$")]

    @field_validator("lists")
    @classmethod
    def _are_ids(cls, value: Lists) -> Lists:
        for name in type(value).model_fields:
            one = getattr(value, name)
            if one is not None and _ID.fullmatch(one) is None:
                raise ValueError(f"{name} must be a list's id, 24 hexadecimal digits")
        return value


class _Member(msgspec.Struct, frozen=True):
    id: str
    username: str = ""


class _Card(msgspec.Struct, frozen=True, rename={"list_id": "idList"}):
    id: str
    desc: str = ""
    list_id: str = ""
    members: tuple[_Member, ...] = ()


async def _call(api: PlaceApi, method: str, path: str, **more: Any) -> Any:
    shown = f'oauth_consumer_key="{api.secret("key")}", oauth_token="{api.secret("token")}"'
    headers = {"Authorization": f"OAuth {shown}"}
    url = f"{setting(api, Settings).url}/1/{path}"
    return await api.call(method, url, headers=headers, **more)


async def _member(api: PlaceApi, name: str) -> str:
    """Return a member's id; names are asked for once, since that is limited."""
    if _ID.fullmatch(name):
        return name
    known = api.known(name)
    if known is not None:
        return known
    try:
        answer = await _call(api, "GET", f"members/{segment(name)}", params={"fields": "username"})
    except Problem as problem:
        if problem.outcome.reason is Reason.MISSING:
            refuse(Reason.USER_UNKNOWN)
        raise
    return api.learn(name, shaped(answer, _Member).id)


def _is_marked(card: _Card, marker: str) -> bool:
    return f"signalbox:{marker}" in card.desc


async def _look(api: PlaceApi, marker: str, since: datetime) -> str | None:
    """Return the id of the card that carries the marker; None where there certainly is none."""
    board = setting(api, Settings).board
    oldest = (since - LOOK_BACK).astimezone(UTC).isoformat(timespec="milliseconds")
    params = {
        "filter": "all",
        "fields": "desc,idList",
        "since": oldest.replace("+00:00", "Z"),
        "limit": str(PAGE),
    }
    for _ in range(PAGES_MAX):
        answer = await _call(api, "GET", f"boards/{segment(board)}/cards", params=params)
        cards = shaped(answer, tuple[_Card, ...])
        found = [card.id for card in cards if _is_marked(card, marker)]
        if found:
            return min(found)
        if len(cards) < PAGE:
            return None
        params["before"] = min(card.id for card in cards)
    return later(Reason.FAILED, "board_too_long")


async def _arrange(api: PlaceApi, card_id: str, card: Card) -> Done:
    """Put a card that is there into its list, with its member; people whom we do not know stay on it."""
    path = f"cards/{segment(card_id)}"
    params = {"fields": "idList", "members": "true", "member_fields": "username"}
    shown = shaped(await _call(api, "GET", path, params=params), _Card)
    wanted: dict[str, str] = {}
    if shown.list_id != card.list_id:
        wanted["idList"] = card.list_id
    present = [one.id for one in shown.members]
    left = [
        one.id for one in shown.members if one.id not in card.ours and one.username not in card.ours
    ]
    if card.member:
        names = {one.username: one.id for one in shown.members}
        member = names.get(card.member) or await _member(api, card.member)
        left += [member] if member not in left else []
    if sorted(left) != sorted(present):
        wanted["idMembers"] = ",".join(left)
    if not wanted:
        return Done(card_id, is_changed=False)
    await _call(api, "PUT", path, json=wanted)
    return Done(card_id)


async def tell(api: PlaceApi, call: Call) -> Done:
    """Make the card lie where it shall, with whom it shall; the answer's handle is the card's id.

    Raises:
        Problem: it could not be made to, and what that means.
    """
    card = called(call, Card)
    card_id = card.handle
    if not card_id and card.look_from is not None:
        card_id = await _look(api, card.marker, card.look_from) or ""
    if card_id:
        return await _arrange(api, card_id, card)
    body = {"idList": card.list_id, "name": card.name, "desc": card.text, "pos": "top"}
    if card.member:
        body["idMembers"] = await _member(api, card.member)
    answer = await _call(api, "POST", "cards", is_making=True, json=body)
    try:
        return Done(shaped(answer, _Card).id)
    except Problem:
        unknown(Reason.BAD_ANSWER)


VENDOR: Final = Vendor("trello", Settings, tell)
