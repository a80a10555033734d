"""A Trello board in memory: cards in lists, with members."""

import re
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.fakes import desk

BOARD = "5f0aa1bb22cc33dd44ee55ff"
AUTHORIZATION = re.compile(r'^OAuth oauth_consumer_key="([^"]*)", oauth_token="([^"]*)"$')


@dataclass
class Trello(desk.Desk):
    """Lists' ids, members by id (with their usernames), cards oldest first."""

    key: str = "trello-key"
    token: str = "trello-token"
    lists: tuple[str, ...] = ()
    members: dict[str, str] = field(default_factory=dict)
    cards: list[dict[str, Any]] = field(default_factory=list)
    page_max: int = 1000

    def server(self) -> Any:
        return self.app(
            {
                "/1/boards/{board}/cards": self._board,
                "/1/cards/{card}": self._card,
                "/1/members/{member}": self._member,
            },
            write={
                ("POST", "/1/cards"): self._create,
                ("PUT", "/1/cards/{card}"): self._update,
            },
        )

    def _refusal(self, request: Request) -> Response | None:
        shown = AUTHORIZATION.fullmatch(request.headers.get("authorization", ""))
        if shown is None or shown.groups() != (self.key, self.token):
            return Response("invalid token", 401)
        if {"key", "token"} & set(request.query_params):
            return Response("credentials twice", 400)
        return None

    def _fields(self, body: Any, known: set[str]) -> bool:
        if not isinstance(body, dict) or set(body) - known:
            return False
        members = [one for one in str(body.get("idMembers", "")).split(",") if one]
        is_list = "idList" not in body or body["idList"] in self.lists
        return is_list and all(one in self.members for one in members)

    async def _create(self, request: Request) -> Response:
        refusal, body = self._refusal(request), await desk.json_of(request)
        known = {"idList", "name", "desc", "idMembers", "pos"}
        if refusal is None and not (self._fields(body, known) and "idList" in body):
            refusal = Response("invalid value", 400)
        if refusal is not None:
            return refusal
        card = {
            "id": f"66aa{len(self.cards):020x}",
            "idList": body["idList"],
            "name": body["name"],
            "desc": body["desc"],
            "idMembers": [one for one in body.get("idMembers", "").split(",") if one],
        }
        self.cards.append(card)
        return JSONResponse(card)

    def _found(self, request: Request) -> dict[str, Any] | None:
        key = request.path_params["card"]
        return next((card for card in self.cards if card["id"] == key), None)

    async def _update(self, request: Request) -> Response:
        refusal, card = self._refusal(request), self._found(request)
        body = await desk.json_of(request)
        if refusal is None and card is None:
            refusal = Response("not found", 404)
        if refusal is None and not self._fields(body, {"idList", "idMembers"}):
            refusal = Response("invalid value", 400)
        if refusal is not None or card is None:
            return refusal or Response("not found", 404)
        if "idList" in body:
            card["idList"] = body["idList"]
        if "idMembers" in body:
            card["idMembers"] = [one for one in body["idMembers"].split(",") if one]
        return JSONResponse(card)

    async def _card(self, request: Request) -> Response:
        refusal, card = self._refusal(request), self._found(request)
        if refusal is not None or card is None:
            return refusal or Response("not found", 404)
        told = {"id": card["id"], "idList": card["idList"]}
        if request.query_params.get("members") == "true":
            told["members"] = [
                {"id": one, "username": self.members[one]} for one in card["idMembers"]
            ]
        return JSONResponse(told)

    async def _board(self, request: Request) -> Response:
        refusal, query = self._refusal(request), request.query_params
        if refusal is None and request.path_params["board"] != BOARD:
            refusal = Response("not found", 404)
        if refusal is None and query.get("filter") != "all":
            refusal = Response("archived cards are left out", 400)
        if refusal is not None:
            return refusal
        size = min(int(query.get("limit", "1000")), self.page_max)
        found = [
            c for c in self.cards[::-1] if not query.get("before") or c["id"] < query["before"]
        ]
        return JSONResponse(
            [{name: card[name] for name in ("id", "desc", "idList")} for card in found[:size]]
        )

    async def _member(self, request: Request) -> Response:
        refusal, wanted = self._refusal(request), request.path_params["member"]
        found = [key for key, name in self.members.items() if wanted in (key, name)]
        if refusal is None and not found:
            refusal = Response("not found", 404)
        return refusal or JSONResponse({"id": found[0], "username": self.members[found[0]]})
