"""The notifier's series."""

from typing import Final

from chassis.metrics import counter, gauge, histogram
from services.notifier.core.reason import Suppression
from services.notifier.core.render import OCCASIONS

SURVEY_KINDS: Final = ("csat", "ces", "nps")

NOTICES: Final = counter(
    "signalbox_notifier_notices_total",
    "Notices by occasion and what became of them. requested = sent + failed + unknown + superseded, once all is "
    "settled; unknown ones need a person. dry_run ones were rehearsed and never left; resent and resend_refused are what people "
    "decided about failed, bounced and unknown ones. deferred ones are asked for again at their time; delivered, read and bounced are what "
    "servers and vendors report afterwards.",
    {
        "occasion": OCCASIONS,
        "outcome": (
            "deferred",
            "requested",
            "sent",
            "failed",
            "unknown",
            "suppressed",
            "dry_run",
            "resent",
            "resend_refused",
            "delivered",
            "read",
            "bounced",
        ),
    },
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
    {"result": ("delivered", "recoverable", "refused", "unknown", "rehearsed", "unsent")},
)
ARTICLE_SEARCHES: Final = counter(
    "signalbox_notifier_article_searches_total",
    "Searches for articles that may answer a new ticket: named (the acknowledgement names some), nothing_sure (none was sure "
    "enough), failed (the help centre or the database did not answer in time; the acknowledgement goes without).",
    {"outcome": ("named", "nothing_sure", "failed")},
)
PROVIDER_SECONDS: Final = histogram(
    "signalbox_notifier_provider_seconds",
    "From a message's hand-over to a provider to its end, by provider and how it ended. Long `recoverable` ones: the vendor hangs, "
    "and its messages wait; others are not held up.",
    {"provider": (), "result": ()},
)
PROVIDER_OPEN: Final = gauge(
    "signalbox_notifier_provider_open",
    "1 while an account failed so often in a row that it is left alone for half a minute at a time. Its messages wait.",
    {"provider": (), "account": ()},
)
ACCOUNT_TROUBLE: Final = gauge(
    "signalbox_notifier_account_trouble",
    "1 while an account of notify.yaml, or our mail server (`smtp`, under its host's name), cannot send because of its credentials or "
    "settings; the log line account_trouble says what to renew. Its messages wait.",
    {"provider": (), "account": ()},
)
ACCOUNT_TROUBLES: Final = counter(
    "signalbox_notifier_account_troubles_total",
    "Times an account's credentials or settings were found to be no good.",
    {"provider": ()},
)
SURVEYS: Final = counter(
    "signalbox_notifier_surveys_total",
    "Customers asked how it went, by the kind of question. None for days, although cases are solved: see `survey` in notify.yaml.",
    {"kind": SURVEY_KINDS},
)
FEEDBACK: Final = counter(
    "signalbox_notifier_feedback_total",
    "Surveys answered, by kind and level of the first answer: for NPS, low are detractors and high promoters. A rise of low"
    " among all: see `signalbox feedback report`.",
    {"kind": SURVEY_KINDS, "level": ("low", "middle", "high")},
)
UNRESOLVED: Final = gauge(
    "signalbox_notifier_unresolved_notices",
    "Notices of the last three days that failed, or of which nobody knows whether they arrived, and that nobody has sent again. Every "
    "process shows the whole installation's figure: take the maximum. See `signalbox notify list`.",
    {"status": ("failed", "unknown")},
)
OVERDUE: Final = gauge(
    "signalbox_notifier_overdue_notices",
    "Notices that were put off until a time that is over by more than a minute. Take the maximum over processes. More than a few: the "
    "notifier lags, or an account has trouble.",
)
OLDEST_UNSENT: Final = gauge(
    "signalbox_notifier_oldest_unsent_seconds",
    "How long the oldest notice has been over its time (deferred), or asked for and neither sent nor given up (requested). Take the "
    "maximum over processes.",
    {"status": ("deferred", "requested")},
)
DRY_RUN: Final = gauge(
    "signalbox_notifier_dry_run",
    "1 while the policy has a dry run, of all notices or of some accounts: those are recorded, and none of them leaves.",
)
