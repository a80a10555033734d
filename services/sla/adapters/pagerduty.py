"""PagerDuty, by its Events API v2: `POST https://events.pagerduty.com/v2/enqueue` (`events.eu.pagerduty.com` in the EU).

Facts from https://developer.pagerduty.com/docs/events-api-v2/trigger-events/ and the vendor's OpenAPI document
(github.com/PagerDuty/api-schema, reference/events-v2): `routing_key` of 32 characters, `event_action`, `dedup_key` of at most
255, `payload` with `summary` of at most 1024, `source`, `severity` (critical, error, warning, info), `timestamp` and
`custom_details`; 202 is taken, 400 is wrong and stays wrong, 429 and 5xx are to be sent again.

The page is the `dedup_key`: a repeated trigger goes to the incident that is open, and a resolve of one that is not open does
nothing, so a message that is sent twice is one. An event may have 512 KB; ours stay far below.
"""

from datetime import UTC
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
from services.sla.core.pages import PagerDutyReceiver
from services.sla.core.paging import Saying

SUMMARY_MAX: Final = 1024
DEDUP_KEY_MAX: Final = 255


async def send(message: Message, receiver: PagerDutyReceiver, outside: Outside) -> Attempted:
    """Trigger or resolve the page's incident."""
    try:
        key = secret(receiver.routing_key)
    except SecretMissing as error:
        return Failed(str(error))
    answer = await request(outside.client, "POST", receiver.url, body=event(message, key))
    if isinstance(answer, Failed):
        return answer
    if answer.status == 202:
        return Delivered()
    return trouble(answer) or _refusal(answer, key)


def _refusal(answer: Answer, key: str) -> Refused:
    body = answer.json()
    errors = body.get("errors") if isinstance(body, dict) else None
    said = detail(errors[0] if isinstance(errors, list) and errors else "no reason given", key)
    if answer.status in (401, 403):
        return Refused(
            f"refused the key ({answer.status})", "give the receiver's `routing_key` anew"
        )
    return Refused(
        f"refused the event ({answer.status}): {said}",
        "check that `routing_key` is an integration key of the Events API v2 and that `url` is its address",
    )


def event(message: Message, routing_key: str) -> dict[str, Any]:
    """The body of the request."""
    notice, page = message.notice, message.page
    is_over = message.saying is Saying.RESOLVE
    told: dict[str, Any] = {
        "routing_key": routing_key,
        "event_action": "resolve" if is_over else "trigger",
        "dedup_key": message.key[:DEDUP_KEY_MAX],
        "payload": {
            "summary": notice.title[:SUMMARY_MAX],
            "source": f"signalbox {message.workspace}",
            "severity": message.severity or page.severity or "info",
            "timestamp": message.since.astimezone(UTC).isoformat(timespec="milliseconds"),
            "component": page.group.get("queue") or page.family,
            "group": page.route,
            "class": page.family,
            "custom_details": {"firing": message.firing, "text": "\n".join(notice.lines)},
        },
        "client": "Signalbox",
    }
    if notice.link:
        told["client_url"] = notice.link
    links = [(notice.link, "Ticket"), (notice.runbook, "Runbook")]
    if not is_over and any(href for href, _ in links):
        told["links"] = [{"href": href, "text": text} for href, text in links if href]
    return told
