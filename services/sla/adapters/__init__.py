"""The outside systems that people on call are reached by, one module each."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from services.sla.adapters import alertmanager, mail, pagerduty, slack
from services.sla.adapters.sending import Attempted, Outside
from services.sla.core.page_text import Message

Sender = Callable[[Message, Any, Outside], Awaitable[Attempted]]

SENDERS: Final[Mapping[str, Sender]] = {
    "alertmanager": alertmanager.send,
    "pagerduty": pagerduty.send,
    "slack": slack.send,
    "email": mail.send,
}
"""How a message goes to a receiver of each kind."""
