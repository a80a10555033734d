"""The notifier's series."""

from typing import Final

from chassis.metrics import counter, histogram
from services.notifier.core.reason import Suppression
from services.notifier.core.render import OCCASIONS

NOTICES: Final = counter(
    "signalbox_notifier_notices_total",
    "Notices by occasion and what became of them. requested = sent + failed + unknown + superseded, once all is "
    "settled; unknown ones need a person.",
    {"occasion": OCCASIONS, "outcome": ("requested", "sent", "failed", "unknown", "suppressed")},
)
SUPPRESSED: Final = counter(
    "signalbox_notifier_suppressed_total",
    "Notices that were not sent, by reason. A rise of unverified_limit means that someone fills in forms with "
    "other people's addresses; unverified_total is the workspace's cap for all such addresses.",
    {"reason": tuple(reason.value for reason in Suppression)},
)
PROMISES: Final = counter(
    "signalbox_notifier_promises_total",
    "What can be promised of a new ticket's wait, as its acknowledgement goes: told, nothing_known (too little was measured), "
    "not_in_time (it went without) and late (the promise came after it). A rise of the last two: sla lags.",
    {"outcome": ("told", "nothing_known", "not_in_time", "late")},
)
SEND_SECONDS: Final = histogram(
    "signalbox_notifier_send_seconds",
    "From an attempt's start to its end, by how it ended. Long `unknown` ones: the mail server hangs.",
    {"result": ("delivered", "recoverable", "refused", "unknown")},
)
