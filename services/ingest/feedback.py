"""The customers' side of the gateway: signed links of our notices, the pages behind them, and what comes of using them.

    GET  /v1/feedback/{token}       a survey's question, with the link's score chosen; changes nothing
    POST /v1/feedback/{token}       the answer: `score`, `comment`, `share`; the same again changes nothing
    GET  /v1/unsubscribe/{token}    a page with one button; changes nothing
    POST /v1/unsubscribe/{token}    no more of a kind of notices (RFC 8058: one click of a mail program), or `wish=in` again

Mail scanners follow links, some run their scripts, and none press buttons: so only a POST counts. Everything is for people, so
refusals are pages too. A token proves that its bearer has the link; using it does what its receiver may do, and no more.

An answer is written into `survey_answer` first and into the spool second. A crash between the two leaves it without an event,
and its sender without a 2xx; sent again, it is the same answer under the same id, and the event follows.
"""

import asyncio
import contextlib
import hashlib
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final
from urllib.parse import parse_qs

import asyncpg
from fastapi import Request
from starlette.responses import Response

from chassis import logs
from chassis.auth import proved
from chassis.clock import Clock, pause
from chassis.errors import InvalidEvent, Unavailable
from chassis.ledger import DRIVER_ERRORS
from schemas import link_token
from schemas.feedback import (
    CHANGE_WITHIN,
    COMMENT_LENGTH_MAX,
    SCALES,
    ContactOptedIn,
    ContactOptedOut,
    FeedbackGiven,
    WishSource,
    feedback_id,
    survey_id,
)
from schemas.link_token import LinkRefused, SurveyLink, WishLink
from services.ingest import feedback_store, metrics
from services.ingest.adapters import intake
from services.ingest.adapters.form import media_type
from services.ingest.adapters.intake import FrontDoor
from services.ingest.answers import Problem, client_of, read_body, too_many
from services.ingest.core import feedback_page as pages
from services.ingest.core.feedback_page import Frame
from services.ingest.core.normalise import clean_text
from services.ingest.core.pace import Pace
from services.ingest.feedback_store import Answer
from services.ingest.paths import Paths

WAY: Final = "feedback"
SURVEYS: Final = "/v1/feedback/{token}"
WISHES: Final = "/v1/unsubscribe/{token}"
BODY_BYTES_MAX: Final = 64 * 1024
"""A comment of 4,000 characters, each of which may take twelve bytes in a form."""

BODY_SECONDS: Final = 10.0
PER_ADDRESS: Final = 600
"""Requests of one client address in a minute. One-click posts of many people come from one mail provider's addresses."""

PER_LINK: Final = 20
"""Posts about one survey, or of one recipient, in a minute."""

FORM: Final = "application/x-www-form-urlencoded"
ONE_CLICK: Final = b"One-Click"
"""The value of `List-Unsubscribe` that RFC 8058 section 3.1 has mail programs send, in either of two encodings."""

FORGET_SECONDS: Final = 3_600.0

log = logs.get("ingest.feedback")


@dataclass(slots=True)
class Feedback:
    """The routes' bodies, with what they stand on. `brand` is the shop's name on the pages, empty for none."""

    spool: FrontDoor
    pool: asyncpg.Pool
    clock: Clock
    secret: bytes
    workspace: str = "default"
    brand: str = ""
    _per_address: Pace = field(default_factory=lambda: Pace(PER_ADDRESS))
    _per_link: Pace = field(default_factory=lambda: Pace(PER_LINK))

    # ------------------------------------------------------------------------------------------- surveys

    async def ask(self, request: Request) -> Response:
        """Show a survey's question, or what it was answered with. Nothing changes."""
        link = self._link(request)
        if not isinstance(link, SurveyLink):
            raise _unknown()
        async with self._connection() as connection:
            known = await feedback_store.answer_of(connection, survey_id(link.ticket_id, link.kind))
        frame = Frame(link.language, self.brand)
        if known is None:
            return _page(pages.question(frame, link.kind, link.score))
        until = self._until(known)
        return _page(pages.answered(frame, link.kind, known.score, link.score, until))

    async def answer(self, request: Request) -> Response:
        """Take an answer: once a survey, and another one in its place for a while."""
        link = self._link(request)
        if not isinstance(link, SurveyLink):
            raise _unknown()
        given = await self._form(request)
        self._pace_link(link.ticket_id)
        comment = clean_text(given.get("comment", ""), COMMENT_LENGTH_MAX + 1)
        if len(comment) > COMMENT_LENGTH_MAX:
            raise _invalid("comment", f"has more than {COMMENT_LENGTH_MAX} characters")
        frame = Frame(link.language, self.brand)
        score = _score(given.get("score", ""), link)
        if score is None:
            metrics.REFUSED.labels(WAY, "invalid").inc()
            return _page(pages.choose_first(frame, link.kind, comment), 422)
        may_share = given.get("share") == "yes"
        recorded = await self._record(link, score, comment, may_share=may_share)
        until = self._until(recorded.answer)
        if recorded.outcome == "closed":
            known = recorded.answer.score
            return _page(pages.answered(frame, link.kind, known, None, until), 409)
        return _page(pages.thanks(frame, link.kind, score, until, comment, may_share=may_share))

    async def _record(
        self, link: SurveyLink, score: int, comment: str, *, may_share: bool
    ) -> feedback_store.Recorded:
        survey = survey_id(link.ticket_id, link.kind)
        said = f"{score}\x1f{int(may_share)}\x1f{comment}"
        digest = hashlib.sha256(said.encode()).hexdigest()
        async with self._connection() as connection:
            recorded = await feedback_store.record(
                connection, survey, digest, score, self.clock.now()
            )
        if recorded.outcome == "closed":
            return recorded
        revision = recorded.answer.revision
        event = FeedbackGiven(
            feedback_id=feedback_id(survey, revision),
            survey_id=survey,
            conversation_id=link.conversation_id,
            ticket_id=link.ticket_id,
            kind=link.kind,
            score=score,
            comment=comment,
            language=link.language,
            asked_at=link.made_at,
            occurred_at=recorded.answer.answered_at,
            may_share=may_share,
            revision=revision,
            corrects=feedback_id(survey, revision - 1) if revision > 1 else None,
        )
        await self.spool.put(
            intake.event_item(
                event,
                event.feedback_id,
                link.conversation_id,
                self.workspace,
                event.occurred_at,
                idempotency=(f"feedback/{event.feedback_id}", digest),
            )
        )
        self._count(is_new=recorded.outcome == "taken")
        return recorded

    def _count(self, *, is_new: bool) -> None:
        (metrics.ACCEPTED if is_new else metrics.REPEATED).labels(WAY).inc()

    def _until(self, known: Answer) -> str:
        """Return up to when an answer may be changed, as the page says it; empty where it may not."""
        if not known.may_change(self.clock.now()):
            return ""
        return f"{known.first_at + CHANGE_WITHIN:%Y-%m-%d %H:%M}"

    # ------------------------------------------------------------------------------------------- wishes

    async def offer(self, request: Request) -> Response:
        """Show the button that ends a kind of notices. Nothing changes."""
        link = self._link(request)
        if not isinstance(link, WishLink):
            raise _unknown()
        return _page(pages.stop(Frame(link.language, self.brand), link.category))

    async def wish(self, request: Request) -> Response:
        """Take a wish: no more of a kind of notices, or, where the page's own button says so, all of them again."""
        link = self._link(request)
        if not isinstance(link, WishLink):
            raise _unknown()
        body = await read_body(request, BODY_BYTES_MAX, BODY_SECONDS)
        self._pace_link(link.recipient)
        is_form = media_type(request.headers.get("content-type", "")) == FORM
        is_back = is_form and _fields(body).get("wish") == "in"
        source: WishSource = "one_click" if ONE_CLICK in body else "link"
        kind = ContactOptedIn if is_back else ContactOptedOut
        event = kind(
            wish_id=intake.new_id(),
            conversation_id=link.conversation_id,
            recipient=link.recipient,
            category=link.category,
            source=source,
            occurred_at=self.clock.now(),
        )
        await self.spool.put(
            intake.event_item(
                event, event.wish_id, link.conversation_id, self.workspace, event.occurred_at
            )
        )
        self._count(is_new=True)
        frame = Frame(link.language, self.brand)
        show = pages.wanted if is_back else pages.stopped
        return _page(show(frame, link.category))

    # --------------------------------------------------------------------------------- what all routes share

    def _link(self, request: Request) -> link_token.Link:
        wait = self._per_address.take(client_of(request), self.clock.now().timestamp())
        if wait > 0:
            raise too_many("this address asks too often", wait)
        return link_token.read(
            self.secret, self.workspace, request.path_params["token"], self.clock.now()
        )

    def _pace_link(self, subject: str) -> None:
        wait = self._per_link.take(subject, self.clock.now().timestamp())
        if wait > 0:
            raise too_many("this link is used too often", wait)

    async def _form(self, request: Request) -> dict[str, str]:
        given = media_type(request.headers.get("content-type", ""))
        if given != FORM:
            raise Problem(
                415,
                "unsupported_type",
                "Unsupported media type",
                f"Content-Type: must be {FORM}",
                field="Content-Type",
            )
        return _fields(await read_body(request, BODY_BYTES_MAX, BODY_SECONDS))

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        async with self.pool.acquire(timeout=3) as connection:
            yield connection

    async def answered(
        self, request: Request, handler: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        """Run a route; count what it refuses, and say it in words for the person who reads it."""
        frame = Frame(pages.language_of(request.headers.get("accept-language", "")), self.brand)
        try:
            return await handler(request)
        except LinkRefused as refused:
            is_over = refused.reason == "expired"
            reason = {"expired": "stale", "forged": "bad_token"}.get(refused.reason, "malformed")
            metrics.REFUSED.labels(WAY, reason).inc()
            return _page(
                pages.plain(frame, "ended" if is_over else "broken"), 410 if is_over else 404
            )
        except Problem as problem:
            metrics.REFUSED.labels(WAY, problem.reason).inc()
            what = "later" if problem.status in (408, 429) else "wrong"
            what = "broken" if problem.status == 404 else what
            return _page(pages.plain(frame, what), problem.status, problem.headers)
        except InvalidEvent:
            metrics.REFUSED.labels(WAY, "invalid").inc()
            return _page(pages.plain(frame, "wrong"), 422)
        except (Unavailable, *DRIVER_ERRORS) as error:
            metrics.UNAVAILABLE.labels(WAY).inc()
            wait = math.ceil(getattr(error, "retry_after", None) or 5.0)
            return _page(pages.plain(frame, "later"), 503, {"Retry-After": str(max(1, wait))})

    async def run(self, stopping: asyncio.Event) -> None:
        """Forget answers that no link can ask about any more, until the process stops."""
        while not stopping.is_set():
            before = self.clock.now() - link_token.SURVEY_LIFETIME - timedelta(days=30)
            try:
                async with self._connection() as connection:
                    await feedback_store.forget(connection, before)
            except DRIVER_ERRORS as error:
                log.warning("feedback_forgetting_put_off", error=type(error).__name__)
            await pause(stopping, FORGET_SECONDS)


def _fields(body: bytes) -> dict[str, str]:
    """Return the fields of a form; of one that is named twice, the first.

    Raises:
        Problem: 422, it is no form in UTF-8, or has too many fields.
    """
    try:
        found = parse_qs(
            body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=20
        )
    except ValueError:
        raise _invalid("body", "is no form in UTF-8") from None
    return {name: values[0] for name, values in found.items()}


def _score(text: str, link: SurveyLink) -> int | None:
    """Return the score that was sent; None for none.

    Raises:
        Problem: 422, it is no score of this survey.
    """
    if not text:
        return None
    scale = SCALES[link.kind]
    is_number = text.isascii() and text.isdigit() and len(text) <= 2
    if not is_number or not scale.least <= int(text) <= scale.most:
        raise _invalid("score", f"must be a whole number from {scale.least} to {scale.most}")
    return int(text)


def _invalid(name: str, what: str) -> Problem:
    return Problem(422, "invalid", "The request is not valid", f"{name}: {what}", field=name)


def _unknown() -> Problem:
    return Problem(404, "not_found", "Not found", "token: is for another page", field="token")


def _page(html: str, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(
        html, status, {**pages.HEADERS, **(headers or {})}, media_type="text/html; charset=utf-8"
    )


def mount(app: Paths, feedback: Feedback) -> None:
    """Put these paths into the gateway's application."""
    link = proved("the signed link in the path: one person's, for one page, until it ends")

    def add(path: str, methods: tuple[str, ...], handler: Callable[[Request], Any]) -> None:
        async def endpoint(request: Request) -> Response:
            response = await feedback.answered(request, handler)
            if request.method == "HEAD":
                response.body = b""
            return response

        app.add(path, methods, endpoint, link)

    add(SURVEYS, ("GET", "HEAD"), feedback.ask)
    add(SURVEYS, ("POST",), feedback.answer)
    add(WISHES, ("GET", "HEAD"), feedback.offer)
    add(WISHES, ("POST",), feedback.wish)


__all__ = ["Feedback", "mount"]
