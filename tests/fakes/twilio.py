"""Twilio's Calls and Messages in memory, behind HTTP basic authentication."""

import re
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree as Xml

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.fakes import desk

SENT_AT = "Tue, 24 Nov 2026 08:00:05 +0000"
_NUMBER = re.compile(r"(?:whatsapp:)?\+[1-9][0-9]{6,14}")


@dataclass
class Twilio(desk.Desk):
    """An account with its calls by id and its messages, the oldest first; `stopped` have opted out."""

    account_sid: str = "AC" + "0" * 31 + "1"
    auth_token: str = "tw-auth-token"
    api_key: str = "SK" + "0" * 31 + "2"
    api_secret: str = "tw-api-secret"
    numbers: tuple[str, ...] = ("+15550100200", "whatsapp:+15550100200")
    services: tuple[str, ...] = ("MG" + "0" * 31 + "3",)
    stopped: set[str] = field(default_factory=set)
    calls: dict[str, dict[str, Any]] = field(default_factory=dict)
    messages: list[dict[str, Any]] = field(default_factory=list)
    placed: list[dict[str, str]] = field(default_factory=list)
    sent_at: str = SENT_AT

    def server(self) -> Any:
        account = "/2010-04-01/Accounts/{account}"
        return self.app(
            {
                f"{account}/Calls/{{call}}.json": self._call,
                f"{account}/Messages.json": self._list,
            },
            form={
                ("POST", f"{account}/Messages.json"): self._message,
                ("POST", f"{account}/Calls.json"): self._place,
            },
        )

    def _refusal(self, request: Request) -> Response | None:
        logins = ((self.account_sid, self.auth_token), (self.api_key, self.api_secret))
        if desk.basic(request) not in logins:
            return error(401, 20003, "Authenticate")
        if request.path_params["account"] != self.account_sid:
            return error(404, 20404, "not found")
        return None

    async def _call(self, request: Request) -> Response:
        if desk.basic(request) != (self.account_sid, self.auth_token):
            return desk.refusal(401, "20003")
        if request.path_params["account"] != self.account_sid or request.query_params:
            return desk.refusal(400, "20001")
        found = self.calls.get(request.path_params["call"])
        return JSONResponse(found) if found is not None else desk.refusal(404, "20404")

    async def _message(self, request: Request) -> Response:
        if (refusal := self._refusal(request)) is not None:
            return refusal
        form = await desk.form_of(request)
        known = {"To", "From", "MessagingServiceSid", "Body", "StatusCallback"}
        if set(form) - known:
            return error(400, 20001, "unknown parameter")
        to, body = form.get("To", ""), form.get("Body", "")
        if not _NUMBER.fullmatch(to):
            return error(400, 21211, "invalid 'To' number")
        sender = form.get("From") or form.get("MessagingServiceSid")
        if sender is None or ("From" in form and "MessagingServiceSid" in form):
            return error(400, 21603, "a 'From' is required")
        if sender not in (*self.numbers, *self.services):
            return error(400, 21606, "not a number of the account")
        if to.startswith("whatsapp:") != sender.startswith("whatsapp:") and "From" in form:
            return error(400, 63007, "no such channel")
        if to in self.stopped:
            return error(400, 21610, "unsubscribed recipient")
        if not body:
            return error(400, 21602, "a body is required")
        if len(body) > 1600:
            return error(400, 21617, "the body is too long")
        if not form.get("StatusCallback", "https://").startswith("https://"):
            return error(400, 21609, "invalid callback")
        sid = f"SM{len(self.messages) + 1:032x}"
        made = {
            "sid": sid, "to": to, "from": sender, "body": body, "status": "queued",
            "direction": "outbound-api", "date_created": self.sent_at, "error_code": None,
        }  # fmt: skip
        self.messages.append(made)
        self.sent.append(desk.Sent(to, body, id=sid))
        return JSONResponse(made, 201)

    async def _list(self, request: Request) -> Response:
        if (refusal := self._refusal(request)) is not None:
            return refusal
        query = dict(request.query_params)
        size = query.pop("PageSize", "50")
        to = query.pop("To", None)
        if query or not size.isdigit() or not 1 <= int(size) <= 1000:
            return error(400, 20001, "unknown parameter")
        found = [one for one in self.messages[::-1] if to in (None, one["to"])]
        return JSONResponse({"messages": found[: int(size)], "page": 0, "next_page_uri": None})

    async def _place(self, request: Request) -> Response:
        if (refusal := self._refusal(request)) is not None:
            return refusal
        form = await desk.form_of(request)
        if set(form) != {"To", "From", "Twiml", "Timeout"} or not form["Timeout"].isdigit():
            return error(400, 20001, "unknown parameter")
        if form["From"] not in self.numbers:
            return error(400, 21210, "not a verified number")
        if not _NUMBER.fullmatch(form["To"]) and not form["To"].startswith("sip:"):
            return error(400, 21211, "invalid 'To' number")
        if len(form["Twiml"]) > 4000:
            return error(400, 21200, "Twiml is too long")
        said = Xml.fromstring(form["Twiml"])
        gather = said.find("Gather")
        if said.tag != "Response" or gather is None or not gather.get("action"):
            return error(400, 12100, "not TwiML")
        self.placed.append(form)
        sid = f"CA{len(self.placed):032x}"
        connects = str(gather.get("action")).partition("?connect=%2B")[2]
        words = gather.findall("Say")[0].text or ""
        self.sent.append(desk.Sent(f"+{connects}", words, id=sid))
        return JSONResponse({"sid": sid, "status": "queued"}, 201)


def error(status: int, code: int, message: str) -> Response:
    """Return an error as Twilio words it."""
    return JSONResponse({"code": code, "message": message, "status": status}, status)
