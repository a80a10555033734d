"""Prometheus Alertmanager, by `POST /api/v2/alerts`.

Facts from https://prometheus.io/docs/alerting/latest/alerts_api and https://prometheus.io/docs/alerting/latest/clients: the
labels are an alert's identity, annotations are those that came last, clients tell again what still fires, and an alert
without `endsAt` ends after the server's `resolve_timeout` (5 minutes unless set). The server's own OpenAPI document has
status 200 for what it took and 400 for what it did not.

One alert a page, not one a ticket: however many break, the server gets one. `endsAt` lies a few repetitions ahead, as
Prometheus itself does it, so that our own death ends an alert only after `LIFE`. Where the severity changes, and with it the
identity, the alert as it was is ended in the same request. In a cluster each server is told, all at once and each with a limit of
its own, and one that took it is enough: the others hear of it with the next repetition, a minute later. An end is not repeated: a
server that missed it lets the alert stand until its `endsAt`.
"""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from services.sla.adapters.sending import (
    Answer,
    Attempted,
    Delivered,
    Failed,
    Outside,
    Refused,
    SecretMissing,
    detail,
    request,
    secret,
    trouble,
)
from services.sla.core.page_text import Message
from services.sla.core.pages import AlertmanagerReceiver, Severity
from services.sla.core.paging import LIFE, Saying

SERVER_SECONDS: Final = 12.0
"""For all that one server takes: one that hangs must not use up the time of the message."""


async def send(message: Message, receiver: AlertmanagerReceiver, outside: Outside) -> Attempted:
    """Tell every server of the cluster."""
    try:
        token = "" if receiver.token is None else secret(receiver.token)
    except SecretMissing as error:
        return Failed(str(error))
    body = alerts(message)
    attempts = await asyncio.gather(
        *(_tell_in_time(outside, url, body, token) for url in receiver.urls)
    )
    for wanted in (Delivered, Failed, Refused):
        for one in attempts:
            if isinstance(one, wanted):
                return one
    raise AssertionError("a receiver has at least one address")


async def _tell_in_time(outside: Outside, url: str, body: list[Any], token: str) -> Attempted:
    try:
        async with asyncio.timeout(SERVER_SECONDS):
            return await _tell(outside, url, body, token)
    except TimeoutError:
        return Failed("gave no answer in time", is_unknown=True)


async def _tell(outside: Outside, url: str, body: list[Any], token: str) -> Attempted:
    answer = await request(
        outside.client, "POST", f"{url.rstrip('/')}/api/v2/alerts", body=body, token=token
    )
    if isinstance(answer, Failed):
        return answer
    if answer.status == 200:
        return Delivered()
    return trouble(answer) or _refusal(answer, token)


def _refusal(answer: Answer, token: str) -> Refused:
    if answer.status in (401, 403):
        return Refused(f"refused our token ({answer.status})", "give the receiver's `token` anew")
    if answer.status == 400:
        said = detail(answer.json() or "", token)
        return Refused(
            f"refused the alert (400): {said}", "report it: the alert is not as it should be"
        )
    return Refused(
        f"answered {answer.status}", "set `urls` to the server's address, without /api/v2/alerts"
    )


def alerts(message: Message) -> list[dict[str, Any]]:
    """The body of the request: the alert, and before it the one that it was at another severity."""
    told = message.page.severity
    is_over = message.saying is Saying.RESOLVE or message.severity is None
    body = []
    if told is not None and (is_over or told != message.severity):
        body.append(_alert(message, told, message.now))
    elif (
        is_over
    ):  # Nobody confirmed the first message, so its severity is not known: end whichever it was.
        body += [
            _alert(message, one, message.now) for one in ("info", "warning", "error", "critical")
        ]
    if not is_over and message.severity is not None:
        body.append(_alert(message, message.severity, message.now + LIFE))
    return body


def _alert(message: Message, severity: Severity, ends_at: datetime) -> dict[str, Any]:
    page, notice = message.page, message.notice
    labels = {
        "alertname": "SignalboxPage",
        "what": page.family,
        "severity": severity,
        "workspace": message.workspace,
        "page": page.group_key,
        **{name: value for name, value in page.group.items() if value},
    }
    annotations = {"summary": notice.title, "description": "\n".join(notice.lines)}
    if notice.runbook:
        annotations["runbook_url"] = notice.runbook
    if message.is_test:
        labels["test"] = "true"
    told: dict[str, Any] = {
        "labels": labels,
        "annotations": annotations,
        "startsAt": _rfc3339(min(message.since, message.now - timedelta(milliseconds=1))),
        "endsAt": _rfc3339(ends_at),
    }
    if notice.link:
        told["generatorURL"] = notice.link
    return told


def _rfc3339(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
