"""Meta's Graph API in memory: messages of a Page and an Instagram account, comments, and WhatsApp.

Each checks the token, the proof that we know the app's secret, the body's very fields and lengths, and answers with Meta's codes.
"""

import hashlib
import hmac
import re
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.fakes import desk

VERSION = "v25.0"


def error(status: int, code: int, subcode: int = 0, message: str = "refused") -> Response:
    """Return a refusal as Meta writes it."""
    said: dict[str, Any] = {"message": message, "type": "OAuthException", "code": code}
    if subcode:
        said["error_subcode"] = subcode
    return JSONResponse({"error": said | {"fbtrace_id": "Abc"}}, status)


@dataclass
class Graph(desk.Desk):
    """What all have: a token and an app's secret. `now` is the time of what is written next."""

    access_token: str = "EAAB-meta-token-0001"
    app_secret: str = "meta-app-secret-0001"
    now: str = "2026-11-24T08:00:01+0000"

    def _refused(self, request: Request) -> Response | None:
        if desk.bearer(request) != self.access_token:
            return error(400, 190, message="Invalid OAuth access token.")
        proof = hmac.new(self.app_secret.encode(), self.access_token.encode(), hashlib.sha256)
        if request.query_params.get("appsecret_proof") != proof.hexdigest():
            message = "Invalid appsecret_proof provided in the API argument"
            return error(400, 100, message=message)
        return None


@dataclass
class Messenger(Graph):
    """A Page with people who wrote to it. `closed` are those whose 24 hours are over, `blocked` those who blocked the Page."""

    page: str = "1029384756"
    people: set[str] = field(default_factory=lambda: {"7700110022"})
    closed: set[str] = field(default_factory=set)
    blocked: set[str] = field(default_factory=set)
    platform: str = "messenger"
    has_type: bool = True
    templates: dict[tuple[str, str], int] = field(
        default_factory=lambda: {("order_update", "en"): 2, ("hello", "tr"): 0}
    )
    """How many places each template of the Page's own library has, by name and language."""
    characters_max: int = 2_000
    bytes_max: int = 1_000_000
    messages: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    """What each message was marked with, by its id."""

    def server(self) -> Any:
        base = f"/{VERSION}/{self.page}"
        return self.app(
            {f"{base}/conversations": self._conversations},
            write={("POST", f"{base}/messages"): self._send},
        )

    async def _send(self, request: Request) -> Response:
        refused = self._refused(request)
        if refused is not None:
            return refused
        body = await desk.json_of(request)
        if not isinstance(body, dict):
            return error(400, 100)
        kind, tag = body.get("messaging_type"), body.get("tag")
        known = {"recipient", "message"} | ({"messaging_type"} if kind else set())
        known |= {"tag"} if tag else set()
        message, recipient = body.get("message"), body.get("recipient")
        if set(body) != known or not isinstance(message, dict) or not isinstance(recipient, dict):
            return error(400, 100)
        if kind == "UTILITY" and self.has_type:
            return self._utility(recipient, message)
        if kind not in ("RESPONSE", "MESSAGE_TAG") and (self.has_type or kind is not None):
            return error(400, 100)
        if (kind == "MESSAGE_TAG") != (tag == "HUMAN_AGENT"):
            return error(400, 100)
        text, mark = message.get("text"), message.get("metadata", "")
        if set(recipient) != {"id"} or not set(message) <= {"text", "metadata"}:
            return error(400, 100)
        if not isinstance(text, str) or not text or len(text) > self.characters_max:
            return error(400, 100, message="Length of param message[text] must be less")
        if len(text.encode()) > self.bytes_max or len(mark) > 1_000:
            return error(400, 100)
        person = recipient["id"]
        unknown = self._unreachable(person)
        if unknown is not None:
            return unknown
        if person in self.closed and tag is None:
            return error(400, 10, 2018278)
        return JSONResponse({"recipient_id": person, "message_id": self.write(person, text, mark)})

    def _unreachable(self, person: str) -> Response | None:
        if person not in self.people:
            return error(400, 100, 2018001, "No matching user found")
        return error(400, 551, 1545041) if person in self.blocked else None

    def _utility(self, recipient: dict[str, Any], message: dict[str, Any]) -> Response:
        """A template goes whenever it is sent; its places are filled by position."""
        said = message.get("template")
        if set(recipient) != {"id"} or set(message) != {"template"} or not isinstance(said, dict):
            return error(400, 100)
        parts = said.get("components", [])
        if set(said) - {"components"} != {"name", "language"} or set(said["language"]) != {"code"}:
            return error(400, 100)
        if any(set(part) != {"type", "parameters"} or part["type"] != "body" for part in parts):
            return error(400, 100)
        values = [one["text"] for part in parts for one in part["parameters"]]
        if self.templates.get((said["name"], said["language"]["code"])) != len(values):
            return error(400, 100)
        if any(re.search(r"[\n\t]| {5}", value) for value in values):
            return error(400, 100)
        person = recipient["id"]
        unreachable = self._unreachable(person)
        if unreachable is not None:
            return unreachable
        text = " | ".join([said["name"], *values])
        return JSONResponse({"recipient_id": person, "message_id": self.write(person, text)})

    def write(self, person: str, text: str, mark: str = "", *, is_ours: bool = True) -> str:
        """A message is written, by the Page or by the person; returns its id."""
        count = sum(map(len, self.messages.values())) + 1
        mid = f"m_{self.platform}-{count}"
        said = {
            "id": mid, "created_time": self.now, "message": text,
            "from": {"id": self.page if is_ours else person},
        }  # fmt: skip
        self.messages.setdefault(person, []).insert(0, said)
        if is_ours:
            self.metadata[mid] = mark
            self.sent.append(desk.Sent(person, text, id=mid))
        return mid

    async def _conversations(self, request: Request) -> Response:
        refused = self._refused(request)
        if refused is not None:
            return refused
        query = dict(request.query_params)
        found = re.fullmatch(r"messages\.limit\((\d+)\)\{([a-z_,]+)\}", query.pop("fields", ""))
        person = query.pop("user_id", "")
        query.pop("appsecret_proof", None)
        if query != {"platform": self.platform} or found is None or person not in self.people:
            return error(400, 100)
        messages = self.messages.get(person, [])[: min(int(found[1]), 20)]
        shown = [{name: one[name] for name in found[2].split(",")} for one in messages]
        return JSONResponse({"data": [{"id": f"t_{person}", "messages": {"data": shown}}]})


@dataclass
class Instagram(Messenger):
    """A professional account: direct messages in Messenger's shape, and comments with their answers."""

    page: str = "17841400000000001"
    people: set[str] = field(default_factory=lambda: {"6543210"})
    platform: str = "instagram"
    has_type: bool = False
    bytes_max: int = 1_000
    comments: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Answers by the comment they answer."""
    account: str = "17841400000000001"

    def server(self) -> Any:
        base = f"/{VERSION}/{self.page}"
        replies = f"/{VERSION}/{{comment}}/replies"
        return self.app(
            {f"{base}/conversations": self._conversations, replies: self._replies},
            write={("POST", f"{base}/messages"): self._send, ("POST", replies): self._reply},
        )

    async def _reply(self, request: Request) -> Response:
        refused = self._refused(request)
        if refused is not None:
            return refused
        comment = request.path_params["comment"]
        if comment not in self.comments:
            return error(400, 100, 33)
        body = await desk.json_of(request)
        text = body.get("message") if isinstance(body, dict) and set(body) == {"message"} else None
        if not isinstance(text, str) or not 0 < len(text) <= 300:
            return error(400, 100)
        name = f"1790000000000{len(self.sent) + 100}"
        self.comments[comment].append(
            {
                "id": name, "text": text, "timestamp": self.now,
                "from": {"id": self.account, "username": "lantern.oak"},
            }
        )  # fmt: skip
        self.sent.append(desk.Sent(comment, text, id=name))
        return JSONResponse({"id": name})

    async def _replies(self, request: Request) -> Response:
        refused = self._refused(request)
        if refused is not None:
            return refused
        comment = request.path_params["comment"]
        if comment not in self.comments:
            return error(400, 100, 33)
        query = dict(request.query_params)
        fields = query.get("fields", "id,timestamp,text").split(",")
        listed = self.comments[comment][: int(query.get("limit", "25"))]
        return JSONResponse({"data": [{name: one[name] for name in fields} for one in listed]})


@dataclass
class Page(Graph):
    """A Page's comments, by the comment or post that they stand under, the oldest first."""

    page: str = "1029384756"
    comments: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def server(self) -> Any:
        path = f"/{VERSION}/{{above}}/comments"
        return self.app({path: self._list}, write={("POST", path): self._comment})

    def write(self, above: str, text: str, who: str) -> str:
        """Somebody comments; returns the comment's id."""
        name = f"{above}_{len(self.comments[above]) + 1}"
        self.comments[above].append(
            {"id": name, "message": text, "created_time": self.now, "from": {"id": who}}
        )
        return name

    async def _comment(self, request: Request) -> Response:
        refused = self._refused(request)
        if refused is not None:
            return refused
        above = request.path_params["above"]
        if above not in self.comments:
            return error(400, 100, 33)
        body = await desk.json_of(request)
        text = body.get("message") if isinstance(body, dict) and set(body) == {"message"} else None
        if not isinstance(text, str) or not 0 < len(text) <= 8_000:
            return error(400, 100)
        name = self.write(above, text, self.page)
        self.sent.append(desk.Sent(above, text, id=name))
        return JSONResponse({"id": name})

    async def _list(self, request: Request) -> Response:
        refused = self._refused(request)
        if refused is not None:
            return refused
        above = request.path_params["above"]
        if above not in self.comments:
            return error(400, 100, 33)
        query = dict(request.query_params)
        is_newest_first = query.get("order") == "reverse_chronological"
        listed = self.comments[above][::-1] if is_newest_first else self.comments[above]
        fields = query.get("fields", "id,message").split(",")
        page = listed[: int(query.get("limit", "25"))]
        return JSONResponse({"data": [{name: one[name] for name in fields} for one in page]})


@dataclass
class WhatsApp(Graph):
    """A number. `people` have WhatsApp, `closed` are those whose 24 hours are over; templates are approved by language."""

    number: str = "998877665544"
    people: set[str] = field(default_factory=lambda: {"15550107788", "US.13579"})
    closed: set[str] = field(default_factory=set)
    templates: dict[tuple[str, str], int] = field(
        default_factory=lambda: {("order_update", "en"): 2, ("hello", "tr"): 0}
    )
    """How many places each has."""
    quoted: list[str] = field(default_factory=list)
    """The messages that ours showed as the one they answer."""

    def server(self) -> Any:
        path = f"/{VERSION}/{self.number}/messages"
        return self.app({}, write={("POST", path): self._send})

    async def _send(self, request: Request) -> Response:
        refused = self._refused(request)
        if refused is not None:
            return refused
        body = await desk.json_of(request)
        if not isinstance(body, dict) or body.get("messaging_product") != "whatsapp":
            return error(400, 100)
        who = body.get("to") if "to" in body else body.get("recipient")
        kind = body.get("type")
        known = {
            "messaging_product", "recipient_type", "type", "context",
            "biz_opaque_callback_data", "to" if "to" in body else "recipient", str(kind),
        }  # fmt: skip
        key = body.get("biz_opaque_callback_data", "")
        if set(body) | {"context"} != known or body["recipient_type"] != "individual":
            return error(400, 100)
        if ("to" in body) != str(who).isdigit() or len(key) > 512:
            return error(400, 131009)
        text = self._text(body) if kind == "text" else self._template(body)
        if isinstance(text, Response):
            return text
        if who not in self.people:
            return error(400, 131026)
        if who in self.closed and kind != "template":
            return error(400, 131047)
        if "context" in body:
            self.quoted.append(body["context"]["message_id"])
        name = f"wamid.HBgL{len(self.sent) + 1:04d}="
        self.sent.append(desk.Sent(str(who), text, key, name))
        return JSONResponse(
            {
                "messaging_product": "whatsapp",
                "contacts": [{"input": who, "wa_id": who}],
                "messages": [{"id": name, "message_status": "accepted"}],
            }
        )

    def _text(self, body: dict[str, Any]) -> str | Response:
        said = body.get("text")
        if not isinstance(said, dict) or set(said) != {"body", "preview_url"}:
            return error(400, 131009)
        text = said["body"]
        if not isinstance(text, str) or not text:
            return error(400, 131009)
        return text if len(text) <= 4_096 else error(400, 100)

    def _template(self, body: dict[str, Any]) -> str | Response:
        said = body["template"]
        places = self.templates.get((said["name"], said["language"]["code"]))
        if places is None:
            return error(404, 132001)
        values = [one["text"] for part in said.get("components", []) for one in part["parameters"]]
        if any(part["type"] != "body" for part in said.get("components", [])):
            return error(400, 131009)
        if len(values) != places:
            return error(400, 132000)
        if any(re.search(r"[\n\t]| {5}", value) for value in values):
            return error(400, 132018)
        return " | ".join([said["name"], *values])
