"""A Gmail mailbox in memory: Google's token endpoint, profile, history and mails, with history ids that grow too old."""

import base64
import email
import email.policy
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.fakes import desk

PAGE_SIZES = (1, 500)


@dataclass
class Mail:
    """One mail. `at` is when Gmail took it in, in seconds since 1970."""

    id: str
    raw: bytes
    at: int
    labels: tuple[str, ...] = ("INBOX", "UNREAD")
    thread: str = "t-1"
    is_gone: bool = False
    """Listed, but deleted before it is asked for."""
    is_large: bool = False
    """Its raw form is beyond what we take in one answer."""


@dataclass
class Gmail(desk.Desk):
    """A mailbox. `history` holds (history id, mail id) of what was added; ids below `oldest` are forgotten."""

    client_id: str = "gm-client"
    client_secret: str = "gm-client-secret"
    refresh_token: str = "gm-refresh"
    access_token: str = "gm-access"
    mails: dict[str, Mail] = field(default_factory=dict)
    history: list[tuple[int, str]] = field(default_factory=list)
    newest: int = 1000
    oldest: int = 0
    page_size: int | None = None
    """Pages are this short at most, whatever is asked for."""
    stale_pages: set[str] = field(default_factory=set)
    tokens_given: int = 0
    now: int = 1_795_000_000
    """When a mail is sent, in seconds since 1970."""
    renames: bool = False
    """Sent mails get a Message-ID of Gmail's own."""

    def add(self, mail: Mail) -> None:
        """Take a mail in; history ids rise with gaps."""
        self.newest += 7
        self.mails[mail.id] = mail
        self.history.append((self.newest, mail.id))

    def server(self) -> Any:
        return self.app(
            {
                "/gmail/v1/users/me/profile": self._profile,
                "/gmail/v1/users/me/history": self._history,
                "/gmail/v1/users/me/messages": self._messages,
                "/gmail/v1/users/me/messages/{id}": self._message,
            },
            post={"/token": self._token},
            write={("POST", "/gmail/v1/users/me/messages/send"): self._send},
        )

    async def _token(self, request: Request) -> Response:
        form = dict(parse_qsl((await request.body()).decode()))
        expected = {
            "grant_type": "refresh_token", "refresh_token": self.refresh_token,
            "client_id": self.client_id, "client_secret": self.client_secret,
        }  # fmt: skip
        if form != expected:
            return desk.refusal(401, "invalid_client")
        self.tokens_given += 1
        return JSONResponse({"access_token": self.access_token, "expires_in": 3599})

    def _refused(self, request: Request, allowed: set[str]) -> Response | None:
        if desk.bearer(request) != self.access_token:
            return desk.refusal(401, "UNAUTHENTICATED")
        if set(request.query_params) - allowed:
            return desk.refusal(400, "unknown parameter")
        size = request.query_params.get("maxResults", "100")
        if not size.isdigit() or not PAGE_SIZES[0] <= int(size) <= PAGE_SIZES[1]:
            return desk.refusal(400, "maxResults")
        return None

    def _page(self, request: Request, items: list[Any]) -> tuple[list[Any], str | None] | None:
        token = request.query_params.get("pageToken", "p0")
        if not re.fullmatch(r"p\d+", token) or token in self.stale_pages:
            return None
        start = int(token[1:])
        size = min(int(request.query_params.get("maxResults", "100")), self.page_size or 500)
        end = start + size
        return items[start:end], f"p{end}" if end < len(items) else None

    async def _profile(self, request: Request) -> Response:
        refused = self._refused(request, set())
        if refused is not None:
            return refused
        return JSONResponse({"emailAddress": "support@example.com", "historyId": str(self.newest)})

    async def _history(self, request: Request) -> Response:
        refused = self._refused(
            request, {"startHistoryId", "historyTypes", "labelId", "maxResults", "pageToken"}
        )
        if refused is not None:
            return refused
        start = request.query_params.get("startHistoryId", "")
        if not start.isdigit() or request.query_params.get("historyTypes") != "messageAdded":
            return desk.refusal(400, "startHistoryId")
        if int(start) < self.oldest:
            return desk.refusal(404, "notFound")
        label = request.query_params.get("labelId")
        records = [
            {
                "id": str(number),
                "messages": [{"id": mail.id, "threadId": mail.thread}],
                "messagesAdded": [
                    {
                        "message": {
                            "id": mail.id,
                            "threadId": mail.thread,
                            "labelIds": list(mail.labels),
                        }
                    }
                ],
            }
            for number, mail in ((n, self.mails[mail_id]) for n, mail_id in self.history)
            if number > int(start) and (label is None or label in mail.labels)
        ]
        page = self._page(request, records)
        if page is None:
            return desk.refusal(400, "invalid pageToken")
        answer: dict[str, Any] = {"historyId": str(self.newest)}
        if page[0]:
            answer["history"] = page[0]
        if page[1]:
            answer["nextPageToken"] = page[1]
        return JSONResponse(answer)

    async def _messages(self, request: Request) -> Response:
        refused = self._refused(request, {"maxResults", "labelIds", "q", "pageToken"})
        if refused is not None:
            return refused
        query = request.query_params.get("q", "")
        if query and not re.fullmatch(r"after:\d{1,10}|rfc822msgid:[^<>\s]+", query):
            return desk.refusal(400, "q")
        kind, _, wanted = query.partition(":")
        since = int(wanted) if kind == "after" else 0
        name = f"<{wanted}>".encode() if kind == "rfc822msgid" else b""
        label = request.query_params.get("labelIds")
        listed = [
            {"id": mail.id, "threadId": mail.thread}
            for mail in sorted(self.mails.values(), key=lambda one: -one.at)
            if mail.at > since
            and (label is None or label in mail.labels)
            and name in mail.raw.partition(b"\r\n\r\n")[0]
        ]
        page = self._page(request, listed)
        if page is None:
            return desk.refusal(400, "invalid pageToken")
        answer: dict[str, Any] = {"resultSizeEstimate": len(listed)}
        if page[0]:
            answer["messages"] = page[0]
        if page[1]:
            answer["nextPageToken"] = page[1]
        return JSONResponse(answer)

    async def _message(self, request: Request) -> Response:
        refused = self._refused(request, {"format"})
        if refused is not None:
            return refused
        mail = self.mails.get(request.path_params["id"])
        if mail is None or mail.is_gone:
            return desk.refusal(404, "notFound")
        known: dict[str, Any] = {
            "id": mail.id,
            "threadId": mail.thread,
            "labelIds": list(mail.labels),
            "historyId": str(self.newest),
            "internalDate": str(mail.at * 1000),
        }
        kind = request.query_params.get("format")
        if kind == "raw":
            raw = mail.raw + b"x" * (8 * 1024 * 1024) if mail.is_large else mail.raw
            return JSONResponse({**known, "raw": base64.urlsafe_b64encode(raw).decode()})
        if kind == "metadata":
            header = mail.raw.partition(b"\r\n\r\n")[0].decode().replace("\r\n ", " ")
            fields = [line.partition(": ") for line in header.split("\r\n")]
            payload = {"headers": [{"name": name, "value": value} for name, _, value in fields]}
            return JSONResponse({**known, "snippet": "Hello, see the pictures", "payload": payload})
        return desk.refusal(400, "format")

    async def _send(self, request: Request) -> Response:
        """Take a mail in base64url, and keep it with the label SENT under a Message-ID that it has, or one of Gmail's own."""
        if desk.bearer(request) != self.access_token:
            return desk.refusal(401, "UNAUTHENTICATED")
        body = await desk.json_of(request)
        if not isinstance(body, dict) or set(body) - {"raw", "threadId"} or request.query_params:
            return desk.refusal(400, "invalid argument")
        try:
            raw = base64.b64decode(body["raw"], altchars=b"-_", validate=True)
        except (KeyError, ValueError, TypeError):
            return desk.refusal(400, "raw")
        parsed = email.message_from_bytes(raw, policy=email.policy.default)
        thread = body.get("threadId")
        if not parsed["To"] or not parsed["From"] or b"\n" in raw.replace(b"\r\n", b""):
            return desk.refusal(400, "Recipient address required")
        if thread is not None and thread not in {one.thread for one in self.mails.values()}:
            return desk.refusal(404, "notFound")
        text = parsed.get_body(("plain",))
        assert text is not None
        number = f"sent-{len(self.sent) + 1}"
        if self.renames:
            raw = re.sub(rb"(?m)^Message-ID: \S+", b"Message-ID: <own@mail.gmail.com>", raw)
        mail = Mail(number, raw, self.now, ("SENT",), thread or number)
        self.add(mail)
        said = text.get_content().replace("\r\n", "\n")
        self.sent.append(desk.Sent(str(parsed["To"]), said, id=number))
        return JSONResponse({"id": number, "threadId": mail.thread, "labelIds": ["SENT"]})
